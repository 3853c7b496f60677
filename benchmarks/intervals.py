"""Measure how often the 95 % intervals of the board contain the true figure.

    python benchmarks/intervals.py [--data-sets 300] [--jobs 2]

Draws data sets from populations whose figures are known: heads with accuracies of 0.5, 0.97, 0.995
and 1, calibrated, over-confident (logits times 3) or confronted with randomly wrong labels; 30, 100
and 432 images, independent or in groups of 5 that are much alike. Prints the coverage of each
figure's interval as the board computes it, and compares methods for log-loss and Brier's figure.
"""

import argparse
from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from measuring import table_head, table_row
from populations import CLASS_FIGURES, GROUP_SIZE, OFFSETS, ClassHead, LabelHead
from scipy import stats

from featurepipe import metrics
from featurepipe.predictions import Predictions
from featurepipe.reports import figures
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.intervals import accuracy_interval
from featurepipe.reports.resampling import Resamples

ACCURACIES = (0.5, 0.97, 0.995, 1.0)
HEADS = ("calibrated", "over-confident", "wrong labels")
SIZES = (30, 100, 432)
LOSSES = ("log_loss", "brier")


def main() -> None:
    """Simulate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data-sets", type=int, default=300, help="for each case; default: %(default)s"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes; default: %(default)s")
    arguments = parser.parse_args()
    cases = [
        (kind, head, accuracy, grouped)
        for kind, heads in ((ClassHead, HEADS), (LabelHead, HEADS[:1]))
        for head, accuracy, grouped in product(heads, ACCURACIES, (False, True))
        # All answers are right, or half of them: that is not done by a few wrong labels.
        if head != "wrong labels" or accuracy in (0.97, 0.995)
    ]
    measured = Parallel(n_jobs=arguments.jobs)(
        delayed(measure)(*case, arguments.data_sets) for case in cases
    )
    rows = pd.DataFrame([row for of_case in measured for row in of_case])
    board = rows[rows["method"] == "board"]
    print("Coverage, and mean width, of the board's intervals:\n")
    print_cases(board)
    print("\nLowest coverage over accuracies and heads:\n")
    print_lowest(board)
    print("\nMethods for losses, over all cases of classes:\n")
    print_methods(rows[rows["figure"].isin(LOSSES) & (rows["kind"] == "classes")])


def measure(kind, head: str, accuracy: float, grouped: bool, n_sets: int) -> list[dict]:
    """Coverage, width and impossible ends for each number of images, figure and method."""
    population = kind(head, accuracy, grouped)
    true_figures = population.true_figures()
    rows = []
    for size in SIZES:
        n = size // GROUP_SIZE * GROUP_SIZE if grouped else size
        groups = np.arange(n) // GROUP_SIZE if grouped else np.arange(n)
        resamples = Resamples(groups)
        ends: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number in range(n_sets):
            truth, p, _ = population.draw(np.random.default_rng([number, size]), n)
            measured = of_board(population.predictions(truth, p), resamples)
            for name in population.figures:
                interval = measured[f"{name}_low"], measured[f"{name}_high"]
                ends.setdefault((name, "board"), []).append(interval)
            if kind is ClassHead:
                for key, interval in rivals(truth, p, resamples):
                    ends.setdefault(key, []).append(interval)
        rows += [
            {"kind": kind.kind, "head": head, "accuracy": accuracy, "grouped": grouped, "n": size}
            | {"figure": figure, "method": method}
            | judge(np.array(intervals), true_figures[figure], highest(kind, figure))
            for (figure, method), intervals in ends.items()
        ]
    return rows


def highest(kind, figure: str) -> float:
    """What the figure cannot exceed."""
    surprise = -np.log(np.finfo(float).eps)
    n_questions = 1 if kind is ClassHead else len(OFFSETS)
    return {"log_loss": surprise * n_questions, "brier": 2}.get(figure, 1)


def judge(intervals: np.ndarray, true: float, at_most: float) -> dict[str, float]:
    """Coverage, mean width, and the share of intervals that are missing or reach too far."""
    low, high = intervals.T
    impossible = np.isnan(high) | (low < 0) | (high > at_most + 1e-9)
    width = np.clip(high, 0, at_most) - np.clip(low, 0, at_most)
    return {
        "coverage": ((low <= true + 1e-9) & (true <= high + 1e-9)).mean(),
        "width": np.nanmean(width) if not impossible.all() else np.nan,
        "impossible": impossible.mean(),
    }


def of_board(predictions: Predictions, resamples: Resamples) -> dict[str, float]:
    """Figures as the board computes them, with resamples that all data sets share."""
    judged = AttributePredictions.of(predictions, "kind")
    losses = judged.losses, judged.highest_losses, judged.right
    exclusive = predictions.labels["kind"].exclusive
    low, high = accuracy_interval(judged.right, resamples)
    return {
        **figures._loss("log_loss", *losses, resamples),
        "accuracy_low": low,
        "accuracy_high": high,
        **(
            figures._class_figures(judged, "kind", resamples)
            if exclusive
            else figures._label_figures(predictions, "kind", resamples)
        ),
    }


def rivals(truth, p, resamples) -> Iterator[tuple[tuple[str, str], tuple[float, float]]]:
    """Intervals of both losses by each method."""
    for figure, loss in (("log_loss", metrics.log_losses), ("brier", metrics.squared_distances)):
        # Groups are equally large here: their means are independent evidence.
        size = len(truth) / resamples.n_units
        means = resamples.sums(loss(truth, p)) / size
        for method, interval in RIVALS.items():
            yield (figure, method), interval(means, resamples, highest(ClassHead, figure))


def percentile(losses, resamples, at_most):
    """Percentiles of the bootstrap."""
    return tuple(np.quantile(resampled(losses, resamples)[0], (0.025, 0.975)))


def studentised(losses, resamples, at_most):
    """Efron & Tibshirani (1993), section 12.5: what featurepipe did before."""
    mean, error = losses.mean(), losses.std() / np.sqrt(len(losses))
    means, errors = resampled(losses, resamples)
    varies = errors > 1e-9 * error
    if error <= 1e-12 * mean or not varies.any():
        return np.nan, np.nan
    off = np.quantile((means[varies] - mean) / errors[varies], (0.975, 0.025))
    low, high = mean - error * off
    return max(low, 0.0), high


def bca(losses, resamples, at_most):
    """Bias-corrected and accelerated bootstrap: Efron (1987)."""
    means, off = resampled(losses, resamples)[0], losses.mean() - losses
    share = np.clip((means < losses.mean()).mean(), 1e-3, 1 - 1e-3)
    bias, z = stats.norm.ppf(share), stats.norm.ppf((0.025, 0.975))
    spread = (off**2).sum() ** 1.5
    acceleration = -(off**3).sum() / (6 * spread) if spread > 0 else 0.0
    shares = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
    return tuple(np.quantile(means, shares))


def log_t(losses, resamples, at_most):
    """Student's t interval of the mean's logarithm."""
    mean, n = losses.mean(), len(losses)
    error = losses.std(ddof=1) / np.sqrt(n) / max(mean, 1e-300)
    low, high = mean * np.exp(np.array([-1, 1]) * stats.t.ppf(0.975, n - 1) * error)
    return low, min(high, at_most)


def betting(losses, resamples, at_most):
    """Waudby-Smith & Ramdas (2024), hedged capital with their predictable plug-in bets."""
    y, n, grid = losses / at_most, len(losses), BETTING_GRID[:, None]
    counts = np.arange(1, n + 1)
    means = (0.5 + y.cumsum()) / (counts + 1)
    variances = np.append(0.25, (0.25 + ((y - means) ** 2).cumsum()) / (counts + 1))[:-1]
    bets = np.sqrt(2 * np.log(2 / 0.05) / (n * variances))
    up = np.log1p(np.minimum(bets, 0.5 / grid) * (y - grid)).sum(axis=1)
    down = np.log1p(-np.minimum(bets, 0.5 / np.maximum(1 - grid, 1e-12)) * (y - grid)).sum(axis=1)
    kept = np.flatnonzero(np.maximum(up, down) + np.log(0.5) < np.log(1 / 0.05))
    # The ends lie between a mean that is refuted and the next, which is not.
    first, last = kept[0] - 1, min(kept[-1] + 1, len(grid) - 1)
    return at_most * (BETTING_GRID[first] if first >= 0 else 0.0), at_most * BETTING_GRID[last]


BETTING_GRID = np.append(np.geomspace(1e-5, 0.02, 60), np.linspace(0.02, 1, 160)[1:])


def resampled(losses, resamples) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each resample and its standard error."""
    n = len(losses)
    means, squares = (resamples.unit_weights @ np.column_stack([losses, losses**2]) / n).T
    return means, np.sqrt(np.maximum(squares - means**2, 0) / n)


