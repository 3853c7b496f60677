"""A workspace with runs on colour histograms, which need no network, and pictures for them."""

import numpy as np

import featurepipe
from pictures import COLOURS, draw_data_set

RUN = "hsv_histogram-knn"


def make_workspace(root, hold_out=(), heads=("knn",)):
    """80 images of two attributes, and a run of each head."""
    draw_data_set(root / "dataset", n_each=10)
    featurepipe.extract(
        root / "dataset", attributes=["color", "kind"], backbone="hsv_histogram", workspace=root
    )
    for head in heads:
        featurepipe.fit(head=head, hold_out=hold_out, workspace=root)


def given_pictures(n=4, size=(30, 21), seed=5):
    """Pictures of the colours of the images, so that each has similar ones."""
    rng = np.random.default_rng(seed)
    colours = np.array([*COLOURS.values()])[np.arange(n) % len(COLOURS)]
    shades = colours[:, None, None] + rng.normal(0, 12, (n, *size, 3))
    return np.clip(shades, 0, 255).astype(np.uint8)
