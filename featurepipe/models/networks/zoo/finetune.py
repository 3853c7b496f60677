"""Fine-tuning: a pretrained backbone with new output layers."""

from collections.abc import Sequence

from featurepipe.features.engines.keras_engine import build_backbone, preprocess
from featurepipe.features.engines.quiet_keras import keras
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.models.networks.network import Backbone, Network
from featurepipe.models.networks.outputs import Output


def build(
    outputs: Sequence[Output],
    headless: HeadlessNetwork,
    *,
    dropout: float = 0.0,
    pairs: bool = False,
) -> Network:
    """Build the network: a backbone with its weights, and output layers with random weights.

    Parameters
    ----------
    outputs : sequence of Output
    headless : HeadlessNetwork
    dropout : float
    pairs : bool
        As in `Network`.
    """
    model = build_backbone(headless)
    pixels = keras.Input((*headless.input_size, 3), name="pixels")
    features = model(preprocess(headless.backbone, pixels))
    return Network(
        keras.Model(pixels, features),
        outputs,
        backbone=Backbone(headless.backbone, model),
        dropout=dropout,
        pairs=pairs,
    )
