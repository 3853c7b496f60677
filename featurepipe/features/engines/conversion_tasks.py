"""Tasks that run in a process of their own; see `conversion_process`.

``python -m featurepipe.features.engines.conversion_tasks TASK ARGUMENTS``, where ARGUMENTS is
JSON. The last line on stdout is the result as JSON. Errors go to stderr, the last line being
``Name: text``.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featurepipe.errors import FeaturepipeError, ModelFileError, UsageError, WeightsError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import Weights


def convert_keras(
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


def inspect_file(path: str) -> dict[str, Any]:
    """`model_graph.inspect` with plain values."""
    from featurepipe.features.engines.model_reading import inspect

    return inspect(Path(path))


def convert_file(path: str, exported: str, **how: Any) -> None:
    """`model_graph.export` with plain values."""
    from featurepipe.features.engines.model_graph import export

    export(Path(path), Path(exported), **how)


def quantise(graph: str, exported: str) -> int:
    """`quantisation.quantise` with plain values."""
    from featurepipe.features.engines.quantisation import quantise

    return quantise(Path(graph), Path(exported))


def inspect_preset(source: str) -> dict[str, Any]:
    """`inspect` of the module for a preset's library."""
    name, library = _library_of(source)
    return library.inspect(name)


def convert_preset(
    source: str, sha256: str, exported: str, *, size_px: int, pooling: str, **how: Any
) -> None:
    """Save the graph of a preset; see `model_graph.save_graph`.

    Parameters
    ----------
    source : str
        ``timm:NAME`` or ``keras-hub:PRESET``.
    sha256 : str
        What its weights must have.
    exported : str
        The `.xml` file to write.
    size_px : int
    pooling : str
        ``"avg"``: the vector that the library makes of an image, where it makes one.
    **how
        Other arguments of `save_graph`.
    """
    from featurepipe.features.engines.model_graph import save_graph

    name, library = _library_of(source)
    model = library.read(name, sha256, size_px=size_px, pooling=pooling)
    save_graph(model, source, Path(exported), size_px=size_px, pooling=pooling, **how)


def _library_of(source: str) -> tuple[str, Any]:
    """The name of a preset in its library, and the module for that."""
    library, _, name = source.partition(":")
    if library == "timm":
        from featurepipe.features.engines import timm_presets

        return name, timm_presets
    from featurepipe.features.engines import keras_hub_presets

    return name, keras_hub_presets


TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task
    for task in (
        convert_keras,
        inspect_file,
        convert_file,
        inspect_preset,
        convert_preset,
        quantise,
    )
}


def _main() -> int:
    try:
        result = TASKS[sys.argv[1]](**json.loads(sys.argv[2]))
    except FeaturepipeError as error:
        kinds = (ModelFileError, WeightsError)
        kind = next((kind for kind in kinds if isinstance(error, kind)), UsageError)
        text = " ".join(str(error).split())
        sys.stderr.write(f"\n{kind.__name__}: {text}\n")
        return 1
    sys.stdout.write(f"\n{json.dumps(result)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
