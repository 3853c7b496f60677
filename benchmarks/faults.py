"""The store under faults: no committed row lost, every row right or marked.

    python benchmarks/faults.py [--kills 100] [--images 3000] [--seed 0] [--only NAME …]

Each fault befalls the installed command line in a child process that extracts generated
images, two views in one pass. After each, every row is compared with the features of the
very bytes that its digest names, as an undisturbed run computed them:

* *lost*: the row was done at one look and is not, or is another, at a later one, though
  its image has not changed;
* *wrong*: the row is done with other features than those of its bytes, or is damaged, or
  an undisturbed run afterwards does not bring it to what the image is.

Full and read-only disks are mounted and other users asked for where that is permitted
(root); else they are skipped or done with file modes, and the table says so.
"""

import argparse
import contextlib
import hashlib
import http.server
import inspect
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as NoAnswerError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

import featurepipe
from featurepipe.errors import FeaturepipeError, ImageError
from featurepipe.features.extraction.decoding import decode_image
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.extraction.views import find_view
from featurepipe.features.store import FeatureStore
from featurepipe.workflows.info import info

VIEWS = ("rgb", "grey")
COMMAND = (str(Path(sys.executable).with_name("featurepipe")),)
# The same with time limits that a test can wait for.
IMPATIENT = (
    sys.executable,
    "-c",
    "from featurepipe.sources import patience\n"
    "patience.TRY_SECONDS, patience.LISTING_SECONDS, patience.FIRST_PAUSE_SECONDS = 3.0, 6.0, 0.1\n"
    "from featurepipe.cli import main\n"
    "main()",
)
_OUR_FRAMES = re.compile(r'File ".*(?:/featurepipe/|bin/featurepipe").*')
_STOPPED = "What was done stays done; run the same command again"

Features = dict[str, tuple[bytes, bytes]]
"""Digest and features of some rows, by image id."""


def main() -> None:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs in all")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=FAULTS, metavar="NAME", default=[])
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="featurepipe-faults-"))
    # Others than root must be able to enter it.
    folder.chmod(0o755)
    try:
        ground = Ground(folder, arguments.images, arguments.seed, arguments.kills)
        print(_HEAD, flush=True)
        tables = [befall(ground, name) for name in arguments.only or FAULTS]
        for line in (line for table in tables for row in table for line in row.problems):
            print(f"\n* {line}")
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(any(not row.is_good for table in tables for row in table))


def befall(ground: "Ground", name: str) -> "list[Row]":
    """Run one fault, and print its rows of the table."""
    started = time.perf_counter()
    rows = []
    for row in FAULTS[name](ground, random.Random(f"{ground.seed} {name}")):
        rows.append(row)
        print(row, flush=True)
        for line in row.problems:
            print(f"  {line}", file=sys.stderr, flush=True)
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return rows


# The table


_HEAD = "| fault | runs | rows checked | lost | wrong | what was seen |\n| --- |" + " --- |" * 5


