r"""Measure how many labels are saved if a strategy chooses which images are labelled next.

    python benchmarks/next.py WORKSPACE … --results FILE

The labels of each workspace are hidden and given back in batches. For each seed, 30 % of the
images are test images; of the others, 50 are labelled at random, at least three of each class.
Then, again and again, a head is fitted for each attribute on what is labelled, as `featurepipe
fit` does, it predicts the test images, and the strategy chooses the next batch from the rest.

Strategies are compared with random choice on the same splits and the same first labels. None
has a parameter that was chosen on these data. FILE keeps each curve, so that the command can be
stopped and started again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import click
import numpy as np
from measuring import table_head, table_row
from numpy.typing import NDArray
from scipy.stats import t as student_t
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from featurepipe.features.cached import open_caches
from featurepipe.manifest import Labels, Manifest
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.label_choice import choose_images, doubts, unit_blocks
from featurepipe.models.studies.thinning import learnable
from featurepipe.splits import SplitSettings, make_splits
from featurepipe.workspace import Workspace

TEST_SIZE = 0.3
N_FIRST = 50
LEAST_OF_CLASS = 3
N_FOLDS = 3
N_NEIGHBOURS = 20
USED = "k-medoids, rare combinations first"

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """Images with features and hidden labels; every attribute is exclusive."""

    name: str
    X: NDArray[np.float32]
    labels: dict[str, Labels]
    splits: list[tuple[Rows, Rows, Rows]]
    """For each seed: training rows, test rows, and the group of every row."""

    @cached_property
    def units(self) -> NDArray[np.float32]:
        """Rows of length 1."""
        return unit_blocks(self.X, [(0, self.X.shape[1])])

    @cached_property
    def codes(self) -> Rows:
        """Class of each image and attribute."""
        return np.column_stack([labels.codes for labels in self.labels.values()])

    @property
    def n_classes(self) -> list[int]:
        """Number of classes of each attribute."""
        return [len(labels.classes) for labels in self.labels.values()]


@dataclass(frozen=True)
class Round:
    """What a strategy knows when it chooses a batch."""

    images: Images
    labelled: Rows
    pool: Rows
    probabilities: list[Floats]
    """Of the pool's images, for each attribute."""
    n: int
    rng: np.random.Generator

    @property
    def margin(self) -> Floats:
        """Doubt about the least sure attribute."""
        return np.max([doubts(p, exclusive=True) for p in self.probabilities], axis=0)

    def distances(self, some: Rows, others: Rows) -> Floats:
        """Distances of images of unit length."""
        units = self.images.units
        cosines = (units[some] @ units[others].T).astype(np.float64)
        return np.sqrt(np.maximum(2 - 2 * cosines, 0))

    def combinations(self, codes: Rows) -> Rows:
        """Number of each combination of classes."""
        return np.ravel_multi_index(codes.T, self.images.n_classes)


def random(now: Round) -> Rows:
    """The baseline."""
    return now.rng.permutation(len(now.pool))[: now.n]


def margin(now: Round) -> Rows:
    """The images with the smallest margin of any attribute."""
    return np.argsort(-now.margin, kind="stable")[: now.n]


def least_confidence(now: Round) -> Rows:
    """The images that are least likely to have all attributes right."""
    confidence = np.prod([p.max(axis=1) for p in now.probabilities], axis=0)
    return np.argsort(confidence, kind="stable")[: now.n]


def margin_by_distance_and_density(now: Round) -> Rows:
    """Greedy product of doubt, distance to what has a label, and density."""
    everything = np.concatenate([now.pool, now.labelled])
    near = np.sort(now.distances(now.pool, everything), axis=1)[:, 1 : N_NEIGHBOURS + 1]
    return _farthest(now, now.margin / near.mean(axis=1))


def badge(now: Round) -> Rows:
    """BADGE (Ash et al., 2020): k-means++ on the gradients of the heads' last layers."""
    X, errors = now.images.units[now.pool].astype(np.float64), []
    for p in now.probabilities:
        errors.append(p - (p.argmax(axis=1)[:, None] == np.arange(p.shape[1])))
    E = np.hstack(errors)
    squares = np.square(E).sum(axis=1)
    chosen, nearest = [int(squares.argmax())], np.full(len(X), np.inf)
    while len(chosen) < now.n:
        last = chosen[-1]
        products = (E @ E[last]) * (X @ X[last])
        nearest = np.minimum(nearest, np.maximum(squares + squares[last] - 2 * products, 0))
        nearest[chosen] = 0
        chosen.append(int(now.rng.choice(len(X), p=nearest / nearest.sum())))
    return np.array(chosen)


