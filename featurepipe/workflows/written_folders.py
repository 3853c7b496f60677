"""Places to write to that hold no images of anyone: pictures there become no training data."""

import errno
import os
from pathlib import Path

from featurepipe.errors import FeaturepipeError, NotWritableError, UsageError
from featurepipe.manifest import Manifest, holds_images
from featurepipe.output_folders import is_marked, mark
from featurepipe.sources import is_url
from featurepipe.workspace import Workspace


def prepare_pictures(folder: Path, workspace: Workspace, option: str) -> None:
    """Create and mark a folder for pictures, and stop if none may be written there.

    Parameters
    ----------
    folder : Path
    workspace : Workspace
        Whose source of images it may not belong to; a new folder below the source may.
    option : str
        What named it.

    Raises
    ------
    UsageError
        If it belongs to the source, or holds images that featurepipe did not write.
    NotWritableError
        If nothing can be written there.
    """
    require_folder_for_pictures(folder, workspace, option)
    try:
        mark(folder)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise NotWritableError(
            f"Pictures cannot be written to {folder} ({error.strerror or error}). Give another "
            f"folder with {option}."
        ) from error


def require_folder_for_pictures(folder: Path, workspace: Workspace, option: str) -> None:
    """Stop if pictures may not be written to a folder; see `prepare_pictures`.

    Parameters
    ----------
    folder, workspace, option
        See `prepare_pictures`.

    Raises
    ------
    UsageError
        If it belongs to the source, or holds images that featurepipe did not write.
    """
    if is_marked(folder):
        return
    require_outside_source(folder, manifest_if_known(workspace), "Pictures")
    if folder.is_dir() and holds_images(folder):
        raise UsageError(
            f"{option} {folder} already holds images, and featurepipe marks the folders of "
            "its pictures as no source of images. Name a new or an empty folder."
        )


def require_writable_place(path: Path, what: str) -> None:
    """Stop if a file or folder cannot be created.

    Parameters
    ----------
    path : Path
        Folders above it may be missing.
    what : str
        What would be written there.

    Raises
    ------
    NotWritableError
        If permission is denied, or a file is where a folder should be.
    """
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    code = errno.EACCES if above.is_dir() else errno.ENOTDIR
    if code == errno.ENOTDIR or not os.access(above, os.W_OK | os.X_OK):
        raise NotWritableError(
            f"{what} cannot be written to {path} ({above}: {os.strerror(code)}). Name another "
            "place."
        )


def require_outside_source(folder: Path, manifest: Manifest | None, what: str) -> None:
    """Stop if a folder is the root of the images, or holds some of them.

    Parameters
    ----------
    folder : Path
        Folders that featurepipe wrote are outside, wherever they are.
    manifest : Manifest or None
        Of the images; None if they are not known.
    what : str
        What would be written there.

    Raises
    ------
    UsageError
    """
    if manifest is None or is_url(manifest.root) or is_marked(folder):
        return
    root, place = (Path(os.path.realpath(path)) for path in (manifest.root, folder))
    if not root.is_dir() or not place.is_relative_to(root):
        return
    below = place.relative_to(root).as_posix()
    if below == "." or any(image_id.startswith(f"{below}/") for image_id in manifest.ids):
        raise UsageError(
            f"{what} would be written to {folder}, a folder of the source {manifest.source}. Name "
            "a folder that holds no images of it."
        )


def require_no_image(path: Path, manifest: Manifest | None, what: str) -> None:
    """Stop if a picture would become one of the images of the source.

    Parameters
    ----------
    path : Path
        Of the picture. In a folder that featurepipe wrote, it may be anywhere.
    manifest : Manifest or None
        Of the images; None if they are not known.
    what : str
        What would be written there.

    Raises
    ------
    UsageError
    """
    if manifest is None or is_url(manifest.root) or is_marked(path.parent):
        return
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(manifest.root)):
        raise UsageError(
            f"{what} {path} would be one of the images of {manifest.root}. Write it to another "
            "folder."
        )


def manifest_if_known(workspace: Workspace) -> Manifest | None:
    """The manifest of a workspace; None if it is missing or cannot be read.

    Parameters
    ----------
    workspace : Workspace
    """
    try:
        return Manifest.load(workspace.manifest)
    except FeaturepipeError:
        return None
