"""Which shards an extraction makes, and which it looks at."""

from collections.abc import Iterator, Sequence
from functools import partial

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
        for rows in _cut(store, images, n_per_shard):
            new.setdefault(_runs(rows), []).append(place)
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


def _cut(store: ShardedStore, images: ManifestRows, n_per_shard: int) -> Iterator[NDArray[np.intp]]:
    """Rows of the images that a store lacks, as many at a time as a shard has."""
    finished = [
        FinishedIds(shard.first_id, shard.last_id, partial(shard.read_ids, store.folder))
        for shard in store.shards
    ]
    rows, begins_tar, last_tar = [np.empty(0, np.intp)], [np.empty(0, bool)], None
    by_tar = is_tar_pattern(images.root)
    for pending, ids in pending_ids(images, finished):
        is_other = np.zeros(len(pending), bool)
        if by_tar and len(pending):
            tars = pc.list_element(pc.split_pattern(ids, "/", max_splits=1), 0)
            before = pa.concat_arrays([pa.array([last_tar], pa.string()), tars[:-1]])
            is_other = np.asarray(pc.fill_null(pc.not_equal(tars, before), False))
            last_tar = tars[-1].as_py()
        rows.append(pending)
        begins_tar.append(is_other)
    for part in np.split(np.concatenate(rows), np.flatnonzero(np.concatenate(begins_tar))):
        if len(part):
            yield from np.array_split(part, -(-len(part) // n_per_shard))


def _runs(rows: NDArray[np.intp]) -> Runs:
    """Rows in ascending order as runs, each from a first to before a last."""
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    ends = np.append(starts[1:], len(rows)) - 1
    return tuple((int(rows[a]), int(rows[b]) + 1) for a, b in zip(starts, ends, strict=True))
