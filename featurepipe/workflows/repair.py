"""repair(): a damaged store -> its sound rows; the rest is pending."""

import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from featurepipe.errors import StoreError
from featurepipe.features.catalogue import (
    changed_rows,
    find_store,
    how_to_finish,
    images_of,
    manifest_about,
)
from featurepipe.features.store import PENDING, FeatureStore, Rows, open_damaged, rewrite
from featurepipe.files import only_writer, replacing
from featurepipe.manifest import Manifest
from featurepipe.workspace import Workspace


@dataclass(frozen=True)
class Repair:
    """What one repair found and left.

    Attributes
    ----------
    store : Path
    n_done, n_refused, n_pending : int
        Rows of the store as it is now.
    n_damaged : int
        Rows that were given up: they did not fit their checksum.
    n_changed : int
        Rows that were given up: their image has other bytes now.
    changed_file : bool
        Whether the store was written anew.
    damaged : Path or None
        Where the store is kept as it was; None if no row was given up.
    holds_pixels : bool
        Whether it is a pixel cache, and no feature store.
    """

    store: Path
    n_done: int
    n_refused: int
    n_pending: int
    n_damaged: int
    n_changed: int
    changed_file: bool
    damaged: Path | None
    holds_pixels: bool

    def in_words(self) -> str:
        """One line for a person."""
        kept = f"{self.n_done} done and {self.n_refused} refused rows"
        if not self.changed_file:
            return f"{self.store} is sound: {kept}, {self.n_pending} pending; left as it is"
        aside = f" As it was: {self.damaged}" if self.damaged else ""
        return (
            f"{self.store}: kept {kept}; {self.n_pending} are pending ({self.n_damaged} rows were "
            f"damaged, {self.n_changed} images had changed): {how_to_finish(self.holds_pixels)}."
            f"{aside}"
        )

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        damaged = None if self.damaged is None else str(self.damaged)
        return {**asdict(self), "store": str(self.store), "damaged": damaged}


def repair(store: Path | str, *, workspace: Path | str = ".") -> Repair:
    """Keep the sound rows of a store, and mark the rest pending.

    A row is sound if it fits its checksum and its image, where that is at hand,
    still has the bytes that were embedded. The store is written anew beside and
    replaced once that is complete; if rows were given up, the old file stays as
    ``<name>.damaged``. A sound store is left as it is.

    Parameters
    ----------
    store : Path or str
        A store's path, or its name in the workspace. It may be truncated, or of
        datasets of unequal lengths.
    workspace : Path or str
        Where a name is looked up; and whose images a store is compared with that
        lies in no workspace of its own.

    Returns
    -------
    Repair
        What was kept and what is pending now.

    Raises
    ------
    StoreError
        If no sound row is left.
    LockedError
        If another process is writing to the store.
    """
    place = Workspace(workspace)
    path = find_store(store, place)
    manifest = manifest_about(path, place)
    with only_writer(path), open_damaged(path) as old:
        damaged = old.damaged_rows()
        changed = np.setdiff1d(changed_rows(old, images_of(manifest))[0], damaged)
        given_up = np.union1d(damaged, changed)
        rewritten = bool(len(given_up)) or old.path != path
        if rewritten:
            _keep(old, path, given_up, _known_ids(old, manifest))
    with FeatureStore.open(path) as now:
        counts, holds_pixels = now.counts(), now.holds_pixels
    return Repair(
        store=path,
        n_done=counts["done"],
        n_refused=counts["refused"],
        n_pending=counts["pending"],
        n_damaged=len(damaged),
        n_changed=len(changed),
        changed_file=rewritten,
        damaged=_aside(path) if len(given_up) else None,
        holds_pixels=holds_pixels,
    )


def _keep(old: FeatureStore, path: Path, given_up: Rows, known: set[str]) -> None:
    sound = np.setdiff1d(np.flatnonzero(old.status != PENDING), given_up)
    if not len(sound):
        raise StoreError(f"{path} holds no sound row any more. Delete it and extract again.")
    ids = _ids_to_hold(old, given_up, known)
    with ExitStack() as stack:
        if len(given_up):
            _link(path, stack.enter_context(replacing(_aside(path))))
        rewrite(old, path, ids, sound)


def _known_ids(old: FeatureStore, manifest: Manifest | None) -> set[str]:
    """The manifest's ids, unless it is about other images altogether."""
    known: set[str] = set() if manifest is None else set(manifest.ids)
    return known if known & set(old.ids) else set()


def _ids_to_hold(old: FeatureStore, given_up: Rows, known: set[str]) -> list[str]:
    """Ids of the rows, and those of the images that lost theirs.

    A damaged id that no image has is dropped: nothing could ever be embedded for it.
    """
    doubtful: Iterable[str] = old.ids[given_up]
    dropped = set(doubtful) - known if known else set()
    certain = np.delete(old.ids, given_up)
    return sorted((set(old.ids) - dropped) | set(certain) | known)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _link(path: Path, aside: Path) -> None:
    try:
        os.link(path, aside)
    except OSError:
        # Not every file system has links.
        shutil.copyfile(path, aside)
