"""Measure seconds and memory of listing: folders, tar files, URLs and label tables."""

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from measuring import describe_machine, in_a_process, measured, table_head, table_row

from featurepipe.manifest import list_source

N_PER_CLASS = 10_000
SOURCES = {
    "folder": "files",
    "tar file": "files.tar",
    "URL": "files",
    "folder with a label table": "files",
}


def names(n_images: int) -> Iterator[str]:
    """Paths in class folders, sorted."""
    for row in range(n_images):
        yield f"class_{row // N_PER_CLASS:05d}/{row:09d}-photograph.jpg"


def draw(folder: Path, n_images: int) -> None:
    """The same empty files in a folder and in a tar file, and a table of their labels."""
    with (
        (folder / "files.tar").open("wb") as archive,
        (folder / "labels.csv").open("w", encoding="utf-8") as table,
    ):
        table.write("path,label\n")
        for row, name in enumerate(names(n_images)):
            path = folder / "files" / name
            if row % N_PER_CLASS == 0:
                path.parent.mkdir(parents=True)
            path.touch()
            archive.write(tarfile.TarInfo(name).tobuf())
            table.write(f"{name},label {row % 50}\n")
        archive.write(bytes(2 * tarfile.BLOCKSIZE))


def measure_listing(folder: Path, source: str) -> dict[str, Any]:
    """List a source; a few images come first, since what is imported late is not measured."""
    figures: dict[str, Any] = {}
    for at in (folder / "few", folder):
        path = at / SOURCES[source]
        place = f"file://{path}" if source == "URL" else path
        labels = at / "labels.csv" if "table" in source else None
        listed, figures[source] = measured(lambda: list_source(place, labels=labels))  # noqa: B023
        listed.rows.close()
    return figures


@click.command()
@click.option("--images", default="200000,1000000", show_default=True, help="Numbers of images.")
def listing(images: str) -> None:
    """Listing: the time and the memory that it takes, by the kind of source."""
    click.echo(describe_machine())
    click.echo(table_head(["source", "images", "seconds", "of the processor", "MB of memory"]))
    for n_images in map(int, images.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for at, n in ((folder, n_images), (folder / "few", 10)):
                at.mkdir(exist_ok=True)
                draw(at, n)
            for source in SOURCES:
                for seconds, busy, peak in in_a_process(measure_listing, folder, source).values():
                    cells = [f"{n_images:,}", f"{seconds:.1f}", f"{busy:.1f}", f"{peak:.0f}"]
                    click.echo(table_row([source, *cells]))
