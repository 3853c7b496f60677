"""How fast `featurepipe serve` answers, and whether hostile requests harm it.

``python benchmarks/serve.py load IMAGES --workspace DIR`` compares clients on this machine, one
image a request, with `featurepipe predict` over the same images. ``… hostile IMAGES`` sends what a
server must survive, beside ordinary clients.
"""

import asyncio
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    print("| median " + _in_words(medians))
    print(f"\nload of the machine after: {psutil.getloadavg()[0]:.1f}")


@cli.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.option("--workspace", type=click.Path(path_type=Path), default=Path())
@click.option("--run", default=None)
@click.option("--clients", "n_clients", default=8)
@click.option("--attackers", "n_attackers", default=16)
@click.option("--rounds", default=20, help="Hostile requests of each kind.")
def hostile(
    images: Path, workspace: Path, run: str | None, n_clients: int, n_attackers: int, rounds: int
) -> None:
    """Send hostile requests beside ordinary ones, which must all be answered."""
    limits = ["--timeout", "10", "--max-in-flight", str(n_clients + n_attackers)]
    with _serving(workspace, run, *limits) as (port, server):
        in_a_process(ask, str(images), "127.0.0.1", port, n_clients)
        before = server.num_threads(), server.memory_info().rss / 1e6
        attackers = in_a_process_beside(attack, str(images), port, n_attackers, rounds)
        asked: list[dict[str, float]] = []
        peak_mb = before[1]
        while attackers.poll() is None or not asked:
            asked.append(in_a_process(ask, str(images), "127.0.0.1", port, n_clients))
            peak_mb = max(peak_mb, server.memory_info().rss / 1e6)
        told = attackers.communicate()[0]
        after = server.num_threads(), server.memory_info().rss / 1e6
        again = in_a_process(ask, str(images), "127.0.0.1", port, n_clients)
        files = server.num_fds()
    print("hostile requests, by kind: what came back")
    for kind, outcomes in json.loads(told).items():
        print(f"* {kind}: {', '.join(f'{n} x {what}' for what, n in sorted(outcomes.items()))}")
    print(
        f"ordinary requests meanwhile: {sum(one['n'] for one in asked)}, of which "
        f"{sum(one['n_failed'] for one in asked):.0f} got no 200; p99 "
        f"{max(one['p99_ms'] for one in asked):.0f} ms; afterwards {again['n_failed']:.0f} of "
        f"{again['n']}, p99 {again['p99_ms']:.0f} ms"
    )
    print(f"threads {before[0]} -> {after[0]}, {files} open files at the end")
    print(f"memory {before[1]:.0f} MB -> {after[1]:.0f} MB, at most {peak_mb:.0f} MB seen")


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
def _serving(
    workspace: Path, run: str | None, *options: str
) -> Iterator[tuple[int, psutil.Process]]:
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
            statuses.append(await _status(reader))
            seconds.append(time.perf_counter() - started)
            if statuses[-1] != 200:
                # Such an answer may end the connection.
                writer.close()
                reader, writer = await asyncio.open_connection(host, port)
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


def in_a_process_beside(work: Callable[..., object], *arguments: object) -> "subprocess.Popen[str]":
    """Call a function of this file in a process that goes on; it prints its result as JSON."""
    code = (
        "import importlib, json, sys; sys.path.insert(0, sys.argv[1]); "
        "print(json.dumps(getattr(importlib.import_module('serve'), sys.argv[2])"
        "(*json.loads(sys.argv[3]))))"
    )
    given = [str(Path(__file__).parent), work.__name__, json.dumps(arguments)]
    command = [sys.executable, "-c", code, *given]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def attack(images: str, port: int, n_attackers: int, rounds: int) -> dict[str, dict[str, int]]:
    """Send hostile requests of every kind; how often each was answered with what."""
    kinds = _hostile_requests(Path(find_images([images])[0].image_id).read_bytes())
    outcomes = {kind: Counter[str]() for kind in kinds}

    async def attacker(waiting: Iterator[tuple[str, bytes, float]]) -> None:
        for kind, data, pause_s in waiting:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                sending = asyncio.create_task(_send(writer, data, pause_s))
                async with asyncio.timeout(120):
                    first = await reader.readline()
                outcome = " ".join(first.decode().split()[1:2]) or "closed"
            except TimeoutError:
                outcome = "silence for 120 s"
            except OSError:
                outcome = "closed"
            outcomes[kind][outcome] += 1
            sending.cancel()
            writer.transport.abort()

    async def all_attackers() -> None:
        waiting = iter([(kind, *request) for _ in range(rounds) for kind, request in kinds.items()])
        await asyncio.gather(*(attacker(waiting) for _ in range(n_attackers)))

    asyncio.run(all_attackers())
    return {kind: dict(counted) for kind, counted in outcomes.items()}


async def _send(writer: asyncio.StreamWriter, data: bytes, pause_s: float) -> None:
    """All at once or, with a pause, twenty bytes at a time."""
    with suppress(OSError):
        length = 20 if pause_s else len(data)
        for start in range(0, len(data), length):
            writer.write(data[start : start + length])
            await writer.drain()
            await asyncio.sleep(pause_s)


def _hostile_requests(photo: bytes) -> dict[str, tuple[bytes, float]]:
    """Requests by kind: all bytes, and the pause after each twenty."""

    def body(data: bytes) -> bytes:
        return _head(len(data)) + data

    parts = b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n%s\r\n"
    form = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    many = b"".join(parts % b"no image" for _ in range(50_000))
    return {
        "truncated JPEG": (body(photo[: len(photo) // 3]), 0),
        "no image": (body(os.urandom(100_000)), 0),
        "empty body": (body(b""), 0),
        "PNG that declares 3.6 gigapixels": (body(_png(60_000, 60_000)), 0),
        "PNG of 120 black megapixels in 120 kB": (body(_png(12_000, 10_000, filled=True)), 0),
        "PNG of 49 black megapixels in 50 kB": (body(_png(7_000, 7_000, filled=True)), 0),
        "form of 50,000 files": (form + b"Content-Length: %d\r\n\r\n" % len(many) + many, 0),
        "form that ends early": (form + b"Content-Length: 70\r\n\r\n" + (parts % b"x")[:70], 0),
        "header of a terabyte": (_head(10**12) + photo, 0),
        "chunks without end": (
            _head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
            + (b"100000\r\n" + bytes(2**20) + b"\r\n") * 40, 0,
        ),
        "no HTTP": (os.urandom(10_000), 0),
        "slow body": (body(photo), 1.0),
        "slow headers": (b"POST /predict HTTP/1.1\r\n" + b"X-Slow: yes\r\n" * 1000, 1.0),
    }  # fmt: skip


def _png(width: int, height: int, *, filled: bool = False) -> bytes:
    """A grey PNG of so many pixels, of which there are none unless it is filled."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = zlib.compress(bytes((width + 1) * height) if filled else b"", 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def _head(n_bytes: int, path: str = "/predict") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), n_bytes)


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of an answer, which is read to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
    return int(head.split()[1])


if __name__ == "__main__":
    cli()
