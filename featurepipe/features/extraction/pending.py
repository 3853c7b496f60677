"""Which images of a manifest no finished shard has, with few of either in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featurepipe.manifest import ManifestRows


@dataclass(frozen=True)
class FinishedIds:
    """The images of a finished shard.

    Attributes
    ----------
    first_id, last_id : str
        The smallest and the largest of their ids.
    load : callable
        Gives all of them, sorted: ndarray of shape (n_rows,), bytes in UTF-8.
    """

    first_id: str
    last_id: str
    load: Callable[[], NDArray[np.bytes_]]


def pending_ids(
    rows: ManifestRows, finished: Iterable[FinishedIds]
) -> Iterator[tuple[NDArray[np.intp], pa.StringArray]]:
    """The images that are in none of the shards, by exact comparison of their ids.

    The ids of a shard are loaded once, and kept until the manifest is read beyond the last of
    them: with shards of consecutive images, those of few shards are in memory at a time.

    Parameters
    ----------
    rows : ManifestRows
    finished : iterable of FinishedIds
        In any order; they may overlap, and have images that the manifest lacks.

    Yields
    ------
    rows : ndarray of shape (n_pending,), intp
        Rows of the manifest, in ascending order over all that is yielded.
    ids : StringArray of length n_pending
    """
    ahead = sorted(finished, key=lambda shard: shard.first_id, reverse=True)
    loaded: list[_Loaded] = []
    for start, ids in rows.chunks():
        first, last = ids[0].as_py(), ids[-1].as_py()
        while ahead and ahead[-1].first_id <= last:
            shard = ahead.pop()
            if shard.last_id >= first:
                loaded.append(_Loaded(shard))
        known = [pa.array(shard.take(last.encode()), pa.binary()) for shard in loaded]
        loaded = [shard for shard in loaded if shard.has_more]
        done = pa.concat_arrays(known) if known else pa.array([], pa.binary())
        is_pending = pc.invert(pc.is_in(ids.cast(pa.binary()), done))
        yield start + np.flatnonzero(is_pending), ids.filter(is_pending)


class _Loaded:
    """The ids of a shard, taken from the front."""

    def __init__(self, shard: FinishedIds) -> None:
        self._ids = shard.load()
        self._n_taken = 0

    @property
    def has_more(self) -> bool:
        return self._n_taken < len(self._ids)

    def take(self, last: bytes) -> NDArray[np.bytes_]:
        """The next ones, up to one that may be among them."""
        before = self._n_taken
        self._n_taken = int(np.searchsorted(self._ids, np.bytes_(last), side="right"))
        return self._ids[before : self._n_taken]
