"""Exact search for the nearest rows, among more rows than fit in memory."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from featurepipe.models.answers.arrays import Features, Rows
from featurepipe.models.answers.row_chunks import RowChunks

N_SAMPLED_PAIRS = 2000
"""Pairs of rows whose distances `median_distance` takes."""

FEW_ROWS = 20_000
"""Up to so many rows, nothing takes less time than to compare all with all."""

# Distances are computed for so many queries at once that they take at most this memory.
_BLOCK_BYTES = 2**25
# Squared distances of features of length 1 that only rounding to float32 makes.
_SQUARED_NOISE = 1e-12

Nearest = tuple[NDArray[np.intp], NDArray[np.float64]]


def nearest_rows(queries: Features, chunks: Iterable[Features], n: int) -> Nearest:
    """Find the nearest rows of each query; Euclidean, every row is compared.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, n_features)
        Features scaled to length 1.
    chunks : iterable of ndarray of shape (n_rows_of_chunk, n_features)
        The rows to search, scaled alike, a chunk at a time; only one is held.
    n : int
        Most neighbours to find.

    Returns
    -------
    rows : ndarray of shape (n_queries, min(n, n_rows)), intp
        Positions in all chunks together; the nearest first, and the first row at a tie.
    distances : ndarray of the same shape, float64
        In [0, 2]; distances that only rounding makes are 0.
    """
    exact = queries.astype(np.float64)
    best = (np.empty((len(queries), 0), np.intp), np.empty((len(queries), 0)))
    n_before = 0
    for chunk in chunks:
        rows = chunk.astype(np.float64)
        size = max(1, _BLOCK_BYTES // (8 * max(1, len(rows))))
        blocks = [
            _merged(
                (best[0][start : start + size], best[1][start : start + size]),
                _squared_distances(exact[start : start + size], rows),
                n_before,
                n,
            )
            for start in range(0, len(exact), size)
        ]
        if blocks:
            best = (np.vstack([rows for rows, _ in blocks]), np.vstack([of for _, of in blocks]))
        n_before += len(rows)
    return best[0], np.sqrt(best[1])


def nearest_others(
    rows: RowChunks, asked: Rows, among: Rows, n: int, step: Callable[[], object] = lambda: None
) -> tuple[NDArray[np.float64], Rows]:
    """Find the nearest other rows of some rows, among some rows; Euclidean, all are compared.

    Parameters
    ----------
    rows : RowChunks
        Two chunks are in memory at a time.
    asked, among : ndarray of intp
        Positions of rows, ascending.
    n : int
        Number of neighbours; fewer than `among`.
    step : callable, optional
        Called when a chunk was compared with another.

    Returns
    -------
    distances : ndarray of shape (n_asked, n), float64
        Ascending.
    neighbours : ndarray of shape (n_asked, n), intp
        Positions.
    """
    distances = np.empty((len(asked), n))
    neighbours = np.empty((len(asked), n), np.intp)
    others = pieces(among, rows.chunk_rows)
    for places in pieces(np.arange(len(asked)), rows.chunk_rows):
        chunk, found = asked[places], []
        X = rows.reader.read(chunk)
        for other in others:
            Y = X if np.array_equal(chunk, other) else rows.reader.read(other)
            # A row may find itself.
            nearest = NearestNeighbors(n_neighbors=min(n + 1, len(Y)), algorithm="brute").fit(Y)
            far, where = nearest.kneighbors(X)
            found.append((far, other[where]))
            step()
        far, where = (np.hstack(parts) for parts in zip(*found, strict=True))
        far[where == chunk[:, None]] = np.inf
        order = np.argsort(far, axis=1, kind="stable")[:, :n]
        distances[places] = np.take_along_axis(far, order, axis=1)
        neighbours[places] = np.take_along_axis(where, order, axis=1)
    return distances, neighbours


def pieces(rows: Rows, size: int) -> list[Rows]:
    """Rows in pieces of at most so many, about equally many.

    Examples
    --------
    >>> pieces(np.arange(5), 2)
    [array([0, 1]), array([2, 3]), array([4])]
    """
    return np.array_split(rows, -(-len(rows) // size)) if len(rows) else []


def median_distance(rows: RowChunks) -> float:
    """Median distance of random pairs of rows; the same rows give the same figure.

    Parameters
    ----------
    rows : RowChunks
        At least two rows.
    """
    n_rows, rng = len(rows.reader), np.random.default_rng(0)
    first = rng.integers(0, n_rows, N_SAMPLED_PAIRS)
    second = (first + rng.integers(1, n_rows, N_SAMPLED_PAIRS)) % n_rows
    n_pieces = -(-N_SAMPLED_PAIRS // rows.chunk_rows)
    pieces = zip(np.array_split(first, n_pieces), np.array_split(second, n_pieces), strict=True)
    distances = [
        np.linalg.norm(rows.reader.read(one) - rows.reader.read(other), axis=1)
        for one, other in pieces
    ]
    return float(np.median(np.concatenate(distances)))


def _squared_distances(
    queries: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    squares = [np.einsum("ij,ij->i", X, X) for X in (queries, rows)]
    squared = squares[0][:, None] + squares[1] - 2 * (queries @ rows.T)
    squared[squared < _SQUARED_NOISE] = 0
    return squared


def _merged(best: Nearest, squared: NDArray[np.float64], n_before: int, n: int) -> Nearest:
    """The nearest of those found so far and of a chunk; squared distances."""
    found = _smallest(squared, n)
    rows = np.hstack([best[0], found + n_before])
    distances = np.hstack([best[1], np.take_along_axis(squared, found, axis=1)])
    order = np.argsort(distances, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(distances, order, axis=1)


def _smallest(squared: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Columns of the n smallest numbers of each row, ascending; at a tie the first."""
    if n >= squared.shape[1]:
        return np.broadcast_to(np.arange(squared.shape[1]), squared.shape)
    columns = np.argpartition(squared, n - 1, axis=1)[:, :n]
    limits = np.take_along_axis(squared, columns[:, -1:], axis=1)
    # A partition takes any of equal numbers.
    tied = (squared <= limits).sum(axis=1) > n
    columns[tied] = np.argsort(squared[tied], axis=1, kind="stable")[:, :n]
    return np.sort(columns, axis=1)
