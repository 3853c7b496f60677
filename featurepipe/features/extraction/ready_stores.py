"""Ready stores: opened once, checked, and then made, healed or grown for an extraction."""

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from featurepipe.errors import StoreMismatchError
from featurepipe.features.engines import Engine, probes
from featurepipe.features.extraction.embedders import Embedder, SharedEngine, share_engines
from featurepipe.features.store import (
    FeatureStore,
    StoreFile,
    StoreKey,
    features_dtype,
    require_room,
    room_needed,
)
from featurepipe.features.store.stages import BusyClock
from featurepipe.provenance import differences, library_versions, machine

logger = logging.getLogger(__name__)


class RowMaker(Embedder, Protocol):
    """What makes the rows of a store: a `Recipe`, or a `PixelRecipe`."""

    @property
    def key(self) -> StoreKey:
        """What decides the rows."""

    @property
    def origin(self) -> dict[str, str]:
        """What the store records beside the key."""

    @property
    def n_features(self) -> int | None:
        """Numbers of a row; None if that shows only when the engine is opened."""

    def settled(self, precision: str, kept: str | None = None) -> Self:
        """The same in a precision; ``"auto"`` keeps that of the existing store."""


@dataclass
class ReadyStore:
    """A store that is ready for an extraction, and what makes its rows.

    Attributes
    ----------
    maker : RowMaker
    store : FeatureStore
        Locked, with a row for each image; `FeatureStore.begin_writing` opens it for writing.
    engine : SharedEngine
    file : StoreFile
    """

    maker: RowMaker
    store: FeatureStore
    engine: SharedEngine
    file: StoreFile
    # Weak, so that an engine which is too large for the memory can go.
    _checked: "weakref.ref[Engine] | None" = None

    @property
    def clock(self) -> BusyClock:
        """How long the engine was busy."""
        return self.engine.clock

    def open(self, n_pictures: int | None = None) -> Engine:
        """The engine, if it computes what the store holds.

        Raises
        ------
        StoreMismatchError
            If it does not: the store was made by other software.
        """
        engine = self.engine.open(n_pictures)
        if self._checked is None or self._checked() is not engine:
            _require_same_probe(self.store, engine)
            self._checked = weakref.ref(engine)
        return engine

    def complete(self) -> None:
        """Every row is computed: the damaged file that was kept meanwhile goes."""
        self.file.complete()


@contextmanager
def open_stores(
    makers: Mapping[Path, RowMaker],
    ids: Sequence[str],
    *,
    precision: str | None = None,
    batch_size: int | None = None,
    engines: Sequence[SharedEngine] | None = None,
) -> Iterator[list[ReadyStore]]:
    """Open the stores of an extraction, each once, and make them ready.

    Before any store is touched, all are checked: that those which exist were made alike, that
    the disk has room, and that the engines of new ones can be loaded. Then stores are made or
    grown, and damaged ones healed: see `featurepipe.features.store.healing`.

    Parameters
    ----------
    makers : mapping of Path to RowMaker
        What makes the rows of each store.
    ids : sequence of str
        Image ids, sorted.
    precision : {"auto", "float32", "bfloat16", "float16", "int8"}, optional
        Precision of all; ``"auto"``: that of the existing store, else what the hardware computes
        natively where it keeps the features. Default: that of the makers.
    batch_size : int, optional
        Images embedded, and committed, at once; default: the engine's own.
    engines : sequence of SharedEngine, optional
        The engine of each store, if they are kept open; see `share_engines`.

    Yields
    ------
    list of ReadyStore
        In the order of `makers`; they are closed afterwards.

    Raises
    ------
    StoreMismatchError
        If a store was made with other options.
    StoreError
        If a file may not be read, or is no feature store of this version.
    LockedError
        If another process writes to a store.
    DiskFullError
        If the disk has no room for what must be written.
    """
    with ExitStack() as opened:
        files = [opened.enter_context(StoreFile.look(path)) for path in makers]
        settled = _settle(list(makers.values()), files, precision)
        _require_room(files, settled, ids)
        engines = engines or share_engines(settled, batch_size)
        creations = [
            None if file.store else _prepare_creation(file.path, maker, ids, engine.open())
            for file, maker, engine in zip(files, settled, engines, strict=True)
        ]
        stores = [
            file.make_ready(ids, create) for file, create in zip(files, creations, strict=True)
        ]
        yield [ReadyStore(*parts) for parts in zip(settled, stores, engines, files, strict=True)]


def _settle(
    makers: Sequence[RowMaker], files: Sequence[StoreFile], precision: str | None
) -> list[RowMaker]:
    """The makers in their precision; first those of existing stores, which load nothing."""
    settled: dict[int, RowMaker] = {}
    order = sorted(range(len(makers)), key=lambda k: files[k].store is None)
    for k in order:
        store, maker = files[k].store, makers[k]
        if precision is not None:
            maker = maker.settled(precision, store.key.precision if store else None)
        if store is not None:
            store.require_key(maker.key)
        settled[k] = maker
    return [settled[k] for k in range(len(makers))]


def _require_room(
    files: Sequence[StoreFile], makers: Sequence[RowMaker], ids: Sequence[str]
) -> None:
    """Stop unless the disk has room for all that must be written, as far as its size is known."""
    n_bytes = 0
    for file, maker in zip(files, makers, strict=True):
        if file.store is not None:
            n_images = len(file.wanted_ids(ids))
            n_bytes += 0 if file.is_ready(ids) else file.store.room_needed(n_images)
        elif maker.n_features is not None:
            row_bytes = maker.n_features * features_dtype(maker.key.precision).itemsize
            n_bytes += room_needed(len(ids) + probes.N_PROBES, row_bytes)
    if files and n_bytes:
        require_room(files[0].path, n_bytes)


def _prepare_creation(
    path: Path, maker: RowMaker, ids: Sequence[str], engine: Engine
) -> Callable[[], None]:
    """What writes a new store; its probes are computed now."""
    probe: NDArray[Any] = engine.embed(probes.probe_images(engine.input_size))
    made_by = _software(engine) | maker.origin
    return partial(FeatureStore.create, path, ids=ids, key=maker.key, made_by=made_by, probe=probe)


def _software(engine: Engine) -> dict[str, object]:
    versions = library_versions("numpy", "pillow", "simplejpeg", "h5py") | engine.versions
    return {"engine": engine.name, "versions": versions, "machine": machine()}


def _require_same_probe(store: FeatureStore, engine: Engine) -> None:
    software = _software(engine)
    changed = differences({name: store.made_by.get(name) for name in software}, software)
    if not changed:
        return
    precision = store.key.precision
    now = engine.embed(probes.probe_images(engine.input_size))
    distance, allowed = probes.distance(now, store.probe, precision), probes.tolerance(precision)
    if not distance <= allowed:
        raise StoreMismatchError(
            f"{store.path} was made by other software, which computes other features "
            f"(distance {distance:.1e} on generated pictures, at most {allowed:.0e} is "
            f"allowed): {'; '.join(changed)}. Install the same versions, or begin a new store in "
            "another --workspace."
        )
    logger.info(
        "The store was made by other software; its features are the same (distance %.0e): %s.",
        distance,
        "; ".join(changed),
    )
