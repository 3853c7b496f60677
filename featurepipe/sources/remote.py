"""Images at a URL, through fsspec."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, unquote

import fsspec.core
import numpy as np
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem
from numpy.typing import NDArray

from featurepipe.errors import SourceError
from featurepipe.sources import patience
from featurepipe.sources.entries import Entry, entry_of
from featurepipe.sources.patience import Patience, said
from featurepipe.sources.places import is_web
from featurepipe.sources.protocol import MAX_IMAGE_BYTES, ImageSource, is_large, refuse_large
from featurepipe.sources.ranges import RangeFile

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp",
    "https": "aiohttp", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub",
    "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
_N_AT_ONCE = 32

_NOWHERE = Entry()


class RemoteFolder(ImageSource):
    """Images as files below a URL.

    Parameters
    ----------
    url : str
        Folder that image ids are relative to, without a trailing slash.

    Raises
    ------
    SourceError
        If no installed package reads such URLs.
    """

    n_readers = _N_AT_ONCE

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_web = is_web(url)
        self._fs, self._root = _file_system(url)
        self._patience = Patience(url)
        self._lock = threading.Lock()
        self._listed: dict[str, Entry] | None = None
        self._asked: dict[str, Entry] = {}

    def names(self) -> list[str]:
        """All files below the URL, images or not.

        Returns
        -------
        list of str
            Paths relative to the URL.

        Raises
        ------
        SourceError
            If they cannot be listed.
        """
        return list(self._listing())

    def stamps(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Sizes and modification times; see `ImageSource`."""
        if self._is_web:
            # Web listings have neither sizes nor times, and may be missing.
            with ThreadPoolExecutor(_N_AT_ONCE) as pool:
                entries = list(pool.map(self._ask_entry, ids))
        else:
            listing = self._listing()
            entries = [listing.get(image_id, _NOWHERE) for image_id in ids]
        return np.array([entry.stamp for entry in entries], np.int64).reshape(-1, 2)

    def read(self, image_id: str) -> bytes:
        """The bytes of an image; see `ImageSource`."""
        n_bytes, data = self._patience.ask(lambda: self._fetch(image_id))
        refuse_large(n_bytes)
        return data

    def _fetch(self, image_id: str) -> tuple[int, bytes]:
        """Size of an image, and its bytes unless it is too large."""
        path = self._path(image_id)
        entry = (self._listed or {}).get(image_id) or self._asked.get(image_id) or _NOWHERE
        # An unknown size is requested here, within the same try.
        size = self._info(image_id).size if entry.size is None else entry.size
        if size is not None and is_large(size):
            return size, b""
        data = _fetch(self._fs, path, size)
        return len(data), data

    def _listing(self) -> dict[str, Entry]:
        with self._lock:
            if self._listed is None:
                try:
                    self._listed = dict(self._files())
                except OSError as error:
                    raise SourceError(
                        f"Cannot list {self._url} ({error}). Check the URL, the connection and "
                        "your credentials."
                    ) from error
            return self._listed

    def _files(self) -> Iterator[tuple[str, Entry]]:
        """Ids and entries of all files.

        What fsspec says about one folder is in memory at a time: it takes a kilobyte a file. Where
        one request lists files of many folders, that is one of the folders in which paths part.
        """
        walks, waiting = _walks(self._fs), [self._root]
        while waiting:
            folder = waiting.pop()
            files, folders = self._listed_at(folder, self._fs.ls)
            yield from files
            if walks or len(folders) == 1:
                waiting += folders
            else:
                for below in folders:
                    yield from self._listed_at(below, self._fs.find)[0]

    def _listed_at(
        self, folder: str, method: Callable[..., Any]
    ) -> tuple[list[tuple[str, Entry]], list[str]]:
        """Ids and entries of the files that fsspec lists at a folder, and the folders in it."""

        def ask() -> dict[str, Any]:
            # It would keep what it said of other folders.
            self._fs.invalidate_cache()
            found = method(folder, detail=True)
            return found if isinstance(found, dict) else {one["name"]: one for one in found}

        files, folders = [], []
        for name, metadata in self._patience.ask(ask, patience.LISTING_SECONDS).items():
            path = name.rstrip("/")
            # Some list the folder itself, and a file as a folder that holds it.
            if path == folder:
                continue
            if metadata.get("type") == "directory":
                folders.append(path)
            else:
                files.append((self._image_id(path), entry_of(metadata)))
        return files, folders

    def _ask_entry(self, image_id: str) -> Entry:
        try:
            entry = self._patience.ask(lambda: self._info(image_id))
        except OSError:
            return _NOWHERE
        self._asked[image_id] = entry
        return entry

    def _info(self, image_id: str) -> Entry:
        return entry_of(self._fs.info(self._path(image_id)))

    def _path(self, image_id: str) -> str:
        name = quote(image_id) if self._is_web else image_id
        return f"{self._root}/{name}" if self._root else name

    def _image_id(self, path: str) -> str:
        below = path[len(self._root) :].lstrip("/")
        return unquote(below) if self._is_web else below


