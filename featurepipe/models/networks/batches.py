"""Batches of one epoch: which images, in which order, and which of them are partners."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.features.engines.quiet_keras import backend, keras
from featurepipe.models.networks.network import PARTNER, SAME
from featurepipe.models.networks.outputs import Output, Targets

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Batch:
    """Some images that are trained on at once.

    Attributes
    ----------
    rows : ndarray of shape (n,), intp
        Which images.
    partners : ndarray of shape (n,), int32 or None
        For each the position in the batch of the image that it is compared with.
    """

    rows: Rows
    partners: NDArray[np.int32] | None = None


def plan_batches(n_rows: int, batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """All images once, in random order.

    Parameters
    ----------
    n_rows : int
    batch_size : int
        At most. Batches differ by one image at most: none is so small that its statistics,
        or its step, would be of a few images alone.
    rng : numpy.random.Generator
    """
    return [Batch(rows) for rows in _parted(rng.permutation(n_rows), batch_size)]


def plan_pairs(
    kinds: Rows, batch_size: int, positive_share: float, rng: np.random.Generator
) -> list[Batch]:
    """All images once, each with a partner in its batch.

    Images of one kind lie side by side two by two, so that each batch has some that show the
    same, however many kinds there are.

    Parameters
    ----------
    kinds : ndarray of shape (n_rows,), intp
        Images of one number show the same; of -1 it is not known.
    batch_size : int
        As in `plan_batches`.
    positive_share : float
        Share of images whose partner shall be of their kind, as far as a batch has such.
    rng : numpy.random.Generator
    """
    order = _two_by_two(kinds, rng)
    return [
        Batch(rows, _draw_partners(kinds[rows], positive_share, rng))
        for rows in _parted(order, batch_size)
    ]


def require_pairs(kinds: Rows, batch_size: int) -> None:
    """Stop unless pairs of both kinds can be made.

    Raises
    ------
    FitError
        If batches or images are too few, all images are alike, or none is like another.
    """
    _, counts = np.unique(kinds[kinds >= 0], return_counts=True)
    if min(batch_size, len(kinds)) >= 4 and len(counts) >= 2 and counts.max() >= 2:
        return
    raise FitError(
        f"Too few images for a batch of pairs: {len(kinds)} images of {len(counts)} kinds, at most "
        f"{counts.max(initial=0)} of one kind, in batches of {batch_size}. Expected batches of 4, "
        "images of 2 kinds, and 2 of one kind; add images, or train with --network finetune."
    )


def _parted(order: Rows, batch_size: int) -> list[Rows]:
    return np.array_split(order, -(-len(order) // batch_size))


def _two_by_two(kinds: Rows, rng: np.random.Generator) -> Rows:
    couples: list[Rows] = []
    for kind in np.unique(kinds):
        rows = rng.permutation(np.flatnonzero(kinds == kind))
        couples += np.array_split(rows, -(-len(rows) // 2))
    return np.concatenate([couples[place] for place in rng.permutation(len(couples))])


def _draw_partners(
    kinds: Rows, positive_share: float, rng: np.random.Generator
) -> NDArray[np.int32]:
    n = len(kinds)
    known = kinds >= 0
    same = (kinds[:, None] == kinds) & ~np.eye(n, dtype=bool) & known[:, None]
    other = (kinds[:, None] != kinds) & known[:, None] & known
    # Those that have no partner of the wanted sort take what there is.
    able = rng.permutation(np.flatnonzero(same.any(axis=1)))
    positive = np.zeros(n, dtype=bool)
    positive[able[: round(positive_share * n)]] = True
    positive |= ~other.any(axis=1)
    partners = np.empty(n, dtype=np.int32)
    for place in range(n):
        wanted = same[place] if positive[place] else other[place]
        choices = np.flatnonzero(wanted)
        partners[place] = rng.choice(choices) if len(choices) else (place + 1) % n
    return partners


class Batches(keras.utils.PyDataset):
    """What Keras is given of one epoch's batches.

    Parameters
    ----------
    batches : sequence of Batch
    read : callable
        Rows to pixels of shape (n, height, width, 3), uint8, or to features.
    outputs : sequence of Output
    targets : Targets

    Attributes
    ----------
    error : Exception or None
        What a batch could not be read for.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        read: Callable[[Rows], NDArray[Any]],
        outputs: Sequence[Output],
        targets: Targets,
    ) -> None:
        # With one worker Keras has tf.data read ahead, which tunes itself; the end of an epoch
        # waits for its tuner, which looks up ever more seldom: up to as long as the epoch took.
        # With two Keras reads ahead itself, but on JAX and PyTorch the first epoch of a graph then
        # sees some batches twice and others never (keras 3.15).
        workers = 2 if backend() == "tensorflow" else 1
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=8)
        self._batches, self._read = batches, read
        self._outputs, self._targets = outputs, targets
        self.error: Exception | None = None

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Inputs, truth and weights of one batch, the latter two by the graph's outputs."""
        batch = self._batches[index]
        try:
            seen = self._read(batch.rows)
        except Exception as error:
            self.error = error
            raise
        about = self._targets.take(batch.rows)
        truth = {each.layer: about.truth[each.attribute] for each in self._outputs}
        weights = {each.layer: about.weights[each.attribute] for each in self._outputs}
        if batch.partners is None:
            return seen, truth, weights
        partners = batch.partners
        truth |= {f"{name}{PARTNER}": each[partners] for name, each in truth.items()}
        weights |= {f"{name}{PARTNER}": each[partners] for name, each in weights.items()}
        kinds = about.kinds
        truth[SAME] = (kinds == kinds[partners]).astype(np.float32)[:, None]
        known = (kinds >= 0) & (kinds[partners] >= 0) & (partners != np.arange(len(kinds)))
        weights[SAME] = known.astype(np.float32)
        return {"seen": seen, "partners": partners}, truth, weights
