"""BrowserPage: a folder with a web page that runs an exported run."""

from dataclasses import dataclass
from pathlib import Path

from featurepipe import __version__
from featurepipe.errors import UsageError
from featurepipe.files import replacing
from featurepipe.manifest import Manifest
from featurepipe.predictions import COVERAGE
from featurepipe.reports.page.model_page import HTML, SCRIPT, STYLE, page_files
from featurepipe.words import examples
from featurepipe.workflows.exports.browser_runtime import FILES, LICENCE, fetch_browser_runtime
from featurepipe.workflows.exports.model_facts import ModelFacts
from featurepipe.workflows.written_folders import require_outside_source, require_writable_place

_MODEL, _LICENCES = "model.onnx", "licences.txt"


@dataclass(frozen=True)
class BrowserPage:
    """A page that can be written.

    Attributes
    ----------
    folder : Path
    runtime : dict of str to bytes
        The files of what runs the model, by name.
    """

    folder: Path
    runtime: dict[str, bytes]

    @classmethod
    def prepare(cls, folder: Path, target: Path, manifest: Manifest) -> "BrowserPage":
        """Stop if a page cannot be written, and fetch what runs the model.

        Parameters
        ----------
        folder : Path
        target : Path
            Of the model.
        manifest : Manifest

        Raises
        ------
        UsageError
            If the folder holds other files, is one of the source or that of the model; or if the
            npm registry cannot be reached.
        NotWritableError
            If the folder or the cache cannot be written to.
        """
        if target.suffix.lower() != ".onnx":
            raise UsageError("--page only applies to .onnx. Omit it, or export to TARGET.onnx.")
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--page {folder} is a file. Name a folder.")
        if folder.resolve() == target.parent.resolve():
            raise UsageError(
                f"--page {folder} is the folder of {target.name} and its golden images, which a "
                "page should not publish. Name another folder."
            )
        require_outside_source(folder, manifest, "The page")
        # As if a file lay in it: the folder itself may be there.
        require_writable_place(folder / HTML, "The page")
        ours = {HTML, SCRIPT, STYLE, _MODEL, _LICENCES, *FILES}
        present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if others := [name for name in present if name not in ours]:
            raise UsageError(
                f"--page {folder} holds files that featurepipe did not write ({examples(others)}). "
                "Name a new or an empty folder."
            )
        return cls(folder, fetch_browser_runtime())

    def write(self, facts: ModelFacts, model: bytes) -> None:
        """Write the page.

        Parameters
        ----------
        facts : ModelFacts
        model : bytes
            The ONNX file.

        Raises
        ------
        DiskFullError
            If the disk is full.
        """
        said = {
            "run": facts.run,
            "coverage": COVERAGE,
            "attributes": {
                name: about.model_dump(include={"classes", "exclusive"})
                for name, about in facts.attributes.items()
            },
        }
        texts = page_files(said, facts.figures, facts.licences, __version__)
        contents = {
            **self.runtime,
            _MODEL: model,
            _LICENCES: LICENCE.encode(),
            **{name: text.encode() for name, text in texts.items()},
        }
        for name, content in contents.items():
            with replacing(self.folder / name) as beside:
                beside.write_bytes(content)
