"""FeatureMaps: the map of an average-pooled network before it is pooled."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.passes import ConstantFolding, Manager

from featurepipe.errors import NotLinearError
from featurepipe.features.engines.openvino_engine import cpu_settings
from featurepipe.features.engines.openvino_graph import graph_file
from featurepipe.features.engines.probes import probe_images
from featurepipe.features.engines.protocol import LocatedFeatures, LocatesFeatures
from featurepipe.features.headless import HeadlessNetwork

# What may follow the pooling: these change no number.
_KEEP_NUMBERS = ("Convert", "Reshape", "Squeeze", "Unsqueeze")

# In float32 the two differ by 1e-6; half precision rounds each cell.
_SAME = {"bfloat16": 2e-2, "float16": 2e-2}
_SAME_IN_FLOAT32 = 1e-4


@dataclass(frozen=True)
class CellFeatures(LocatedFeatures):
    """Features of the cells of a map, whose mean is the features of the picture.

    Attributes
    ----------
    cells : ndarray of shape (n_pictures, n_rows, n_columns, n_features), float32
    """

    cells: NDArray[np.float32]

    def evidence(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each cell contributes; see `LocatedFeatures`.

        This is the class activation map of B. Zhou et al., "Learning Deep Features for
        Discriminative Localization" (CVPR 2016), divided by the number of cells.
        """
        n_rows, n_columns = self.cells.shape[1:3]
        return (self.cells.astype(np.float64) @ weights) / (n_rows * n_columns)


class FeatureMaps(LocatesFeatures):
    """An average-pooled network on the CPU, by OpenVINO, with its map before the pooling.

    Parameters
    ----------
    network : HeadlessNetwork
    precision : {"float32", "bfloat16", "float16", "int8"}

    Raises
    ------
    NotLinearError
        If its features are no average over the cells of a map or over patches.
    UsageError, WeightsError, ExtractionError
        As `openvino_graph.graph_file`.
    """

    def __init__(self, network: HeadlessNetwork, precision: str = "float32") -> None:
        self._name, self._pooling = network.backbone.name, network.pooling
        graph = ov.Core().read_model(graph_file(network, precision))
        own_size = graph.input(0).partial_shape[0]
        self._batch_size = own_size.get_length() if own_size.is_static else 1
        graph.reshape([self._batch_size, *network.input_size, 3])
        mean = _last_mean(graph)
        if mean is None:
            raise self._no_average()
        self._axes = _axes_of(mean)
        graph.add_outputs(mean.input_value(0))
        settings = cpu_settings(precision) | {"PERFORMANCE_HINT": "LATENCY"}
        self._compiled = ov.Core().compile_model(graph, "CPU", settings)
        self._require_mean(network.input_size, _SAME.get(precision, _SAME_IN_FLOAT32))

    def locate(self, pictures: NDArray[np.uint8]) -> CellFeatures:
        """Compute the features of pictures, cell by cell."""
        return CellFeatures(np.stack([self._compute(picture)[1] for picture in pictures]))

    def _compute(self, picture: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Features of a picture, and those of its cells: (n_rows, n_columns, n_features)."""
        computed = self._compiled(np.repeat(picture[None], self._batch_size, axis=0))
        features, cells = computed[0][0], computed[1][0]
        # Without the axis of the batch.
        cells = np.moveaxis(cells, [axis - 1 for axis in self._axes], range(len(self._axes)))
        if cells.ndim == 2:
            side = round(len(cells) ** 0.5)
            if side**2 != len(cells):
                raise self._no_average()
            cells = cells.reshape(side, side, -1)
        return features, cells.copy()

    def _require_mean(self, size: tuple[int, int], tolerance: float) -> None:
        """Stop unless the features are the mean of the cells, in a generated picture."""
        features, cells = self._compute(probe_images(size)[0])
        mean = cells.mean(axis=(0, 1), dtype=np.float64)
        same = mean.shape == features.shape
        if not same or np.linalg.norm(mean - features) > tolerance * np.linalg.norm(features):
            raise self._no_average()

    def _no_average(self) -> NotLinearError:
        how = "" if self._pooling in ("avg", "mean") else f" (pooling {self._pooling})"
        return NotLinearError(
            f"the features of {self._name}{how} are no average over places of the image"
        )


def _last_mean(graph: ov.Model) -> ov.Node | None:
    """The node that averages a map or patches, if only its result comes out of the graph."""
    # Networks of ONNX compute the axes from shapes, which are known by now.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(graph)
    (result,) = graph.get_results()
    node = result.input_value(0).get_node()
    while node.get_type_name() in _KEEP_NUMBERS:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "ReduceMean":
        return None
    if node.input_value(1).get_node().get_type_name() != "Constant":
        return None
    n_axes = node.input_value(0).get_partial_shape().rank.get_length()
    return node if (n_axes, len(_axes_of(node))) in ((4, 2), (3, 1)) else None


def _axes_of(mean: ov.Node) -> list[int]:
    n_axes = mean.input_value(0).get_partial_shape().rank.get_length()
    axes = np.atleast_1d(mean.input_value(1).get_node().get_data())
    return sorted(int(axis) % n_axes for axis in axes)