def typiclust(now: Round) -> Rows:
    """TypiClust (Hacohen et al., 2022): typical images of clusters without a label."""
    everything = np.concatenate([now.labelled, now.pool])
    n_clusters = min(len(now.labelled) + now.n, 500)
    units = now.images.units[everything]
    clusters = KMeans(n_clusters, n_init=1, max_iter=30, random_state=0).fit(units).labels_
    n_labelled = np.bincount(clusters[: len(now.labelled)], minlength=n_clusters)
    of_pool = clusters[len(now.labelled) :]
    free, chosen = np.ones(len(now.pool), bool), []
    while len(chosen) < now.n:
        sizes = np.bincount(of_pool[free], minlength=n_clusters)
        cluster = np.lexsort((-sizes, n_labelled, sizes == 0))[0]
        members = np.flatnonzero(free & (of_pool == cluster))
        near = np.sort(now.distances(now.pool[members], now.pool[members]), axis=1)
        chosen.append(int(members[near[:, : N_NEIGHBOURS + 1].mean(axis=1).argmin()]))
        free[chosen[-1]] = False
        n_labelled[cluster] += 1
    return np.array(chosen)


def k_medoids(now: Round) -> Rows:
    """What `featurepipe next` does, except that rare combinations count as much as others."""
    return _medoids(now, now.margin)


def k_medoids_rare_first(now: Round) -> Rows:
    """What `featurepipe next` does."""
    known = np.bincount(
        now.combinations(now.images.codes[now.labelled]), minlength=np.prod(now.images.n_classes)
    )
    predicted = np.column_stack([p.argmax(axis=1) for p in now.probabilities])
    rarity = 1 / (1 + known[now.combinations(predicted)])
    return _medoids(now, now.margin * rarity)


STRATEGIES: dict[str, Callable[[Round], Rows]] = {
    "random": random,
    "margin": margin,
    "least confidence": least_confidence,
    "margin x distance x density": margin_by_distance_and_density,
    "BADGE": badge,
    "TypiClust": typiclust,
    "k-medoids weighted by margin": k_medoids,
    USED: k_medoids_rare_first,
}


def _medoids(now: Round, weights: Floats) -> Rows:
    X = now.images.X[now.pool]
    return choose_images(X, weights, now.n, [(0, X.shape[1])])[0]


def _farthest(now: Round, weights: Floats) -> Rows:
    """Again and again the image with the largest weight times distance to what has a label."""
    nearest, chosen = now.distances(now.pool, now.labelled).min(axis=1), []
    while len(chosen) < now.n:
        gains = weights * nearest
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        nearest = np.minimum(nearest, now.distances(now.pool, now.pool[chosen[-1:]])[:, 0])
    return np.array(chosen)


def open_images(folder: Path, store: str, seeds: Sequence[int]) -> Images:
    """The images of a workspace, and a split for each seed."""
    home = Workspace(folder)
    manifest = Manifest.load(home.manifest)
    caches = open_caches(home.stores(), manifest.ids.tolist())
    cache = next(cache for cache in caches if cache.name == store)
    ids = np.array([name for name in manifest.ids if name in cache.digests], dtype=object)
    splits = []
    for seed in seeds:
        settings = SplitSettings(test_size=TEST_SIZE, seed=seed)
        split = make_splits(manifest, cache.digests, settings)[0]
        rows = np.searchsorted(ids, split.ids)
        groups = np.full(len(ids), -1)
        groups[rows] = split.groups
        splits.append((rows[split.rows("train")], rows[split.rows("test")], groups))
    return Images(folder.name, cache.read(ids), manifest.labels(ids), splits)


def first_labels(images: Images, train: Rows, seed: int) -> list[int]:
    """Images at random; those that a rare class needs come first."""
    order = np.random.default_rng([seed, 0]).permutation(train)
    counts = [np.zeros(n, int) for n in images.n_classes]
    needed = []
    for row in order:
        own = list(zip(counts, images.codes[row], strict=True))
        if any(count[code] < LEAST_OF_CLASS for count, code in own):
            needed.append(int(row))
            for count, code in own:
                count[code] += 1
    others = [int(row) for row in order if row not in set(needed)]
    return needed + others[: max(0, N_FIRST - len(needed))]


@threadpool_limits.wrap(limits=1)
def replay(
    images: Images, strategy: str, seed: int, head: str, batch: int, n_rounds: int
) -> list[tuple[int, float]]:
    """Numbers of labels, and the share of test images with all attributes right."""
    train, test, groups = images.splits[seed]
    labelled, rng, curve = first_labels(images, train, seed), np.random.default_rng([seed, 1]), []
    settings = replace(HeadSettings.of(head, seed=seed), n_folds=N_FOLDS)
    for number in range(n_rounds + 1):
        rows = np.array(labelled)
        known = {name: labels.take(rows) for name, labels in images.labels.items()}
        known = learnable(known, settings.task)
        model = fit_heads(images.X[rows], known, groups[rows], settings, n_jobs=1).model
        answers = [p.argmax(axis=1) for p in model.predict(images.X[test]).values()]
        right = (np.column_stack(answers) == images.codes[test]).all(axis=1)
        curve.append((len(labelled), float(right.mean())))
        pool = np.setdiff1d(train, rows)
        if number < n_rounds and len(pool):
            scores = model.in_words(model.predict(images.X[pool])).values()
            now = Round(images, rows, pool, [p for _, p in scores], min(batch, len(pool)), rng)
            labelled += pool[STRATEGIES[strategy](now)].tolist()
    return curve


