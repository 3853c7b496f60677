"""Disks that are too small, fill up, or cannot be written to; files without permission.

File systems are mounted where that is permitted (root). Elsewhere the fault is skipped, or
done with file modes, and the table says so.
"""

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from outcomes import Ended, Outcome
from testbed import COMMAND, Testbed, Trial, finish, wait_until, wait_until_written

FULL = "The disk is full"


def full_disk(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """A disk that is too small, and one that another file fills up meanwhile."""
    outcome = Outcome("disk too small for the stores")
    needed_mb = 2 * sum(path.stat().st_size for path in bed.whole.stores().values()) / 1e6
    with disk(bed, "size=1m") as reason:
        if reason:
            outcome.seen[f"skipped: {reason}"] += 1
            yield outcome
            return
    for share in (0.002, 0.005, 0.01, 0.05, 0.1, 0.2, 0.3):
        trial = bed.trial(bed.images)
        with disk(bed, f"size={int(share * needed_mb * 1000)}k", trial.workspace):
            outcome.note(bed.run(*trial.extract()), code=1, says=FULL)
            outcome.n_runs += 1
            outcome.judge({}, trial.snapshots(), bed.truth)
            outcome.require(not trial.leftovers(), f"left over: {trial.leftovers()}")
    yield outcome
    yield _full_while_made(bed, rng, needed_mb)
    yield _full_while_embedding(bed, needed_mb)


def _full_while_made(bed: Testbed, rng: random.Random, needed_mb: float) -> Outcome:
    outcome = Outcome("disk fills up while stores are made or grow")
    for _ in range(12):
        trial, half = bed.trial(bed.images[:-200]), len(bed.images) // 2
        with disk(bed, f"size={int(1.5 * needed_mb) + 4}m", trial.workspace):
            if rng.random() < 0.5:
                smaller = Trial(trial.workspace.parent / "half")
                smaller.add(bed.images[:half])
                smaller.workspace = trial.workspace
                bed.run(*smaller.extract())
            snapshots = trial.snapshots()
            process = bed.start(*trial.extract())
            wait_until_written(trial, process)
            time.sleep(rng.uniform(0, 0.004))
            filler = fill(trial.workspace)
            _note_full(outcome, finish(process))
            outcome.n_runs += 1
            outcome.judge(snapshots, trial.snapshots(), bed.truth)
            outcome.require(not trial.leftovers(), f"left over: {trial.leftovers()}")
            filler.unlink()
            bed.settle(outcome, trial)
    return outcome


def _full_while_embedding(bed: Testbed, needed_mb: float) -> Outcome:
    outcome = Outcome("disk fills up during embedding")
    for _ in range(2):
        trial = bed.trial(bed.images)
        with disk(bed, f"size={int(needed_mb) + 4}m", trial.workspace):
            process = bed.start(*trial.extract())
            wait_until(lambda trial=trial: trial.n_done() > 0)
            filler = fill(trial.workspace)
            _note_full(outcome, finish(process))
            outcome.n_runs += 1
            outcome.judge({}, trial.snapshots(), bed.truth)
            _note_full(outcome, bed.run(*trial.extract()))
            filler.unlink()
            bed.settle(outcome, trial)
    return outcome


def _note_full(outcome: Outcome, ended: Ended) -> None:
    """Whether there was room enough or not, a process ends well or says that the disk is full."""
    outcome.note(ended, code=(0, 1), says=FULL if ended.code else "")


@contextlib.contextmanager
def disk(bed: Testbed, options: str, folder: Path | None = None) -> Iterator[str]:
    """Mount a small file system; yields why that is impossible, or an empty text."""
    folder = folder or bed.trial().workspace
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    with _mounted(command, folder) as reason:
        yield reason


@contextlib.contextmanager
def _mounted(command: Sequence[str], folder: Path) -> Iterator[str]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None:
        yield "only root can mount"
        return
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        yield f"mount: {done.stderr.strip()}"
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file that takes all the room that a disk has left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0")
    return filler


def read_only(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """A workspace on a read-only disk: reading works, writing fails with a reason."""
    outcome, trial = Outcome("read-only workspace"), bed.finished(300)
    trial.add(bed.others[:5], at=300)
    snapshots, store, work = trial.snapshots(), str(trial.stores()["rgb"]), trial.workspace
    with _unwritable(work) as kind:
        outcome.fault += f" ({kind})"
        for arguments, code, says in (
            (trial.extract(), 1, "Cannot write to"),
            (("extract", *trial.extract()[1:-1], str(work / "new")), 1, "cannot be made"),
            (("info", store, "--verify", *trial.here), 0, ""),
            (("export", store, str(work.parent / "out.npz"), *trial.here), 0, ""),
            (("export", store, str(work / "out.npz"), *trial.here), 1, ""),
        ):
            outcome.note(bed.run(*arguments, command=obedient()), code=code, says=says)
            outcome.n_runs += 1
            outcome.judge(snapshots, trial.snapshots(), bed.truth)
    bed.settle(outcome, trial)
    yield outcome


@contextlib.contextmanager
def _unwritable(folder: Path) -> Iterator[str]:
    bind = ["mount", "--bind", str(folder), str(folder)]
    with _mounted(bind, folder) as reason:
        remount = ["mount", "-o", "remount,ro,bind", str(folder)]
        if not reason and subprocess.run(remount, capture_output=True).returncode == 0:
            yield "mounted read-only"
            return
    everything = [folder, *folder.rglob("*")]
    with modes(everything, remove=0o222):
        yield "file modes"


def permissions(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """Images, folders, workspaces and stores without read or write permission."""
    outcome, trial, run = (
        Outcome("permission errors"),
        bed.trial(),
        partial(bed.run, command=obedient()),
    )
    if not obedient():
        outcome.seen["skipped: root may do anything, and setpriv is not installed"] += 1
        yield outcome
        return
    for number, file in enumerate(bed.images[:300]):
        image = trial.images / f"class{number % 3}" / f"{number:05}.jpg"
        image.parent.mkdir(exist_ok=True)
        shutil.copy2(file, image)
    closed = rng.sample(trial.files(), 5)
    ids = {trial.id_of(image) for image in closed}
    with modes(closed, 0o000):
        outcome.note(run(*trial.extract()), code=0, says="5 images were refused")
        snapshots = trial.snapshots()
        outcome.judge({}, snapshots, bed.truth)
        for snapshot in snapshots.values():
            outcome.require(set(snapshot.refused) == ids, f"refused: {snapshot.refused}")
            why = set(snapshot.refused.values())
            outcome.require(why == {"cannot be read: Permission denied"}, f"reasons: {why}")
    outcome.note(run(*trial.extract()), code=0)
    snapshots, before = trial.snapshots(), snapshots
    outcome.judge(before, snapshots, bed.truth)
    all_done = all(len(snapshot.done) == 300 for snapshot in snapshots.values())
    outcome.require(all_done, "images were not read once that was permitted")
    with modes(closed, 0o000):
        outcome.note(run(*trial.extract("--rehash")), code=0)
        outcome.judge(snapshots, trial.snapshots(), bed.truth)
    store = trial.stores()["grey"]
    for path, says in (
        (trial.images / "class0", "Cannot list the folder"),
        (trial.workspace, "is not readable"),
        (store, "Permission denied"),
        (trial.workspace / "manifest.parquet", "Permission denied"),
    ):
        with modes([path], 0o000):
            outcome.note(run(*trial.extract()), code=(1, 2), says=says)
        with modes([path], 0o555):
            outcome.note(run(*trial.extract()), code=(0, 1))
        outcome.n_runs += 2
    outcome.n_runs += 3
    outcome.note(run(*trial.extract()), code=0)
    outcome.judge(snapshots, trial.snapshots(), bed.truth)
    yield outcome


@contextlib.contextmanager
def modes(paths: Sequence[Path], mode: int | None = None, remove: int = 0) -> Iterator[None]:
    """Change the modes of files and folders for a while, or remove some bits of them."""
    before = [path.stat().st_mode for path in paths]
    for path, was in zip(paths, before, strict=True):
        path.chmod(was & ~remove if mode is None else mode)
    try:
        yield
    finally:
        for path, was in zip(paths, before, strict=True):
            path.chmod(was)


def obedient() -> Sequence[str]:
    """The command line without root's right to ignore file modes; empty if that is impossible."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return COMMAND
    if shutil.which("setpriv") is None:
        return ()
    rights = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *COMMAND)
