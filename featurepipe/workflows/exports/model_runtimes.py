"""What computes exported models: ONNX Runtime and OpenVINO."""

import io
from pathlib import Path
from typing import Any

from featurepipe.errors import ModelFileError, UsageError
from featurepipe.features.weights import MAX_WEIGHTS_BYTES
from featurepipe.files import require_readable
from featurepipe.words import one_line
from featurepipe.workflows.exports.exported_model import (
    OTHER_PIXELS,
    PIXELS,
    Answer,
    ExportedModel,
    Pixels,
    attributes_of,
)

OPENVINO_SUFFIX = ".xml"

# Of the facts that OpenVINO keeps beside a graph.
_SECTION = "featurepipe"

_HEAD_BYTES = 4096


def open_exported(model: Path) -> ExportedModel:
    """Open a run that was exported.

    Parameters
    ----------
    model : Path
        Of OpenVINO where its suffix is ``.xml``, else of ONNX.

    Raises
    ------
    UsageError
        If ONNX Runtime is not installed.
    ModelFileError
        If a file is missing or damaged, or was not exported by featurepipe.
    """
    if not model.exists():
        raise ModelFileError(f"There is no file {model}. Export a run: featurepipe export")
    require_readable(model, MAX_WEIGHTS_BYTES)
    return OpenVinoModel(model) if model.suffix.lower() == OPENVINO_SUFFIX else OnnxModel(model)


class OnnxModel:
    """A run in an ONNX file, as ONNX Runtime computes it; see `ExportedModel`.

    Parameters
    ----------
    model : bytes or Path

    Raises
    ------
    UsageError
        If ONNX Runtime is not installed.
    ModelFileError
        If the file is damaged, or was not exported by featurepipe.
    """

    def __init__(self, model: bytes | Path) -> None:
        ort = _onnxruntime()
        self.runtime = f"ONNX Runtime {ort.__version__}"
        name = model.name if isinstance(model, Path) else "The model"
        options = ort.SessionOptions()
        # Only errors: it warns of constants that it removes.
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
            )
        # The type of the error depends on what is wrong with the file.
        except Exception as error:
            raise ModelFileError(
                f"{name} cannot be read as an ONNX file ({one_line(error)[:200]}). Export it again."
            ) from error
        self.attributes = attributes_of(name, self._session.get_modelmeta().custom_metadata_map)
        inputs = [one.name for one in self._session.get_overridable_initializers()]
        self.compares = OTHER_PIXELS in inputs
        self._outputs = [one.name for one in self._session.get_outputs()]

    def answer(self, pixels: Pixels, other: Pixels | None = None) -> Answer:
        """The outputs for images of one size; see `ExportedModel`."""
        given = {PIXELS: pixels} | ({} if other is None else {OTHER_PIXELS: other})
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))


class OpenVinoModel:
    """A run as OpenVINO computes it on the CPU, in single precision; see `ExportedModel`.

    Parameters
    ----------
    model : openvino.Model or Path

    Raises
    ------
    ModelFileError
        If the file is damaged, or was not exported by featurepipe.
    """

    compares = False

    def __init__(self, model: Any) -> None:
        import openvino

        self.runtime = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        name = model.name if isinstance(model, Path) else "The model"
        core = openvino.Core()
        if isinstance(model, Path):
            _require_graph(model)
        try:
            graph = core.read_model(str(model)) if isinstance(model, Path) else model
            said = graph.get_rt_info()[_SECTION] if graph.has_rt_info([_SECTION]) else {}
            metadata = {"attributes": said["attributes"].astype(str)} if said else {}
            self.attributes = attributes_of(name, metadata)
            self._outputs = [one.any_name for one in graph.outputs]
            # Processors with bfloat16 would compute in it.
            self._compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except ModelFileError:
            raise
        except Exception as error:
            raise ModelFileError(
                f"{name} cannot be read by OpenVINO ({one_line(error)[:200]}). Export it again, "
                "and keep the .xml and the .bin file together."
            ) from error

    def answer(self, pixels: Pixels, other: Pixels | None = None) -> Answer:
        """The outputs for images of one size; see `ExportedModel`."""
        assert other is None
        values = self._compiled({PIXELS: pixels})
        return {name: values[name] for name in self._outputs}


def _require_graph(path: Path) -> None:
    """Stop if a file is no graph of OpenVINO, which would try other formats then."""
    with path.open("rb") as file:
        if b"<net " not in file.read(_HEAD_BYTES):
            raise ModelFileError(
                f"{path.name} is no model of OpenVINO. Name the .xml file of an export."
            )


def convert_to_openvino(content: bytes) -> Any:
    """A run in ONNX as a graph of OpenVINO, with the same metadata.

    The coverage is its default there, since the graphs of OpenVINO have no optional inputs.

    Parameters
    ----------
    content : bytes
        Of the ONNX file, without images to compare with.

    Returns
    -------
    openvino.Model

    Raises
    ------
    UsageError
        If OpenVINO has no equivalent of some node.
    """
    import onnx
    import openvino

    model = onnx.load_from_string(content)
    try:
        graph = openvino.Core().read_model(io.BytesIO(content))
    except Exception as error:
        raise UsageError(
            f"OpenVINO cannot convert this run ({one_line(error)[:200]}). Export to TARGET.onnx."
        ) from error
    for one in model.metadata_props:
        graph.set_rt_info(one.value, [_SECTION, one.key])
    return graph


def require_onnxruntime() -> None:
    """Stop if ONNX Runtime is not installed.

    Raises
    ------
    UsageError
    """
    _onnxruntime()


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            "ONNX Runtime, which runs ONNX files, is not installed. Run: pip install "
            "'featurepipe[onnx]'"
        ) from error
    return onnxruntime
