"""Other processes that write or read the same workspace meanwhile."""

import random
from collections.abc import Collection, Iterator, Mapping
from subprocess import Popen

from outcomes import Outcome
from stores import Snapshot
from testbed import Testbed, Trial, finish, wait_until

from featurepipe.errors import FeaturepipeError
from featurepipe.features.store import FeatureStore


def second_writer(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """A second process that writes during an extraction, and two that start at once."""
    outcome, locked = Outcome("a second writer"), "Another featurepipe process is writing"
    for _ in range(3):
        trial = bed.trial(bed.images)
        first = bed.start(*trial.extract())
        wait_until(lambda trial=trial: trial.n_done() > 0)
        outcome.note(bed.run(*trial.extract()), code=1, says=locked)
        outcome.require(first.poll() is None, "the first process had ended before the second began")
        outcome.note(finish(first), code=0)
        outcome.n_runs += 1
        bed.settle(outcome, trial)
    for _ in range(3):
        trial = bed.trial(bed.images[:500])
        pair = [bed.start(*trial.extract()) for _ in range(2)]
        for process in pair:
            ended = finish(process)
            outcome.note(ended, code=(0, 1), says=locked if ended.code else "")
        codes = [process.returncode for process in pair]
        outcome.require(min(codes) == 0, "neither of two processes succeeded")
        outcome.n_runs += 1
        bed.settle(outcome, trial)
    yield outcome


def reader(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """Readers while rows are written for the first time, and while they are replaced."""
    trial, snapshots = bed.trial(bed.images), {}
    for title, n_changed in (("first", 0), ("again", len(bed.others))):
        outcome = Outcome(f"a reader while rows are written ({title})")
        changed = rng.sample(trial.files(), n_changed)
        for image, file in zip(changed, bed.others, strict=False):
            trial.swap(image, file)
        process = bed.start(*trial.extract())
        ids = {trial.id_of(image) for image in changed}
        _read_meanwhile(outcome, bed, trial, process, snapshots, ids)
        outcome.note(finish(process), code=0)
        bed.settle(outcome, trial)
        snapshots = trial.snapshots()
        yield outcome


def _read_meanwhile(
    outcome: Outcome, bed: Testbed, trial: Trial, process: Popen,
    snapshots: Mapping[str, Snapshot], changed: Collection[str],
) -> None:  # fmt: skip
    commands: list[Popen] = []
    while process.poll() is None:
        try:
            now = trial.snapshots()
            outcome.judge(snapshots, now, bed.truth, changed)
            for path in trial.stores().values():
                with FeatureStore.open(path) as store:
                    store.features()
        except FeaturepipeError as error:
            outcome.complain(f"a reader gets an error: {error}")
            outcome.n_wrong += 1
            continue
        snapshots = now
        outcome.n_runs += bool(now)
        if now and not commands:
            store = str(trial.stores()["rgb"])
            target = str(trial.workspace.parent / "out.npz")
            commands.append(bed.start("info", store, *trial.here))
            commands.append(bed.start("export", store, target, *trial.here))
    for command in commands:
        outcome.note(finish(command), code=0)
    outcome.seen[f"{outcome.n_runs} looks"] += 1
