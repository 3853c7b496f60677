"""The files of a run beside its run.json, which has the SHA-256 of each."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from featurepipe.array_archives import MAX_BYTES
from featurepipe.errors import RunError
from featurepipe.files import require_readable

RUN_FILE = "run.json"
HEADS_FILE = "heads.skops"
PREDICTIONS_FILE = "predictions.npz"
SELECTION_FILE = "selection.npz"

_RESTORE = "Restore it from a copy, or fit or train the run again"


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a run but its run.json and hidden ones, in hexadecimal.

    Parameters
    ----------
    folder : Path
    """
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    return {
        path.name: _sha256(path)
        for path in files
        if path.name != RUN_FILE and not path.name.startswith(".")
    }


def require_file(folder: Path, name: str, digests: Mapping[str, str]) -> Path:
    """The path of a file of a run, if it is what the run saved.

    Parameters
    ----------
    folder : Path
    name : str
    digests : mapping of str to str
        From the run.json.

    Raises
    ------
    RunError
        If the file is missing or was changed, or the run.json does not know it.
    NotReadableError
        As `featurepipe.files.require_readable`.
    """
    path = folder / name
    if not path.exists():
        raise RunError(
            f"Run {folder.name!r} is damaged: {path} is missing. {_RESTORE}: featurepipe info "
            f"{folder} shows the command."
        )
    require_readable(path, MAX_BYTES)
    if name not in digests:
        raise RunError(
            f"Run {folder.name!r} is damaged: its run.json has no SHA-256 of {name} in files. "
            f"{_RESTORE}."
        )
    if _sha256(path) != digests[name]:
        raise RunError(
            f"Run {folder.name!r} is damaged: {path} does not match its SHA-256 in run.json, so it "
            f"was edited or damaged. {_RESTORE}."
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
