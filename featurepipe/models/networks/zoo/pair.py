"""Pairs: fine-tuning that also learns whether two images show the same.

After the Xception network for the dog contest in github ahangchen/keras-dogs. It sees two images,
has a softmax output for each, and tells from the distance of their features whether they show the
same; the loss weights are 1, 1 and 0.5. Prediction needs one image only.
"""

from collections.abc import Sequence

from featurepipe.features.headless import HeadlessNetwork
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.outputs import Output
from featurepipe.models.networks.zoo import finetune

DROPOUT = 0.5


def build(outputs: Sequence[Output], headless: HeadlessNetwork) -> Network:
    """Build the network: a backbone with its weights, and output layers with random weights.

    Parameters
    ----------
    outputs : sequence of Output
    headless : HeadlessNetwork
    """
    return finetune.build(outputs, headless, dropout=DROPOUT, pairs=True)
