"""Which shards an extraction makes, and which it looks at."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featurepipe.features.extraction.pending import FinishedIds, pending_ids
from featurepipe.features.extraction.shard_job import Runs, ShardTask
from featurepipe.features.extraction.sharded_store import ShardedStore, number_of
from featurepipe.manifest import ManifestRows
from featurepipe.sources import is_tar_pattern


def plan_tasks(
    stores: Sequence[ShardedStore], images: ManifestRows, n_per_shard: int
) -> list[ShardTask]:
    """The shards of images that no sound shard has, and after them those that are there.

    Of several tar files, each has shards of its own. Stores that lack the same images get their
    shards in one task, so that these are decoded once.

    Parameters
    ----------
    stores : sequence of ShardedStore
    images : ManifestRows
    n_per_shard : int
        Images of a new shard, at most.
    """
    new: dict[Runs, list[int]] = {}
    there: dict[tuple[int, str, str, int], dict[int, str]] = {}
    for place, store in enumerate(stores):
        for runs in _cut(store, images, n_per_shard):
            new.setdefault(runs, []).append(place)
        for shard in store.shards:
            alike = number_of(shard.file), shard.first_id, shard.last_id, shard.n_rows
            there.setdefault(alike, {})[place] = shard.file
    first = max(store.next_number for store in stores)
    tasks = [
        ShardTask(first + k, runs, dict.fromkeys(places), sum(end - begin for begin, end in runs))
        for k, (runs, places) in enumerate(new.items())
    ]
    return tasks + [
        ShardTask(number, (), dict(files), n_rows) for (number, *_, n_rows), files in there.items()
    ]


def _cut(store: ShardedStore, images: ManifestRows, n_per_shard: int) -> Iterator[Runs]:
    """Rows of the images that a store lacks, as many at a time as a shard has."""
    finished = [
        FinishedIds(shard.first_id, shard.last_id, partial(shard.read_ids, store.folder))
        for shard in store.shards
    ]
    by_tar, last_tar = is_tar_pattern(images.root), None
    lacking: list[NDArray[np.intp]] = []
    for rows, ids in pending_ids(images, finished):
        begins_tar = np.empty(0, np.intp)
        if by_tar and len(rows):
            tars = pc.list_element(pc.split_pattern(ids, "/", max_splits=1), 0)
            before = pa.concat_arrays([pa.array([last_tar], pa.string()), tars[:-1]])
            begins_tar = np.flatnonzero(pc.fill_null(pc.not_equal(tars, before), False))
            last_tar = tars[-1].as_py()
        first, *others = np.split(rows, begins_tar)
        lacking.append(_runs(first))
        for of_tar in others:
            yield from _divided(lacking, n_per_shard)
            lacking = [_runs(of_tar)]
    yield from _divided(lacking, n_per_shard)


def _runs(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Rows in ascending order as runs, each from a first to before a last.

    Returns
    -------
    ndarray of shape (n_runs, 2), intp
    """
    begins = np.diff(rows, prepend=-2) != 1
    ends = np.diff(rows, append=-2) != 1
    return np.stack([rows[begins], rows[ends] + 1], axis=1)


def _divided(lacking: Sequence[NDArray[np.intp]], n_per_shard: int) -> Iterator[Runs]:
    """Runs of rows in parts of equal size."""
    n_rows = sum(int(np.diff(runs).sum()) for runs in lacking)
    n_shards = -(-n_rows // n_per_shard)
    n_left = [n_rows // n_shards + (k < n_rows % n_shards) for k in range(n_shards)]
    n_left.reverse()
    part: list[tuple[int, int]] = []
    for begin, end in chain.from_iterable(runs.tolist() for runs in lacking):
        while begin < end:
            stop = min(end, begin + n_left[-1])
            # A run may go on in the next group of the manifest.
            first = part.pop()[0] if part and part[-1][1] == begin else begin
            part.append((first, stop))
            n_left[-1] -= stop - begin
            begin = stop
            if not n_left[-1]:
                yield tuple(part)
                part = []
                n_left.pop()
