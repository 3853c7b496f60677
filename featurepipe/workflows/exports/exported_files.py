"""ExportedFiles: the model that `export` writes, and the files beside it."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from featurepipe.errors import UsageError
from featurepipe.files import disk_full_named, replacing
from featurepipe.workflows.exports.exported_model import golden_file
from featurepipe.workflows.exports.model_runtimes import OPENVINO_SUFFIX
from featurepipe.workflows.written_folders import require_writable_place

Graph = Any
"""What is written: the bytes of an ONNX file, or an `openvino.Model`."""

# Whatever was exported before may be replaced, and nothing else of these names.
_HEAD_BYTES, _MARK = 4096, b"featurepipe"


class ExportedFiles:
    """A model and the files beside it.

    Parameters
    ----------
    target : Path
        Of the model.

    Attributes
    ----------
    target : Path
    golden, card, program : Path
        Golden images, model card, and a program that runs the model.

    Examples
    --------
    >>> ExportedFiles(Path("out/model.onnx")).program.as_posix()
    'out/model_predict.py'
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.golden = golden_file(target)
        self.card = target.with_suffix(".md")
        self.program = target.with_name(f"{target.stem}_predict.py")

    @property
    def is_openvino(self) -> bool:
        """Whether the model is one of OpenVINO, in two files."""
        return self.target.suffix.lower() == OPENVINO_SUFFIX

    @property
    def format(self) -> str:
        """The kind of model, for messages."""
        return "OpenVINO" if self.is_openvino else "ONNX"

    def require_writable(self) -> None:
        """Stop if the files cannot be written, or one beside the model belongs to somebody else.

        Raises
        ------
        UsageError
            If a file would be replaced that featurepipe did not write.
        NotWritableError
            If permission is denied.
        """
        require_writable_place(self.target, "The model")
        for path in (self.card, self.program):
            if os.path.lexists(path) and not (path.is_file() and _is_ours(path)):
                raise UsageError(
                    f"{path} would be replaced, and featurepipe did not write it. Move it, or name "
                    "another target."
                )

    def write(self, graph: Graph, golden: dict[str, Any], program: str, card: str) -> int:
        """Write all files; the size of the model in bytes.

        Parameters
        ----------
        graph : Graph
        golden : dict of str to ndarray
        program, card : str

        Raises
        ------
        DiskFullError
            If the disk is full.
        """
        if self.is_openvino:
            n_bytes = self._write_openvino(graph)
        else:
            n_bytes = len(graph)
            with replacing(self.target) as beside:
                beside.write_bytes(graph)
        with replacing(self.golden) as beside, beside.open("wb") as file:
            np.savez_compressed(file, **golden)
        for path, text in ((self.program, program), (self.card, card)):
            with replacing(path) as beside:
                beside.write_text(text, encoding="utf-8")
        return n_bytes

    def _write_openvino(self, graph: Graph) -> int:
        import openvino

        weights = self.target.with_suffix(".bin")
        self.target.parent.mkdir(parents=True, exist_ok=True)
        n_bytes = 0
        with (
            disk_full_named(self.target),
            TemporaryDirectory(prefix=".featurepipe-", dir=self.target.parent) as folder,
        ):
            made = Path(folder) / "model.xml"
            # Half of a model in half precision answers otherwise.
            openvino.save_model(graph, made, compress_to_fp16=False)
            for path, part in ((weights, made.with_suffix(".bin")), (self.target, made)):
                n_bytes += part.stat().st_size
                with replacing(path) as beside:
                    shutil.copyfile(part, beside)
        return n_bytes


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _MARK in file.read(_HEAD_BYTES)
    except OSError:
        return False
