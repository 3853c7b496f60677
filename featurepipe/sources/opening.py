"""Opens the source at a path or URL."""

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from featurepipe.errors import ManifestError
from featurepipe.files import require_readable
from featurepipe.sources.local import LocalFolder
from featurepipe.sources.places import is_archive, is_url, name_of
from featurepipe.sources.protocol import ImageSource
from featurepipe.sources.ranges import Handles, LocalFile, RangeFile, open_handles
from featurepipe.sources.tar import TarArchive, refuse_compressed

if TYPE_CHECKING:
    from featurepipe.sources.remote import RemoteFolder

_WILD = "*?["


def open_source(root: str) -> ImageSource:
    """Open the source of the images below a root.

    Parameters
    ----------
    root : str
        Folder, tar file or pattern of tar files (``shards/*.tar``), as a path or URL.

    Raises
    ------
    ManifestError
        If it is gone, or a tar file is damaged.
    SourceError
        If a URL cannot be reached.
    """
    require_there(root)
    if is_archive(root) and (is_url(root) or not Path(root).is_dir()):
        return open_archive(root)
    return open_remote(root) if is_url(root) else LocalFolder(Path(root))


def require_there(place: str) -> None:
    """Stop if a place that was read before is gone; a URL is left to its reader.

    Parameters
    ----------
    place : str
        Folder, table, tar file or pattern of tar files, as a path or URL.

    Raises
    ------
    ManifestError
        If there is no such file or folder.
    """
    path = Path(place)
    if is_url(place) or path.exists() or (is_archive(place) and any(path.parent.glob(path.name))):
        return
    raise ManifestError(
        f"{place}, where the images were, is gone. Move it back, or run featurepipe extract with "
        "its new path: features of the same images are kept."
    )


def open_part(root: str, ids: Sequence[str]) -> ImageSource:
    """Open the source of some of the images: only the tar files that hold them.

    Parameters
    ----------
    root : str
        As in `open_source`.
    ids : sequence of str
        Image ids.

    Raises
    ------
    ManifestError, SourceError
        As `open_source`.
    """
    if not is_tar_pattern(root):
        return open_source(root)
    names = {image_id.partition("/")[0] for image_id in ids}
    opened = _remote_files(root, names) if is_url(root) else _local_files(root, names)
    return TarArchive(opened)


def is_tar_pattern(root: str) -> bool:
    """Whether images lie in several tar files, whose names are the first part of their ids.

    Parameters
    ----------
    root : str
        As in `open_source`.
    """
    return is_archive(root) and _is_pattern(root) and (is_url(root) or not Path(root).exists())


def open_archive(place: str, texts: tuple[str, ...] = ()) -> TarArchive:
    """Open one tar file, or all tar files that match a pattern.

    Parameters
    ----------
    place : str
        Path or URL.
    texts : tuple of str
        Suffixes of members to keep in memory; see `TarArchive`.

    Raises
    ------
    ManifestError
        If no file matches, or one is damaged.
    SourceError
        If a URL cannot be reached.
    """
    refuse_compressed(place)
    return TarArchive(_remote_files(place) if is_url(place) else _local_files(place), texts)


def open_remote(url: str) -> "RemoteFolder":
    """Open the source of the files below a URL.

    Parameters
    ----------
    url : str

    Raises
    ------
    SourceError
        If no installed package reads such URLs.
    """
    # Imported late: fsspec is slow to import, and most images are local.
    from featurepipe.sources.remote import RemoteFolder

    return RemoteFolder(url)


def open_file(place: str) -> IO[bytes]:
    """Open a whole file, such as a table, for reading.

    Parameters
    ----------
    place : str
        Path or URL.

    Raises
    ------
    OSError
        If it cannot be read.
    NotReadableError
        If it is no regular file, or permission is denied.
    SourceError
        If a URL cannot be reached.
    """
    if not is_url(place):
        require_readable(Path(place))
        return Path(place).open("rb")
    from featurepipe.sources.remote import RemoteFile

    return io.BytesIO(RemoteFile(place).read_all())


def _local_files(place: str, names: Collection[str] | None = None) -> Mapping[str, RangeFile]:
    path, handles = Path(place), open_handles()
    if path.exists() or not _is_pattern(place):
        return {"": _local_file(path, handles)}
    # macOS writes hidden files beside others.
    shards = sorted(shard for shard in path.parent.glob(path.name) if shard.name[0] != ".")
    _require_any(place, shards)
    return {
        f"{shard.name}/": _local_file(shard, handles)
        for shard in shards
        if names is None or shard.name in names
    }


def _local_file(path: Path, handles: Handles) -> LocalFile:
    require_readable(path)
    try:
        return LocalFile(path, handles)
    except OSError as error:
        raise ManifestError(
            f"Cannot read {path} ({error.strerror or error}). Expected a tar file."
        ) from error


def _remote_files(place: str, names: Collection[str] | None = None) -> Mapping[str, RangeFile]:
    from featurepipe.sources.remote import RemoteFile, find_remote

    if not _is_pattern(place):
        return {"": RemoteFile(place)}
    shards = find_remote(place)
    _require_any(place, shards)
    return {
        f"{name_of(shard)}/": RemoteFile(shard)
        for shard in shards
        if names is None or name_of(shard) in names
    }


def _is_pattern(place: str) -> bool:
    return any(letter in name_of(place) for letter in _WILD)


def _require_any(place: str, shards: Sequence[object]) -> None:
    if not shards:
        raise ManifestError(f"No tar file matches {place}. Check the pattern.")
