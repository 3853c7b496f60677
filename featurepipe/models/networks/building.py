"""Building a network from its settings; imports Keras only when one is built."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import Weights
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import Output

if TYPE_CHECKING:
    from featurepipe.models.networks.network import Network


def build_network(
    settings: NetworkSettings,
    outputs: Sequence[Output],
    size_px: int,
    headless: HeadlessNetwork | None,
) -> "Network":
    """Build a network; its random weights are drawn by the seed of the settings.

    Parameters
    ----------
    settings : NetworkSettings
    outputs : sequence of Output
    size_px : int
        Height and width of the images.
    headless : HeadlessNetwork or None
        The pretrained backbone; None for a network without one.

    Raises
    ------
    WeightsError
        If the weights do not fit the backbone.
    """
    from featurepipe.features.engines.quiet_keras import computing_in, seeded

    build = import_module(f"featurepipe.models.networks.zoo.{settings.network}").build
    with computing_in(settings.precision), seeded(settings.seed):
        if settings.spec.has_backbone:
            return build(outputs, headless)
        if settings.spec.branches:
            branches = {
                output.attribute: settings.branch_of(output.attribute) for output in outputs
            }
            return build(outputs, size_px, branches)
        return build(outputs, size_px)


def count_blocks(headless: HeadlessNetwork) -> int:
    """Number of a backbone's blocks, each of which can be unfrozen."""
    from featurepipe.features.engines.keras_blocks import layer_blocks
    from featurepipe.features.engines.keras_engine import build_backbone

    backbone = headless.backbone
    without_weights = replace(headless, weights=Weights("none", "none", backbone.name))
    with fresh_keras():
        return len(layer_blocks(build_backbone(without_weights), backbone))


@contextmanager
def fresh_keras() -> Iterator[None]:
    """Drop what Keras remembers of other networks, both before and after the block."""
    from featurepipe.features.engines.quiet_keras import keras

    try:
        keras.utils.clear_session()
        yield
    finally:
        keras.utils.clear_session()
        gc.collect()
