"""open_engine(): a network -> a loaded engine."""

from collections.abc import Callable

from featurepipe.features.engines.batch_memory import load_with_room
from featurepipe.features.engines.descriptors import HsvHistogram
from featurepipe.features.engines.engine_choice import import_keras_engine
from featurepipe.features.engines.protocol import Engine
from featurepipe.features.headless import HeadlessNetwork

CPU_BATCH_SIZE = 16
GPU_BATCH_SIZE = 256

_DESCRIPTORS: dict[str, Callable[[HeadlessNetwork], Engine]] = {
    "hsv_histogram": HsvHistogram,
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
        Possible: see `HeadlessNetwork.require_possible`.
    batch_size : int, optional
        Largest number of images computed at once; where memory does not suffice it is
        halved until it does. Default: 16 on a CPU, 256 on a GPU.
    precision : {"float32", "bfloat16", "float16", "int8"}
        Precision of a network, int8 in OpenVINO only; a descriptor has its own.
    engine : {"openvino", "keras"}
        What runs a network.

    Raises
    ------
    UsageError
        If its pooling names a layer whose output cannot be pooled, or Keras cannot be loaded.
    UnknownNameError
        If its pooling names no layer.
    WeightsError
        If the weights do not fit the backbone.
    ExtractionError
        If memory does not suffice for a single image.
    """
    backbone = network.backbone
    if backbone.kind == "descriptor":
        return _DESCRIPTORS[backbone.name](network)

    kind, default_batch_size = _find_class(engine)

    def load(batch_size: int) -> Engine:
        return kind(network, batch_size=batch_size, precision=precision)

    what = f"{backbone.name} at {network.size_px} px in {precision}"
    return load_with_room(load, batch_size or default_batch_size, what)


def _find_class(engine: str) -> tuple[Callable[..., Engine], int]:
    """The class of an engine, imported only now, and its default batch size."""
    if engine == "openvino":
        from featurepipe.features.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine, CPU_BATCH_SIZE
    keras_engine = import_keras_engine()
    from featurepipe.features.engines.quiet_keras import computes_on_gpu

    return keras_engine.KerasEngine, GPU_BATCH_SIZE if computes_on_gpu() else CPU_BATCH_SIZE
