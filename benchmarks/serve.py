"""How fast `featurepipe serve` answers, and whether hostile requests harm it.

``python benchmarks/serve.py load IMAGES --workspace DIR`` compares clients on this machine, one
image a request, with `featurepipe predict` over the same images. ``… hostile IMAGES`` sends what a
server must survive, beside ordinary clients.
"""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import psutil
from measuring import describe_machine, in_a_process

from featurepipe.manifest import find_images


@click.group()
def cli() -> None:
    """Measure `featurepipe serve`."""


@cli.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.option("--workspace", type=click.Path(path_type=Path), default=Path())
@click.option("--run", default=None)
@click.option("--clients", "n_clients", default=32)
@click.option("--repeats", default=5)
def load(images: Path, workspace: Path, run: str | None, n_clients: int, repeats: int) -> None:
    """Compare clients with `predict` over a folder, one after the other in each repeat."""
    print(describe_machine())
    print(f"load of the machine before: {psutil.getloadavg()[0]:.1f}\n")
    print("| | predict, images/s | serve, images/s | ratio | p50 | p99 | not 200 "
          "| CPU predict | CPU serve | CPU clients |")  # fmt: skip
    print("| --- " * 10 + "|")
    rows = []
    with _serving(workspace, run) as (port, server):
        in_a_process(ask, str(images), "127.0.0.1", port, n_clients)
        for repeat in range(1, repeats + 1):
            folder = in_a_process(predict_folder, str(images), str(workspace), run)
            before = _cpu_s(server)
            asked = in_a_process(ask, str(images), "127.0.0.1", port, n_clients)
            asked["server_ms"] = 1000 * (_cpu_s(server) - before) / asked["n"]
            rows.append(_row(folder, asked))
            print(f"| {repeat} " + _in_words(rows[-1]), flush=True)
    print("| median " + _in_words([statistics.median(column) for column in zip(*rows, strict=True)]))
    print(f"\nload of the machine after: {psutil.getloadavg()[0]:.1f}")


def _row(folder: dict[str, float], asked: dict[str, float]) -> list[float]:
    return [
        folder["per_s"], asked["per_s"], asked["per_s"] / folder["per_s"],
        asked["p50_ms"], asked["p99_ms"], asked["n_failed"],
        folder["cpu_ms"], asked["server_ms"], asked["cpu_ms"],
    ]  # fmt: skip


def _in_words(row: list[float]) -> str:
    per_s, asked_per_s, ratio, p50, p99, failed, cpu, server, clients = row
    return (
        f"| {per_s:.0f} | {asked_per_s:.0f} | {ratio:.2f} | {p50:.0f} ms | {p99:.0f} ms | "
        f"{failed:.0f} | {cpu:.2f} ms | {server:.2f} ms | {clients:.2f} ms |"
    )


@contextmanager
def _serving(workspace: Path, run: str | None, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    command = [sys.executable, "-m", "featurepipe", "serve", *([run] if run else []), "--port", "0"]
    command += ["--workspace", str(workspace), "--json", "--quiet", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            yield int(url.rpartition(":")[2]), psutil.Process(process.pid)
        finally:
            process.terminate()
    assert process.returncode == 0, f"the server ended with {process.returncode}"


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def predict_folder(images: Path, workspace: str, run: str | None) -> dict[str, float]:
    """What `featurepipe predict` does after its engine is loaded."""
    from featurepipe.workflows.predictor import Predictor, embed_files

    given = find_images([images])
    predictor = Predictor(run, workspace=workspace)

    def predict() -> None:
        features, _ = embed_files(predictor, given)
        predictor.answer(predictor.judge(features, "image"), 1, 0.95)

    embed_files(predictor, given[:64])
    started, cpu_s = time.perf_counter(), _own_cpu_s()
    predict()
    seconds, cpu_s = time.perf_counter() - started, _own_cpu_s() - cpu_s
    return {"per_s": len(given) / seconds, "cpu_ms": 1000 * cpu_s / len(given)}


def ask(images: Path, host: str, port: int, n_clients: int) -> dict[str, float]:
    """Ask about each image once, one a request, as clients that keep their connection."""
    bodies = [Path(image.image_id).read_bytes() for image in find_images([images])]
    seconds: list[float] = []
    statuses: list[int] = []

    async def client(waiting: Iterator[bytes]) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for body in waiting:
            started = time.perf_counter()
            writer.write(_head(len(body)))
            writer.write(body)
            statuses.append((await _answer(reader))[0])
            seconds.append(time.perf_counter() - started)
        writer.close()

    async def all_clients() -> None:
        waiting = iter(bodies)
        await asyncio.gather(*(client(waiting) for _ in range(n_clients)))

    started, cpu_s = time.perf_counter(), _own_cpu_s()
    asyncio.run(all_clients())
    wall_s, cpu_s = time.perf_counter() - started, _own_cpu_s() - cpu_s
    return {
        "n": len(bodies),
        "per_s": len(bodies) / wall_s,
        "p50_ms": 1000 * float(np.percentile(seconds, 50)),
        "p99_ms": 1000 * float(np.percentile(seconds, 99)),
        "n_failed": sum(status != 200 for status in statuses),
        "cpu_ms": 1000 * cpu_s / len(bodies),
    }


def _head(n_bytes: int, path: str = "/predict") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), n_bytes)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    n_bytes = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(n_bytes)


if __name__ == "__main__":
    cli()
