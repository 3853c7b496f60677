"""open_engine(): a network -> a loaded engine."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from featurepipe.errors import UsageError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.engines.batch_memory import load_with_room
from featurepipe.features.engines.descriptors import HsvHistogram
from featurepipe.features.engines.pixel_engine import Pixels
from featurepipe.features.engines.protocol import Engine
from featurepipe.features.headless import HeadlessNetwork

CPU_BATCH_SIZE = 16
GPU_BATCH_SIZE = 256

_DESCRIPTORS: dict[str, Callable[[HeadlessNetwork], Engine]] = {
    "hsv_histogram": HsvHistogram,
    "pixels": Pixels,
}


def open_engine(
    network: HeadlessNetwork,
    *,
    batch_size: int | None = None,
    precision: str = "float32",
    engine: str = "keras",
) -> Engine:
    """Load a network, ready to compute.

    Parameters
    ----------
    network : HeadlessNetwork
    batch_size : int, optional
        Images computed at once, at most: where memory does not suffice it is
        halved until it does. Default: 16 on a CPU, 256 on a GPU.
    precision : {"float32", "bfloat16", "float16"}
        Of a network; a descriptor has its own.
    engine : {"openvino", "keras"}
        What runs it, unless it is a descriptor.

    Raises
    ------
    UsageError
        If the backbone cannot be that small, has no such pooling, or Keras
        cannot be loaded.
    UnknownNameError
        If its pooling names no layer.
    WeightsError
        If the weights do not fit the backbone.
    ExtractionError
        If memory does not suffice for a single image.
    """
    backbone = network.backbone
    _require_size(backbone, network.size_px)
    if backbone.kind == "descriptor":
        return _DESCRIPTORS[backbone.name](network)

    with _backend_named():
        kind, default_batch_size = _find_class(engine)

        def load(batch_size: int) -> Engine:
            return kind(network, batch_size=batch_size, precision=precision)

        what = f"{backbone.name} at {network.size_px} px in {precision}"
        return load_with_room(load, batch_size or default_batch_size, what)


def _require_size(backbone: BackboneSpec, size: int) -> None:
    if size < backbone.min_size_px:
        raise UsageError(
            f"{backbone.name} cannot be given images of {size} px: expected at least "
            f"{backbone.min_size_px} px. Its own size is {backbone.size_px} px."
        )


def _find_class(engine: str) -> tuple[Callable[..., Engine], int]:
    """The class of an engine, imported only now, and how many images it best is given at once."""
    if engine == "openvino":
        from featurepipe.features.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine, CPU_BATCH_SIZE
    from featurepipe.features.engines.keras_engine import KerasEngine
    from featurepipe.features.engines.quiet_keras import computes_on_gpu

    return KerasEngine, GPU_BATCH_SIZE if computes_on_gpu() else CPU_BATCH_SIZE


@contextmanager
def _backend_named() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise UsageError(
            f"Keras cannot be loaded with the backend {backend!r} ({error}). Install it, or set "
            "KERAS_BACKEND to one that is installed."
        ) from error
