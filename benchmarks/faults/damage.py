"""Damaged store files: flipped bytes and lost ends are noticed or harmless, and healed."""

import inspect
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as NoAnswerError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import h5py
from outcomes import Outcome
from stores import VIEWS, Snapshot
from testbed import Testbed, Trial

import featurepipe
from featurepipe.errors import FeaturepipeError
from featurepipe.features.store import FeatureStore
from featurepipe.workflows.info import info

DATASETS = ("features", "digests", "ids", "status", "crc32", "reasons", "size", "mtime", "probe")
_FINE = ("noticed, healed", "noticed, unreadable", "noticed, refused", "harmless")


def flip(path: Path, offset: int, rng: random.Random) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([old ^ rng.randrange(1, 256)]))


def offset_of(path: Path, name: str, rng: random.Random) -> int:
    """The position of a random byte of a dataset."""
    with h5py.File(path, "r", locking=False) as file:
        dataset = file[name]
        return dataset.id.get_offset() + rng.randrange(dataset.id.get_storage_size())


def corruption(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """Flipped bytes, and files whose end is lost."""
    trial = bed.finished(300)
    path = trial.stores()["rgb"]
    whole, snapshots = path.read_bytes(), trial.snapshots()
    outcome = Outcome("a flipped byte")
    for name in [*DATASETS * max(1, bed.n_kills // 25), *[""] * max(2, bed.n_kills // 10)]:
        flip(path, offset_of(path, name, rng) if name else rng.randrange(len(whole)), rng)
        outcome.seen[f"{name or 'anywhere'}: {_heal(outcome, bed, trial, snapshots)}"] += 1
        path.write_bytes(whole)
    yield outcome
    outcome = Outcome("the end is lost")
    for share in sorted(rng.random() ** 2 for _ in range(max(6, bed.n_kills // 5))):
        path.write_bytes(whole[: int(share * len(whole))])
        outcome.seen[_heal(outcome, bed, trial, snapshots)] += 1
        path.write_bytes(whole)
    yield outcome


def _heal(
    outcome: Outcome, bed: Testbed, trial: Trial, snapshots: Mapping[str, Snapshot]
) -> str:  # fmt: skip
    """Verify and extract again, as a person would; returns what happened, in words."""
    path, check = trial.stores()["rgb"], Outcome(outcome.fault)
    verified = bed.run("info", str(path), "--verify", *trial.here)
    check.note(verified, code=(0, 1))
    try:
        is_same = trial.snapshots() == snapshots
    except FeaturepipeError:
        is_same = False
    check.require(verified.code == 1 or is_same, "damage that matters is not noticed")
    healed = bed.run(*trial.extract())
    check.note(healed, code=(0, 1))
    if healed.code:
        # It no longer says that it is a feature store: another program's file is never replaced.
        path.unlink()
        check.note(bed.run(*trial.extract()), code=0)
    unreadable = _remove_unreadable(path)
    now = {view: snapshot.done for view, snapshot in trial.snapshots().items()}
    check.n_wrong += now != {view: snapshot.done for view, snapshot in snapshots.items()}
    check.require(not trial.leftovers(), f"left over: {trial.leftovers()}")
    outcome.n_runs, outcome.n_rows = (
        outcome.n_runs + 1,
        outcome.n_rows + sum(map(len, now.values())),
    )
    outcome.n_wrong += check.n_wrong
    outcome.problems += check.problems
    how = ", refused" if healed.code else ", unreadable" if unreadable else ""
    return ("noticed" if verified.code else "harmless") + how


def structure(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """Every byte of a store that belongs to no row and no probe is flipped once.

    The store is read in a process of its own, which may crash or hang.
    """
    outcome = Outcome("every byte of the file's structure, one at a time")
    small = bed.finished(8)
    path = small.stores()["rgb"]
    whole, truth = path.read_bytes(), Snapshot.of(path)
    pool, unlike = None, {}
    for offset in _structure_offsets(path):
        pool = pool or ProcessPoolExecutor(1)
        change = rng.randrange(1, 256)
        damaged = bytearray(whole)
        damaged[offset] ^= change
        path.write_bytes(damaged)
        try:
            what = pool.submit(_heal_here, small.workspace, path, truth).result(timeout=20)
        except BrokenProcessPool:
            what, pool = "CRASH", None
        except NoAnswerError:
            what = "HANG"
            for process in pool._processes.values():
                process.kill()
            pool = None
        outcome.n_runs, outcome.n_rows = outcome.n_runs + 1, outcome.n_rows + len(truth.done)
        outcome.seen[what.partition(":")[0]] += 1
        if what not in _FINE:
            unlike.setdefault(what, f"{what} (byte {offset} ^ {change})")
        outcome.n_wrong += what.startswith("WRONG")
    if pool:
        pool.shutdown()
    for line in unlike.values():
        outcome.complain(line)
    yield outcome


def _structure_offsets(path: Path) -> list[int]:
    with h5py.File(path, "r", locking=False) as file:
        rows = [(data.id.get_offset(), data.id.get_storage_size()) for data in file.values()]
    return [
        offset
        for offset in range(path.stat().st_size)
        if not any(start <= offset < start + length for start, length in rows)
    ]


def _heal_here(workspace: Path, path: Path, truth: Snapshot) -> str:
    """Verify a damaged store and extract again in this process; returns what happened."""
    try:
        try:
            info(path, verify=True)
            what = "harmless" if Snapshot.of(path) == truth else "WRONG, unnoticed"
            with FeatureStore.open(path) as store:
                store.key, store.made_by, store.images_per_s, store.stages  # noqa: B018
        except FeaturepipeError:
            what = "noticed"
        try:
            featurepipe.extract(workspace=workspace, backbone="hsv_histogram", view=list(VIEWS))
        except FeaturepipeError:
            return f"{what}, refused"
        how = "unreadable" if _remove_unreadable(path) else "healed"
        if Snapshot.of(path) != truth:
            return "WRONG after healing"
        return f"{what}, {how}" if what == "noticed" else what
    except Exception as error:
        frame = inspect.trace()[-1]
        return f"TRACEBACK: {error!r} in {Path(frame.filename).name} {frame.function}"
    finally:
        _remove_unreadable(path)
        path.with_name(f"{path.name}.damaged").unlink(missing_ok=True)


def _remove_unreadable(path: Path) -> bool:
    """Remove the files of which nothing could be read; whether there were any."""
    files = list(path.parent.glob(f"{path.name}.unreadable*"))
    for file in files:
        file.unlink()
    return bool(files)