@dataclass
class Row:
    """What one fault did."""

    fault: str
    n_runs: int = 0
    n_rows: int = 0
    n_lost: int = 0
    n_wrong: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.n_lost or self.n_wrong or self.problems)

    def __str__(self) -> str:
        seen = "; ".join(f"{what} ({n})" if n > 1 else what for what, n in self.seen.items())
        cells = (self.fault, self.n_runs, f"{self.n_rows:,}", self.n_lost, self.n_wrong, seen)
        bad = f" **{len(self.problems)} problems**" if self.problems else ""
        return f"| {' | '.join(map(str, cells))}{bad} |"

    def complain(self, what: str) -> None:
        """Note what is wrong beyond rows; the same thing once."""
        line = f"{self.fault}: {what}"
        if line not in self.problems:
            self.problems.append(line)

    def require(self, holds: bool, what: str) -> None:
        """Note it unless it holds."""
        if not holds:
            self.complain(what)

    def note(self, ended: "Ended", *, code: int | Collection[int], says: str = "") -> None:
        """Note how a process ended, and whether it did so as it should."""
        codes = (code,) if isinstance(code, int) else code
        self.seen[f"exit {ended.code}" + (f", “{says}”" if says and says in ended.err else "")] += 1
        self.require("Traceback" not in ended.err, f"traceback: {ended.err[-1500:]}")
        self.require(ended.code in codes, f"exit {ended.code}, not {codes}: {ended.err[-500:]}")
        self.require(says in ended.err, f"{says!r} is not said: {ended.err[-500:]!r}")
        if ended.code == 1:
            lines = [line for line in ended.err.splitlines() if line.startswith("featurepipe: ")]
            self.require(len(lines) == 1, f"not one line of error: {ended.err[-500:]!r}")

    def judge(
        self, before: "Mapping[str, Look]", after: "Mapping[str, Look]", truth: "Truth",
        changed: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Compare what the stores hold with what they held, and with the truth."""
        self.require(set(before) <= set(after), "a whole store is lost")
        for view, look in after.items():
            self.n_rows += len(look.done) + len(look.refused)
            known = before[view].done if view in before else {}
            lost = [
                key
                for key, row in known.items()
                if key not in changed and look.done.get(key) != row
            ]
            wrong = [key for key, row in look.done.items() if not truth.holds(view, *row)]
            wrong += look.damaged
            self.n_lost += len(lost)
            self.n_wrong += len(wrong)
            if lost or wrong:
                self.complain(f"{view}: lost {lost[:3]}, wrong {wrong[:3]}")


# What there is to disturb


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Look:
    """What a store holds at one moment: sound rows, and the others."""

    done: Features
    refused: dict[str, str]
    n_images: int
    damaged: list[str]

    @classmethod
    def at(cls, path: Path) -> "Look":
        """Look at a store; reading checks every checksum."""
        with FeatureStore.open(path) as store:
            # In this order: a row that is done by now had its digest before.
            ids, damaged, rows = store.ids, store.damaged_rows(), store.rows("done")
            rows = np.setdiff1d(rows, damaged)
            before, features, digests = store.digests, store.features(rows), store.digests
            done = {
                ids[row]: (digests[row].tobytes(), values.tobytes())
                for row, values in zip(rows, features, strict=True)
                # Else it was replaced in between: not to be seen all at once.
                if (digests[row] == before[row]).all()
            }
            return cls(done, store.refused(), len(ids), ids[damaged].tolist())


class Truth:
    """The features of bytes, by their digest: of an undisturbed run, or computed alone."""

    def __init__(self) -> None:
        self._features: dict[tuple[str, bytes], bytes] = {}
        self._recipes = {view: make_recipe("hsv_histogram", view=view) for view in VIEWS}

    def take(self, looks: Mapping[str, Look]) -> None:
        """Believe what the stores of an undisturbed run hold."""
        for view, look in looks.items():
            self._features |= {(view, digest): row for digest, row in look.done.values()}

    def learn(self, data: bytes) -> None:
        """Compute it for some bytes, if they can be decoded."""
        digest = hashlib.sha256(data).digest()
        for view, recipe in self._recipes.items():
            if (view, digest) in self._features:
                continue
            try:
                pixels = decode_image(data, recipe.network.input_size)
            except ImageError:
                continue
            shown = find_view(view)
            features = shown.merge(recipe.open_engine(None).embed(shown.apply(pixels[None])))
            self._features[view, digest] = features[0].tobytes()

    def holds(self, view: str, digest: bytes, features: bytes) -> bool:
        """Whether these are the features of those bytes."""
        return self._features.get((view, digest)) == features


class Place:
    """A folder of images and a workspace about them."""

    def __init__(self, root: Path, images: Path | None = None) -> None:
        self.images, self.workspace = images or root / "images", root / "workspace"
        self.images.mkdir(parents=True, exist_ok=True)
        self.workspace.mkdir(parents=True, exist_ok=True)

    def add(self, files: Sequence[Path], at: int = 0) -> None:
        """Link images into the folder, numbered from `at`."""
        for number, file in enumerate(files, start=at):
            image = self.images / f"class{number % 3}" / f"{number:05}.jpg"
            image.parent.mkdir(exist_ok=True)
            os.link(file, image)

    def swap(self, image: Path, file: Path) -> None:
        """Put another file in the place of an image, at once."""
        beside = self.images / "beside"
        os.link(file, beside)
        beside.replace(image)

    def files(self) -> list[Path]:
        """All images, in their order."""
        return sorted(self.images.glob("class*/*"))

    def id_of(self, image: Path) -> str:
        """The id of an image."""
        return image.relative_to(self.images).as_posix()

    def extract(self, *options: str) -> tuple[str, ...]:
        """Arguments that extract every view."""
        views = ",".join(VIEWS)
        here = ("--workspace", str(self.workspace))
        return ("extract", str(self.images), "--backbone=hsv-histogram", f"--view={views}",
                *here, *options)  # fmt: skip

    def stores(self) -> dict[str, Path]:
        """The stores that there are, by view."""
        found = (self.workspace / "features").glob("[!.]*.h5")
        return {path.stem.rpartition("-")[2]: path for path in sorted(found)}

    def look(self) -> dict[str, Look]:
        """What all stores hold."""
        return {view: Look.at(path) for view, path in self.stores().items()}

    def leftovers(self) -> list[str]:
        """Files that are neither stores nor locks."""
        return [
            path.name
            for path in (self.workspace / "features").glob("*")
            if not path.name.endswith((".lock", ".damaged")) and path not in self.stores().values()
        ]


class Ground:
    """Generated images, the truth about them, and places to disturb."""

    def __init__(self, folder: Path, n_images: int, seed: int, n_kills: int = 100) -> None:
        self.folder, self.seed, self.n_kills = folder, seed, n_kills
        self.environment = os.environ | {"FEATUREPIPE_CACHE": str(folder / "cache")}
        self._n_places = 0
        self.pool = draw_images(folder / "pool", n_images + n_images // 4, seed)
        self.images, self.others = self.pool[:n_images], self.pool[n_images:]
        self.truth = Truth()
        self.whole = self.place(self.pool)
        self.full_s, self.start_s = (self._time(self.whole) for _ in range(2))
        self.truth.take(self.whole.look())
        for image in self.pool[:: len(self.pool) // 20]:
            self._require_truth(image)
        print(
            f"{len(self.pool)} images; undisturbed: {self.full_s:.1f} s, and {self.start_s:.1f} s "
            "if nothing has changed",
            file=sys.stderr,
        )

    def _time(self, place: Place) -> float:
        started = time.perf_counter()
        ended = self.run(*place.extract())
        assert ended.code == 0, ended.err
        return time.perf_counter() - started

    def _require_truth(self, image: Path) -> None:
        alone, digest = Truth(), hashlib.sha256(image.read_bytes()).digest()
        alone.learn(image.read_bytes())
        for view in VIEWS:
            assert self.truth.holds(view, digest, alone._features[view, digest]), image

    def place(self, files: Sequence[Path] = ()) -> Place:
        """A new place with some images."""
        self._n_places += 1
        place = Place(self.folder / f"place-{self._n_places}")
        place.add(files)
        return place

    def finished(self, n_images: int | None = None) -> Place:
        """A new place whose stores are complete."""
        place = self.place(self.images[:n_images])
        ended = self.run(*place.extract())
        assert ended.code == 0, ended.err
        return place

    def start(self, *arguments: str, command: Sequence[str] = COMMAND, **options):
        """Start the command line in a child process."""
        return subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.folder,
            **options,
        )

    def run(self, *arguments: str, **options) -> Ended:
        """Run the command line in a child process, to its end."""
        return finish(self.start(*arguments, **options))

    def expected_s(self, place: Place) -> float:
        """How long an undisturbed run would take about now."""
        n_done = min((len(look.done) for look in place.look().values()), default=0)
        share = (len(place.files()) - n_done) / len(self.pool)
        return self.start_s + share * (self.full_s - self.start_s)

    def settle(self, row: Row, place: Place, *options: str, refused: Collection[str] = ()) -> None:
        """Run to the end, and compare every image with its row."""
        before = place.look()
        ended = self.run(*place.extract(*options))
        row.require(ended.code == 0, f"an undisturbed run fails: {ended.err[-500:]}")
        now = {place.id_of(image): image for image in place.files()}
        changed = {
            key
            for look in before.values()
            for key, (digest, _) in look.done.items()
            if key not in now or key in refused or digest != digest_of(now[key])
        }
        after = place.look()
        row.judge(before, after, self.truth, changed)
        row.require(set(after) == set(VIEWS), f"there are stores for {sorted(after)} only")
        for view, look in after.items():
            unlike = [
                key
                for key, image in now.items()
                if (look.done.get(key, (b"", b""))[0] != digest_of(image)) != (key in refused)
            ]
            row.n_wrong += len(unlike)
            row.require(not unlike, f"{view}: rows are not as their images are: {unlike[:3]}")
        row.require(not place.leftovers(), f"left over: {place.leftovers()}")


def draw_images(folder: Path, n_images: int, seed: int) -> list[Path]:
    """Photograph-like JPEGs of some 15 kB, no two alike."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    files = []
    for number in range(n_images):
        coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        files.append(folder / f"{number:05}.jpg")
        image = Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
        image.save(files[-1], quality=88)
    return files


def digest_of(image: Path) -> bytes:
    """SHA-256 of an image's bytes; nothing if they cannot be read."""
    try:
        return hashlib.sha256(image.read_bytes()).digest()
    except OSError:
        return b""


def finish(process: subprocess.Popen, seconds: float = 300) -> Ended:
    """Wait for the end of a process."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return Ended(process.returncode, out, f"{err}\n(hung for {seconds} s: killed)")
    return Ended(process.returncode, out, err)


def wait_until(holds: Callable[[], object], seconds: float = 60) -> bool:
    """Wait for something, a millisecond at a time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.001)
    return False


