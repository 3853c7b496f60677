"""Rows that are much closer to each other than to their other neighbours."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from featurepipe.models.answers.arrays import Rows
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.studies.neighbour_search import (
    FEW_ROWS,
    N_SAMPLED_PAIRS,
    median_distance,
    nearest_others,
    pieces,
)
from featurepipe.models.studies.projections import N_AXES, Projections

# Measured by benchmarks/duplicates.py: absolute distances do not travel between sets of images.
_N_NEIGHBOURS = 5
_SHARE_OF_NEIGHBOURHOOD = 0.65
_SHARE_OF_MEDIAN = 0.1

RULE = (_N_NEIGHBOURS, _SHARE_OF_NEIGHBOURHOOD, _SHARE_OF_MEDIAN, N_SAMPLED_PAIRS)
"""What decides which rows are near-duplicates."""

BYTES_A_ROW = 250 + 4 * (N_AXES + 1)
"""Distances and positions of neighbours, twice, limits, and projections of a row."""

# Shares of the rows among which neighbours are searched for first, and the least number.
_SHARES, _LEAST_SAMPLED = (0.01, 0.1), 2000


class _Steps:
    """Counts steps, of which more are expected later."""

    def __init__(self, progress: Callable[[int, int], object] | None) -> None:
        self._progress, self._n_done, self._n_all = progress, 0, 0

    def expect(self, n: int) -> None:
        self._n_all += n

    def __call__(self) -> None:
        self._n_done += 1
        if self._progress is not None:
            self._progress(self._n_done, self._n_all)


def near_duplicates(
    rows: RowChunks, progress: Callable[[int, int], object] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find rows that are much closer to each other than to their other neighbours.

    Two rows are near-duplicates if one is among the 5 nearest of the other and their distance
    is below 0.65 of the distance to either's fifth neighbour, or below 0.1 of the median
    distance between rows. The latter finds more than 5 copies of an image.

    The search is exact. The fifth neighbour in a sample is no nearer than the fifth of all. Among
    more than 20,000 rows, only those are compared with all others that have another one within
    the limits which samples of 1 % and then 10 % allow; see
    `featurepipe.models.studies.projections`. Two chunks of rows are in memory at a time.

    Parameters
    ----------
    rows : RowChunks
        Features of distinct images, float32. Where chunks end decides only which of equally
        distant rows count as the nearest.
    progress : callable, optional
        Called with the number of pairs of chunks that are compared, and of all that are
        expected so far.

    Returns
    -------
    pairs : ndarray of shape (n_pairs, 2), intp
        Positions of the rows of each pair, ascending.
    distances : ndarray of shape (n_pairs,), float64, ascending
        As shares of the median distance between rows.
    """
    n_rows = len(rows.reader)
    n_neighbours = min(_N_NEIGHBOURS, n_rows - 1)
    if n_neighbours < 2:
        return np.empty((0, 2), dtype=np.intp), np.empty(0)
    median, steps = median_distance(rows), _Steps(progress)
    reach, asked = np.full(n_rows, np.inf), np.arange(n_rows)
    projections = None
    for sampled in _samples(rows) if median > 0 else ():
        projections = projections or Projections.of(rows, sampled, median)
        steps.expect(_n_pairs(rows, asked, sampled))
        reach[asked] = nearest_others(rows, asked, sampled, n_neighbours, steps)[0][:, -1]
        limits = np.maximum(_SHARE_OF_NEIGHBOURHOOD * reach, _SHARE_OF_MEDIAN * median)
        n_chunks = len(pieces(asked, rows.chunk_rows))
        steps.expect(n_chunks * (n_chunks + 1) // 2)
        asked = projections.with_partner(asked, limits, steps)
    everything = np.arange(n_rows)
    steps.expect(_n_pairs(rows, asked, everything))
    distances, neighbours = nearest_others(rows, asked, everything, n_neighbours, steps)
    reach[asked] = distances[:, -1]
    # Those that were not compared with all have no partner, whatever their reach is.
    limits = np.maximum(
        _SHARE_OF_NEIGHBOURHOOD * np.minimum(reach[asked, None], reach[neighbours]),
        _SHARE_OF_MEDIAN * median,
    )
    near, columns = np.nonzero(distances < limits)
    pairs = np.sort(np.column_stack([asked[near], neighbours[near, columns]]), axis=1)
    pairs, firsts = np.unique(pairs, axis=0, return_index=True)
    shares = distances[near, columns][firsts] / median
    order = np.argsort(shares, kind="stable")
    return pairs[order], shares[order]


def _samples(rows: RowChunks) -> Iterator[Rows]:
    """Random rows, the second time more; none of few rows."""
    n_rows, rng = len(rows.reader), np.random.default_rng(0)
    if n_rows > FEW_ROWS:
        for share in _SHARES:
            n_sampled = max(_LEAST_SAMPLED, round(share * n_rows))
            yield np.sort(rng.choice(n_rows, n_sampled, replace=False))


def _n_pairs(rows: RowChunks, asked: Rows, among: Rows) -> int:
    """Pairs of chunks."""
    return len(pieces(asked, rows.chunk_rows)) * len(pieces(among, rows.chunk_rows))
