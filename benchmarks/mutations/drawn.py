"""A small place with every kind of file: images, tables, archives and a workspace."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from child import Limits, watch
from PIL import Image
from place import Place

COLOURS = {"black": (20, 20, 20), "blue": (30, 60, 200), "red": (200, 30, 30), "white": (235,) * 3}
FORMATS = ("png", "jpg", "webp", "gif", "bmp", "tiff")
N_EACH = 4

WORKSPACE = ("--workspace", "workspace")
NETWORK = ("--backbone=mobilenet_v2", "--size=32")
TRAIN = ("train", "smallervggnet", "--size=16", "--batch-size=16", "--no-augment", *WORKSPACE)
UNFINISHED = (*TRAIN, "--epochs=2", "--seed=7")
"""The training that is stopped after its first epoch."""

_PATIENT = Limits(cpu_s=600, wall_s=1200, memory_bytes=4_000_000_000)


def draw_place(place: Place, has_networks: bool) -> None:
    """Draw images and let featurepipe write every kind of file that it writes.

    Parameters
    ----------
    place : Place
        Empty.
    has_networks : bool
        Whether to use and to train networks, which takes a minute.
    """
    draw_images(place.folder / "images")
    write_tables(place.folder)
    write_archive(place.folder)
    split = ("--test-size=0.25", *WORKSPACE)
    commands: list[tuple[str, ...]] = [
        ("extract", "images", "--attributes=color,kind", "--backbone=hsv-histogram", *WORKSPACE),
        ("fit", "--head=bagged-sgd", "--jobs=1", *split),
        ("fit", "--head=knn", *split),
        ("fit", "--head=logistic", "--task=multi-label", *split),
        ("extract", "archive.tar", "--backbone=hsv-histogram", "--workspace=archives"),
    ]
    if has_networks:
        commands += [
            ("extract", *NETWORK, "--weights=random", *WORKSPACE),
            ("fit", "--backbone=mobilenet_v2", "--head=knn", *split),
            (*TRAIN, "--epochs=1"),
            (
                "train",
                "pair",
                *NETWORK,
                "--weights=random",
                "--epochs=1",
                "--batch-size=8",
                *WORKSPACE,
            ),
        ]
    commands += [("report", *WORKSPACE), ("audit", *WORKSPACE)]
    for command in commands:
        _succeed(place, lambda command=command: _run(command), " ".join(command))
    if has_networks:
        _succeed(place, lambda: _stop_training(), "a training that is stopped")
        _succeed(place, lambda: _save_weights(place.folder), "weights")
    draw_victims(place)


def draw_images(folder: Path) -> None:
    """Folders `colour_kind` of noisy pictures in every format."""
    rng = np.random.default_rng(0)
    for colour, rgb in COLOURS.items():
        for kind in ("bright", "plain"):
            for number in range(N_EACH):
                pixels = np.array(rgb, float) + rng.normal(0, 12, (20, 20, 3))
                pixels[:10] += 60 * (kind == "bright")
                n_files = len(list(folder.rglob("*.*")))
                path = folder / f"{colour}_{kind}" / f"{number:02}.{FORMATS[n_files % 6]}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def _labels(folder: Path) -> list[tuple[str, str, str]]:
    paths = sorted(path for path in (folder / "images").rglob("*.*"))
    return [
        (path.relative_to(folder / "images").as_posix(), *path.parent.name.split("_"))
        for path in paths
    ]


def write_tables(folder: Path) -> None:
    """A CSV and a Parquet table of the images and their labels."""
    import pandas as pd

    table = pd.DataFrame(_labels(folder), columns=["path", "color", "kind"])
    table["patient"] = [number // 2 for number in range(len(table))]
    table.to_csv(folder / "labels.csv", index=False)
    table.to_parquet(folder / "labels.parquet")


def write_archive(folder: Path) -> None:
    """Two tar files of some images with their labels beside, as WebDataset has them."""
    for name, rows in (("archive", _labels(folder)[::2]), ("other", _labels(folder)[1:9])):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for number, (image, color, kind) in enumerate(rows):
                label = json.dumps({"color": color, "kind": kind}).encode()
                for suffix, data in (
                    (Path(image).suffix, (folder / "images" / image).read_bytes()),
                    (".json", label),
                    (".cls", color.encode()),
                ):
                    info = tarfile.TarInfo(f"{number:04}{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def draw_victims(place: Place) -> None:
    """Files outside the workspace, of several kinds, that no command may change."""
    outside, workspace = place.folder / "outside", place.folder / "workspace"
    (outside / "victim.txt").write_text("outside\n" * 2000)
    (outside / "victim.json").write_text('{"outside": true}')
    (outside / "victim.h5").write_bytes(sorted(workspace.glob("features/*.h5"))[0].read_bytes())
    (outside / "victim.npz").write_bytes(
        sorted(workspace.glob("runs/*/selection.npz"))[0].read_bytes()
    )


def _run(command: tuple[str, ...]) -> int:
    from featurepipe.cli import run

    return run(command)


def _succeed(place: Place, function: Callable[[], int], title: str) -> None:
    def inside() -> int:
        os.chdir(place.folder)
        return function()

    ended = watch(inside, place.logs, _PATIENT)
    if ended.code or ended.killed_for:
        raise SystemExit(f"{title}: {ended.code} {ended.killed_for}\n{ended.err[-3000:]}")


def _stop_training() -> int:
    """Train until the first checkpoint is saved."""
    from featurepipe.models.networks.checkpoints import CheckpointFolder

    save = CheckpointFolder.save

    def save_and_stop(self: CheckpointFolder, *arguments: object) -> None:
        save(self, *arguments)
        os._exit(0)

    CheckpointFolder.save = save_and_stop
    _run(UNFINISHED)
    return 1


def _save_weights(folder: Path) -> int:
    """Random weights of a backbone, in each format that `--weights` takes."""
    from featurepipe.features.engines.quiet_keras import keras

    model = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg"
    )
    model.save(folder / "whole.keras")
    model.save(folder / "whole.h5")
    model.save_weights(folder / "some.weights.h5")
    return 0