RIVALS = {
    "bootstrap percentiles": percentile,
    "studentised bootstrap": studentised,
    "BCa bootstrap": bca,
    "t of the logarithm": log_t,
    "betting": betting,
}


def print_cases(rows: pd.DataFrame) -> None:
    """Every case: a row for each head and accuracy, coverage and width for each size."""
    sizes = [(n, grouped) for grouped in (False, True) for n in SIZES]
    print(table_head(["figure", "head", "accuracy", *map(size_name, sizes)]))
    for key, of_case in rows.groupby(["kind", "figure", "head", "accuracy"], sort=False):
        by_size = of_case.set_index(["n", "grouped"])
        cells = [f"{by_size['coverage'][s]:.2f} ({by_size['width'][s]:.3g})" for s in sizes]
        print(table_row([figure_name(*key[:2]), *key[2:], *cells]))


def print_lowest(rows: pd.DataFrame) -> None:
    """A row for each figure, the lowest coverage for each size."""
    sizes = [(n, grouped) for grouped in (False, True) for n in SIZES]
    print(table_head(["figure", *map(size_name, sizes)]))
    for key, of_figure in rows.groupby(["kind", "figure"], sort=False):
        lowest = of_figure.groupby(["n", "grouped"])["coverage"].min()
        print(table_row([figure_name(*key), *(f"{lowest[size]:.2f}" for size in sizes)]))


def print_methods(rows: pd.DataFrame) -> None:
    """A row for each method and loss."""
    names = ["lowest coverage", "cases below 0.90", "mean width", "impossible or missing"]
    print(table_head(["figure", "method", *names]))
    for key, of_method in rows.groupby(["figure", "method"], sort=False):
        coverage = of_method["coverage"]
        cells = [
            f"{coverage.min():.2f}",
            f"{(coverage < 0.9).sum()} of {len(coverage)}",
            f"{of_method['width'].mean():.3g}",
            f"{100 * of_method['impossible'].mean():.0f} %",
        ]
        print(table_row([*key, *cells]))


def size_name(size: tuple[int, bool]) -> str:
    """A column's header."""
    n, grouped = size
    return f"{n // GROUP_SIZE} groups of {GROUP_SIZE}" if grouped else f"{n} images"


def figure_name(kind: str, figure: str) -> str:
    """A figure, and whether it is one of labels."""
    return f"{figure} of labels" if kind == "labels" and figure in CLASS_FIGURES else figure


if __name__ == "__main__":
    main()
