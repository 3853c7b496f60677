"""Lists images on disk: in folders, archives and patterns."""

import glob
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from featurepipe.errors import ManifestError
from featurepipe.words import counted, examples, is_utf8

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
)  # fmt: skip


def find_images(paths: Iterable[Path | str]) -> list[tuple[str, Path]]:
    """Images to predict, in the order given and each once.

    Parameters
    ----------
    paths : iterable of Path or str
        Files, folders and glob patterns (``new/*.jpg``). A file given by its path may have
        any suffix.

    Returns
    -------
    list of (str, Path)
        Image id (the POSIX path as given, extended by the path below a folder) and path.

    Raises
    ------
    ManifestError
        If a path matches no image, or the name of an image is not UTF-8.
    """
    found: dict[Path, str] = {}
    for given in paths:
        images = _images_at(str(given))
        if not images:
            raise ManifestError(
                f"No image found at {str(given)!r}. Expected a file, a folder or a pattern such as "
                f"'new/*.jpg' with files ending in {' '.join(IMAGE_SUFFIXES)}."
            )
        for path in images:
            if not is_utf8(path.as_posix()):
                raise ManifestError(
                    f"The name {path.as_posix()!a} is not UTF-8, so that no table can hold it. "
                    "Rename it."
                )
            # Unlike `Path.resolve`, it takes links that lead to themselves.
            found.setdefault(Path(os.path.realpath(path)), path.as_posix())
    return [(image_id, Path(image_id)) for image_id in found.values()]


def list_images(root: Path) -> tuple[list[str], list[str]]:
    """Images below a folder, except in hidden folders and in runs of a workspace.

    Parameters
    ----------
    root : Path

    Returns
    -------
    ids : list of str, sorted
        POSIX paths relative to `root`.
    findings : list of str

    Raises
    ------
    ManifestError
        If a folder cannot be listed.
    """
    return _storable(_images_below(root))


def images_among(names: Collection[str]) -> tuple[list[str], list[str]]:
    """Images among the files of an archive or URL, by the rules of `list_images`.

    Parameters
    ----------
    names : collection of str
        POSIX paths of files.

    Returns
    -------
    ids : list of str, sorted
    findings : list of str
    """
    runs = {name.removesuffix("run.json") for name in names if name.endswith("/run.json")}
    return _storable(
        name
        for name in names
        if is_image(name)
        and not any(part.startswith(".") for part in name.split("/"))
        and not (runs and any(name.startswith(run) for run in runs))
    )


def is_image(name: str) -> bool:
    """Whether a file name has an image suffix.

    Parameters
    ----------
    name : str
    """
    return name.lower().endswith(IMAGE_SUFFIXES)


def _images_below(root: Path) -> Iterator[str]:
    for prefix, names in _folders(root):
        for name in names:
            if is_image(name) and not name.startswith("."):
                yield prefix + name


def _storable(names: Iterable[str]) -> tuple[list[str], list[str]]:
    found = sorted(names)
    ids = [image_id for image_id in found if is_utf8(image_id)]
    if len(ids) == len(found):
        return ids, []
    # Neither Parquet, HDF5 nor JSON can hold such a name.
    refused = [ascii(image_id) for image_id in found if not is_utf8(image_id)]
    return ids, [
        f"Ignoring {counted(refused, 'image')} with a name that is not UTF-8: {examples(refused)}"
    ]


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """The id prefix and the file names of each folder from `root` down."""
    # Links are followed last, so that a folder keeps its own name; a link to a parent folder
    # ends at once.
    seen = set(root.resolve().parents)
    waiting = deque([root])
    while waiting:
        for name, folders, files in os.walk(waiting.popleft(), onerror=_refuse_folder):
            folder = Path(name)
            is_run = "run.json" in files and folder != root
            if is_run or folder.resolve() in seen:
                folders.clear()
                continue
            seen.add(folder.resolve())
            folders[:] = sorted(below for below in folders if not below.startswith("."))
            waiting.extend(folder / below for below in folders if (folder / below).is_symlink())
            yield "".join(f"{part}/" for part in folder.relative_to(root).parts), files


def _refuse_folder(error: OSError) -> None:
    raise ManifestError(
        f"Cannot list the folder {error.filename} ({error.strerror}). Change its permissions, or "
        "move it."
    ) from error


def _images_at(given: str) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        return [path / image_id for image_id in sorted(_images_below(path))]
    if path.exists():
        return [path]
    # Path.glob takes no absolute pattern and finds hidden files.
    matches = map(Path, sorted(glob.glob(given, recursive=True)))  # noqa: PTH207
    return [
        image
        for match in matches
        for image in (_images_at(str(match)) if match.is_dir() else [match])
        if is_image(image.name)
    ]
