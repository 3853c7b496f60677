"""What the faults are tried on: generated images, workspaces, and the installed command line."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from outcomes import Ended, Outcome
from PIL import Image
from stores import VIEWS, Snapshot, Truth, digest_of

COMMAND = (str(Path(sys.executable).with_name("featurepipe")),)
STOPPED = "run the same command again"
"""What a command says that was stopped."""


class Trial:
    """A folder of images and a workspace, in which one fault is tried."""

    def __init__(self, root: Path) -> None:
        self.images, self.workspace = root / "images", root / "workspace"
        self.images.mkdir(parents=True, exist_ok=True)
        self.workspace.mkdir(parents=True, exist_ok=True)

    def add(self, files: Sequence[Path], at: int = 0) -> None:
        """Link images into the folder, numbered from `at`."""
        for number, file in enumerate(files, start=at):
            image = self.images / f"class{number % 3}" / f"{number:05}.jpg"
            image.parent.mkdir(exist_ok=True)
            os.link(file, image)

    def swap(self, image: Path, file: Path) -> None:
        """Replace an image by another file, in one step."""
        beside = self.images / "beside"
        os.link(file, beside)
        beside.replace(image)

    def files(self) -> list[Path]:
        """All images, sorted."""
        return sorted(self.images.glob("class*/*"))

    def id_of(self, image: Path) -> str:
        """The id of an image."""
        return image.relative_to(self.images).as_posix()

    @property
    def here(self) -> tuple[str, str]:
        """The option that names the workspace."""
        return "--workspace", str(self.workspace)

    def extract(self, *options: str) -> tuple[str, ...]:
        """Arguments that extract every view."""
        views = ",".join(VIEWS)
        return ("extract", str(self.images), "--backbone=hsv-histogram", f"--view={views}",
                *self.here, *options)  # fmt: skip

    def stores(self) -> dict[str, Path]:
        """The existing stores, by view."""
        paths = (self.workspace / "features").glob("[!.]*.h5")
        return {path.stem.rpartition("-")[2]: path for path in sorted(paths)}

    def snapshots(self) -> dict[str, Snapshot]:
        """What all stores hold, by view."""
        return {view: Snapshot.of(path) for view, path in self.stores().items()}

    def n_done(self) -> int:
        """Number of rows that are done, over all stores."""
        return sum(len(snapshot.done) for snapshot in self.snapshots().values())

    def leftovers(self) -> list[str]:
        """Files that are neither stores nor locks."""
        return [
            path.name
            for path in (self.workspace / "features").glob("*")
            if not path.name.endswith(".lock") and path not in self.stores().values()
        ]


class Testbed:
    """Generated images, the truth about them, and a new `Trial` for each fault."""

    def __init__(self, folder: Path, n_images: int, seed: int, n_kills: int = 100) -> None:
        self.folder, self.seed, self.n_kills = folder, seed, n_kills
        self.environment = os.environ | {"FEATUREPIPE_CACHE": str(folder / "cache")}
        self._n_trials = 0
        self.pool = draw_images(folder / "pool", n_images + n_images // 4, seed)
        self.images, self.others = self.pool[:n_images], self.pool[n_images:]
        self.truth = Truth()
        self.whole = self.trial(self.pool)
        self.full_s, self.start_s = (self._time(self.whole) for _ in range(2))
        self.truth.take(self.whole.snapshots())
        for image in self.pool[:: max(1, len(self.pool) // 20)]:
            self._require_truth(image)
        print(
            f"{len(self.pool)} images; undisturbed: {self.full_s:.1f} s, and {self.start_s:.1f} s "
            "if nothing has changed",
            file=sys.stderr,
        )

    def _time(self, trial: Trial) -> float:
        started = time.perf_counter()
        ended = self.run(*trial.extract())
        assert ended.code == 0, ended.err
        return time.perf_counter() - started

    def _require_truth(self, image: Path) -> None:
        alone = Truth()
        alone.learn(image.read_bytes())
        for view in VIEWS:
            features = alone._features[view, digest_of(image)]
            assert self.truth.holds(view, digest_of(image), features), image

    def trial(self, files: Sequence[Path] = ()) -> Trial:
        """A new trial with some images."""
        self._n_trials += 1
        trial = Trial(self.folder / f"trial-{self._n_trials}")
        trial.add(files)
        return trial

    def finished(self, n_images: int | None = None) -> Trial:
        """A new trial whose stores are complete."""
        trial = self.trial(self.images[:n_images])
        ended = self.run(*trial.extract())
        assert ended.code == 0, ended.err
        return trial

    def start(self, *arguments: str, command: Sequence[str] = COMMAND) -> subprocess.Popen:
        """Start the command line in a child process."""
        return subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.folder,
        )

    def run(self, *arguments: str, command: Sequence[str] = COMMAND) -> Ended:
        """Run the command line in a child process, to its end."""
        return finish(self.start(*arguments, command=command))

    def expected_s(self, trial: Trial) -> float:
        """Estimated seconds of an undisturbed run from the current state."""
        n_done = min((len(one.done) for one in trial.snapshots().values()), default=0)
        share = (len(trial.files()) - n_done) / len(self.pool)
        return self.start_s + share * (self.full_s - self.start_s)

    def settle(
        self, outcome: Outcome, trial: Trial, *options: str, refused: Collection[str] = ()
    ) -> None:
        """Extract once more, undisturbed, and compare every image with its row."""
        before = trial.snapshots()
        ended = self.run(*trial.extract(*options))
        outcome.require(ended.code == 0, f"an undisturbed run fails: {ended.err[-500:]}")
        now = {trial.id_of(image): image for image in trial.files()}
        changed = {
            key
            for snapshot in before.values()
            for key, (digest, _) in snapshot.done.items()
            if key not in now or key in refused or digest != digest_of(now[key])
        }
        after = trial.snapshots()
        outcome.judge(before, after, self.truth, changed)
        outcome.require(set(after) == set(VIEWS), f"there are stores for {sorted(after)} only")
        for view, snapshot in after.items():
            unlike = [
                key
                for key, image in now.items()
                if (snapshot.done.get(key, (b"", b""))[0] != digest_of(image)) != (key in refused)
            ]
            outcome.n_wrong += len(unlike)
            outcome.require(not unlike, f"{view}: rows do not match their images: {unlike[:3]}")
        outcome.require(not trial.leftovers(), f"left over: {trial.leftovers()}")


def draw_images(folder: Path, n_images: int, seed: int) -> list[Path]:
    """Photograph-like JPEGs of about 15 kB, no two alike."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    files = []
    for number in range(n_images):
        coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        files.append(folder / f"{number:05}.jpg")
        image = Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
        image.save(files[-1], quality=88)
    return files


def finish(process: subprocess.Popen, seconds: float = 300) -> Ended:
    """Wait for the end of a process; kill it if it takes longer."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return Ended(process.returncode, out, f"{err}\n(hung for {seconds} s: killed)")
    return Ended(process.returncode, out, err)


def wait_until(holds: Callable[[], object], seconds: float = 60) -> bool:
    """Ask once a millisecond until a condition holds; False if it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.001)
    return False


def wait_until_written(trial: Trial, process: subprocess.Popen) -> bool:
    """Wait until a store is being made or grown; False if the process ends first."""
    features = trial.workspace / "features"
    wait_until(lambda: any(features.glob(".*.part")) or process.poll() is not None)
    return process.poll() is None
