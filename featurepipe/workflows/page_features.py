"""What the page shows of features: maps of the training images, and those nearest to errors."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FeaturepipeError
from featurepipe.features.store import FeatureStore, StoreKey
from featurepipe.models.studies.near_duplicates import deciding_store
from featurepipe.reports.page.charts import Chart
from featurepipe.reports.page.feature_map import MAX_ROWS, feature_map, sampled
from featurepipe.reports.page.map_chart import map_chart
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.words import listed
from featurepipe.workflows.nearest_images import nearest_training_images
from featurepipe.workspace import Workspace

MAX_MAPS = 3
"""Attributes that have a map."""

N_NEAREST = 3


@dataclass(frozen=True)
class PageFeatures:
    """The features by which the page compares images.

    Attributes
    ----------
    store : Path
    run : Run
        Whose training images are shown.
    """

    store: Path
    run: Run

    @classmethod
    def of(cls, run: Run, home: Workspace) -> "PageFeatures | None":
        """Those of a backbone that a run reads, else those of any; of the plain view, if there.

        Parameters
        ----------
        run : Run
        home : Workspace

        Returns
        -------
        PageFeatures or None
            None if the workspace has no features of a network that can be read.
        """
        stores = _sound_stores(home)
        blocks = run.info.blocks if isinstance(run.info, HeadRunInfo) else ()
        backbones = {block.recipe.backbone for block in blocks}
        own = [path for path, key in stores.items() if key.backbone in backbones]
        store = deciding_store(own) or deciding_store(list(stores))
        return None if store is None else cls(store, run)

    def nearest(self, ids: Sequence[str]) -> Mapping[str, Sequence[tuple[str, str]]]:
        """The training images nearest to images; a `FindNearest`.

        Parameters
        ----------
        ids : sequence of str

        Returns
        -------
        mapping of str to sequence of (str, str)
            Id and classes of each neighbour; empty if the features cannot be read any more.
        """
        train = self.run.selection
        try:
            found = nearest_training_images(self.store, ids, train.ids, N_NEAREST)
        except (FeaturepipeError, OSError):
            return {}
        shown = {near.image for neighbours in found.values() for near in neighbours}
        row_of = {str(name): row for row, name in enumerate(train.ids) if name in shown}
        return {
            image: [(near.image, self._words(row_of[near.image])) for near in neighbours]
            for image, neighbours in found.items()
        }

    def _words(self, row: int) -> str:
        labels = self.run.selection.labels.values()
        return listed(
            name
            for truth in labels
            for name in np.array(truth.classes, object)[truth.indicator[row]]
        )

    def maps(self) -> list[Chart]:
        """A map for each of the first attributes with exactly one class an image."""
        train = self.run.selection
        with suppress(FeaturepipeError, OSError):
            chosen, X, name = self._sample()
            found = [
                feature_map(name, X, attribute, truth.codes[chosen], truth.classes, len(train))
                for attribute, truth in train.labels.items()
                if truth.exclusive
            ]
            return [map_chart(one) for one in found[:MAX_MAPS] if one is not None]
        return []

    def _sample(self) -> tuple[NDArray[np.intp], NDArray[np.float32], str]:
        """Positions of training images that have features, the features, and their name."""
        train = self.run.selection
        with FeatureStore.open(self.store) as store:
            done = store.images("done")
            places = done.places(train.ids)
            known = np.flatnonzero(places >= 0)
            chosen = known[sampled(len(known), MAX_ROWS)]
            X = store.features(done.rows[places[chosen]])
            return chosen, X, f"{store.key.backbone}:{store.key.view}"


def _sound_stores(home: Workspace) -> dict[Path, StoreKey]:
    keys = {}
    for path in home.stores():
        # Neither a damaged store nor one that is being written hinders a report.
        with suppress(FeaturepipeError, OSError), FeatureStore.open(path) as store:
            keys[path] = store.key
    return keys
