"""Pairs: fine-tuning that also learns which images show the same.

After the Xception of the dog contest in github ahangchen/keras-dogs: two images, two softmax
outputs, and one of same or different from the distance of their features, with loss weights of 1,
1 and 0.5. At prediction one image is enough.
"""

from collections.abc import Sequence

from featurepipe.features.headless import HeadlessNetwork
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.outputs import Output
from featurepipe.models.networks.zoo import finetune

DROPOUT = 0.5


def build(outputs: Sequence[Output], headless: HeadlessNetwork) -> Network:
    """Build it, the backbone with its weights and the top with random ones.

    Parameters
    ----------
    outputs : sequence of Output
    headless : HeadlessNetwork
        The backbone, its weights and the size of its pictures.
    """
    return finetune.build(outputs, headless, dropout=DROPOUT, pairs=True)
