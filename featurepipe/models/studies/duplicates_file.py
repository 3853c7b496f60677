"""The file that remembers near-duplicates, so that the same images are compared only once."""

import hashlib
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.array_archives import MAX_BYTES, load_arrays, require_array
from featurepipe.files import replacing, require_readable
from featurepipe.words import one_line

logger = logging.getLogger(__name__)

Found = tuple[NDArray[np.intp], NDArray[np.float64]]
"""Pairs of positions, and their distances; see `near_duplicates.near_duplicates`."""


def write_duplicates(
    path: Path, compared: str, pairs: NDArray[np.intp], distances: NDArray[np.float64]
) -> None:
    """Remember near-duplicates, completely or not at all.

    Parameters
    ----------
    path : Path
    compared : str
        Digest of all that decides them.
    pairs : ndarray of shape (n_pairs, 2), intp
    distances : ndarray of shape (n_pairs,), float64
    """
    arrays = {
        "compared": np.array(compared),
        "pairs": pairs.astype(np.int64),
        "distances": distances,
        "sha256": np.array(_sha256(compared, pairs, distances)),
    }
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_duplicates(path: Path, compared: str, n_images: int) -> Found | None:
    """Near-duplicates as `write_duplicates` wrote them.

    Parameters
    ----------
    path : Path
    compared : str
        Digest of all that decides them.
    n_images : int
        Images that were compared.

    Returns
    -------
    tuple of (pairs, distances) or None
        None if there is no file, or it is about others. A damaged or edited file is reported,
        and is not used either.
    """
    try:
        require_readable(path, MAX_BYTES)
        arrays = load_arrays(path)
        if str(require_array(arrays, "compared", "U")) != compared:
            return None
        pairs = require_array(arrays, "pairs", "i", None, 2).astype(np.intp)
        distances = arrays["distances"]
        if (distances.dtype, distances.shape) != (np.dtype(np.float64), (len(pairs),)):
            raise ValueError(f"distances is {distances.dtype} of shape {distances.shape}")
        if not ((pairs >= 0) & (pairs < n_images)).all():
            raise ValueError("pairs has positions without an image")
        if str(require_array(arrays, "sha256", "U")) != _sha256(compared, pairs, distances):
            raise ValueError("it does not match the SHA-256 in it")
    except FileNotFoundError:
        return None
    # What a damaged or forged archive raises depends on what is wrong with it.
    except Exception as error:
        logger.warning(
            "Searching for near-duplicates again: %s, which remembers them, cannot be used (%s).",
            path,
            one_line(error),
        )
        return None
    return pairs, distances


def _sha256(compared: str, pairs: NDArray[np.intp], distances: NDArray[np.float64]) -> str:
    digest = hashlib.sha256(compared.encode())
    digest.update(pairs.astype("<i8").tobytes())
    digest.update(distances.astype("<f8").tobytes())
    return digest.hexdigest()
