"""Options of `featurepipe.extract` that decide where and how features are computed."""

from collections.abc import Callable
from dataclasses import dataclass

from featurepipe.cluster.connecting import require_executor
from featurepipe.errors import UsageError

N_PER_SHARD = 10_000

Event = dict[str, object]


@dataclass(frozen=True)
class ClusterOptions:
    """Where shards are made; see `featurepipe.extract`.

    Attributes
    ----------
    executor : {"local", "ray"}
    ray_address : str or None
    gpus_per_worker : float
    shard_size : int
        Images of a shard, at most.
    price_per_hour : float or None
        Of one worker.
    on_event : callable or None
        Called with what happens: a dict with ``event`` and its values.
    """

    executor: str = "local"
    ray_address: str | None = None
    gpus_per_worker: float = 1.0
    shard_size: int = N_PER_SHARD
    price_per_hour: float | None = None
    on_event: Callable[[Event], None] | None = None

    def require_possible(self) -> None:
        """Stop at options that cannot be used.

        Raises
        ------
        UsageError
        """
        require_executor(self.executor, self.ray_address)
        if self.shard_size < 1 or self.gpus_per_worker <= 0:
            raise UsageError("--shard-size and --gpus-per-worker must be above 0.")
        if self.executor == "local" and self.price_per_hour is not None:
            raise UsageError("--price-per-hour requires --executor ray. Add it, or omit the price.")

    def tell(self, event: str, **values: object) -> None:
        """Report an event, if anyone listens."""
        if self.on_event is not None:
            self.on_event({"event": event, **values})


@dataclass(frozen=True)
class EmbeddingOptions:
    """How images are embedded; see `featurepipe.extract`.

    Attributes
    ----------
    engine, precision : str
    batch_size : int or None
    retry_refused, rehash : bool
    """

    engine: str
    precision: str
    batch_size: int | None
    retry_refused: bool
    rehash: bool
