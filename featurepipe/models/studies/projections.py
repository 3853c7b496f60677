"""Which rows may be close to each other, without comparing all features of all rows.

Projections of rows onto some axes are never farther apart than the rows. So rows need not be
compared if their projections are too far apart, and no close pair is missed (Faloutsos et al.,
1994).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import euclidean_distances
from sklearn.utils.extmath import randomized_svd

from featurepipe.models.answers.arrays import Features, Rows
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.studies.neighbour_search import pieces

N_AXES = 128
"""Most axes that rows are projected onto."""

# Projections that are compared at a time, with how many others, and pairs of rows.
_BLOCK, _OTHERS, _PAIRS = 1024, 8192, 2048
# If projections of more pairs are close, comparing all rows of a block takes less time.
_MANY = 1 / 64
# Room for the rounding of float32, as a share of distances, and of squared lengths.
_ROOM = 1e-5


@dataclass(frozen=True)
class Projections:
    """Rows, and their projections.

    Attributes
    ----------
    rows : RowChunks
    projected : ndarray of shape (n_rows, n_axes + 1), float32
        Projections onto the principal axes of a sample, and the distance of each row from its
        projection, in units.
    unit : float
        Median distance of the rows.
    """

    rows: RowChunks
    projected: NDArray[np.float32]
    unit: float

    @classmethod
    def of(cls, rows: RowChunks, sampled: Rows, unit: float) -> "Projections":
        """Project rows.

        Parameters
        ----------
        rows : RowChunks
            Float32.
        sampled : ndarray of shape (n_sampled,), intp
            Rows whose principal axes are taken; of more than a chunk, some.
        unit : float
            Median distance of the rows, above 0.
        """
        sample = rows.reader.read(sampled[:: -(-len(sampled) // rows.chunk_rows)])
        mean = sample.mean(axis=0)
        n_axes = min(N_AXES, *sample.shape)
        axes = randomized_svd((sample - mean) / unit, n_axes, random_state=0)[2].T
        projected = np.empty((len(rows.reader), n_axes + 1), np.float32)
        for chunk in pieces(np.arange(len(projected)), rows.chunk_rows):
            X = rows.reader.read(chunk)
            for part in pieces(np.arange(len(chunk)), _OTHERS):
                centred = (X[part] - mean) / unit
                along = centred @ axes
                beside = np.square(centred).sum(axis=1) - np.square(along).sum(axis=1)
                projected[chunk[part], :-1] = along
                projected[chunk[part], -1] = np.sqrt(np.maximum(beside, 0))
        return cls(rows, projected, unit)

    def with_partner(
        self, among: Rows, limits: NDArray[np.float64], step: Callable[[], object]
    ) -> Rows:
        """Those of some rows that are closer to another of them than the limits of both.

        Parameters
        ----------
        among : ndarray of shape (n_among,), intp
            Ascending positions.
        limits : ndarray of shape (n_rows,), float64
        step : callable
            Called after each pair of chunks; one of two chunks comes first.

        Returns
        -------
        ndarray of shape (n_found,), intp
            Ascending positions.
        """
        found = np.zeros(len(limits), bool)
        chunks = pieces(among, self.rows.chunk_rows)
        for number, chunk in enumerate(chunks):
            X = self.rows.reader.read(chunk)
            for other in chunks[: number + 1]:
                Y = X if other is chunk else self.rows.reader.read(other)
                for first, second in self._close(chunk, X, other, Y, limits):
                    found[first] = found[second] = True
                step()
        return np.flatnonzero(found)

    def _close(
        self, rows: Rows, X: Features, others: Rows, Y: Features, limits: NDArray[np.float64]
    ) -> Iterator[tuple[Rows, Rows]]:
        """Pairs of a row and an earlier one that are closer than both limits, block by block."""
        for block in pieces(np.arange(len(rows)), _BLOCK):
            earlier = np.arange(np.searchsorted(others, rows[block[-1]]))
            for part in pieces(earlier, _OTHERS):
                maybe = self._may_be_close(rows[block], others[part], limits[rows[block]])
                if len(maybe[0]) > _MANY * len(block) * len(part):
                    between = euclidean_distances(X[block], Y[part])
                    near = between < limits[rows[block], None] * (1 + _ROOM)
                    maybe = np.divmod(np.flatnonzero(near), len(part))
                first, second = block[maybe[0]], part[maybe[1]]
                limit = np.minimum(limits[rows[first]], limits[others[second]])
                is_earlier = others[second] < rows[first]
                kept = is_earlier & (_distances(X, first, Y, second) < limit)
                yield rows[first[kept]], others[second[kept]]

    def _may_be_close(
        self, rows: Rows, others: Rows, limits: NDArray[np.float64]
    ) -> tuple[Rows, Rows]:
        """Places of pairs whose projections are closer than the limit of the first."""
        A, B = self.projected[rows], self.projected[others]
        of_a, of_b = ((1 - _ROOM) * np.square(P).sum(axis=1, keepdims=True) for P in (A, B))
        allowed = np.square(limits[:, None] * (1 + _ROOM) / self.unit)
        # Half of limit^2 - |a - b|^2, which is limit^2 - |a|^2 - |b|^2 + 2 ab.
        left = np.hstack([A, (allowed - of_a) / 2, np.ones_like(of_a)]).astype(np.float32)
        right = np.hstack([B, np.ones_like(of_b), -of_b / 2])
        return np.divmod(np.flatnonzero(left @ right.T > 0), len(B))


def _distances(X: Features, first: Rows, Y: Features, second: Rows) -> NDArray[np.floating]:
    distances = np.empty(len(first), np.float32)
    for pairs in pieces(np.arange(len(first)), _PAIRS):
        distances[pairs] = np.linalg.norm(X[first[pairs]] - Y[second[pairs]], axis=1)
    return distances
