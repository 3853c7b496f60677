"""Measure the speed of `featurepipe train` beside a plain `model.fit` on the same images.

    python benchmarks/train.py FOLDER [--network smallervggnet] [--enlarge 4000x3000 --images 120]

The plain loop is what a user would write: `keras.utils.image_dataset_from_directory`, the same
network with the same augmentation, losses and optimiser, the same images as `validation_data`,
and a `ModelCheckpoint` for the best weights. Both decode to the same size. The figures are images
per second, including validation; the first epoch is left out.
"""

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import pandas as pd
from measuring import table_row
from PIL import Image

import featurepipe
from featurepipe.features.engines.quiet_keras import keras
from featurepipe.manifest import Manifest
from featurepipe.models.networks.building import build_network
from featurepipe.models.networks.compiling import compile_graph
from featurepipe.models.networks.layers import build_augmentation
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import make_outputs
from featurepipe.runs.run_folder import load_run
from featurepipe.splits import Split
from featurepipe.workspace import Workspace


def copy_images(source: Path, target: Path, n_images: int, size: tuple[int, int] | None) -> None:
    """Copy some images of each class; enlarge them if a size is given."""
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    for folder in folders:
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[: n_images // len(folders)]:
            copy = target / folder.name / f"{path.stem}.jpg"
            picture = Image.open(path).convert("RGB")
            picture = picture.resize(size, Image.Resampling.BICUBIC) if size else picture
            picture.save(copy, quality=90)


def train_ours(images: Path, workspace: Path, network: str, epochs: int, seed: int) -> pd.DataFrame:
    """Train with featurepipe; returns the history."""
    options = {"epochs": epochs, "task": "per-attribute", "workspace": workspace, "resume": False}
    run = featurepipe.train(network, **options, seed=seed)["run"].iloc[0]
    return pd.read_csv(workspace / "runs" / run / "history.csv")


def link_parts(images: Path, workspace: Path, folder: Path) -> dict[str, Path]:
    """Link the training and the validation images of the run into class folders."""
    (path,) = Workspace(workspace).runs()
    split = Split.load(Workspace(workspace).splits()[0])
    validation = set(load_run(path).selection.ids.tolist())
    for image in split.ids[split.rows("train")]:
        link = folder / ("validation" if image in validation else "train") / image
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((images / image).resolve())
    return {part: folder / part for part in ("train", "validation")}


class Seconds(keras.callbacks.Callback):
    """Seconds of each epoch, validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.of_epochs: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Record the seconds since the start of the epoch."""
        self.of_epochs.append(time.perf_counter() - self._started)


def train_plainly(
    parts: dict[str, Path], manifest: Manifest, network: str, epochs: int, scratch: Path
) -> tuple[list[float], float]:
    """Seconds of each epoch, and of reading and decoding the training images alone."""
    settings = NetworkSettings.of(network, task="per-attribute")
    outputs = make_outputs(manifest.labels(), settings)
    built = build_network(settings, outputs, settings.spec.size_px, None)
    augmentation = build_augmentation(settings.spec.augmentation) if settings.augments else None
    graph = built.training_graph(augmentation)
    name = outputs[0].layer
    datasets = {
        part: keras.utils.image_dataset_from_directory(
            path,
            label_mode="categorical",
            image_size=built.input_size,
            batch_size=settings.batch_size,
            verbose=False,
        )
        for part, path in parts.items()
    }
    named = {part: each.map(lambda x, y: (x, {name: y})) for part, each in datasets.items()}
    compile_graph(graph, built, settings.stages[0], epochs)
    seconds = Seconds()
    best = keras.callbacks.ModelCheckpoint(
        scratch / "best.weights.h5", save_best_only=True, save_weights_only=True
    )
    graph.fit(
        named["train"], validation_data=named["validation"], epochs=epochs, verbose=0,
        callbacks=[best, seconds],
    )  # fmt: skip
    started = time.perf_counter()
    for _ in datasets["train"]:
        pass
    return seconds.of_epochs, time.perf_counter() - started


@click.command(help=__doc__.splitlines()[0])
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--network", default="smallervggnet", show_default=True, help="Network to train.")
@click.option("--images", "n_images", default=600, show_default=True, help="Images at most.")
@click.option("--enlarge", metavar="WIDTHxHEIGHT", help="Enlarge the images to this size first.")
@click.option("--epochs", default=3, show_default=True, help="Epochs of each training.")
@click.option("--repeats", default=3, show_default=True, help="Trainings of each kind.")
def main(
    folder: Path, network: str, n_images: int, enlarge: str | None, epochs: int, repeats: int
) -> None:
    """Measure, and print a row of the table."""
    size = tuple(map(int, enlarge.split("x"))) if enlarge else None
    with tempfile.TemporaryDirectory() as scratch:
        images, workspace = Path(scratch, "images"), Path(scratch, "workspace")
        copy_images(folder, images, n_images, size)
        featurepipe.extract(images, backbone="hsv_histogram", workspace=workspace)
        manifest, parts = Manifest.load(workspace / "manifest.parquet"), None
        ours, plain, decoding = [], [], []
        for _ in range(repeats):
            history = train_ours(images, workspace, network, epochs, seed=0)
            ours += history["seconds"].tolist()[1:]
            parts = parts or link_parts(images, workspace, Path(scratch, "parts"))
            seconds, decode_s = train_plainly(parts, manifest, network, epochs, Path(scratch))
            plain += seconds[1:]
            decoding.append(decode_s)
        click.echo(
            f"seconds of epochs: ours {np.round(ours, 2)}, plain {np.round(plain, 2)}", err=True
        )
        n_train = sum(1 for path in parts["train"].glob("*/*"))
        plainly, rate = n_train / np.median(plain), n_train / np.median(ours)
        share = np.median(decoding) / np.median(plain)
        what = f"{network}, {n_train} images{f' of {enlarge}' if enlarge else ''}"
        figures = (f"{plainly:.1f}", f"{rate:.1f}", f"{rate / plainly:.2f}", f"{share:.0%}")
        click.echo(table_row((what, *figures)))


if __name__ == "__main__":
    main()
