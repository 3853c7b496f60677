"""Workers of a cluster compute the same features, or are refused."""

from collections.abc import Sequence
from dataclasses import replace

from featurepipe.cluster.connecting import Node
from featurepipe.features.engines import probes
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.features.extraction.shard_job import WorkerFacts
from featurepipe.features.extraction.sharded_store import ShardedStore
from featurepipe.words import examples


class SameFeatures:
    """Accepts workers that compute what stores hold, or else what the first worker computes.

    Parameters
    ----------
    stores : sequence of ShardedStore
        A new one gets the key and the probe of the first worker.
    recipes : sequence of Recipe
        What makes their rows.
    """

    def __init__(self, stores: Sequence[ShardedStore], recipes: Sequence[Recipe]) -> None:
        self._stores, self._recipes = stores, recipes
        self._first: Node | None = None
        self._precisions: tuple[str, ...] = ()

    def accept(self, node: Node, facts: WorkerFacts) -> str:
        """Why a worker cannot be used; empty if it can.

        Parameters
        ----------
        node : Node
        facts : WorkerFacts
        """
        if self._first is None:
            self._first, self._precisions = node, facts.precisions
        if facts.precisions != self._precisions:
            return (
                f"it would compute in {examples(facts.precisions)}, and node {self._first.title} "
                f"in {examples(self._precisions)}. Say which: --precision float32"
            )
        for store, recipe, precision, probe in zip(
            self._stores, self._recipes, facts.precisions, facts.probes, strict=True
        ):
            if store.probe is None:
                store.probe = probe
                store.key = replace(recipe, precision=precision).key
            distance, allowed = (
                probes.distance(probe, store.probe, precision),
                probes.tolerance(precision),
            )
            if not distance <= allowed:
                return (
                    f"it computes other features than {store.folder.name} holds (distance "
                    f"{distance:.1e} on generated pictures, at most {allowed:.0e} is allowed). "
                    "Install the same versions of its libraries there"
                )
        return ""