def wait_until_made(place: Place, process: subprocess.Popen) -> bool:
    """Wait until a store is being made or grown; False if the process ends before."""
    features = place.workspace / "features"
    wait_until(lambda: any(features.glob(".*.part")) or process.poll() is not None)
    return process.poll() is None


def n_done(place: Place) -> int:
    """Rows that are done in all stores."""
    return sum(len(look.done) for look in place.look().values())


# Kills and signals


def kill_extract(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """SIGKILL at any moment; images are added whenever a run came to its end."""
    row, n_kills = Row("SIGKILL, any moment of `extract`"), ground.n_kills * 5 // 10
    while row.n_runs < n_kills:
        place, looks = ground.place(ground.images[: len(ground.images) // 2]), {}
        n_rounds = rng.randint(4, 8)
        while n_rounds and row.n_runs < n_kills:
            process = ground.start(*place.extract())
            time.sleep(rng.uniform(0, 1.1 * ground.expected_s(place)))
            process.kill()
            was_killed = finish(process).code == -signal.SIGKILL
            looks, before = place.look(), looks
            row.judge(before, looks, ground.truth)
            if was_killed:
                row.n_runs, n_rounds = row.n_runs + 1, n_rounds - 1
                row.seen[phase(before, looks, place)] += 1
            elif (n_now := len(place.files())) < len(ground.images):
                place.add(ground.images[n_now : n_now + 300], at=n_now)
            else:
                break
        ground.settle(row, place)
    yield row


def phase(before: Mapping[str, Look], after: Mapping[str, Look], place: Place) -> str:
    """What a process had come to when it was killed."""
    n_images, had = len(place.files()), sum(len(look.done) for look in before.values())
    has = sum(len(look.done) for look in after.values())
    if len(after) < len(VIEWS):
        return "before the stores were there"
    if any(look.n_images < n_images for look in after.values()):
        return "before they had grown"
    if has == had:
        return "before the first batch"
    return "when all was done" if has == n_images * len(VIEWS) else "amid embedding"


def kill_grow(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """SIGKILL while the file of a store is being written, at its creation or growth."""
    row, n_kills = Row("SIGKILL while a store is made or grows"), ground.n_kills * 3 // 10
    while row.n_runs < n_kills:
        n_images = len(ground.images) // 2
        place, looks = ground.place(ground.images[:n_images]), {}
        for _ in range(rng.randint(3, 6)):
            process = ground.start(*place.extract())
            caught = wait_until_made(place, process)
            time.sleep(rng.uniform(0, 0.02))
            if rng.random() < 0.3:
                # Let it embed some, so that there is something to lose.
                time.sleep(rng.uniform(0, ground.expected_s(place)))
            process.kill()
            was_killed = finish(process).code == -signal.SIGKILL
            looks, before = place.look(), looks
            row.judge(before, looks, ground.truth)
            if was_killed and caught:
                row.n_runs += 1
                row.seen[phase(before, looks, place)] += 1
            place.add(ground.images[n_images : n_images + 20], at=n_images)
            n_images += 20
        ground.settle(row, place)
    yield row


def kill_repair(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """SIGKILL during `repair` of a store some of whose rows are damaged."""
    row, n_kills = Row("SIGKILL during `repair`"), ground.n_kills - ground.n_kills * 8 // 10
    place = ground.finished()
    while row.n_runs < n_kills:
        path = place.stores()["rgb"]
        for _ in range(5):
            flip(path, offset_of(path, "features", rng), rng)
        looks = place.look()
        for number in range(4):
            process = ground.start("repair", str(path), "--workspace", str(place.workspace))
            if number % 2:
                wait_until_made(place, process)
                time.sleep(rng.uniform(0, 0.01))
            else:
                time.sleep(rng.uniform(0, 1.5 * ground.start_s))
            process.kill()
            was_killed = finish(process).code == -signal.SIGKILL
            row.n_runs += was_killed
            looks, before = place.look(), looks
            lost = set(before["rgb"].done) - set(looks["rgb"].done)
            row.n_rows, row.n_lost = row.n_rows + len(looks["rgb"].done), row.n_lost + len(lost)
            is_mended = not looks["rgb"].damaged
            row.seen["mended already" if is_mended else "still as it was"] += was_killed
            if is_mended:
                break
        ended = ground.run("repair", str(path), "--workspace", str(place.workspace))
        row.require(ended.code == 0, f"repair fails: {ended.err}")
        path.with_name(f"{path.name}.damaged").unlink(missing_ok=True)
        ground.settle(row, place)
    yield row


def send_signals(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """SIGTERM, Ctrl-C, and Ctrl-C twice, at any moment."""
    for title, sent, code, times in (
        ("SIGTERM, any moment", signal.SIGTERM, 143, 1),
        ("Ctrl-C, any moment", signal.SIGINT, 130, 1),
        ("Ctrl-C twice, any moment", signal.SIGINT, 130, 2),
    ):
        row = Row(title)
        while row.n_runs < max(4, ground.n_kills // 5):
            place, looks = ground.place(ground.images[: len(ground.images) // 2]), {}
            for _ in range(4):
                process = ground.start(*place.extract())
                time.sleep(rng.uniform(0, 1.1 * ground.expected_s(place)))
                for number in range(times):
                    time.sleep(rng.uniform(0, 0.3) if number else 0)
                    process.send_signal(sent)
                _note_signal(row, finish(process), sent, code)
                row.n_runs += 1
                looks, before = place.look(), looks
                row.judge(before, looks, ground.truth)
            ground.settle(row, place)
        yield row


def _note_signal(row: Row, ended: Ended, sent: int, code: int) -> None:
    is_pythons = "Traceback" in ended.err and not _OUR_FRAMES.search(ended.err)
    if ended.code == -sent or is_pythons:
        # As any other program of Python; the shell reports 128 + the signal all the same.
        row.seen["before the program's first line"] += 1
        row.require("Traceback" not in ended.err or is_pythons, f"traceback: {ended.err[-1500:]}")
    elif ended.code == 0:
        row.note(ended, code=0)
    else:
        row.note(ended, code=code, says=_STOPPED)


# Disks


def full_disk(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """A disk too small, and one that another file fills up meanwhile."""
    row = Row("disk too small for the stores")
    needed_mb = 2 * sum(path.stat().st_size for path in ground.whole.stores().values()) / 1e6
    with disk(ground, "size=1m") as reason:
        if reason:
            row.seen[f"skipped: {reason}"] += 1
            yield row
            return
    for share in (0.002, 0.005, 0.01, 0.05, 0.1, 0.2, 0.3):
        place = ground.place(ground.images)
        with disk(ground, f"size={int(share * needed_mb * 1000)}k", place.workspace):
            row.note(ground.run(*place.extract()), code=1, says="The disk is full")
            row.n_runs += 1
            row.judge({}, place.look(), ground.truth)
            row.require(not place.leftovers(), f"left over: {place.leftovers()}")
    yield row
    yield _full_while_made(ground, rng, needed_mb)
    yield _full_while_embedding(ground, needed_mb)


def _full_while_made(ground: Ground, rng: random.Random, needed_mb: float) -> Row:
    row = Row("disk fills up while stores are made or grow")
    for _ in range(12):
        place, half = ground.place(ground.images[:-200]), len(ground.images) // 2
        with disk(ground, f"size={int(1.5 * needed_mb) + 4}m", place.workspace):
            if rng.random() < 0.5:
                smaller = Place(place.workspace.parent / "half")
                smaller.add(ground.images[:half])
                smaller.workspace = place.workspace
                ground.run(*smaller.extract())
            looks = place.look()
            process = ground.start(*place.extract())
            wait_until_made(place, process)
            time.sleep(rng.uniform(0, 0.004))
            filler = fill(place.workspace)
            ended = finish(process)
            row.note(ended, code=(0, 1), says="The disk is full" if ended.code else "")
            row.n_runs += 1
            row.judge(looks, place.look(), ground.truth)
            row.require(not place.leftovers(), f"left over: {place.leftovers()}")
            filler.unlink()
            ground.settle(row, place)
    return row


def _full_while_embedding(ground: Ground, needed_mb: float) -> Row:
    row = Row("disk fills up amid embedding")
    for _ in range(2):
        place = ground.place(ground.images)
        with disk(ground, f"size={int(needed_mb) + 4}m", place.workspace):
            process = ground.start(*place.extract())
            wait_until(lambda place=place: n_done(place) > 0)
            filler = fill(place.workspace)
            ended = finish(process)
            row.note(ended, code=(0, 1), says="The disk is full" if ended.code else "")
            row.n_runs += 1
            looks = place.look()
            row.judge({}, looks, ground.truth)
            ended = ground.run(*place.extract())
            row.note(ended, code=(0, 1), says="The disk is full" if ended.code else "")
            filler.unlink()
            ground.settle(row, place)
    return row


@contextlib.contextmanager
def disk(ground: Ground, options: str, folder: Path | None = None) -> Iterator[str]:
    """A small file system of its own; why there can be none, if so."""
    folder = folder or ground.place().workspace
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
    """Take all room that a disk has left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0")
    return filler


def read_only(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """A workspace on a read-only disk: reading works, writing says why not."""
    row, place = Row("read-only workspace"), ground.finished(300)
    place.add(ground.others[:5], at=300)
    looks, here = place.look(), ("--workspace", str(place.workspace))
    store, work = str(place.stores()["rgb"]), place.workspace
    with _unwritable(place.workspace) as kind:
        row.fault += f" ({kind})"
        for arguments, code, says in (
            (place.extract(), 1, "cannot be written to"),
            (("repair", store, *here), 1, "cannot be written to"),
            (("extract", *place.extract()[1:-1], str(work / "new")), 1, "cannot be made"),
            (("info", store, "--verify", *here), 0, ""),
            (("export", store, str(work.parent / "out.npz"), *here), 0, ""),
            (("export", store, str(work / "out.npz"), *here), 1, ""),
        ):
            row.note(ground.run(*arguments, command=obedient()), code=code, says=says)
            row.n_runs += 1
            row.judge(looks, place.look(), ground.truth)
    ground.settle(row, place)
    yield row


@contextlib.contextmanager
def _unwritable(folder: Path) -> Iterator[str]:
    bind = ["mount", "--bind", str(folder), str(folder)]
    with _mounted(bind, folder) as reason:
        remount = ["mount", "-o", "remount,ro,bind", str(folder)]
        if not reason and subprocess.run(remount, capture_output=True).returncode == 0:
            yield "mounted read-only"
            return
    everything = [folder, *folder.rglob("*")]
    modes = [path.stat().st_mode for path in everything]
    for path, mode in zip(everything, modes, strict=True):
        path.chmod(mode & ~0o222)
    try:
        yield "file modes"
    finally:
        for path, mode in zip(everything, modes, strict=True):
            path.chmod(mode)


# Other processes


def second_writer(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """Others that write while an extraction runs, and two that start at once."""
    row, locked = Row("a second writer"), "Another featurepipe process is writing"
    for _ in range(3):
        place = ground.place(ground.images)
        first = ground.start(*place.extract())
        wait_until(lambda place=place: n_done(place) > 0)
        row.note(ground.run(*place.extract()), code=1, says=locked)
        store, here = str(place.stores()["rgb"]), ("--workspace", str(place.workspace))
        row.note(ground.run("repair", store, *here), code=1, says=locked)
        row.require(first.poll() is None, "the first had ended before the second began")
        row.note(finish(first), code=0)
        row.n_runs += 2
        ground.settle(row, place)
    for _ in range(3):
        place = ground.place(ground.images[:500])
        pair = [ground.start(*place.extract()) for _ in range(2)]
        for process in pair:
            ended = finish(process)
            row.note(ended, code=(0, 1), says=locked if ended.code else "")
        row.require(min(process.returncode for process in pair) == 0, "none of two went through")
        row.n_runs += 1
        ground.settle(row, place)
    yield row


def reader(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """Readers while rows are written for the first time, and while they are replaced."""
    place, looks = ground.place(ground.images), {}
    for title, n_changed in (("first", 0), ("again", len(ground.others))):
        row = Row(f"a reader while rows are written ({title})")
        changed = rng.sample(place.files(), n_changed)
        for image, file in zip(changed, ground.others, strict=False):
            place.swap(image, file)
        process = ground.start(*place.extract())
        ids = {place.id_of(image) for image in changed}
        _read_meanwhile(row, ground, place, process, looks, ids)
        row.note(finish(process), code=0)
        ground.settle(row, place)
        looks = place.look()
        yield row


def _read_meanwhile(row, ground, place, process, looks, changed) -> None:
    commands, here = [], ("--workspace", str(place.workspace))
    while process.poll() is None:
        try:
            now = place.look()
            row.judge(looks, now, ground.truth, changed)
            for path in place.stores().values():
                with FeatureStore.open(path) as store:
                    store.features()
        except FeaturepipeError as error:
            row.complain(f"a reader is told: {error}")
            row.n_wrong += 1
            continue
        looks = now
        row.n_runs += bool(now)
        if now and not commands:
            store = str(place.stores()["rgb"])
            target = str(place.workspace.parent / "out.npz")
            commands.append(ground.start("info", store, *here))
            commands.append(ground.start("export", store, target, *here))
    for command in commands:
        row.note(finish(command), code=0)
    row.seen[f"{row.n_runs} looks"] += 1


# Images


def images_change(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """Images are replaced, rewritten in place, grow, vanish and appear during the run."""
    row = Row("images change, vanish, grow, appear meanwhile")
    for _ in range(4):
        place = ground.place(ground.images[: len(ground.images) // 2])
        process = ground.start(*place.extract())
        for number, image in enumerate(rng.sample(place.files(), len(place.files()) // 2)):
            if process.poll() is not None:
                break
            kind = rng.choice(("replaced", "rewritten", "grown", "vanished", "appeared"))
            _change(ground, place, kind, image, ground.others[number % len(ground.others)])
            row.seen[kind] += 1
            time.sleep(rng.uniform(0, 0.005))
        row.note(finish(process), code=0)
        row.n_runs += 1
        # Of bytes half old and half new nobody knows the truth; they must be gone afterwards.
        looks = place.look()
        row.n_rows += sum(len(look.done) for look in looks.values())
        row.n_wrong += sum(len(look.damaged) for look in looks.values())
        stale = {
            place.id_of(image)
            for image in place.files()
            for look in looks.values()
            if look.done.get(place.id_of(image), (b"",))[0] != digest_of(image)
        }
        row.seen[f"{len(stale)} of {len(place.files())} stale afterwards"] += 1
        ended = ground.run(*place.extract())
        row.require(ended.code == 0, f"the next run fails: {ended.err[-500:]}")
        for image in place.files():
            ground.truth.learn(image.read_bytes())
        ground.settle(row, place)
    yield row


def _change(ground: Ground, place: Place, kind: str, image: Path, other: Path) -> None:
    if kind == "replaced":
        place.swap(image, other)
    elif kind == "vanished":
        image.unlink()
    elif kind == "appeared":
        os.link(other, image.with_name(f"{image.stem}-new.jpg"))
    else:
        # A file of its own first: the pool's must stay as they are.
        data, new = image.read_bytes(), other.read_bytes()
        beside = place.images / "beside"
        beside.write_bytes(data)
        beside.replace(image)
        if kind == "grown":
            with image.open("ab") as file:
                file.write(bytes(1000))
            return
        with image.open("wb", buffering=0) as file:
            file.write(new[: len(new) // 2])
            time.sleep(0.002)
            file.write(new[len(new) // 2 :])


def links(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """Symbolic links that lead nowhere or round in circles, pipes and folders named as images."""
    row, place = Row("symlink loops, dangling links, pipes"), ground.place(ground.images[:200])
    folder = place.images / "class0"
    (folder / "loop").symlink_to(place.images, target_is_directory=True)
    (folder / "up").symlink_to("..", target_is_directory=True)
    (place.images / "class1" / "to0").symlink_to("../class0", target_is_directory=True)
    refused = {"self.jpg": "Too many levels", "gone.jpg": "No such file", "pipe.jpg": "not a file"}
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    for _ in range(2):
        row.note(ground.run(*place.extract()), code=0, says="3 images were refused")
        row.n_runs += 1
    for look in place.look().values():
        row.n_rows += len(look.done) + len(look.refused)
        found = {key.partition("/")[2]: why for key, why in look.refused.items()}
        row.require(set(found) == set(refused), f"refused: {found}")
        for name, why in refused.items():
            row.require(why in found.get(name, ""), f"{name}: {found.get(name)!r}, not {why!r}")
        row.require(len(look.done) == 200, f"{len(look.done)} rows are done, not 200")
    row.judge({}, place.look(), ground.truth)
    store = str(place.stores()["rgb"])
    process = ground.start("info", store, "--verify", "--workspace", str(place.workspace))
    row.note(finish(process, seconds=20), code=0)
    row.n_runs += 1
    yield row


def permissions(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """Images, folders, workspaces and stores that may not be read."""
    row, place, run = (
        Row("permission errors"),
        ground.place(),
        partial(ground.run, command=obedient()),
    )
    if not obedient():
        row.seen["skipped: nothing is forbidden to root, and there is no setpriv"] += 1
        yield row
        return
    for number, file in enumerate(ground.images[:300]):
        image = place.images / f"class{number % 3}" / f"{number:05}.jpg"
        image.parent.mkdir(exist_ok=True)
        shutil.copy2(file, image)
    closed = rng.sample(place.files(), 5)
    ids = {place.id_of(image) for image in closed}
    with modes(closed, 0o000):
        row.note(run(*place.extract()), code=0, says="5 images were refused")
        looks = place.look()
        row.judge({}, looks, ground.truth)
        for look in looks.values():
            row.require(set(look.refused) == ids, f"refused: {look.refused}")
            why = set(look.refused.values())
            row.require(why == {"cannot be read: Permission denied"}, f"reasons: {why}")
    row.note(run(*place.extract()), code=0)
    looks, before = place.look(), looks
    row.judge(before, looks, ground.truth)
    row.require(all(len(look.done) == 300 for look in looks.values()), "not read once permitted")
    with modes(closed, 0o000):
        row.note(run(*place.extract("--rehash")), code=0)
        row.judge(looks, place.look(), ground.truth)
    store = place.stores()["grey"]
    for path, says in (
        (place.images / "class0", "cannot be listed (Permission denied)"),
        (place.workspace, "is not readable"),
        (store, "Permission denied"),
        (place.workspace / "manifest.parquet", "Permission denied"),
    ):
        with modes([path], 0o000):
            row.note(run(*place.extract()), code=(1, 2), says=says)
        with modes([path], 0o555):
            row.note(run(*place.extract()), code=(0, 1))
        row.n_runs += 2
    row.n_runs += 3
    row.note(run(*place.extract()), code=0)
    row.judge(looks, place.look(), ground.truth)
    yield row


@contextlib.contextmanager
def modes(paths: Sequence[Path], mode: int) -> Iterator[None]:
    """Files and folders of another mode for a while."""
    before = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(mode)
    try:
        yield
    finally:
        for path, was in zip(paths, before, strict=True):
            path.chmod(was)


def obedient() -> Sequence[str]:
    """The command line as one whom file modes bind; root's own is bound by none."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return COMMAND
    if shutil.which("setpriv") is None:
        return ()
    rights = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *COMMAND)


# Servers


class _Server(http.server.ThreadingHTTPServer):
    """A web server of a folder that does not answer for some of its files."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.stalling: dict[str, float] = {}
        self.is_silent = False
        self.over = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        left = self.server.stalling.get(self.path, 0)
        if self.server.is_silent or left > 0:
            self.server.stalling[self.path] = left - 1
            self.server.over.wait(60)
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


def stalled_server(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """A web server that stalls once, always, and altogether; Ctrl-C while it does."""
    row, place = Row("a web server that stalls"), ground.place(ground.images[:400])
    ids = [place.id_of(image) for image in place.files()]
    slow, dead = set(rng.sample(ids, 6)), set(rng.sample(ids, 3))
    server = _Server(place.images)
    try:
        _stall(row, ground, place, server, slow - dead, dead)
    finally:
        server.stop()
    yield row


def _stall(row, ground, place, server, slow, dead) -> None:
    web = ("extract", server.url, *place.extract()[2:])
    run = partial(ground.run, command=IMPATIENT)
    server.stalling = {f"/{key}": 1 for key in slow} | {f"/{key}": 1e9 for key in dead}
    row.note(run(*web), code=0, says=f"{len(dead)} images were refused")
    looks = place.look()
    row.judge({}, looks, ground.truth)
    for look in looks.values():
        row.require(set(look.refused) == dead, f"refused: {look.refused}")
        row.require(all("no answer" in why for why in look.refused.values()), f"{look.refused}")
    server.stalling = {}
    row.note(run(*web), code=0)
    looks, before = place.look(), looks
    row.judge(before, looks, ground.truth)
    row.require(all(len(look.done) == 400 for look in looks.values()), "refused for good")
    server.stalling = {f"/{key}": 1e9 for key in dead | slow}
    row.note(run(*web, "--rehash"), code=0)
    row.judge(looks, place.look(), ground.truth)
    row.note(run(*web), code=0)
    server.is_silent = True
    row.note(run(*web), code=1)
    row.judge(looks, place.look(), ground.truth)
    server.is_silent, fresh = False, Place(place.workspace.parent / "fresh")
    web = ("extract", server.url, *fresh.extract()[2:])
    for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = ground.start(*web)  # with the time limits as they are
        wait_until(lambda: n_done(fresh) > 0 or process.poll() is not None, seconds=30)  # noqa: B023
        time.sleep(2)
        started = time.monotonic()
        process.send_signal(sent)
        row.note(finish(process), code=code, says=_STOPPED)
        took_s = time.monotonic() - started
        row.require(took_s < 10, f"it takes {took_s:.0f} s to end on signal {sent}")
        row.judge({}, fresh.look(), ground.truth)
    row.n_runs += 7


# Damaged files


def flip(path: Path, offset: int, rng: random.Random) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([old ^ rng.randrange(1, 256)]))


def offset_of(path: Path, name: str, rng: random.Random) -> int:
    """Where some byte of a dataset lies."""
    with h5py.File(path, "r", locking=False) as file:
        dataset = file[name]
        return dataset.id.get_offset() + rng.randrange(dataset.id.get_storage_size())


def corruption(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """Bytes that flip and ends that are lost: noticed or harmless, and mended."""
    place = ground.finished(300)
    path = place.stores()["rgb"]
    whole, looks = path.read_bytes(), place.look()
    names = ("features", "digests", "ids", "status", "crc32", "reasons", "size", "mtime", "probe")
    row = Row("a flipped byte")
    for name in [*names * max(1, ground.n_kills // 25), *[""] * max(2, ground.n_kills // 10)]:
        flip(path, offset_of(path, name, rng) if name else rng.randrange(len(whole)), rng)
        row.seen[f"{name or 'anywhere'}: {_mend(row, ground, place, looks)}"] += 1
        path.write_bytes(whole)
    yield row
    row = Row("the end is lost")
    for share in sorted(rng.random() ** 2 for _ in range(max(6, ground.n_kills // 5))):
        path.write_bytes(whole[: int(share * len(whole))])
        row.seen[_mend(row, ground, place, looks)] += 1
        path.write_bytes(whole)
    yield row


def structure(ground: Ground, rng: random.Random) -> Iterator[Row]:
    """Every byte of a store that belongs to no row is flipped once."""
    yield _flip_structure(ground, rng)


def _mend(row: Row, ground: Ground, place: Place, looks: Mapping[str, Look]) -> str:
    """Verify, repair and extract as a person would; what verifying said."""
    path, here = place.stores()["rgb"], ("--workspace", str(place.workspace))
    verified = ground.run("info", str(path), "--verify", *here)
    check = Row(row.fault)
    check.note(verified, code=(0, 1))
    try:
        is_same = place.look() == looks
    except FeaturepipeError:
        is_same = False
    check.require(verified.code == 1 or is_same, "a flip that matters is not noticed")
    repaired = ground.run("repair", str(path), *here)
    check.note(repaired, code=(0, 1))
    if repaired.code:
        check.require("elete it and extract again" in repaired.err, repaired.err)
        path.unlink()
    again = ground.run(*place.extract())
    check.note(again, code=0)
    path.with_name(f"{path.name}.damaged").unlink(missing_ok=True)
    now = {view: look.done for view, look in place.look().items()}
    check.n_wrong += now != {view: look.done for view, look in looks.items()}
    check.require(not place.leftovers(), f"left over: {place.leftovers()}")
    row.n_runs, row.n_rows = row.n_runs + 1, row.n_rows + sum(map(len, now.values()))
    row.n_wrong += check.n_wrong
    row.problems += check.problems
    return ("noticed" if verified.code else "harmless") + (", beyond repair" * repaired.code)


def _flip_structure(ground: Ground, rng: random.Random) -> Row:
    """Flip every byte of what is neither rows nor probes, each in a process that may crash."""
    row = Row("every byte of the file's structure, one at a time")
    small = ground.finished(8)
    path = small.stores()["rgb"]
    whole, truth = path.read_bytes(), Look.at(path)
    with h5py.File(path, "r", locking=False) as file:
        rows = [(each.id.get_offset(), each.id.get_storage_size()) for each in file.values()]
    offsets = [
        place
        for place in range(len(whole))
        if not any(start <= place < start + length for start, length in rows)
    ]
    jobs = [(offset, rng.randrange(1, 256)) for offset in offsets]
    pool, unlike = None, {}
    for offset, change in jobs:
        pool = pool or ProcessPoolExecutor(1)
        damaged = bytearray(whole)
        damaged[offset] ^= change
        path.write_bytes(damaged)
        try:
            said = pool.submit(_outcome, path, truth).result(timeout=20)
        except BrokenProcessPool:
            said, pool = "CRASH", None
        except NoAnswerError:
            said = "HANG"
            for process in pool._processes.values():
                process.kill()
            pool = None
        row.n_runs, row.n_rows = row.n_runs + 1, row.n_rows + len(truth.done)
        row.seen[said.partition(":")[0]] += 1
        if said not in _FINE:
            unlike.setdefault(said, f"{said} (byte {offset} ^ {change})")
        row.n_wrong += said.startswith("WRONG")
    if pool:
        pool.shutdown()
    for line in unlike.values():
        row.complain(line)
    return row


_FINE = ("noticed, mended", "noticed, beyond repair", "harmless")


def _outcome(path: Path, truth: Look) -> str:
    """What verifying and repairing make of a damaged store."""
    try:
        try:
            info(path, verify=True)
            said = "harmless" if Look.at(path) == truth else "WRONG, unnoticed"
            with FeatureStore.open(path) as store:
                store.key["precision"], store.made_by, store.images_per_s, store.stages
        except FeaturepipeError:
            said = "noticed"
        try:
            featurepipe.repair(path)
            now = Look.at(path)
            if now.damaged or not now.done.items() <= truth.done.items():
                return "WRONG after repair"
            return said + ", mended" * (said == "noticed")
        except FeaturepipeError:
            return said + ", beyond repair" * (said == "noticed")
    except Exception as error:
        frame = inspect.trace()[-1]
        return f"TRACEBACK: {error!r} in {Path(frame.filename).name} {frame.function}"
    finally:
        for other in path.parent.glob("*.damaged"):
            other.unlink()


FAULTS: dict[str, Callable[[Ground, random.Random], Iterator[Row]]] = {
    "kill-extract": kill_extract,
    "kill-grow": kill_grow,
    "kill-repair": kill_repair,
    "signals": send_signals,
    "full-disk": full_disk,
    "read-only": read_only,
    "second-writer": second_writer,
    "reader": reader,
    "images-change": images_change,
    "links": links,
    "permissions": permissions,
    "stalled-server": stalled_server,
    "corruption": corruption,
    "structure": structure,
}

if __name__ == "__main__":
    main()
