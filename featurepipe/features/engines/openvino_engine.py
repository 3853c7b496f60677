"""OpenVINO as the engine: the Keras graph, converted once and kept; no Keras afterwards.

The whole graph, preprocessing included, is converted: uint8 pixels in, pooled
float32 features out. It lies in the user's cache, named by the digest of what
decides it, so that later runs import neither Keras nor TensorFlow.
"""

import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from featurepipe.features import probes
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.engines.protocol import Engine, pad_batch
from featurepipe.features.weights import Weights
from featurepipe.files import replacing, user_cache

logger = logging.getLogger(__name__)

PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_GRAPH_FORMAT = 1


class OpenVinoEngine(Engine):
    """A backbone of `keras.applications` on the CPU, several batches at once.

    Parameters
    ----------
    backbone : BackboneSpec
    weights : Weights
    size : int, optional
        Side of the square input, in pixels; default: the backbone's own.
    pooling : str
        ``"avg"``, ``"max"``, or the name of a layer.
    batch_size : int
        Images of one request; a smaller batch is padded.
    precision : {"float32", "bfloat16", "float16"}
        In which the CPU computes; features are float32.

    Attributes
    ----------
    name : str
        ``"openvino"``.
    versions : dict of str to str
        Of OpenVINO.
    input_size : (int, int)
        Height and width of the images.
    n_features : int
        Width of the features.
    """

    name = "openvino"

    def __init__(
        self,
        backbone: BackboneSpec,
        weights: Weights,
        *,
        size: int | None = None,
        pooling: str = "avg",
        batch_size: int = 16,
        precision: str = "float32",
    ) -> None:
        size = backbone.size_px if size is None else size
        graph = ov.Core().read_model(_graph_file(backbone, weights, size, pooling))
        graph.reshape([batch_size, size, size, 3])
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
        }
        compiled = ov.Core().compile_model(graph, "CPU", settings)
        n_requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests = [compiled.create_infer_request() for _ in range(n_requests)]
        self._batch_size = batch_size
        self.versions = {"openvino": version("openvino")}
        self.input_size = (size, size)
        self.n_features = int(compiled.output(0).shape[-1])

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of some images; see `Engine`."""
        starts = range(0, len(images), self._batch_size)
        batches = (images[start : start + self._batch_size] for start in starts)
        nothing = np.empty((0, self.n_features), dtype=np.float32)
        return np.concatenate([nothing, *self.embed_batches(batches)])

    def embed_batches(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Features batch by batch, several being computed at once; see `Engine`."""
        free = deque(self._requests)
        busy: deque[tuple[ov.InferRequest, int]] = deque()
        for batch in batches:
            if not free:
                yield _finish(busy, free)
            request = free.popleft()
            request.start_async({0: pad_batch(batch, self._batch_size)})
            busy.append((request, len(batch)))
        while busy:
            yield _finish(busy, free)


def native_precision(backbone: BackboneSpec, weights: Weights, size: int, pooling: str) -> str:
    """The fastest precision that this processor has and that keeps the features.

    Parameters
    ----------
    backbone : BackboneSpec
    weights : Weights
    size : int
    pooling : str

    Returns
    -------
    str
        ``"bfloat16"`` if the processor computes it natively and the probes'
        features stay within their tolerance; else ``"float32"``.
    """
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "float32"
    found = _bfloat16_distance(backbone, weights, size, pooling)
    if found <= probes.tolerance("bfloat16"):
        return "bfloat16"
    logger.info(
        "Computing %s in float32: bfloat16 would move its features by %.0f %% of the distance "
        "between images, at most %.0f %% is allowed.",
        backbone.name,
        100 * found,
        100 * probes.tolerance("bfloat16"),
    )
    return "float32"


def _bfloat16_distance(backbone: BackboneSpec, weights: Weights, size: int, pooling: str) -> float:
    verdict = _graph_file(backbone, weights, size, pooling).with_suffix(".json")
    if verdict.exists():
        return float(json.loads(verdict.read_text())["bfloat16_distance"])
    pictures = probes.probe_images((size, size))
    features = {
        precision: OpenVinoEngine(
            backbone,
            weights,
            size=size,
            pooling=pooling,
            batch_size=len(pictures),
            precision=precision,
        ).embed(pictures)
        for precision in ("float32", "bfloat16")
    }
    found = probes.distance(features["bfloat16"], features["float32"], "bfloat16")
    with replacing(verdict) as beside:
        beside.write_text(json.dumps({"bfloat16_distance": found}))
    return found


def _graph_file(backbone: BackboneSpec, weights: Weights, size: int, pooling: str) -> Path:
    """The converted graph, from the user's cache or put there now."""
    decides = {
        "format": _GRAPH_FORMAT,
        "backbone": backbone.name,
        "weights": weights.identity(),
        "size_px": size,
        "pooling": pooling,
        "keras": version("keras"),
        "openvino": version("openvino"),
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    graph = user_cache() / "graphs" / f"{backbone.name}-{digest}.xml"
    if not graph.exists():
        _convert(backbone, weights, size, pooling, graph)
    return graph


def _convert(
    backbone: BackboneSpec, weights: Weights, size: int, pooling: str, graph: Path
) -> None:
    # The only place where this engine needs Keras.
    from featurepipe.features.engines.keras_engine import build_graph

    logger.info("Converting %s for OpenVINO, this once …", backbone.name)
    network = build_graph(backbone, weights, size, pooling, batch_size=None)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        exported = Path(folder, "graph.xml")
        network.export(str(exported), format="openvino", verbose=False)
        # The graph's file comes last: where it is, its weights are.
        for suffix in (".bin", ".xml"):
            with replacing(graph.with_suffix(suffix)) as beside:
                shutil.copyfile(exported.with_suffix(suffix), beside)


def _finish(
    busy: "deque[tuple[ov.InferRequest, int]]", free: "deque[ov.InferRequest]"
) -> NDArray[np.float32]:
    request, n_images = busy.popleft()
    request.wait()
    features = request.get_output_tensor(0).data[:n_images].copy()
    free.append(request)
    return features
