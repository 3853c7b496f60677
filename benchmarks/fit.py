"""Measure how fast heads are fitted and how good they are, beside scikit-learn's.

    python benchmarks/fit.py [WORKSPACE …] [--only speed|large|quality|heads|tune|logistic] …

`speed` and `large` measure the time on generated features. `quality` measures bagged SGD on
generated features and on every store of each workspace: five random divisions of the training
rows, each with its own seed. `heads` compares all heads on the same divisions, each with its
preprocessing steps and without calibration. `tune` fits each head as `featurepipe fit` does,
calibrated, with and without `--tune`. `logistic` compares the search for C with scikit-learn's, on
generated features and on the training rows of each workspace.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
from measuring import describe_machine, first_split, read_rows, seconds, table_head, table_row
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeClassifierCV, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Labels, Manifest
from featurepipe.metrics import log_losses
from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier
from featurepipe.models.heads.estimators.logistic import PROBED_CS, LogisticSweep
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.registry import HEADS
from featurepipe.splits import inner_folds
from featurepipe.workspace import Workspace

N_SEEDS = 5
Features = NDArray[np.float32]
Codes = NDArray[np.intp]


def draw_features(
    n_rows: int, n_features: int, n_classes: int, seed: int = 0
) -> tuple[Features, Codes]:
    """Generate features like those of networks: never negative, not centred, correlated."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, n_rows)
    means = rng.gamma(1, 0.4, n_features) + rng.normal(0, 0.35, (n_classes, n_features))
    mixing = rng.normal(0, 0.15, (64, n_features))
    noise = rng.normal(0, 0.3, (n_rows, n_features))
    X = means[codes] + rng.normal(size=(n_rows, 64)) @ mixing + noise
    return np.maximum(X, 0).astype(np.float32), codes


def ours(penalty: str, n_rows: int, seed: int = 0) -> BaggedSGDClassifier:
    """The solver of featurepipe, on all cores."""
    l1_ratio = {"l2": 0.0, "elasticnet": 0.15}[penalty]
    return BaggedSGDClassifier(alpha=1 / n_rows, l1_ratio=l1_ratio, n_jobs=-1, random_state=seed)


def of_sklearn(penalty: str, n_rows: int, seed: int = 0) -> BaggingClassifier:
    """The literal recipe in scikit-learn, on all cores."""
    member = SGDClassifier(
        loss="log_loss",
        penalty=penalty,
        alpha=1 / n_rows,
        class_weight="balanced",
        fit_intercept=False,
        tol=1e-3,
    )
    return BaggingClassifier(
        member,
        max_samples=0.5,
        max_features=0.5,
        bootstrap_features=True,
        n_jobs=-1,
        random_state=seed,
    )


