"""The OpenVINO engine: a backbone on the CPU, without Keras once its graph is converted."""

from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from queue import SimpleQueue

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from featurepipe.features.engines.openvino_graph import graph_file
from featurepipe.features.engines.protocol import Engine, pad_batch
from featurepipe.features.headless import HeadlessNetwork

# Layers of an int8 graph that are not in int8 are in float32.
_PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
_CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}


class OpenVinoEngine(Engine):
    """A backbone on the CPU, several batches in parallel.

    Parameters
    ----------
    network : HeadlessNetwork
    batch_size : int
        Images in a batch; a smaller batch is padded. A network in a file may have a size of
        its own.
    precision : {"float32", "bfloat16", "float16", "int8"}
        Precision in which the CPU computes; half precision where it does so natively, else
        float32. Features are float32.

    Attributes
    ----------
    name : str
        ``"openvino"``.
    versions : dict of str to str
        Version of OpenVINO; of an int8 graph, also that of NNCF, which made it.
    input_size : (int, int)
        Height and width of the images.
    n_features : int
        Width of the features.
    batch_size : int
        As given, unless the network has its own.
    n_parallel : int
        Batches computed in parallel, each by its own threads.

    Raises
    ------
    UsageError, WeightsError, ExtractionError
        As `openvino_graph.graph_file`.
    """

    name = "openvino"

    def __init__(
        self, network: HeadlessNetwork, *, batch_size: int, precision: str = "float32"
    ) -> None:
        graph = ov.Core().read_model(graph_file(network, precision))
        own_size = graph.input(0).partial_shape[0]
        batch_size = own_size.get_length() if own_size.is_static else batch_size
        graph.reshape([batch_size, *network.input_size, 3])
        settings = cpu_settings(precision) | _hint(batch_size)
        compiled = ov.Core().compile_model(graph, "CPU", settings)
        self.versions = {"openvino": version("openvino")}
        if precision == "int8":
            self.versions["nncf"] = graph.get_rt_info(["featurepipe", "nncf"]).astype(str)
        self.input_size = network.input_size
        self.n_features = int(compiled.output(0).shape[-1])
        self.batch_size = batch_size
        self.n_parallel = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        # As many again wait in OpenVINO's own queue, so that it never waits for Python.
        n_requests = 2 * self.n_parallel
        self._requests: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(n_requests):
            request = compiled.create_infer_request()
            # Read once by this thread: threads that are the first to read, and at the same
            # moment, can deadlock.
            request.get_output_tensor(0).data.copy()
            self._requests.put(request)
        # These only wait. OpenVINO's callbacks would need no threads, but are not called if
        # the computation fails.
        self._waiters = ThreadPoolExecutor(n_requests, "openvino")

    def start(self, images: NDArray[np.uint8]) -> Future[NDArray[np.float32]]:
        """Begin to compute the features of a batch; see `Engine`."""
        request = self._requests.get()
        try:
            request.start_async({0: pad_batch(images, self.batch_size)}, share_inputs=True)
        except BaseException:
            self._requests.put(request)
            raise
        return self._waiters.submit(self._finish, request, images)

    def _finish(self, request: ov.InferRequest, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            request.wait()
            return request.get_output_tensor(0).data[: len(images)].copy()
        finally:
            self._requests.put(request)


def cpu_has_bfloat16() -> bool:
    """Whether the processor computes bfloat16 natively."""
    return _cpu_has("bfloat16")


def _cpu_has(precision: str) -> bool:
    return _CAPABILITIES[precision] in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _hint(batch_size: int) -> dict[str, str | bool]:
    """A single image is computed by all cores, batches side by side."""
    return {"PERFORMANCE_HINT": "LATENCY" if batch_size == 1 else "THROUGHPUT"}


def cpu_settings(precision: str) -> dict[str, str | bool]:
    """How OpenVINO computes a graph on the CPU.

    Parameters
    ----------
    precision : {"float32", "bfloat16", "float16", "int8"}
    """
    # On a processor with bfloat16 but without float16, OpenVINO would use bfloat16 for float16.
    computed = "float32" if precision in _CAPABILITIES and not _cpu_has(precision) else precision
    return {
        "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[computed],
        # If pinned, the threads of two engines would share cores while others are idle.
        "ENABLE_CPU_PINNING": False,
    }
