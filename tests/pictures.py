"""Tiny generated pictures, and an engine that needs no network."""

from concurrent.futures import Future
from pathlib import Path

import numpy as np
from PIL import Image

from featurepipe.features.engines import Engine


class ColourMean(Engine):
    """An engine whose features are the mean red, green and blue, and those of the upper half."""

    name = "colour-mean"
    n_features = 6
    n_parallel = 1

    def __init__(self, size=(8, 8), versions=None, shift=0.0, batch_size=None):
        self.input_size = size
        self.batch_size = batch_size or 16
        self.versions = versions or {"colour-mean": "1"}
        self.shift = shift
        self.n_embedded = 0

    def start(self, images):
        future = Future()
        future.set_result(self.compute(images))
        return future

    def compute(self, images):
        assert len(images) <= self.batch_size
        assert images.dtype == np.uint8
        assert images.shape[1:] == (*self.input_size, 3)
        self.n_embedded += len(images)
        pixels = images.astype(np.float32)
        upper = pixels[:, : self.input_size[0] // 2]
        means = np.concatenate([pixels.mean(axis=(1, 2)), upper.mean(axis=(1, 2))], axis=1)
        return (means / 255 + self.shift).astype(np.float32)


COLOURS = {"black": (20, 20, 20), "blue": (30, 60, 200), "red": (200, 30, 30), "white": (235,) * 3}
UNKNOWN_COLOURS = {"green": (20, 230, 60)}


def draw(path: Path, colour: str, bright_top: bool, seed: int, side: int = 12) -> None:
    """One noisy picture of a colour, whose upper half may be brighter."""
    rng = np.random.default_rng(seed)
    pixels = np.array((COLOURS | UNKNOWN_COLOURS)[colour], float) + rng.normal(
        0, 12, (side, side, 3)
    )
    if bright_top:
        pixels[: side // 2] += 60
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def draw_data_set(folder: Path, n_each: int = 10, skip: tuple[str, ...] = ()) -> None:
    """Folders `colour_kind` of `n_each` pictures; kinds are `bright` and `plain`."""
    for number, colour in enumerate(COLOURS):
        for kind in ("bright", "plain"):
            if f"{colour}_{kind}" in skip:
                continue
            for index in range(n_each):
                seed = 1000 * number + 2 * index + (kind == "bright")
                draw(
                    folder / f"{colour}_{kind}" / f"{index:02}.png", colour, kind == "bright", seed
                )
