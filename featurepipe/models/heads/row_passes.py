"""Passes over rows that memory does not hold, chunk by chunk.

A chunk consists of short runs of consecutive rows, drawn at random from all rows, since features
may lie class by class in their file (CorgiPile: Xu et al. 2022, Stochastic gradient descent
without full data shuffle).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from featurepipe.models.answers.arrays import Features, Rows
from featurepipe.models.answers.row_chunks import RowReader

# Consecutive rows are faster to read: 128 KB of 2,048 features.
_RUN = 16
# Steps of each member. With 5 to 30 passes the objective ended at most 3 % above that of 30
# passes in memory, on 12,000 and 40,000 drawn rows of 10 and 20 classes.
_STEPS, _BATCH, _SHARE_DRAWN = 3000, 64, 0.39
_FEWEST_PASSES, _MOST_PASSES = 5, 30


def choose_passes(n_rows: int) -> int:
    """Number of passes that make about 3,000 steps of a member: 5 to 30.

    Examples
    --------
    >>> choose_passes(2_000), choose_passes(60_000), choose_passes(1_000_000)
    (30, 9, 5)
    """
    wanted = -(-_STEPS * _BATCH // (_SHARE_DRAWN * n_rows))
    return int(min(max(wanted, _FEWEST_PASSES), _MOST_PASSES))


def draw_chunks(n_rows: int, chunk_rows: int, seed: int) -> list[Rows]:
    """Divide rows at random into chunks of about equal size.

    Parameters
    ----------
    n_rows : int
    chunk_rows : int
        Most rows of a chunk.
    seed : int

    Returns
    -------
    list of ndarray of intp
        Ascending positions of the rows of each chunk.
    """
    runs = np.random.default_rng(seed).permutation(-(-n_rows // _RUN))
    rows = (runs[:, None] * _RUN + np.arange(_RUN)).ravel()
    rows = rows[rows < n_rows]
    return [np.sort(chunk) for chunk in np.array_split(rows, -(-n_rows // chunk_rows))]


@dataclass
class RowPasses:
    """Reads all chunks, in as many passes as it is iterated over.

    Attributes
    ----------
    reader : RowReader
    chunks : list of ndarray of intp
        The rows of each chunk.
    n_passes : int
        Number of passes that there will be, as far as is known.
    progress : callable or None
        Called with the number of chunks read and of all chunks in all passes.
    reads_ahead : bool
        Whether a thread reads the next chunk meanwhile.
    n_done : int
        Number of chunks read.
    """

    reader: RowReader
    chunks: list[Rows]
    n_passes: int
    progress: Callable[[int, int], object] | None
    reads_ahead: bool = False
    n_done: int = 0

    def __iter__(self) -> Iterator[tuple[Features, Rows]]:
        for X, rows in self._read():
            yield X, rows
            self.n_done += 1
            if self.progress is not None:
                self.progress(self.n_done, self.n_passes * len(self.chunks))

    def _read(self) -> Iterator[tuple[Features, Rows]]:
        if not self.reads_ahead:
            yield from ((self.reader.read(rows), rows) for rows in self.chunks)
            return
        with ThreadPoolExecutor(max_workers=1) as reading:
            following = reading.submit(self.reader.read, self.chunks[0])
            for rows, later in zip_longest(self.chunks, self.chunks[1:]):
                X = following.result()
                if later is not None:
                    following = reading.submit(self.reader.read, later)
                yield X, rows

    def expect(self, n_passes: int) -> None:
        """Say that at least so many passes are to come; 1: exactly one.

        Parameters
        ----------
        n_passes : int
        """
        expected = self.n_done // len(self.chunks) + n_passes
        self.n_passes = expected if n_passes == 1 else max(expected, self.n_passes)