def bare_products(n_rows: int, n_features: int, n_classes: int) -> None:
    """Compute the matrix products of a fit on one core, and nothing between them."""
    model = BaggedSGDClassifier()
    n_drawn, n_kept = (round(n * (1 - np.exp(-0.5))) for n in (n_rows, n_features))
    X = np.random.default_rng(0).random((model.batch_size, n_kept), dtype=np.float32)
    weights = np.zeros((n_classes, n_kept), np.float32)
    n_steps = model.n_estimators * model.max_iter * -(-n_drawn // model.batch_size)
    with threadpool_limits(1):
        for _ in range(n_steps):
            np.matmul((X @ weights.T).T, X)


def measure_speed(repeats: int) -> None:
    """Print the times for 4,000 rows of 2,048 features, 60 classes and 10 members."""
    X, codes = draw_features(4000, 2048, 60)
    bare = statistics.median(seconds(lambda: bare_products(4000, 2048, 60)) for _ in range(repeats))
    names = ("penalty", "scikit-learn, s", "ours, s", "ratio", "products of matrices alone, s")
    click.echo(table_head(names))
    for penalty in ("l2", "elasticnet"):
        own = statistics.median(
            seconds(partial(ours(penalty, len(X)).fit, X, codes)) for _ in range(repeats)
        )
        literal = seconds(partial(of_sklearn(penalty, len(X)).fit, X, codes))
        figures = (f"{literal:.1f}", f"{own:.2f}", f"{literal / own:.0f}", f"{bare:.2f}")
        click.echo(table_row((penalty, *figures)))


def measure_large(repeats: int) -> None:
    """Print the time for as many rows and classes as a data set of dog breeds has."""
    X, codes = draw_features(9200, 2048, 120)
    own = statistics.median(
        seconds(lambda: ours("elasticnet", len(X)).fit(X, codes)) for _ in range(repeats)
    )
    click.echo(f"9,200 x 2,048, 120 classes, elastic net: {own:.1f} s")


def measure_quality(workspaces: tuple[Path, ...]) -> None:
    """Print accuracy and log-loss of bagged SGD on validation rows, over seeds."""
    names = ("features", "solver", "accuracy: mean, spread", "log-loss: mean, spread")
    click.echo(table_head(names))
    sets = [("drawn, 1,500 x 512, 20 classes", *draw_features(1500, 512, 20, seed=1))]
    for title, X, codes in [*sets, *_training_rows(workspaces)]:
        for name, build in (("ours", ours), ("scikit-learn", of_sklearn)):
            figures = np.array(
                [_judge(partial(build, "elasticnet"), X, codes, seed) for seed in range(N_SEEDS)]
            )
            click.echo(table_row((title, name, *_means(figures))))


def candidates() -> dict[str, HeadSettings]:
    """The heads of the table, then heads that were tried and are not in it."""
    linear_svm = make_pipeline(Normalizer(), LinearSVC(C=10))
    ridge = make_pipeline(Normalizer(), RidgeClassifierCV(np.logspace(-4, 2, 25)))
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    others = {"linear SVM": linear_svm, "ridge": ridge, "LDA": lda}
    return {name: HeadSettings.of(name) for name in HEADS} | {
        name: HeadSettings.of(estimator) for name, estimator in others.items()
    }


def measure_heads(workspaces: tuple[Path, ...]) -> None:
    """Print selection accuracy, log-loss and processor seconds of each head, on one core.

    Of several attributes, the figures are means, and the seconds those of all.
    """
    heads = candidates()
    click.echo(table_head(("features", *heads)))
    for title, X, labels, groups in _training_labels(workspaces):
        cells = []
        for settings in heads.values():
            started = time.process_time()
            fitted = fit_heads(X, labels, groups, settings, n_jobs=1)
            fit_s = time.process_time() - started
            figures = np.mean(
                [_out_of_fold(fitted.out_of_fold[name], truth) for name, truth in labels.items()],
                axis=0,
            )
            cells.append(f"{figures[0]:.4f}, {figures[1]:.4f}, {fit_s:.1f}")
        click.echo(table_row((title, *cells)))


def _out_of_fold(probabilities: NDArray[np.float64], truth: Labels) -> tuple[float, float]:
    """Accuracy and log-loss of exclusive classes, of the rows with a label."""
    of_labelled = probabilities[truth.labelled]
    codes = truth.indicator[truth.labelled].argmax(axis=1)
    accuracy = np.mean(of_labelled.argmax(axis=1) == codes)
    return float(accuracy), float(log_losses(codes, of_labelled).mean())


def _means(figures: NDArray[np.float64]) -> list[str]:
    """Mean and standard deviation of each column over the seeds, in words."""
    means, spreads = figures.mean(axis=0), figures.std(axis=0, ddof=1)
    return [f"{m:.4f}, {s:.4f}" for m, s in zip(means, spreads, strict=True)]


def measure_tuning(workspaces: tuple[Path, ...], repeats: int) -> None:
    """Print accuracy, log-loss and processor seconds of each head, by default and tuned."""
    names = ("features", "head", "seed", "tuned", "accuracy", "log-loss", "s", "chosen")
    click.echo(table_head(names))
    for title, X, codes in _training_rows(workspaces):
        for head in HEADS:
            for seed in range(repeats):
                for tune in (False, True):
                    settings = HeadSettings.of(head, tune=tune, seed=seed)
                    _measure_run(title, X, codes, settings)


def _measure_run(title: str, X: Features, codes: Codes, settings: HeadSettings) -> None:
    train, held_out = _divide(len(X), settings.seed)
    classes = tuple(map(str, range(codes.max() + 1)))
    truth = codes[train, None] == np.arange(len(classes))
    labels = {"class": Labels("class", classes, True, truth, np.ones(len(train), bool))}
    started = time.process_time()
    model, *_ = fit_heads(X[train], labels, train, settings)
    fit_s = time.process_time() - started
    probabilities = model.predict(X[held_out])["class"]
    accuracy = np.mean(probabilities.argmax(axis=1) == codes[held_out])
    loss = log_losses(codes[held_out], probabilities).mean()
    tuned = model.heads["class"].tuned
    chosen = ", ".join(map(str, tuned["chosen"].values())) if tuned else ""
    click.echo(
        f"| {title} | {settings.head} | {settings.seed} | {'yes' if settings.tune else 'no'} | "
        f"{accuracy:.4f} | {loss:.4f} | {fit_s:.1f} | {chosen} |"
    )


def measure_logistic(workspaces: tuple[Path, ...], repeats: int) -> None:
    """Print processor seconds on one core, and C, of both searches over the same folds.

    scikit-learn's does not end the path early. Each runs `repeats` times, in turn.
    """
    names = ("features", "scikit-learn, s", "ours, s", "ratio", "scikit-learn, C", "ours, C")
    click.echo(table_head(names))
    sets = [("drawn, 9,200 x 2,048, 120 classes", *draw_features(9200, 2048, 120))]
    for title, X, codes in [*sets, *_training_rows(workspaces)]:
        scaled = StandardScaler().fit_transform(X)
        folds = inner_folds(codes, np.arange(len(X)), 5, 0)
        n_held_out = np.cumsum([len(validation) for _, validation in folds])
        of_cv = LogisticRegressionCV(
            Cs=PROBED_CS,
            cv=folds[: np.searchsorted(n_held_out, 1000) + 1],
            scoring="neg_log_loss",
            max_iter=1000,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
        )
        own = LogisticSweep()
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            times = np.array(
                [
                    [
                        _processor_seconds(partial(model.fit, scaled, codes))
                        for model in (of_cv, own)
                    ]
                    for _ in range(repeats)
                ]
            )
        theirs_s, own_s = np.median(times, axis=0)
        ratio = np.median(times[:, 0] / times[:, 1])
        figures = (f"{theirs_s:.1f}", f"{own_s:.2f}", f"{ratio:.1f}")
        click.echo(table_row((title, *figures, f"{of_cv.C_:.3g}", f"{own.C_:.3g}")))


def _processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _divide(n_rows: int, seed: int) -> tuple[Codes, Codes]:
    order = np.random.default_rng(seed).permutation(n_rows)
    train, held_out = np.split(order, [round(0.8 * n_rows)])
    return train, held_out


def _judge(
    build: Callable[[int, int], ClassifierMixin], X: Features, codes: Codes, seed: int
) -> tuple[float, float]:
    train, held_out = _divide(len(X), seed)
    model = build(len(train), seed).fit(X[train], codes[train])
    probabilities = model.predict_proba(X[held_out])
    accuracy = np.mean(probabilities.argmax(axis=1) == codes[held_out])
    return float(accuracy), log_losses(codes[held_out], probabilities).mean()


def _training_rows(workspaces: tuple[Path, ...]) -> Iterator[tuple[str, Features, Codes]]:
    """Features and numbers of combinations of classes of training rows, for each store."""
    for title, X, labels, _ in _training_labels(workspaces):
        truth = np.hstack([of_attribute.indicator for of_attribute in labels.values()])
        yield title, X, np.unique(truth, axis=0, return_inverse=True)[1].ravel()


def _training_labels(
    workspaces: tuple[Path, ...],
) -> Iterator[tuple[str, Features, dict[str, Labels], Codes]]:
    for workspace in map(Workspace, workspaces):
        split = first_split(workspace)
        train = split.rows("train")
        ids, groups = split.ids[train], split.groups[train]
        labels = Manifest.load(workspace.manifest).labels(ids)
        for path in workspace.stores():
            with FeatureStore.open(path) as store:
                title = f"{workspace.root.name}, {store.key.backbone}:{store.key.view}"
                yield title, read_rows(store, ids), labels, groups


@click.command()
@click.argument("workspaces", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["speed", "large", "quality", "heads", "tune", "logistic"]),
    help="Measure this only; repeatable.",
)
@click.option("--repeats", default=3, show_default=True, help="Fits per time; seeds of tune.")
def main(workspaces: tuple[Path, ...], only: tuple[str, ...], repeats: int) -> None:
    """Measure how fast heads are fitted and how good they are, beside scikit-learn's."""
    click.echo(describe_machine())
    parts: dict[str, Callable[[], None]] = {
        "speed": lambda: measure_speed(repeats),
        "large": lambda: measure_large(repeats),
        "quality": lambda: measure_quality(workspaces),
        "heads": lambda: measure_heads(workspaces),
        "tune": lambda: measure_tuning(workspaces, repeats),
        "logistic": lambda: measure_logistic(workspaces, repeats),
    }
    for name in only or tuple(parts):
        click.echo(f"\n## {name}\n")
        parts[name]()


if __name__ == "__main__":
    main()
