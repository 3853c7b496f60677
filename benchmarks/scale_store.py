"""Measure the bandwidth of a store against a plain sequential file of the same bytes.

    python benchmarks/scale_store.py [--megabytes 2000] [--folder DIR]

Features are written and read in batches. Written files are synced to the disk, store and plain
file alike. They are read twice: warm, while the system has them in memory, and cold, after it was
asked to drop them. Medians of several rounds side by side; the ratio is that of the medians. The
last column counts processor time of all threads, which other jobs on the machine change less.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from measuring import DRAWN_BY, describe_machine, drawn_key, table_head, table_row

from featurepipe.features.store import FeatureStore

_HEADINGS = [
    "features", "what", "plain file, MB/s", "store, MB/s", "ratio", "store, MB a processor second",
]  # fmt: skip


class Files:
    """A store and a plain file of the same features.

    Parameters
    ----------
    folder : Path
    precision : {"float32", "float16"}
    n_rows, n_features, batch : int
    """

    def __init__(
        self, folder: Path, precision: str, n_rows: int, n_features: int, batch: int
    ) -> None:
        self.store, self.plain = folder / "store.h5", folder / "plain.bin"
        ids = [f"{row:08}.jpg" for row in range(n_rows)]
        probe = np.zeros((1, n_features), np.float32)
        FeatureStore.create(
            self.store, ids=ids, key=drawn_key(precision), made_by=DRAWN_BY, probe=probe
        )
        X = np.random.default_rng(0).random((batch, n_features), np.float32)
        self._X = X.astype(precision)
        self._rows = [np.arange(at, at + batch) for at in range(0, n_rows, batch)]
        self.n_bytes = len(self._rows) * self._X.nbytes

    def write_store(self) -> None:
        """Commit all rows, and sync the file."""
        digests = np.zeros((len(self._X), 32), np.uint8)
        stamps = np.zeros(len(self._X), np.int64)
        with FeatureStore.open(self.store, writable=True) as store:
            for rows in self._rows:
                store.write_done(rows, self._X, digests, stamps, stamps)
        with self.store.open("rb") as file:
            os.fsync(file.fileno())

    def write_plain(self) -> None:
        """Write as many bytes over those of the last time, and sync the file."""
        content = self._X.tobytes()
        with self.plain.open("r+b" if self.plain.exists() else "wb", buffering=0) as file:
            for _ in self._rows:
                file.write(content)
            os.fsync(file.fileno())

    def read_store(self) -> None:
        """Read and check all rows."""
        with FeatureStore.open(self.store) as store:
            for rows in self._rows:
                store.features(rows)

    def read_plain(self) -> None:
        """Read all bytes."""
        buffer = bytearray(self._X.nbytes)
        with self.plain.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def drop(self) -> None:
        """Ask the system to keep neither file in memory."""
        for path in (self.store, self.plain):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bandwidths(n_bytes: int, work: Callable[[], None]) -> tuple[float, float]:
    """Megabytes a second, and a second of the processor."""
    started, busy = time.perf_counter(), time.process_time()
    work()
    took = time.perf_counter() - started, time.process_time() - busy
    return n_bytes / took[0] / 1e6, n_bytes / took[1] / 1e6


@click.command(help=__doc__.splitlines()[0])
@click.option("--megabytes", default=2000, show_default=True, help="Size of the features.")
@click.option("--features", "n_features", default=2048, show_default=True, help="Features a row.")
@click.option("--batch", default=1024, show_default=True, help="Rows that are written at once.")
@click.option("--rounds", default=5, show_default=True, help="How often each is measured.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write.")
def main(megabytes: int, n_features: int, batch: int, rounds: int, folder: Path | None) -> None:
    """Measure, and print a table."""
    click.echo(describe_machine())
    click.echo(table_head(_HEADINGS))
    for precision in ("float32", "float16"):
        n_batches = -(-megabytes * 10**6 // (batch * n_features * np.dtype(precision).itemsize))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            files = Files(Path(place), precision, n_batches * batch, n_features, batch)
            # The first round allocates the plain file, and is not counted.
            measured = [_round(files) for _ in range(rounds + 1)][1:]
        for what in measured[0]:
            plain, store, busy = np.median([each[what] for each in measured], axis=0)
            cells = [f"{plain:,.0f}", f"{store:,.0f}", f"{store / plain:.2f}", f"{busy:,.0f}"]
            click.echo(table_row([precision, what, *cells]))


def _round(files: Files) -> dict[str, tuple[float, float, float]]:
    def both(plain: Callable[[], None], store: Callable[[], None]) -> tuple[float, float, float]:
        return bandwidths(files.n_bytes, plain)[0], *bandwidths(files.n_bytes, store)

    written = both(files.write_plain, files.write_store)
    warm = both(files.read_plain, files.read_store)
    files.drop()
    cold = both(files.read_plain, files.read_store)
    return {"write, synced": written, "read, warm": warm, "read, cold": cold}


if __name__ == "__main__":
    main()
