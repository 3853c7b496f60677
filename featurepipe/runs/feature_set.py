"""FeatureSet: which cached features each attribute's head reads."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.cached import CachedFeatures
from featurepipe.models.answers.arrays import Columns
from featurepipe.models.studies.feature_choice import Trial
from featurepipe.predictions import ALL


@dataclass(frozen=True)
class FeatureSet:
    """Which cached features the heads of a run read.

    Attributes
    ----------
    title : str
        Begins the run's name.
    caches : tuple of CachedFeatures
        All that are read, each once; their features lie side by side in this order.
    blocks : dict of str to tuple of str
        For each attribute the names of the caches that its head reads.
    trials : tuple of Trial
        What was tried, if the choice was by trial.
    objective : str
        What was looked for then.
    tried : tuple of CachedFeatures
        Among which was chosen then.
    """

    title: str
    caches: tuple[CachedFeatures, ...]
    blocks: dict[str, tuple[str, ...]]
    trials: tuple[Trial, ...] = ()
    objective: str = ""
    tried: tuple[CachedFeatures, ...] = ()

    @property
    def reads(self) -> list[Any]:
        """What decides the features of a run, as JSON values."""
        return [[[cache.name, cache.key] for cache in self.caches], self.blocks]

    @property
    def asked_for(self) -> list[Any]:
        """What was to be read: for choices by trial, those that there were."""
        if not self.trials:
            return self.reads
        return [self.objective, sorted({block for trial in self.trials for block in trial.blocks})]

    @property
    def columns(self) -> dict[str, Columns]:
        """For each attribute the columns of its blocks, as `Head.columns` has them."""
        ends = accumulate((cache.n_features for cache in self.caches), initial=0)
        of_cache = dict(zip((cache.name for cache in self.caches), pairwise(ends), strict=True))
        return {
            name: tuple(of_cache[block] for block in blocks) for name, blocks in self.blocks.items()
        }

    @property
    def images_per_s(self) -> float:
        """Speed of extracting everything that is read, one store after another."""
        return 1 / sum(1 / cache.images_per_s for cache in self.caches)

    def read(self, ids: NDArray[np.object_]) -> NDArray[np.float32]:
        """Features of some images, all blocks side by side.

        Parameters
        ----------
        ids : ndarray of shape (n_images,), str objects

        Returns
        -------
        ndarray of shape (n_images, n_features), float32
        """
        blocks = [cache.read(ids) for cache in self.caches]
        return blocks[0] if len(blocks) == 1 else np.hstack(blocks)

    def of(self, ids: NDArray[np.object_]) -> "FeatureRows":
        """Features of some images, to be read when they are asked for."""
        return FeatureRows(self, ids)

    def facts(self) -> dict[str, Any]:
        """What a run keeps of it, as JSON values.

        ``backbone``, ``view`` and ``weights`` are told for each attribute and for all of
        them, joined by ``+``.
        """
        of_rows = {**self.blocks, ALL: tuple(cache.name for cache in self.caches)}
        by_name = {cache.name: cache for cache in self.caches}
        told = {
            "backbone": lambda cache: cache.key["backbone"],
            "view": lambda cache: cache.key["view"],
            "weights": lambda cache: cache.weights_label,
        }
        return {
            **{
                what: {
                    name: "+".join(tell(by_name[block]) for block in blocks)
                    for name, blocks in of_rows.items()
                }
                for what, tell in told.items()
            },
            "features": {name: list(blocks) for name, blocks in self.blocks.items()},
            "blocks": [
                {
                    "name": cache.name,
                    "recipe": cache.key,
                    "weights": cache.weights_label,
                    "weights_source": cache.weights_source,
                }
                for cache in self.caches
            ],
            "feature_trials": [
                {
                    **asdict(trial),
                    "unseen_accuracy": None
                    if np.isnan(trial.unseen_accuracy)
                    else trial.unseen_accuracy,
                }
                for trial in self.trials
            ],
        }


@dataclass(frozen=True)
class FeatureRows:
    """Features of some images: a `featurepipe.models.answers.row_chunks.RowReader`.

    Attributes
    ----------
    feature_set : FeatureSet
    ids : ndarray of shape (n_images,), str objects
    """

    feature_set: FeatureSet
    ids: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_features(self) -> int:
        """Features of an image, of all blocks."""
        return sum(cache.n_features for cache in self.feature_set.caches)

    def read(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Features of the images of these positions."""
        return self.feature_set.read(self.ids[rows])


def one_store_set(cache: CachedFeatures, attributes: Sequence[str]) -> FeatureSet:
    """Every attribute reads the features of one store.

    Parameters
    ----------
    cache : CachedFeatures
    attributes : sequence of str
    """
    return FeatureSet(cache.title, (cache,), dict.fromkeys(attributes, (cache.name,)))
