"""Measure how well `auto` chooses features for drawn data of two to five attributes.

    python benchmarks/drawn.py [--draws 10]

Each draw makes four stores of features from the classes of an image and its style, by random
layers with ReLU: `all` shows every attribute, `first` hardly any but the first, `others` none of
the first, `weak` every attribute faintly. Some combinations of classes are lacking. The choice sees
images of the others, 1,500 at most; then a ridge regression on the features of each attribute is
asked about 2,000 new images of lacking combinations and 2,000 of the others. `best` takes for each
attribute the features that turn out best on the images of lacking combinations, which nobody
can know.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import click
import numpy as np
from measuring import describe_machine, table_head, table_row
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from featurepipe.manifest import Labels
from featurepipe.manifest.labels import labels_of
from featurepipe.models.studies.feature_choice import choose_features, ordinary_block, sample_rows

N_NEW = 2000
STYLE = 8
WIDTH = 128
# How strongly a store shows the first attribute, and the others.
STORES = {"all": (1.0, 1.0), "first": (1.0, 0.1), "others": (0.0, 1.0), "weak": (0.4, 0.4)}
Codes = NDArray[np.intp]
Blocks = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A kind of data.

    Attributes
    ----------
    n_attributes, n_classes : int
    grid : str
        Which combinations exist: a share drawn at random, or ``"stairs"``, where class k goes
        with the classes k and k + 1 of the next attribute.
    n_images : int
    """

    n_attributes: int
    n_classes: int
    grid: str
    n_images: int = 1500

    def combinations(self, rng: np.random.Generator) -> tuple[Codes, Codes]:
        """The combinations that exist, and those that are lacking."""
        grid = np.array(list(product(range(self.n_classes), repeat=self.n_attributes)))
        if self.grid == "stairs":
            exists = (np.diff(grid, axis=1) % self.n_classes <= 1).all(axis=1)
        else:
            exists = rng.random(len(grid)) < float(self.grid)
            for k, c in product(range(self.n_attributes), range(self.n_classes)):
                exists[rng.choice(np.flatnonzero(grid[:, k] == c))] = True
        return grid[exists], grid[~exists]


SETTINGS = [
    Setting(2, 5, "0.8"),
    Setting(2, 5, "0.4"),
    Setting(2, 5, "stairs"),
    Setting(3, 3, "0.8"),
    Setting(3, 3, "0.4"),
    Setting(3, 3, "stairs"),
    Setting(4, 3, "0.8"),
    Setting(4, 3, "0.2"),
    Setting(4, 3, "0.8", n_images=200),
    Setting(4, 3, "stairs"),
    Setting(5, 3, "0.8"),
    Setting(5, 3, "0.1"),
    Setting(5, 3, "0.8", n_images=400),
    Setting(5, 3, "stairs"),
]


class World:
    """Random layers that turn classes and style into features."""

    def __init__(self, setting: Setting, rng: np.random.Generator):
        self._rng = rng
        n_attributes, n_classes = setting.n_attributes, setting.n_classes
        self._classes = rng.normal(size=(n_attributes, n_classes, 16))
        self._layers = {
            name: (rng.normal(size=(16 * n_attributes + STYLE, WIDTH)), rng.normal(size=WIDTH))
            for name in STORES
        }

    def features(self, codes: Codes) -> dict[str, NDArray[np.float32]]:
        """Draw an image for each row of classes, and its features in every store."""
        shown = [self._classes[k][codes[:, k]] for k in range(codes.shape[1])]
        style = self._rng.normal(size=(len(codes), STYLE))
        blocks = {}
        for name, (weights, bias) in self._layers.items():
            strengths = [STORES[name][min(k, 1)] for k in range(len(shown))]
            parts = [strength * part for strength, part in zip(strengths, shown, strict=True)]
            inputs = np.hstack([*parts, style])
            inputs += self._rng.normal(scale=0.4, size=inputs.shape)
            blocks[name] = np.maximum(inputs @ weights / 4 + bias, 0).astype(np.float32)
        return blocks


def labels_from(codes: Codes) -> dict[str, Labels]:
    """Labels of an attribute for each column."""
    return {
        f"attribute{k}": labels_of(f"attribute{k}", [(str(code),) for code in column])
        for k, column in enumerate(codes.T)
    }


