"""File metadata from fsspec's file systems."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from featurepipe.sources.protocol import UNKNOWN

# Times come first; `created` comes last, since some file systems keep it when the bytes change.
_CHANGE_FIELDS = (
    "mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified",
    "ETag", "etag", "checksum", "md5Hash", "content_hash", "sha", "uid", "created",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a listing.

    Attributes
    ----------
    size : int or None
        In bytes; None if unknown.
    mtime : int
        Modification time in ns since 1970, or another number that changes with the
        bytes; `UNKNOWN` if the file system has neither.
    """

    size: int | None = None
    mtime: int = UNKNOWN

    @property
    def stamp(self) -> tuple[int, int]:
        """Size and time; both `UNKNOWN` unless both are known."""
        if self.size is None or self.mtime == UNKNOWN:
            return UNKNOWN, UNKNOWN
        return self.size, self.mtime


def entry_of(metadata: Mapping[str, Any]) -> Entry:
    """Size and time of a file from fsspec's metadata.

    Parameters
    ----------
    metadata : mapping of str to Any
        As returned by fsspec's ``info`` and ``find``.
    """
    size = metadata.get("size")
    values = (metadata[name] for name in _CHANGE_FIELDS if metadata.get(name))
    return Entry(
        size=int(size) if isinstance(size, int | float) else None,
        mtime=next(map(_number, values), UNKNOWN),
    )


def _number(value: Any) -> int:
    """A time in ns, or 63 bits that change with any other value."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1e9)
    if isinstance(value, int | float):
        return int(value * 1e9)
    digest = hashlib.sha256(str(value).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
