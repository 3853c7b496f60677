"""The plan of an epoch: the images of each batch in random order, and their partners in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Batch:
    """The images of one training step.

    Attributes
    ----------
    images : ndarray of shape (n,), intp
        Positions of the images in the training data.
    partners : ndarray of shape (n,), int32, or None
        For each image, the position in the batch of the image it is compared with.
    """

    images: Indices
    partners: NDArray[np.int32] | None = None


def plan_batches(n_images: int, batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Visit every image once, in random order.

    Parameters
    ----------
    n_images : int
    batch_size : int
        Maximum size. Sizes differ by at most one image, so that no step and no batch statistics
        depend on a few images alone.
    rng : numpy.random.Generator
    """
    return [Batch(images) for images in _cut(rng.permutation(n_images), batch_size)]


def plan_pairs(
    identities: Indices, batch_size: int, positive_share: float, rng: np.random.Generator
) -> list[Batch]:
    """Visit every image once, each with a partner from the same batch.

    Images with the same identity are put next to each other in twos. So every batch has some
    positive pairs, however many identities there are.

    Parameters
    ----------
    identities : ndarray of shape (n_images,), intp
        See `featurepipe.models.networks.outputs.Targets`.
    batch_size : int
        As in `plan_batches`.
    positive_share : float
        Target share of images whose partner has the same identity.
    rng : numpy.random.Generator
    """
    order = _in_twos(identities, rng)
    return [
        Batch(images, _draw_partners(identities[images], positive_share, rng))
        for images in _cut(order, batch_size)
    ]


def require_pairs(identities: Indices, batch_size: int) -> None:
    """Refuse images and batches from which pairs of both sorts cannot be formed.

    Raises
    ------
    FitError
        If a batch has fewer than 4 images, all images have the same identity, or no two do.
    """
    _, counts = np.unique(identities[identities >= 0], return_counts=True)
    if min(batch_size, len(identities)) >= 4 and len(counts) >= 2 and counts.max() >= 2:
        return
    raise FitError(
        f"Pairs cannot be formed: {len(identities)} images show {len(counts)} different label "
        f"combinations, with at most {counts.max(initial=0)} images of one, in batches of "
        f"{batch_size}. Pairs need batches of 4, 2 combinations, and 2 images of one. Add images, "
        "or use `train finetune`."
    )


def _cut(order: Indices, batch_size: int) -> Sequence[Indices]:
    return np.array_split(order, -(-len(order) // batch_size))


def _in_twos(identities: Indices, rng: np.random.Generator) -> Indices:
    twos: list[Indices] = []
    for identity in np.unique(identities):
        images = rng.permutation(np.flatnonzero(identities == identity))
        twos += np.array_split(images, -(-len(images) // 2))
    return np.concatenate([twos[index] for index in rng.permutation(len(twos))])


def _draw_partners(
    identities: Indices, positive_share: float, rng: np.random.Generator
) -> NDArray[np.int32]:
    n = len(identities)
    is_known = identities >= 0
    is_equal = identities[:, None] == identities
    is_positive = is_equal & ~np.eye(n, dtype=bool) & is_known[:, None]
    is_negative = ~is_equal & is_known[:, None] & is_known
    drawn = rng.permutation(np.flatnonzero(is_positive.any(axis=1)))
    wants_positive = np.zeros(n, dtype=bool)
    wants_positive[drawn[: round(positive_share * n)]] = True
    wants_positive |= ~is_negative.any(axis=1)
    partners = np.empty(n, dtype=np.int32)
    for index in range(n):
        is_candidate = is_positive[index] if wants_positive[index] else is_negative[index]
        candidates = np.flatnonzero(is_candidate)
        # An image with an unknown label takes its neighbour; such a pair does not count.
        partners[index] = rng.choice(candidates) if len(candidates) else (index + 1) % n
    return partners
