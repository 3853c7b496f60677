"""FeatureSet: which cached features each attribute's head reads."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.cached import CachedFeatures
from featurepipe.models.answers.arrays import Columns, columns_of_blocks
from featurepipe.models.studies.feature_choice import Trial
from featurepipe.predictions import ALL
from featurepipe.runs.run_facts import Block, FeatureTrial


@dataclass(frozen=True)
class FeatureSet:
    """Which cached features the heads of a run read.

    Attributes
    ----------
    title : str
        First part of the run's name.
    caches : tuple of CachedFeatures
        All that are read, each once; their features are stacked side by side in this order.
    blocks : dict of str to tuple of str
        For each attribute, the names of the caches that its head reads.
    trials : tuple of Trial
        The trials, if the features were chosen by ``--features auto``.
    objective : str or None
        What these trials looked for.
    tried : tuple of CachedFeatures
        The caches that were tried.
    """

    title: str
    caches: tuple[CachedFeatures, ...]
    blocks: dict[str, tuple[str, ...]]
    trials: tuple[Trial, ...] = ()
    objective: str | None = None
    tried: tuple[CachedFeatures, ...] = ()

    @property
    def inputs(self) -> list[Any]:
        """What decides the features of a run, as JSON values: store keys by attribute."""
        key_of = {cache.name: cache.key.as_dict() for cache in self.caches}
        return [
            {name: [key_of[block] for block in blocks] for name, blocks in self.blocks.items()},
            self.candidates,
        ]

    @property
    def family_inputs(self) -> list[Any]:
        """What runs on other splits of the series share: choices by trial may differ there."""
        return self.candidates if self.trials else self.inputs

    @property
    def candidates(self) -> list[Any]:
        """The objective and the store keys of a choice by trial; empty without one."""
        return (
            [self.objective, [cache.key.as_dict() for cache in self.tried]] if self.trials else []
        )

    @property
    def consulted(self) -> tuple[CachedFeatures, ...]:
        """The caches that were read or tried."""
        return self.tried or self.caches

    @property
    def columns(self) -> dict[str, Columns]:
        """For each attribute, the columns of its blocks; see `Head.columns`."""
        widths = {cache.name: cache.n_features for cache in self.caches}
        return columns_of_blocks(widths, self.blocks)

    @property
    def images_per_s(self) -> float:
        """Speed of extracting all blocks, one store after another."""
        return 1 / sum(1 / cache.images_per_s for cache in self.caches)

    def read(self, ids: NDArray[np.object_]) -> NDArray[np.float32]:
        """Read the features of some images, all blocks side by side.

        Parameters
        ----------
        ids : ndarray of shape (n_images,), str objects

        Returns
        -------
        ndarray of shape (n_images, n_features), float32
        """
        blocks = [cache.read(ids) for cache in self.caches]
        return blocks[0] if len(blocks) == 1 else np.hstack(blocks)

    def rows(self, ids: NDArray[np.object_]) -> "FeatureRows":
        """Features of some images that are read on demand."""
        return FeatureRows(self, ids)

    def backbones(self) -> dict[str, str]:
        """Names of the backbones by attribute and for ``"all"``, several joined by ``+``."""
        return self._joined(lambda cache: cache.key.backbone)

    def views(self) -> dict[str, str]:
        """Names of the views, likewise."""
        return self._joined(lambda cache: cache.key.view)

    def weights(self) -> dict[str, str]:
        """Names of the weights, likewise."""
        return self._joined(lambda cache: cache.weights_label)

    def block_facts(self) -> tuple[Block, ...]:
        """What a run keeps of the caches that it reads."""
        return tuple(
            Block(
                name=cache.name,
                recipe=cache.key,
                weights=cache.weights_label,
                weights_source=cache.weights_source,
                n_features=cache.n_features,
            )
            for cache in self.caches
        )

    def trial_facts(self) -> tuple[FeatureTrial, ...]:
        """What a run keeps of the trials."""
        return tuple(FeatureTrial(**asdict(trial)) for trial in self.trials)

    def _joined(self, name_of: Callable[[CachedFeatures], str]) -> dict[str, str]:
        names = {cache.name: name_of(cache) for cache in self.caches}
        blocks = {**self.blocks, ALL: tuple(names)}
        return {
            attribute: "+".join(names[block] for block in read)
            for attribute, read in blocks.items()
        }


@dataclass(frozen=True)
class FeatureRows:
    """Features of some images, read on demand.

    A `featurepipe.models.answers.row_chunks.RowReader`.

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
        """Number of features of an image, over all blocks."""
        return sum(cache.n_features for cache in self.feature_set.caches)

    def read(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Read the features of the images at some positions."""
        return self.feature_set.read(self.ids[rows])


def one_store_set(cache: CachedFeatures, attributes: Sequence[str]) -> FeatureSet:
    """The features of one store for every attribute.

    Parameters
    ----------
    cache : CachedFeatures
    attributes : sequence of str
    """
    return FeatureSet(cache.title, (cache,), dict.fromkeys(attributes, (cache.name,)))
