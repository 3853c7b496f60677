"""Images in tar files, read in place: nothing is unpacked."""

import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FeaturepipeError, ManifestError, SourceError
from featurepipe.sources.patience import said
from featurepipe.sources.places import is_compressed
from featurepipe.sources.protocol import UNKNOWN, ImageSource, refuse_large
from featurepipe.sources.ranges import RangeFile

MAX_TEXT_BYTES = 2**16
"""Longer label files are ignored."""

MAX_TEXTS_BYTES = 2**30
"""Limit for the label files of all archives together."""

# A header takes 512 bytes, and more with a long name.
_MAX_HEADER_BYTES = 2**17
_BLOCK = tarfile.BLOCKSIZE

_COMPRESSORS = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"(\xb5/\xfd": "unzstd",
}
_ADVICE = "images in a compressed archive cannot be read one by one. Decompress it first ({})."


@dataclass(frozen=True, slots=True)
class _Member:
    file: RangeFile
    start: int
    n_bytes: int


class TarArchive(ImageSource):
    """Images as members of one or several uncompressed tar files.

    Parameters
    ----------
    files : mapping of str to RangeFile
        Tar files by the prefix of their ids: ``""`` for a single file,
        ``"shard-0000.tar/"`` for one of several.
    texts : tuple of str
        Suffixes of members to keep in `texts`.

    Attributes
    ----------
    names : list of str
        All regular files of the archives, images or not.
    texts : dict of str to bytes
        Small members with these suffixes, by name.
    left_out : dict of str to list of str
        Names of ignored members, by reason.

    Raises
    ------
    ManifestError
        If one is damaged, truncated, compressed or not a tar file.
    SourceError
        If one cannot be reached.
    """

    def __init__(self, files: Mapping[str, RangeFile], texts: tuple[str, ...] = ()) -> None:
        self.texts: dict[str, bytes] = {}
        self.left_out: dict[str, list[str]] = {}
        self._members: dict[str, _Member] = {}
        self._n_text_bytes = 0
        self.n_readers = max((file.n_readers for file in files.values()), default=1)
        for prefix, file in files.items():
            self._add(prefix, file, texts)

    @property
    def names(self) -> list[str]:
        """All regular files of the archives, images or not."""
        return list(self._members)

    def stamps(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Sizes of members and modification times of their archives; see `ImageSource`."""
        return np.array([self._stamp(image_id) for image_id in ids], np.int64).reshape(-1, 2)

    def read(self, image_id: str) -> bytes:
        """The bytes of an image; see `ImageSource`."""
        member = self._members.get(image_id)
        if member is None:
            raise FileNotFoundError("not in the archive")
        refuse_large(member.n_bytes)
        return member.file.read(member.start, member.n_bytes)

    def _stamp(self, image_id: str) -> tuple[int, int]:
        member = self._members.get(image_id)
        if member is None or member.file.mtime == UNKNOWN:
            return UNKNOWN, UNKNOWN
        return member.n_bytes, member.file.mtime

    def _add(self, prefix: str, file: RangeFile, texts: tuple[str, ...]) -> None:
        reader = _Reader(file)
        try:
            _refuse_compressed(reader)
            for info in _headers(reader):
                self._add_member(prefix, info, reader)
                if info.name.lower().endswith(texts or ("\0",)):
                    self._keep_text(prefix + posixpath.normpath(info.name), info, reader)
        except FeaturepipeError:
            raise
        except OSError as error:
            raise SourceError(
                f"Cannot read {file.place} ({said(error)}). Check the connection or the disk and "
                "try again, or download the file first."
            ) from error
        except Exception as error:
            # Malformed bytes make tarfile raise nearly any exception.
            raise ManifestError(
                f"{file.place} is not a valid tar file ({said(error)}). Expected a complete, "
                "uncompressed tar file."
            ) from error

    def _add_member(self, prefix: str, info: tarfile.TarInfo, reader: "_Reader") -> None:
        reason = _why_not(info)
        if reason:
            self.left_out.setdefault(reason, []).append(prefix + info.name)
            return
        # As in tar, the last member of a name replaces earlier ones.
        name = prefix + posixpath.normpath(info.name)
        self._members[name] = _Member(reader.file, info.offset_data, info.size)

    def _keep_text(self, name: str, info: tarfile.TarInfo, reader: "_Reader") -> None:
        if name not in self._members:
            return
        if info.size > MAX_TEXT_BYTES:
            self.left_out.setdefault(f"larger than {MAX_TEXT_BYTES} bytes", []).append(name)
            return
        self._n_text_bytes += info.size
        if self._n_text_bytes > MAX_TEXTS_BYTES:
            raise ManifestError(
                f"The label files in {reader.file.place} exceed {MAX_TEXTS_BYTES} bytes. Remove "
                "them from the archive, and pass the labels with --labels TABLE."
            )
        reader.n_left = MAX_TEXT_BYTES
        reader.seek(info.offset_data)
        self.texts[name] = reader.read(info.size)


def _why_not(info: tarfile.TarInfo) -> str:
    """Why a member is ignored; empty if it is read."""
    if info.issym() or info.islnk():
        return "a link"
    if not info.isreg():
        return "not a regular file"
    if info.issparse():
        return "a sparse file"
    if info.name.startswith("/") or ".." in info.name.split("/") or "\0" in info.name:
        return "its name points outside the archive"
    return ""


def _headers(reader: "_Reader") -> Iterator[tarfile.TarInfo]:
    """The members of a tar file, without folders."""
    with tarfile.open(fileobj=cast(IO[bytes], reader), mode="r:") as archive:
        end = 0
        while info := archive.next():
            # The archive would keep all of them in memory.
            archive.members.clear()  # type: ignore[attr-defined]
            if info.offset < end or info.size < 0:
                raise tarfile.ReadError(f"{info.name!r} overlaps another member")
            end = info.offset_data + info.size
            if end > reader.file.n_bytes:
                raise tarfile.ReadError(f"{info.name!r} extends past the end")
            if not info.isdir():
                yield info
            reader.n_left = _MAX_HEADER_BYTES
        reader.n_left = _BLOCK
        reader.seek(archive.offset)
        # tarfile treats a damaged header as the end.
        if reader.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError(f"damaged or truncated at byte {archive.offset}")


def _refuse_compressed(reader: "_Reader") -> None:
    start = reader.read(8)
    reader.seek(0)
    for signature, command in _COMPRESSORS.items():
        if start.startswith(signature):
            raise ManifestError(f"{reader.file.place} is compressed: {_ADVICE.format(command)}")


def refuse_compressed(place: str) -> None:
    """Refuse names of compressed tar files.

    Parameters
    ----------
    place : str

    Raises
    ------
    ManifestError
        If the name is one.
    """
    if is_compressed(place):
        raise ManifestError(f"{place} is compressed: {_ADVICE.format('gunzip, bunzip2 or unxz')}")


class _Reader:
    """Sequential reading in blocks, with a limit for each header."""

    def __init__(self, file: RangeFile) -> None:
        self.file = file
        self.n_left = _MAX_HEADER_BYTES
        self._position = 0
        self._start, self._block = 0, b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, n_bytes: int) -> bytes:
        self.n_left -= n_bytes
        if n_bytes < 0 or self.n_left < 0:
            raise tarfile.ReadError("endless header")
        parts = []
        while n_bytes > 0 and self._position < self.file.n_bytes:
            offset = self._offset_in_block()
            parts.append(self._block[offset : offset + n_bytes])
            self._position += len(parts[-1])
            n_bytes -= len(parts[-1])
        return b"".join(parts)

    def _offset_in_block(self) -> int:
        """Offset of the position in the current block; reads the next block if needed."""
        offset = self._position - self._start
        if 0 <= offset < len(self._block):
            return offset
        n_bytes = min(self.file.block_bytes, self.file.n_bytes - self._position)
        self._block = self.file.read(self._position, n_bytes)
        self._start = self._position
        return 0
