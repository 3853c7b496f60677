"""From settings to a network; imports Keras only when one is built."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from featurepipe.errors import UsageError
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import Output

if TYPE_CHECKING:
    from featurepipe.models.networks.network import Network


def build_network(
    settings: NetworkSettings, outputs: Sequence[Output], headless: HeadlessNetwork | None
) -> "Network":
    """Build what the settings say, drawn by their seed.

    Parameters
    ----------
    settings : NetworkSettings
    outputs : sequence of Output
    headless : HeadlessNetwork or None
        What a network with a backbone begins from.

    Raises
    ------
    UsageError
        If the pictures are too small for it.
    WeightsError
        If the weights do not fit the backbone.
    """
    from featurepipe.features.engines.quiet_keras import computing_in, seeded

    module = import_module(f"featurepipe.models.networks.zoo.{settings.spec.module}")
    how: list[Any] = [headless if settings.spec.has_backbone else settings.size_px]
    if settings.spec.branches:
        how.append({each.attribute: settings.branch_of(each.attribute) for each in outputs})
    with computing_in(settings.precision), seeded(settings.seed):
        try:
            return module.build(outputs, *how)
        # Keras says of a size in many ways that nothing is left after a pooling.
        except ValueError as error:
            size_px = settings.size_px if headless is None else headless.size_px
            raise UsageError(
                f"{settings.network} cannot be built for pictures of {size_px} px. Expected such "
                "as its poolings leave something of; give a larger --size."
            ) from error


@contextmanager
def fresh_keras() -> Iterator[None]:
    """Begin without what Keras kept of networks before, and leave nothing to those after."""
    from featurepipe.features.engines.quiet_keras import keras

    try:
        keras.utils.clear_session()
        yield
    finally:
        keras.utils.clear_session()
        gc.collect()
