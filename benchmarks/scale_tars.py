"""Measure images per second and memory of `extract` over drawn small images in tar files.

Both runs use the two cores of this machine: one process, then a cluster of two nodes with a worker
of one core each. `extraction` is what featurepipe counts itself; `command` is the whole command, in
which the tar files are listed first. Memory is resident memory at its largest in each quarter of
the time of the command, read twice a second.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from measuring import describe_machine, table_head, table_row
from PIL import Image
from scale_extract import two_nodes

N_PER_TAR = 10_000
# Of so many pictures; the comment in the file makes each image another one.
N_DRAWN = 200
COMMENT_BYTES = 12
CLASSES = ("circles", "squares")
_HEADINGS = [
    "images", "on", "extraction, images/s", "command, images/s", "process", "MB in each quarter",
]  # fmt: skip
_SECONDS_BETWEEN_LOOKS = 0.5


def draw_jpegs(side: int) -> list[bytes]:
    """Small JPEGs of noise on coloured grounds."""
    rng, drawn = np.random.default_rng(0), []
    for _ in range(N_DRAWN):
        ground, noise = rng.integers(0, 256, 3), rng.normal(0, 12, (side, side, 3))
        pixels = np.clip(ground + noise, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=75)
        drawn.append(file.getvalue())
    return drawn


def with_comment(jpeg: bytes, number: int) -> bytes:
    """A JPEG with a comment of its own after the marker of its start."""
    comment = f"{number:0{COMMENT_BYTES}}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def draw_tars(folder: Path, n_images: int, side: int) -> int:
    """Write tar files of images in a folder for each class; their bytes."""
    jpegs = draw_jpegs(side)
    for start in range(0, n_images, N_PER_TAR):
        with tarfile.open(folder / f"part-{start // N_PER_TAR:05}.tar", "w") as archive:
            for number in range(start, min(start + N_PER_TAR, n_images)):
                content = with_comment(jpegs[number % N_DRAWN], number)
                member = tarfile.TarInfo(f"{CLASSES[number % 2]}/{number:09}.jpg")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


class MemoryOf:
    """Resident memory of a command and of the workers of a cluster of this process, over time.

    Parameters
    ----------
    command : psutil.Process
    """

    def __init__(self, command: psutil.Process) -> None:
        self._command = command
        self._looks: list[tuple[float, dict[str, int]]] = []

    def look(self) -> None:
        """Read how much it is now: of all processes of the command, and of the largest worker."""
        with suppress(psutil.Error):
            of_command = [self._command, *self._command.children(recursive=True)]
            memory = {"driver": sum(_resident(process) for process in of_command)}
            workers = [
                _resident(process)
                for process in psutil.Process().children(recursive=True)
                if process not in of_command and _is_worker(process)
            ]
            if workers:
                memory["worker"] = max(workers)
            self._looks.append((time.perf_counter(), memory))

    def quarters(self) -> dict[str, list[float]]:
        """For driver and worker, the most MB in each quarter of the time."""
        times = np.array([at for at, _ in self._looks])
        quarter = np.minimum(4 * (times - times[0]) // max(np.ptp(times), 1e-9), 3)
        return {
            name: [
                max(look.get(name, 0) for (_, look), k in zip(self._looks, quarter, strict=True)
                    if k == number) / 1e6
                for number in range(4)
            ]
            for name in ("driver", "worker")
            if any(name in look for _, look in self._looks)
        }  # fmt: skip


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        # Ray names the processes of its actors so.
        return process.cmdline()[0].startswith("ray::")
    return False


def measure(source: str, *options: str) -> dict[str, Any]:
    """Run `featurepipe extract` in a new workspace; its speed, and its memory."""
    with tempfile.TemporaryDirectory() as space:
        started = time.perf_counter()
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "featurepipe", "extract", source),
                *("--backbone", "hsv_histogram", *options),
                *("--workspace", space, "--json", "--quiet"),
            ],
            stdout=subprocess.PIPE,
        )
        with _looked_at(MemoryOf(psutil.Process(command.pid))) as memory:
            printed, _ = command.communicate()
        took_s = time.perf_counter() - started
    if command.returncode:
        raise click.ClickException(f"extract ended with exit code {command.returncode}")
    (store,) = json.loads(printed)
    return {
        "extraction": store["images_per_s"],
        "command": store["n_embedded"] / took_s,
        "memory": memory.quarters(),
    }


@contextmanager
def _looked_at(memory: MemoryOf) -> Iterator[MemoryOf]:
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            memory.look()

    memory.look()
    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()


@click.command(help=__doc__.splitlines()[0])
@click.option("--images", "counts", default="1000000", show_default=True, help="How many, N,….")
@click.option("--side", default=64, show_default=True, help="Pixels of an image's sides.")
@click.option("--only", type=click.Choice(["local", "ray"]), help="Measure one of the two.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to draw the tar files.")
def tars(counts: str, side: int, only: str | None, folder: Path | None) -> None:
    """Measure, and print a table."""
    click.echo(describe_machine())
    click.echo(table_head(_HEADINGS))
    for n_images in map(int, counts.split(",")):
        with tempfile.TemporaryDirectory(dir=folder) as drawn:
            n_bytes = draw_tars(Path(drawn), n_images, side)
            click.echo(f"{n_images:,} images, {n_bytes / 1e6:,.0f} MB of tar files", err=True)
            source = f"{drawn}/*.tar"
            if only != "ray":
                _tell(n_images, "this process", measure(source))
            if only != "local":
                with two_nodes() as address:
                    ray = ("--executor", "ray", "--ray-address", address)
                    _tell(n_images, "two nodes", measure(source, *ray))


def _tell(n_images: int, where: str, figures: dict[str, Any]) -> None:
    speeds = [f"{figures[name]:,.0f}" for name in ("extraction", "command")]
    for name, quarters in figures["memory"].items():
        memory = ", ".join(f"{megabytes:,.0f}" for megabytes in quarters)
        click.echo(table_row([f"{n_images:,}", where, *speeds, name, memory]))


if __name__ == "__main__":
    tars()
