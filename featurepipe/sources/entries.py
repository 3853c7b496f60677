"""What fsspec's file systems tell of a file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from featurepipe.sources.protocol import UNKNOWN

# A time first; `created` last, since not every file system changes it with the bytes.
_TELL_CHANGES = (
    "mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified",
    "ETag", "etag", "checksum", "md5Hash", "content_hash", "sha", "uid", "created",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A file of a listing.

    Attributes
    ----------
    size : int or None
        In bytes; None if it is not told.
    mtime : int
        Modification time in ns since 1970, or another number that changes with the
        bytes; `UNKNOWN` if nothing of the kind is told.
    """

    size: int | None = None
    mtime: int = UNKNOWN

    @property
    def stamp(self) -> tuple[int, int]:
        """Size and time; both `UNKNOWN` unless both are known."""
        if self.size is None or self.mtime == UNKNOWN:
            return UNKNOWN, UNKNOWN
        return self.size, self.mtime


def entry_of(told: Mapping[str, Any]) -> Entry:
    """What a file system told of a file.

    Parameters
    ----------
    told : mapping of str to Any
        As ``info`` and ``find`` of fsspec return it.
    """
    size = told.get("size")
    values = (told[name] for name in _TELL_CHANGES if told.get(name))
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