def measure(setting: Setting, seed: int) -> dict[str, float] | None:
    """Share of new images with all attributes right; None if no combination is lacking."""
    rng = np.random.default_rng(seed)
    exists, lacking = setting.combinations(rng)
    if not len(lacking):
        return None
    world = World(setting, rng)
    drawn = [rng.choice(exists, setting.n_images), rng.choice(lacking, N_NEW)]
    drawn.append(rng.choice(exists, N_NEW))
    training, unseen, seen = ((codes, world.features(codes)) for codes in drawn)
    labels = labels_from(training[0])
    rows = sample_rows(labels, seed)
    trials = choose_features(
        {name: X[rows] for name, X in training[1].items()},
        {name: truth.take(rows) for name, truth in labels.items()},
        np.arange(len(rows)),
        seed=seed,
    )
    right: dict[Blocks, list[Codes]] = {}
    for blocks in {trial.blocks for trial in trials}:
        ridge = Ridge(alpha=0.1 * len(rows) * len(blocks))
        X = _scaled(training[1], training[1], blocks)
        ridge.fit(X, np.hstack([truth.indicator for truth in labels.values()]))
        right[blocks] = [
            _right(ridge.predict(_scaled(features, training[1], blocks)), codes)
            for codes, features in (unseen, seen)
        ]
    ordinary = (ordinary_block(trials),) * setting.n_attributes
    chosen = tuple(trial.blocks for trial in trials if trial.chosen)
    best = tuple(
        max(right, key=lambda blocks: right[blocks][0][:, k].mean())
        for k in range(setting.n_attributes)
    )
    shares = {}
    for title, taken in {
        "ordinary": [(name,) for name in ordinary],
        "auto": chosen,
        "best": best,
    }.items():
        for part, of in enumerate(("unseen", "seen")):
            each = [right[blocks][part][:, k] for k, blocks in enumerate(taken)]
            shares[f"{title} {of}"] = float(np.all(each, axis=0).mean())
    return shares


def _scaled(
    features: dict[str, NDArray[np.float32]],
    training: dict[str, NDArray[np.float32]],
    blocks: Blocks,
) -> NDArray[np.float32]:
    """Blocks side by side, each centred and with a mean squared length of 1 in training."""
    scaled = []
    for name in blocks:
        mean = training[name].mean(axis=0)
        length = np.sqrt(np.square(training[name] - mean).sum(axis=1).mean())
        scaled.append((features[name] - mean) / length)
    return np.hstack(scaled)


def _right(scores: NDArray[np.float64], codes: Codes) -> NDArray[np.bool_]:
    parts = np.split(scores, codes.shape[1], axis=1)
    return np.column_stack(
        [part.argmax(axis=1) == column for part, column in zip(parts, codes.T, strict=True)]
    )


def draws(setting: Setting, n_draws: int) -> Iterator[dict[str, float]]:
    """The first draws in which a combination is lacking."""
    seed = 0
    while n_draws:
        measured = measure(setting, seed)
        seed += 1
        if measured is not None:
            n_draws -= 1
            yield measured


@click.command(help=__doc__.splitlines()[0])
@click.option("--draws", "n_draws", default=10, show_default=True, help="Draws of each setting.")
def main(n_draws: int) -> None:
    """Measure, and print a table."""
    click.echo(describe_machine())
    names = [f"{title} {of}" for of in ("unseen", "seen") for title in ("ordinary", "auto", "best")]
    header = ["attributes x classes", "combinations", "images", *names[:5], "largest loss to best"]
    click.echo(table_head(header))
    for setting in SETTINGS:
        measured = list(draws(setting, n_draws))
        means = [np.mean([each[name] for each in measured]) for name in names[:5]]
        loss = max(each["best unseen"] - each["auto unseen"] for each in measured)
        about = [f"{setting.n_attributes} x {setting.n_classes}", setting.grid, setting.n_images]
        click.echo(table_row([*about, *(f"{mean:.3f}" for mean in means), f"{loss:.3f}"]))


if __name__ == "__main__":
    main()