class RemoteFile(RangeFile):
    """A file at a URL, as it was when this object was made.

    Parameters
    ----------
    url : str

    Raises
    ------
    SourceError
        If it cannot be reached.
    """

    n_readers = _N_AT_ONCE
    # One request takes about as long as a few megabytes.
    block_bytes = 2**22

    def __init__(self, url: str) -> None:
        self.place = url
        self._is_web = is_web(url)
        self._fs, self._path = _file_system(url)
        self._patience = Patience(url)
        try:
            entry = self._patience.ask(lambda: entry_of(self._fs.info(self._path)))
        except OSError as error:
            raise SourceError(
                f"Cannot reach {url} ({error}). Check the URL, the connection and your credentials."
            ) from error
        if entry.size is None:
            raise SourceError(
                f"The server does not report the size of {url}. Download the file first."
            )
        self.n_bytes, self.mtime = entry.size, entry.mtime

    def read(self, start: int, n_bytes: int) -> bytes:
        """Read a range of bytes; see `RangeFile`."""
        data = self._patience.ask(lambda: self._fetch_range(start, n_bytes))
        if len(data) < n_bytes:
            raise OSError(f"{self.place} is truncated")
        return data

    def read_all(self) -> bytes:
        """The whole file, of at most `MAX_IMAGE_BYTES`.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        refuse_large(self.n_bytes)
        return self._patience.ask(lambda: _fetch(self._fs, self._path, self.n_bytes))

    def _fetch_range(self, start: int, n_bytes: int) -> bytes:
        if not self._is_web:
            data: bytes = self._fs.cat_file(self._path, start, start + n_bytes)
            return data
        # `cat_file` downloads the whole file from a server without range requests.
        with self._fs.open(self._path, size=self.n_bytes, cache_type="none") as file:
            file.seek(start)
            return bytes(file.read(n_bytes))


def find_remote(pattern: str) -> list[str]:
    """URLs that match a pattern such as ``s3://bucket/train-*.tar``, sorted.

    Parameters
    ----------
    pattern : str

    Raises
    ------
    SourceError
        If they cannot be listed.
    """
    folder, _, names = pattern.rpartition("/")
    listed = [name for name in sorted(RemoteFolder(folder).names()) if "/" not in name]
    return [f"{folder}/{name}" for name in listed if fnmatchcase(name, names) and name[0] != "."]


def _walks(fs: Any) -> bool:
    """Whether fsspec asks for each folder on its own, also where it lists all that is below one."""
    own = getattr(type(fs), "_find", None)
    if own is None:
        return type(fs).find is AbstractFileSystem.find
    return own is AsyncFileSystem._find


def _fetch(fs: Any, path: str, size: int | None) -> bytes:
    if size is not None:
        data: bytes = fs.cat_file(path)
        return data
    with fs.open(path, "rb") as file:
        return bytes(file.read(MAX_IMAGE_BYTES + 1))


def _file_system(url: str) -> tuple[Any, str]:
    """File system of a URL, and the path within it."""
    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        advice = f"Run: pip install {package}" if package else "Install that package."
        raise SourceError(
            f"Cannot read {url}: the package for {protocol}:// is missing ({said(error)}). {advice}"
        ) from error
    except Exception as error:
        raise SourceError(
            f"Cannot read {url} ({said(error)}). Expected a URL that fsspec supports, such as "
            "s3://, gs:// or https://."
        ) from error
    return fs, path.rstrip("/")