def interval(differences: Floats) -> str:
    """Mean and 95 % interval over the seeds, by Student's t."""
    if len(differences) < 2 or not differences.any():
        return f"{differences.mean():+.3f}"
    half = student_t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1)
    half /= np.sqrt(len(differences))
    mean = differences.mean()
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def labels_needed(curve: Floats, n_labels: Floats, accuracy: float) -> float:
    """Labels at which a mean curve, made monotone, reaches an accuracy; infinite if never."""
    reached = np.maximum.accumulate(curve)
    if accuracy > reached[-1]:
        return np.inf
    return float(np.interp(accuracy, reached, n_labels)) if accuracy > reached[0] else n_labels[0]


def strategy_rows(curves: dict[str, dict[int, Floats]], rounds: Sequence[int]) -> list[str]:
    """For each strategy its gain, and its accuracy with the labels that random needs for it."""
    lines = []
    for strategy, by_seed in curves.items():
        base, own = paired(curves["random"], by_seed)
        means, figures = own[:, :, 1].mean(axis=0), []
        for number in rounds:
            needed = labels_needed(base[:, :, 1].mean(axis=0), base[0, :, 0], means[number])
            more = "more than " if np.isinf(needed) else ""
            figures.append(f"{means[number]:.3f}: {more}{min(needed, base[0, -1, 0]):.0f}")
        gains = own[:, 1 : rounds[-1] + 1, 1] - base[:, 1 : rounds[-1] + 1, 1]
        lines.append(table_row([strategy, len(own), interval(gains.mean(axis=1)), *figures]))
    return lines


def curve_rows(curves: dict[str, dict[int, Floats]], strategy: str, n_rounds: int) -> list[str]:
    """Accuracy of random choice and of a strategy by the number of labels."""
    base, own = paired(curves["random"], curves[strategy])
    return [
        table_row(
            [
                f"{base[0, number, 0]:.0f}",
                f"{base[:, number, 1].mean():.3f}",
                f"{own[:, number, 1].mean():.3f}",
                interval(own[:, number, 1] - base[:, number, 1]),
            ]
        )
        for number in range(1, n_rounds + 1)
    ]


def paired(one: dict[int, Floats], other: dict[int, Floats]) -> tuple[Floats, Floats]:
    """Curves of the seeds that both have: (n_seeds, n_rounds, labels and accuracy)."""
    seeds = sorted(set(one) & set(other))
    return np.array([one[seed] for seed in seeds]), np.array([other[seed] for seed in seeds])


def read_curves(results: Path, images: str, names: Sequence[str]) -> dict[str, dict[int, Floats]]:
    """The curves of some images that were measured before, by strategy and seed."""
    curves: dict[str, dict[int, Floats]] = {name: {} for name in names}
    for line in results.read_text().splitlines() if results.exists() else ():
        of_images, name, seed, curve = json.loads(line)
        if of_images == images and name in curves:
            curves[name][seed] = np.array(curve)
    return curves


@click.command(help=__doc__.splitlines()[0])
@click.argument("workspaces", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), required=True, help="JSON lines.")
@click.option("--store", default="mobilenet_v2:rgb", show_default=True, help="Features.")
@click.option("--head", default="bagged-sgd", show_default=True, help="Head to fit.")
@click.option("--seeds", default=5, show_default=True, help="Number of seeds.")
@click.option("--batch", default=50, show_default=True, help="Labels a round.")
@click.option("--rounds", default=8, show_default=True, help="Rounds; random has twice as many.")
@click.option("--strategy", multiple=True, type=click.Choice(list(STRATEGIES)), help="Only these.")
def main(workspaces, results, store, head, seeds, batch, rounds, strategy) -> None:
    """Measure, and print tables for each workspace."""
    names = ["random", *(name for name in strategy or STRATEGIES if name != "random")]
    for folder in workspaces:
        images = open_images(folder, store, range(seeds))
        curves = read_curves(results, images.name, names)
        for seed, name in product(range(seeds), names):
            if seed in curves[name]:
                continue
            n_rounds = 2 * rounds if name == "random" else rounds
            curve = replay(images, name, seed, head, batch, n_rounds)
            curves[name][seed] = np.array(curve)
            with results.open("a") as file:
                file.write(json.dumps([images.name, name, seed, curve]) + "\n")
            click.echo(f"{images.name}, {name}, seed {seed}: {curve[-1][1]:.3f}", err=True)
        print_tables(images.name, curves, rounds)


def print_tables(title: str, curves: dict[str, dict[int, Floats]], n_rounds: int) -> None:
    """All strategies at some numbers of labels, and the curve of what `featurepipe next` does."""
    shown = (2, 4, n_rounds)
    counts = next(iter(curves["random"].values()))[:, 0]
    header = ["strategy", "seeds", "mean gain", *(f"{counts[k]:.0f} labels" for k in shown)]
    click.echo(f"\n{title}\n{table_head(header)}")
    click.echo("\n".join(strategy_rows(curves, shown)))
    if USED in curves:
        click.echo(f"\n{table_head(['labels', 'random', USED, 'difference'])}")
        click.echo("\n".join(curve_rows(curves, USED, n_rounds)))


if __name__ == "__main__":
    main()
