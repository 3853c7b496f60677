"""Sources of images that change, mislead or stop answering."""

import http.server
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from outcomes import Outcome
from stores import digest_of
from testbed import STOPPED, Testbed, Trial, finish, wait_until

# The command line with time limits that a test can wait for.
IMPATIENT = (
    sys.executable,
    "-c",
    "from featurepipe.sources import patience\n"
    "patience.TRY_SECONDS, patience.LISTING_SECONDS, patience.FIRST_PAUSE_SECONDS = 3.0, 6.0, 0.1\n"
    "from featurepipe.cli import main\n"
    "main()",
)


def images_change(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """Images are replaced, rewritten in place, grow, vanish and appear during the run."""
    outcome = Outcome("images change, vanish, grow, appear meanwhile")
    for _ in range(4):
        trial = bed.trial(bed.images[: len(bed.images) // 2])
        process = bed.start(*trial.extract())
        for number, image in enumerate(rng.sample(trial.files(), len(trial.files()) // 2)):
            if process.poll() is not None:
                break
            kind = rng.choice(("replaced", "rewritten", "grown", "vanished", "appeared"))
            _change(trial, kind, image, bed.others[number % len(bed.others)])
            outcome.seen[kind] += 1
            time.sleep(rng.uniform(0, 0.005))
        outcome.note(finish(process), code=0)
        outcome.n_runs += 1
        # The truth about a half-written image is unknown: its row must be gone afterwards.
        snapshots = trial.snapshots()
        outcome.n_rows += sum(len(snapshot.done) for snapshot in snapshots.values())
        outcome.n_wrong += sum(len(snapshot.damaged) for snapshot in snapshots.values())
        stale = {
            trial.id_of(image)
            for image in trial.files()
            for snapshot in snapshots.values()
            if snapshot.done.get(trial.id_of(image), (b"",))[0] != digest_of(image)
        }
        outcome.seen[f"{len(stale)} of {len(trial.files())} stale afterwards"] += 1
        ended = bed.run(*trial.extract())
        outcome.require(ended.code == 0, f"the next run fails: {ended.err[-500:]}")
        for image in trial.files():
            bed.truth.learn(image.read_bytes())
        bed.settle(outcome, trial)
    yield outcome


def _change(trial: Trial, kind: str, image: Path, other: Path) -> None:
    if kind == "replaced":
        trial.swap(image, other)
    elif kind == "vanished":
        image.unlink()
    elif kind == "appeared":
        os.link(other, image.with_name(f"{image.stem}-new.jpg"))
    else:
        # Make it a file of its own first, since the pool's must not change.
        data, new = image.read_bytes(), other.read_bytes()
        beside = trial.images / "beside"
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


def links(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """Dangling and circular symbolic links, pipes, and folders named like images."""
    outcome, trial = Outcome("symlink loops, dangling links, pipes"), bed.trial(bed.images[:200])
    folder = trial.images / "class0"
    (folder / "loop").symlink_to(trial.images, target_is_directory=True)
    (folder / "up").symlink_to("..", target_is_directory=True)
    (trial.images / "class1" / "to0").symlink_to("../class0", target_is_directory=True)
    refused = {"self.jpg": "Too many levels", "gone.jpg": "No such file", "pipe.jpg": "not a file"}
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    for _ in range(2):
        outcome.note(bed.run(*trial.extract()), code=0, says="3 images were refused")
        outcome.n_runs += 1
    for snapshot in trial.snapshots().values():
        outcome.n_rows += len(snapshot.done) + len(snapshot.refused)
        reasons = {key.partition("/")[2]: why for key, why in snapshot.refused.items()}
        outcome.require(set(reasons) == set(refused), f"refused: {reasons}")
        for name, why in refused.items():
            given = reasons.get(name, "")
            outcome.require(why in given, f"{name}: {given!r}, not {why!r}")
        outcome.require(len(snapshot.done) == 200, f"{len(snapshot.done)} rows are done, not 200")
    outcome.judge({}, trial.snapshots(), bed.truth)
    process = bed.start("info", str(trial.stores()["rgb"]), "--verify", *trial.here)
    outcome.note(finish(process, seconds=20), code=0)
    outcome.n_runs += 1
    yield outcome


class _Server(http.server.ThreadingHTTPServer):
    """A web server for a folder that does not answer for some of its files."""

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


def stalled_server(bed: Testbed, rng: random.Random) -> Iterator[Outcome]:
    """A web server that stalls once, always, and altogether; Ctrl-C while it does."""
    outcome, trial = Outcome("a web server that stalls"), bed.trial(bed.images[:400])
    server = _Server(trial.images)
    try:
        _stall_some(outcome, bed, trial, server, rng)
        _stop_while_stalled(outcome, bed, trial, server)
    finally:
        server.stop()
    yield outcome


def _stall_some(
    outcome: Outcome, bed: Testbed, trial: Trial, server: _Server, rng: random.Random
) -> None:
    ids = [trial.id_of(image) for image in trial.files()]
    slow, dead = set(rng.sample(ids, 6)), set(rng.sample(ids, 3))
    web = ("extract", server.url, *trial.extract()[2:])
    run = partial(bed.run, command=IMPATIENT)
    server.stalling = {f"/{key}": 1 for key in slow - dead} | {f"/{key}": 1e9 for key in dead}
    outcome.note(run(*web), code=0, says=f"{len(dead)} images were refused")
    snapshots = trial.snapshots()
    outcome.judge({}, snapshots, bed.truth)
    for snapshot in snapshots.values():
        outcome.require(set(snapshot.refused) == dead, f"refused: {snapshot.refused}")
        reasons = snapshot.refused.values()
        outcome.require(all("no answer" in why for why in reasons), f"{snapshot.refused}")
    server.stalling = {}
    outcome.note(run(*web), code=0)
    snapshots, before = trial.snapshots(), snapshots
    outcome.judge(before, snapshots, bed.truth)
    all_done = all(len(snapshot.done) == 400 for snapshot in snapshots.values())
    outcome.require(all_done, "images stay refused though the server answers again")
    server.stalling = {f"/{key}": 1e9 for key in dead | slow}
    outcome.note(run(*web, "--rehash"), code=0)
    outcome.judge(snapshots, trial.snapshots(), bed.truth)
    outcome.note(run(*web), code=0)
    server.is_silent = True
    outcome.note(run(*web), code=1)
    outcome.judge(snapshots, trial.snapshots(), bed.truth)
    server.is_silent = False
    outcome.n_runs += 5


def _stop_while_stalled(outcome: Outcome, bed: Testbed, trial: Trial, server: _Server) -> None:
    fresh = Trial(trial.workspace.parent / "fresh")
    web = ("extract", server.url, *fresh.extract()[2:])
    for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = bed.start(*web)  # with the ordinary time limits
        wait_until(lambda: fresh.n_done() > 0 or process.poll() is not None, seconds=30)  # noqa: B023
        time.sleep(2)
        started = time.monotonic()
        process.send_signal(sent)
        outcome.note(finish(process), code=code, says=STOPPED)
        took_s = time.monotonic() - started
        outcome.require(took_s < 10, f"it takes {took_s:.0f} s to end on signal {sent}")
        outcome.judge({}, fresh.snapshots(), bed.truth)
    outcome.n_runs += 2
