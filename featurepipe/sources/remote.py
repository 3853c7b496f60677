"""Images at a URL, through fsspec."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

import fsspec.core
import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import SourceError
from featurepipe.sources.entries import Entry, entry_of
from featurepipe.sources.patience import Patience, said
from featurepipe.sources.places import is_web
from featurepipe.sources.protocol import MAX_IMAGE_BYTES, ImageSource, is_large, refuse_large
from featurepipe.sources.ranges import RangeFile
from featurepipe.sources.remote_listing import NOWHERE, Entries, RemoteListing
from featurepipe.sources.walking import walk

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp",
    "https": "aiohttp", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub",
    "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
_N_AT_ONCE = 32

# Object stores list so many files with one request.
N_SMALL = 1000


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
        self._fs, root = _file_system(url)
        self._patience = Patience(url)
        self._listing = RemoteListing(self._fs, root, is_web=self._is_web, asker=self._patience)
        # Of the images whose stamps were asked for last.
        self._asked: Entries = {}

    def names_at_top(self) -> list[str]:
        """The files at the URL itself, images or not, but not those in folders below it.

        Returns
        -------
        list of str, sorted
            Names without slashes.

        Raises
        ------
        SourceError
            If they cannot be listed.
        """
        with self._saying():
            return sorted(key for key in self._listing.entries_in("") if not key.endswith("/"))

    def names(self, choose: Callable[[Collection[str]], Iterable[str]] = iter) -> Iterator[str]:
        """Files below the URL, images or not, listed folder by folder.

        What fsspec says about one folder is in memory at a time: it takes a kilobyte a file. Where
        one request lists files of many folders, that is one of the folders in which paths part.

        Parameters
        ----------
        choose : callable
            Gives those keys of a listing that are followed; see `walk`. Default: all.

        Yields
        ------
        str
            Paths relative to the URL, sorted.

        Raises
        ------
        SourceError
            If they cannot be listed.
        """
        listing, has_parted = self._listing, False

        def keys_in(folder: str) -> list[str]:
            nonlocal has_parted
            with self._saying():
                if has_parted and not listing.asks_each_folder:
                    return list(choose(listing.files_below(folder)))
                keys = list(choose(listing.entries_in(folder)))
            has_parted = sum(key.endswith("/") for key in keys) > 1
            return keys

        return walk(keys_in)

    def stamps(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Sizes and modification times; see `ImageSource`.

        Only the folders of these images are listed. What was asked for last is not asked for again.
        """
        asked = self._asked
        new = [image_id for image_id in ids if image_id not in asked]
        # Web listings have neither sizes nor times, and may be missing.
        found = self._entries_on_web(new) if self._is_web else self._entries_in_listings(new)
        entries = {image_id: asked.get(image_id) or found[image_id] for image_id in ids}
        self._asked = entries
        return np.array([entries[image_id].stamp for image_id in ids], np.int64).reshape(-1, 2)

    def read(self, image_id: str) -> bytes:
        """The bytes of an image; see `ImageSource`."""
        n_bytes, data = self._patience.ask(lambda: self._fetch(image_id))
        refuse_large(n_bytes)
        return data

    def _fetch(self, image_id: str) -> tuple[int, bytes]:
        """Size of an image, and its bytes unless it is too large."""
        entry = self._asked.get(image_id, NOWHERE)
        # An unknown size is requested here, within the same try.
        size = self._info(image_id).size if entry.size is None else entry.size
        if size is not None and is_large(size):
            return size, b""
        data = _fetch(self._fs, self._listing.path(image_id), size)
        return len(data), data

    def _entries_on_web(self, ids: Sequence[str]) -> Entries:
        with ThreadPoolExecutor(_N_AT_ONCE) as pool:
            return dict(zip(ids, pool.map(self._ask_entry, ids), strict=True))

    def _ask_entry(self, image_id: str) -> Entry:
        try:
            return self._patience.ask(lambda: self._info(image_id))
        except OSError:
            return NOWHERE

    def _entries_in_listings(self, ids: Sequence[str]) -> Entries:
        ids_in: dict[str, list[str]] = {}
        for image_id in ids:
            ids_in.setdefault("".join(image_id.rpartition("/")[:2]), []).append(image_id)
        # Of large folders, one is in memory at a time.
        small = [folder for folder, inside in ids_in.items() if len(inside) <= N_SMALL]
        large = [folder for folder, inside in ids_in.items() if len(inside) > N_SMALL]
        entries: Entries = {}

        def look_up(folder: str) -> Entries:
            listed = self._listing.entries_if_there(folder)
            return {image_id: listed.get(image_id, NOWHERE) for image_id in ids_in[folder]}

        with self._saying(), ThreadPoolExecutor(_N_AT_ONCE) as pool:
            for found in chain(pool.map(look_up, small), map(look_up, large)):
                entries |= found
        return entries

    @contextmanager
    def _saying(self) -> Iterator[None]:
        """Says what could not be listed."""
        try:
            yield
        except OSError as error:
            raise SourceError(
                f"Cannot list {self._url} ({error}). Check the URL, the connection and your "
                "credentials."
            ) from error

    def _info(self, image_id: str) -> Entry:
        return entry_of(self._fs.info(self._listing.path(image_id)))


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
    listed = RemoteFolder(folder).names_at_top()
    return [f"{folder}/{name}" for name in listed if fnmatchcase(name, names) and name[0] != "."]


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
