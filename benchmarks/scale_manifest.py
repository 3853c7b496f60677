"""Measure seconds and memory of manifests: pending images of millions, labels of a million."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from measuring import (
    DRAWN_BY,
    describe_machine,
    drawn_key,
    in_a_process,
    measured,
    table_head,
    table_row,
)

from featurepipe.features.extraction.pending import FinishedIds, pending_ids
from featurepipe.features.store import FeatureStore
from featurepipe.features.store.shards import Shard, read_shards, write_shards
from featurepipe.manifest import Labelling, Manifest, ManifestRows
from featurepipe.manifest.manifest_file import ROWS_PER_GROUP, About, write_manifest_file

N_PER_SHARD = 10_000
CLASSES = {"color": 50, "category": 200}


def draw_ids(start: int, stop: int) -> pa.StringArray:
    """Paths as of a shop: ``shop/00012/000123456-photograph.jpg``."""
    rows = np.arange(start, stop)
    folders = pc.utf8_lpad(pa.array(rows // N_PER_SHARD).cast(pa.string()), 5, "0")
    names = pc.utf8_lpad(pa.array(rows).cast(pa.string()), 9, "0")
    return pc.binary_join_element_wise(
        "shop/", folders, "/", names, "-photograph.jpg", pa.scalar("")
    )


def draw_groups(n_rows: int) -> Iterator[pa.Table]:
    """Groups of a manifest with two columns of labels."""
    rng = np.random.default_rng(0)
    for start in range(0, n_rows, ROWS_PER_GROUP):
        ids = draw_ids(start, min(start + ROWS_PER_GROUP, n_rows))
        columns = {"id": ids}
        for name, n_classes in CLASSES.items():
            codes = pa.array(rng.integers(0, n_classes, len(ids))).cast(pa.string())
            labels = pc.binary_join_element_wise(name, codes, " ")
            offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32))
            columns[f"table.{name}"] = pa.ListArray.from_arrays(offsets, labels)
        yield pa.table(columns)


def draw_manifest(path: Path, n_rows: int) -> None:
    """Write a manifest, one group in memory at a time."""
    about = About(
        root="/shop",
        source="/shop/labels.csv",
        labels_source=None,
        labelling=Labelling(),
        findings=(),
        all_images=False,
    )
    write_manifest_file(path, list(CLASSES), draw_groups(n_rows), lambda: about)


def draw_store(folder: Path, n_rows: int) -> None:
    """Write shards of consecutive images with one feature each; every tenth is missing."""
    shards = []
    for number, start in enumerate(range(0, n_rows, N_PER_SHARD)):
        if number % 10 == 9:
            continue
        ids = draw_ids(start, min(start + N_PER_SHARD, n_rows)).to_pylist()
        path, probe = folder / f"{number:06d}.h5", np.zeros((1, 1), np.float32)
        FeatureStore.create(path, ids=ids, key=drawn_key(), made_by=DRAWN_BY, probe=probe)
        with FeatureStore.open(path, writable=True) as store:
            stamps = np.zeros(len(ids), np.int64)
            digests, features = np.zeros((len(ids), 32), np.uint8), np.zeros((len(ids), 1), "f4")
            store.write_done(np.arange(len(ids)), features, digests, stamps, stamps)
        shards.append(Shard.of(path))
    write_shards(folder, drawn_key(), shards)


def measure_pending(folder: Path) -> dict[str, Any]:
    """Open the manifest, read all of it, and find the images that no shard has."""
    figures: dict[str, Any] = {}

    def find() -> int:
        _, shards = read_shards(folder / "store.shards")
        finished = [
            FinishedIds(shard.first_id, shard.last_id, _loader(folder / "store.shards", shard))
            for shard in shards
        ]
        return sum(len(rows) for rows, _ in pending_ids(images, finished))

    _, figures["open"] = measured(lambda: ManifestRows(folder / "manifest.parquet").close())
    with ManifestRows(folder / "manifest.parquet") as images:
        _, figures["check all columns"] = measured(images.check)
        n_pending, found = measured(find)
        figures[f"find the {n_pending:,} pending ones"] = found
        middle = len(images) // 2
        _, figures["read the ids of one shard"] = measured(
            lambda: images.ids(middle, middle + N_PER_SHARD)
        )
    return figures


def _loader(folder: Path, shard: Shard) -> Callable[[], Any]:
    return lambda: shard.read_ids(folder)


def measure_labels(folder: Path) -> dict[str, Any]:
    """Load a manifest as Python's objects, and ask it for labels."""
    # What pandas takes is no part of what is measured.
    import pandas as pd  # noqa: F401

    figures: dict[str, Any] = {}
    loaded, figures["load as Python objects"] = measured(
        lambda: Manifest.load(folder / "labelled.parquet")
    )
    _, figures["labels()"] = measured(loaded.labels)
    _, figures["combinations()"] = measured(loaded.combinations)
    _, figures["save"] = measured(lambda: loaded.save(folder / "saved.parquet"))
    return figures


@click.command()
@click.option("--rows", "n_rows", default=10_000_000, show_default=True, help="Images.")
@click.option("--labelled", default=1_000_000, show_default=True, help="Images as objects.")
def manifest(n_rows: int, labelled: int) -> None:
    """Manifests: find the pending ones of all images, and load labelled ones as objects."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        click.echo(describe_machine())
        started = time.perf_counter()
        draw_manifest(folder / "manifest.parquet", n_rows)
        n_bytes = (folder / "manifest.parquet").stat().st_size
        draw_store(folder / "store.shards", n_rows)
        draw_manifest(folder / "labelled.parquet", labelled)
        click.echo(
            f"drew {n_rows:,} images and their shards in {time.perf_counter() - started:.0f} s; "
            f"the manifest has {n_bytes / 1e6:.0f} MB"
        )
        click.echo(table_head(["images", "step", "seconds", "of the processor", "MB of memory"]))
        for measure, n in ((measure_pending, n_rows), (measure_labels, labelled)):
            for step, (seconds, busy, peak) in in_a_process(measure, folder).items():
                cells = [f"{n:,}", step, f"{seconds:.1f}", f"{busy:.1f}", f"{peak:.0f}"]
                click.echo(table_row(cells))
