"""What `--features auto` may try within `--memory`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from joblib import effective_n_jobs

from featurepipe.errors import FitError
from featurepipe.features.cached import CachedFeatures
from featurepipe.manifest import Labels
from featurepipe.models.heads.fit_memory import in_words
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.streaming import plan_chunks
from featurepipe.models.studies.feature_choice import memory_of_choice
from featurepipe.workflows.fit_task import FitLimits, memory_of_fit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AutoMemory:
    """What `--features auto` may try, on a sample of the training images.

    Attributes
    ----------
    settings : HeadSettings
        Apart from the head.
    limits : FitLimits
    labels, sampled : mapping of str to Labels
        Of all training images, and of those that trials take.
    """

    settings: HeadSettings
    limits: FitLimits
    labels: Mapping[str, Labels]
    sampled: Mapping[str, Labels]

    def require(self, caches: Sequence[CachedFeatures], heads: Sequence[str]) -> None:
        """Stop unless all stores can be tried, and a head can be fitted on any of them.

        Parameters
        ----------
        caches : sequence of CachedFeatures
        heads : sequence of str
            The heads to choose from.

        Raises
        ------
        FitError
            If memory is bounded, and too small.
        """
        budget = self.limits.memory_bytes
        if budget is None:
            return
        needed = self._of_features(caches, 1)
        if needed > budget:
            raise FitError(
                f"--memory {in_words(budget)} is too little for --features auto to try "
                f"{len(caches)} stores on {self._n_sampled} training images. Set at least "
                f"{in_words(needed)}, or name fewer stores with --backbone."
            )
        widest = max(cache.n_features for cache in caches)
        obstacles = [self._obstacle(head, widest) for head in heads]
        if None not in obstacles:
            raise FitError(obstacles[0])

    def heads_within(self, heads: Sequence[str], n_features: int) -> list[str]:
        """The heads that can be tried and fitted on so many features; says why others cannot.

        Parameters
        ----------
        heads : sequence of str
        n_features : int
        """
        within = []
        for head in heads:
            obstacle = self._obstacle(head, n_features)
            if obstacle is None:
                within.append(head)
            else:
                logger.info("Not trying %s on %d features: %s", head, n_features, obstacle)
        return within

    def feature_jobs(self, caches: Sequence[CachedFeatures]) -> int:
        """Trials of features side by side; `require` allows at least one."""
        n_jobs = effective_n_jobs(self.limits.n_jobs)
        budget = self.limits.memory_bytes
        while budget is not None and n_jobs > 1 and self._of_features(caches, n_jobs) > budget:
            n_jobs -= 1
        return n_jobs

    def head_jobs(self, heads: Sequence[str], n_features: int) -> int:
        """Trials of heads side by side; `heads_within` allows at least one."""
        n_jobs, budget = effective_n_jobs(self.limits.n_jobs), self.limits.memory_bytes
        if budget is None:
            return n_jobs
        memories = [memory_of_fit(self._with(head), self.sampled, n_features) for head in heads]
        return min(n_jobs, *(memory.fits_within(budget) for memory in memories))

    @property
    def _n_sampled(self) -> int:
        return len(next(iter(self.sampled.values())))

    def _with(self, head: str) -> HeadSettings:
        return self.settings.with_head(head)

    def _of_features(self, caches: Sequence[CachedFeatures], n_jobs: int) -> int:
        widths = [cache.n_features for cache in caches]
        return memory_of_choice(self._n_sampled, widths, n_jobs)

    def _obstacle(self, head: str, n_features: int) -> str | None:
        """Why a head cannot be tried or fitted within memory; None if it can."""
        settings, budget = self._with(head), self.limits.memory_bytes
        if budget is None:
            return None
        try:
            plan_chunks(settings, memory_of_fit(settings, self.labels, n_features), budget)
        except FitError as error:
            return str(error)
        trial = memory_of_fit(settings, self.sampled, n_features)
        if trial.fits_within(budget):
            return None
        return (
            f"--memory {in_words(budget)} is too little for trials on {trial.n_rows} training "
            f"images with {n_features} features. Set at least {in_words(trial.in_memory())}."
        )
