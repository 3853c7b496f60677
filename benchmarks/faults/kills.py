"""Processes that are killed, terminated or interrupted."""

import random
import re
import signal
import time
from collections.abc import Iterator, Mapping

from damage import flip, offset_of
from outcomes import Ended, Outcome
from stores import VIEWS, Snapshot
from testbed import STOPPED, Testbed, Trial, finish, wait_until_written

_OUR_FRAMES = re.compile(r'File ".*(?:/featurepipe/|bin/featurepipe").*')


def kill_extract(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """SIGKILL at any moment; images are added whenever a run reaches its end."""
    outcome, n_kills = Outcome("SIGKILL, any moment of `extract`"), bed.n_kills * 5 // 10
    while outcome.n_runs < n_kills:
        trial, snapshots = bed.trial(bed.images[: len(bed.images) // 2]), {}
        n_rounds = rng.randint(4, 8)
        while n_rounds and outcome.n_runs < n_kills:
            process = bed.start(*trial.extract())
            time.sleep(rng.uniform(0, 1.1 * bed.expected_s(trial)))
            process.kill()
            was_killed = finish(process).code == -signal.SIGKILL
            snapshots, before = trial.snapshots(), snapshots
            outcome.judge(before, snapshots, bed.truth)
            if was_killed:
                outcome.n_runs, n_rounds = outcome.n_runs + 1, n_rounds - 1
                outcome.seen[phase(before, snapshots, trial)] += 1
            elif (n_now := len(trial.files())) < len(bed.images):
                trial.add(bed.images[n_now : n_now + 300], at=n_now)
            else:
                break
        bed.settle(outcome, trial)
    yield outcome


def phase(before: Mapping[str, Snapshot], after: Mapping[str, Snapshot], trial: Trial) -> str:
    """How far a process had come when it was killed."""
    n_images, had = len(trial.files()), sum(len(one.done) for one in before.values())
    has = sum(len(one.done) for one in after.values())
    if len(after) < len(VIEWS):
        return "before the stores existed"
    if any(one.n_images < n_images for one in after.values()):
        return "before they had grown"
    if has == had:
        return "before the first batch"
    return "when all was done" if has == n_images * len(VIEWS) else "during embedding"


def kill_grow(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """SIGKILL while the file of a store is written, at its creation or growth."""
    outcome, n_kills = Outcome("SIGKILL while a store is made or grows"), bed.n_kills * 3 // 10
    while outcome.n_runs < n_kills:
        n_images = len(bed.images) // 2
        trial, snapshots = bed.trial(bed.images[:n_images]), {}
        for _ in range(rng.randint(3, 6)):
            process = bed.start(*trial.extract())
            caught = wait_until_written(trial, process)
            time.sleep(rng.uniform(0, 0.02))
            if rng.random() < 0.3:
                # Let it embed some images, so that there is something to lose.
                time.sleep(rng.uniform(0, bed.expected_s(trial)))
            process.kill()
            was_killed = finish(process).code == -signal.SIGKILL
            snapshots, before = trial.snapshots(), snapshots
            outcome.judge(before, snapshots, bed.truth)
            if was_killed and caught:
                outcome.n_runs += 1
                outcome.seen[phase(before, snapshots, trial)] += 1
            trial.add(bed.images[n_images : n_images + 20], at=n_images)
            n_images += 20
        bed.settle(outcome, trial)
    yield outcome


def kill_heal(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """SIGKILL while `extract` rebuilds a store some of whose rows are damaged."""
    outcome = Outcome("SIGKILL while `extract` heals a store")
    n_kills = bed.n_kills - bed.n_kills * 8 // 10
    trial = bed.finished()
    while outcome.n_runs < n_kills:
        path = trial.stores()["rgb"]
        for _ in range(5):
            flip(path, offset_of(path, "features", rng), rng)
        snapshot = Snapshot.of(path)
        for number in range(4):
            process = bed.start(*trial.extract())
            if number % 2:
                wait_until_written(trial, process)
                time.sleep(rng.uniform(0, 0.01))
            else:
                time.sleep(rng.uniform(0, 1.5 * bed.start_s))
            process.kill()
            was_killed = finish(process).code == -signal.SIGKILL
            outcome.n_runs += was_killed
            snapshot, before = Snapshot.of(path), snapshot
            lost = set(before.done) - set(snapshot.done)
            outcome.n_rows += len(snapshot.done)
            outcome.n_lost += len(lost)
            is_healed = not snapshot.damaged
            outcome.seen["healed already" if is_healed else "still damaged"] += was_killed
            if is_healed:
                break
        bed.settle(outcome, trial)
    yield outcome


def send_signals(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """SIGTERM, Ctrl-C, and Ctrl-C twice, at any moment."""
    for title, sent, code, times in (
        ("SIGTERM, any moment", signal.SIGTERM, 143, 1),
        ("Ctrl-C, any moment", signal.SIGINT, 130, 1),
        ("Ctrl-C twice, any moment", signal.SIGINT, 130, 2),
    ):
        outcome = Outcome(title)
        while outcome.n_runs < max(4, bed.n_kills // 5):
            trial, snapshots = bed.trial(bed.images[: len(bed.images) // 2]), {}
            for _ in range(4):
                process = bed.start(*trial.extract())
                time.sleep(rng.uniform(0, 1.1 * bed.expected_s(trial)))
                for number in range(times):
                    time.sleep(rng.uniform(0, 0.3) if number else 0)
                    process.send_signal(sent)
                _note_signal(outcome, finish(process), sent, code)
                outcome.n_runs += 1
                snapshots, before = trial.snapshots(), snapshots
                outcome.judge(before, snapshots, bed.truth)
            bed.settle(outcome, trial)
        yield outcome


def _note_signal(outcome: Outcome, ended: Ended, sent: int, code: int) -> None:
    is_pythons = "Traceback" in ended.err and not _OUR_FRAMES.search(ended.err)
    if ended.code == -sent or is_pythons:
        # Like any other Python program; the shell reports 128 + the signal either way.
        outcome.seen["before the program's first line"] += 1
        ours = "Traceback" in ended.err and not is_pythons
        outcome.require(not ours, f"traceback: {ended.err[-1500:]}")
    elif ended.code == 0:
        outcome.note(ended, code=0)
    else:
        outcome.note(ended, code=code, says=STOPPED)
