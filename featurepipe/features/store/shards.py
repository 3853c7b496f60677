"""Shards: a store in several files of its layout, which a small file lists.

A folder holds ``shards.json`` and the shards, each a whole store of some of the images. They are
written once and never changed. Every file is looked at when the store is opened: HDF5's own way to
join files, the virtual dataset, silently reads a missing one as its fill value.
"""

import json
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from featurepipe.errors import StoreDamagedError, StoreError
from featurepipe.features.store.checking import open_checked
from featurepipe.features.store.key import StoreKey
from featurepipe.features.store.layout import read_about
from featurepipe.files import read_file, replacing
from featurepipe.words import counted, invalid_field

SHARDS_FILE = "shards.json"
SHARDS_SUFFIX = ".shards"

_MAX_BYTES = 2**28
# A system may allow a process no more than 1,024 open files.
_MAX_OPEN = 64
_INDEX = ("ids", "status", "digests", "crc32", "size", "mtime", "reasons")

PlainName = Annotated[str, Field(pattern=r"^[^/\\.][^/\\]*\.h5$")]
Count = Annotated[int, Field(ge=0, lt=2**53)]


class Shard(BaseModel):
    """One file of a store of shards.

    Attributes
    ----------
    file : str
        Its name in the folder.
    n_rows, n_bytes : int
        Images, and size of the file.
    index_crc32 : int
        CRC-32 of all that it holds but the features, whose rows have checksums of their own.
    first_id, last_id : str
        Of its images, which are sorted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: PlainName
    n_rows: Count
    n_bytes: Count
    index_crc32: Annotated[int, Field(ge=0, lt=2**32)]
    first_id: str
    last_id: str

    @classmethod
    def of(cls, path: Path, name: str = "{0.name}") -> Self:
        """What a finished shard is listed as.

        Parameters
        ----------
        path : Path
        name : str
            What it will be called: a format of the path and the checksum; default: as it is.

        Raises
        ------
        StoreError
            If it is no sound store.
        """
        with open_checked(path) as opened:
            ids, checksum = opened["ids"][:], _index_checksum(opened)
        if not len(ids) or not (ids[:-1] < ids[1:]).all():
            raise StoreDamagedError(path, "its images are not in order, or it has none")
        try:
            first, last = ids[0].decode(), ids[-1].decode()
        except UnicodeDecodeError as error:
            raise StoreDamagedError(path, f"an id is not UTF-8 ({error})") from error
        return cls(
            file=name.format(path, checksum),
            n_rows=len(ids),
            n_bytes=path.stat().st_size,
            index_crc32=checksum,
            first_id=first,
            last_id=last,
        )

    def read_ids(self, folder: Path) -> NDArray[np.bytes_]:
        """Its image ids, of which the features are not looked at.

        Parameters
        ----------
        folder : Path
            Holds its file.

        Returns
        -------
        ndarray of shape (n_rows,), bytes in UTF-8, sorted

        Raises
        ------
        StoreError
            If it is missing or damaged, or has other ids than were listed.
        """
        with open_checked(folder / self.file) as opened:
            ids = np.asarray(opened["ids"][:])
        ends = [self.first_id.encode(), self.last_id.encode()]
        is_listed = len(ids) == self.n_rows > 0 and [ids[0], ids[-1]] == ends
        if not is_listed or not (ids[:-1] < ids[1:]).all():
            raise StoreDamagedError(folder, f"{self.file} has other images than were listed")
        return ids


class _Listing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["featurepipe-shards-1"]
    key: dict[str, Any]
    shards: list[Shard]


def write_shards(folder: Path, key: StoreKey, shards: Sequence[Shard]) -> None:
    """List the shards of a store, completely or not at all.

    Parameters
    ----------
    folder : Path
        Holds them.
    key : StoreKey
        What decides their features.
    shards : sequence of Shard
        In the order of their rows.

    Raises
    ------
    DiskFullError
        If the disk is full.
    """
    listing = _Listing(format="featurepipe-shards-1", key=key.as_dict(), shards=list(shards))
    with replacing(folder / SHARDS_FILE) as beside:
        beside.write_text(listing.model_dump_json(indent=1))


def read_shards(folder: Path) -> tuple[StoreKey, list[Shard]]:
    """The key of a store and the shards that it lists; their files are not looked at.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    StoreError
        If the list is missing or damaged.
    """
    path = folder / SHARDS_FILE
    if not path.exists():
        raise StoreError(f"There is no feature store {folder}: it has no {SHARDS_FILE}.")
    try:
        listing = _Listing.model_validate_json(read_file(path, _MAX_BYTES))
    except ValidationError as error:
        raise StoreDamagedError(
            folder, f"{SHARDS_FILE} is damaged ({invalid_field(error)})"
        ) from error
    if len({shard.file for shard in listing.shards}) < len(listing.shards):
        raise StoreDamagedError(folder, f"{SHARDS_FILE} lists a file twice")
    return StoreKey.from_json(json.dumps(listing.key), f"{path}"), listing.shards


def shard_damage(folder: Path, shard: Shard) -> str:
    """What is wrong with the file of a shard, a clause; empty if nothing shows from outside.

    Parameters
    ----------
    folder : Path
    shard : Shard
    """
    path = folder / shard.file
    if path.is_symlink() or not path.is_file():
        return "it is missing" if not path.exists() else "it is no regular file"
    if path.stat().st_size != shard.n_bytes:
        return f"it has {path.stat().st_size:,} bytes, not {shard.n_bytes:,}"
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return f"it cannot be opened ({error.strerror})"
    return ""


def open_listed(folder: Path, key: StoreKey, shard: Shard) -> h5py.File:
    """Open a shard, if it is the file that was listed.

    Parameters
    ----------
    folder : Path
    key : StoreKey
        Of the store.
    shard : Shard

    Raises
    ------
    StoreError
        If it is damaged, another file, or made with other options.
    """
    file = open_checked(folder / shard.file)
    try:
        if len(file["ids"]) != shard.n_rows or _index_checksum(file) != shard.index_crc32:
            raise StoreDamagedError(
                folder, f"{shard.file} is not the file that {SHARDS_FILE} lists"
            )
        if StoreKey.from_json(read_about(file)["key"], shard.file) != key:
            raise StoreDamagedError(folder, f"{shard.file} was made with other options")
    except BaseException:
        file.close()
        raise
    return file


class ShardedFile:
    """The datasets of a store of shards, as if they were those of one file; read-only.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    StoreDamagedError
        If a shard is missing, cannot be read or has another size; the error names it.
    StoreError
        If there is no such store.
    """

    mode = "r"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key, self.shards = read_shards(folder)
        if not self.shards:
            raise StoreDamagedError(folder, f"{SHARDS_FILE} lists no shard")
        damaged = {s.file: what for s in self.shards if (what := shard_damage(folder, s))}
        if damaged:
            first, what = next(iter(damaged.items()))
            more = f"; so are {len(damaged) - 1} more" if len(damaged) > 1 else ""
            raise StoreDamagedError(
                folder, f"of its {counted(self.shards, 'shard')}, {first} is unsound: {what}{more}"
            )
        self.ends = np.cumsum([shard.n_rows for shard in self.shards])
        self._open: OrderedDict[int, h5py.File] = OrderedDict()
        self._checked: set[int] = set()
        # A shard is not closed while another thread reads it.
        self.reading = threading.Lock()

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the first shard, which are those of all."""
        return dict(self.shard(0).attrs)

    def __getitem__(self, name: str) -> "ShardedDataset":
        return ShardedDataset(self, name)

    def shard(self, number: int) -> h5py.File:
        """A shard, opened; whichever was not used for longest is closed if there are many."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        listed = self.shards[number]
        if number in self._checked:
            file = open_checked(self._folder / listed.file)
        else:
            file = open_listed(self._folder, self._key, listed)
            self._checked.add(number)
        if len(self._open) >= _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        self._open[number] = file
        return file

    @property
    def n_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.n_bytes for shard in self.shards)

    def close(self) -> None:
        """Close all files."""
        while self._open:
            with suppress(OSError):
                self._open.popitem()[1].close()


class ShardedDataset:
    """One dataset over all shards, for slices of rows.

    Parameters
    ----------
    file : ShardedFile
    name : str
    """

    def __init__(self, file: ShardedFile, name: str) -> None:
        self._file, self._name = file, name
        first = file.shard(0)[name]
        self._is_of_rows = name not in ("probe", "timing")
        self.shape: tuple[int, ...] = first.shape
        self.dtype: np.dtype[Any] = first.dtype
        if name == "ids":
            # As wide as the longest: rows that are picked one by one would be cut else.
            self.dtype = max(
                (file.shard(k)[name].dtype for k in range(len(file.shards))),
                key=lambda dtype: dtype.itemsize,
            )
        if self._is_of_rows:
            self.shape = (int(file.ends[-1]), *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        n_shards = len(self._file.shards)
        if self._name == "timing":
            return np.sum([self._file.shard(k)["timing"][:] for k in range(n_shards)], axis=0)[rows]
        if not self._is_of_rows:
            return self._file.shard(0)[self._name][rows]
        values = np.empty((len(range(len(self))[rows]), *self.shape[1:]), self.dtype)
        self.read_direct(values, rows)
        return values

    def read_direct(self, values: NDArray[Any], rows: slice) -> None:
        """Read a slice of rows into an array."""
        start, stop, _ = rows.indices(len(self))
        number = int(np.searchsorted(self._file.ends, start, side="right"))
        at = start
        while at < stop:
            end = int(self._file.ends[number])
            begin, until = end - self._file.shards[number].n_rows, min(stop, end)
            source, target = np.s_[at - begin : until - begin], np.s_[at - start : until - start]
            with self._file.reading:
                self._file.shard(number)[self._name].read_direct(values, source, target)
            number, at = number + 1, until


def _index_checksum(file: h5py.File) -> int:
    checksum = 0
    for name in _INDEX:
        checksum = zlib.crc32(file[name][:].tobytes(), checksum)
    return checksum
