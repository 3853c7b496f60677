"""Converts one backbone for OpenVINO in a separate process; see `openvino_graph`.

``python -m featurepipe.features.engines.openvino_conversion TASK``, where TASK is JSON.
Errors go to stderr, the last line being ``Name: text``.
"""

import json
import sys
from pathlib import Path
from typing import Any

from featurepipe.errors import FeaturepipeError, UsageError, WeightsError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import Weights


def convert(
    backbone: str, weights: dict[str, Any], size_px: int, pooling: str, exported: str
) -> None:
    """`keras_engine.export_graph` with plain values as arguments.

    Parameters
    ----------
    backbone : str
    weights : dict
        Attributes of `Weights` that have a file.
    size_px : int
    pooling : str
    exported : str
        The `.xml` file to write.
    """
    from featurepipe.features.engines.keras_engine import export_graph

    given = Weights(**(weights | {"path": Path(weights["path"])}))
    network = HeadlessNetwork(find_backbone(backbone), given, size_px, pooling)
    export_graph(network, Path(exported))


def _main() -> int:
    try:
        convert(**json.loads(sys.argv[1]))
    except FeaturepipeError as error:
        kind = WeightsError if isinstance(error, WeightsError) else UsageError
        sys.stderr.write(f"\n{kind.__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
