"""Populations with known figures, from which `intervals.py` draws data sets."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import special
from scipy.optimize import brentq

from featurepipe import metrics
from featurepipe.manifest import Labels
from featurepipe.predictions import Predictions

GROUP_SIZE = 5
LIKENESS = 0.8
"""Correlation of what decides the probabilities, and the truth, within a group."""

OVERCONFIDENCE = 3
PRIOR = np.linspace(1, 3, 6) / 12
OFFSETS = np.array([-0.2, -0.5, -0.8, -1.1])
"""Means of the labels' logits, which make the labels less frequent than not."""

N_POPULATION = 300_000
CLASS_FIGURES = ("log_loss", "brier", "accuracy", "balanced_accuracy", "macro_f1")
LABEL_FIGURES = ("log_loss", "subset_accuracy", "macro_f1", "micro_f1", "map")


class ClassHead:
    """A head for six classes whose frequencies differ up to three times."""

    kind, figures = "classes", CLASS_FIGURES

    def __init__(self, head: str, accuracy: float, grouped: bool) -> None:
        self.head, self.accuracy, self.grouped = head, accuracy, grouped
        z = np.random.default_rng(0).normal(size=(200_000, len(PRIOR)))
        # Labels that are wrong at random do not tell how sharp the head is.
        self.sharpness = 12.0 if head == "wrong labels" else sharpness(accuracy, partial(hits, z))

    def draw(self, rng, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True classes, the head's probabilities, and the right ones."""
        logits = self.sharpness * alike(rng, n, len(PRIOR), self.grouped) + np.log(PRIOR)
        chance = self._chance(logits)
        # From the most probable class on, so that the rows of a group go wrong together.
        order = np.argsort(-chance, axis=1)
        u = special.ndtr(alike(rng, n, 1, self.grouped))
        n_below = (np.take_along_axis(chance, order, 1).cumsum(axis=1) <= u).sum(axis=1)
        truth = order[np.arange(n), np.minimum(n_below, len(PRIOR) - 1)]
        factor = OVERCONFIDENCE if self.head == "over-confident" else 1
        return truth, special.softmax(factor * logits, axis=1), chance

    def _chance(self, logits: np.ndarray) -> np.ndarray:
        answer = np.eye(len(PRIOR))[logits.argmax(axis=1)]
        if self.accuracy == 1:
            return answer
        if self.head == "wrong labels":
            return self.accuracy * answer + (1 - self.accuracy) / (len(PRIOR) - 1) * (1 - answer)
        return special.softmax(logits, axis=1)

    def true_figures(self) -> dict[str, float]:
        """Expectations over the truth, given the probabilities of a large draw."""
        _, p, chance = self._independent().draw(np.random.default_rng(1), N_POPULATION)
        answers = np.eye(len(PRIOR))[p.argmax(axis=1)]
        joint = chance.T @ answers / len(p)
        right, of_class, of_answer = joint.diagonal(), joint.sum(axis=1), joint.sum(axis=0)
        surprise = -np.log(np.clip(p, np.finfo(float).eps, 1))
        return {
            "log_loss": (chance * surprise).sum(axis=1).mean(),
            "brier": ((p**2).sum(axis=1) + 1 - 2 * (chance * p).sum(axis=1)).mean(),
            "accuracy": right.sum(),
            "balanced_accuracy": (right / of_class).mean(),
            "macro_f1": (2 * right / (of_class + of_answer)).mean(),
        }

    def _independent(self) -> "ClassHead":
        return ClassHead(self.head, self.accuracy, grouped=False)

    def predictions(self, truth, p) -> Predictions:
        """What a run would have saved."""
        return saved(np.eye(len(PRIOR), dtype=bool)[truth], p, self.grouped, exclusive=True)


class LabelHead:
    """A head for four labels of which an image may have any."""

    kind, figures = "labels", LABEL_FIGURES

    def __init__(self, head: str, accuracy: float, grouped: bool) -> None:
        self.head, self.accuracy, self.grouped = head, accuracy, grouped
        z = np.random.default_rng(0).normal(size=(200_000, len(OFFSETS))) + OFFSETS
        self.sharpness = sharpness(
            accuracy, lambda s: special.expit(s * np.abs(z)).prod(axis=1).mean()
        )

    def draw(self, rng, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True labels, the head's probabilities, and the right ones."""
        logits = self.sharpness * (alike(rng, n, len(OFFSETS), self.grouped) + OFFSETS)
        chance = (logits > 0).astype(float) if self.accuracy == 1 else special.expit(logits)
        truth = special.ndtr(alike(rng, n, len(OFFSETS), self.grouped)) < chance
        return truth, special.expit(logits), chance

    def true_figures(self) -> dict[str, float]:
        """Figures of a large draw."""
        head = LabelHead(self.head, self.accuracy, grouped=False)
        truth, p, chance = head.draw(np.random.default_rng(1), N_POPULATION)
        given = p > 0.5
        all_true, none_true = np.ones_like(truth), np.zeros_like(truth)
        surprise = [
            np.array([metrics.label_set_log_losses(t[:, [k]], p[:, [k]]) for k in range(len(p.T))])
            for t in (all_true, none_true)
        ]
        return {
            "log_loss": (chance.T * surprise[0] + (1 - chance.T) * surprise[1]).sum(axis=0).mean(),
            "subset_accuracy": np.where(given, chance, 1 - chance).prod(axis=1).mean(),
            "macro_f1": metrics.macro_f1(truth, given),
            "micro_f1": metrics.micro_f1(truth, given),
            "map": metrics.mean_average_precision(truth, p),
        }

    def predictions(self, truth, p) -> Predictions:
        """What a run would have saved."""
        return saved(truth, p, self.grouped, exclusive=False)


def hits(z: np.ndarray, s: float) -> float:
    """Accuracy of a calibrated head for classes with this sharpness."""
    return special.softmax(s * z + np.log(PRIOR), axis=1).max(axis=1).mean()


def set_hits(z: np.ndarray, s: float) -> float:
    """Share of images whose labels are all right."""
    return special.expit(s * np.abs(z)).prod(axis=1).mean()


def sharpness(accuracy: float, accuracy_of: Callable[[float], float]) -> float:
    """Factor of the logits that gives an accuracy; that of 0.97 where all answers are right."""
    wanted = 0.97 if accuracy == 1 else accuracy
    return np.exp(brentq(lambda log_s: accuracy_of(np.exp(log_s)) - wanted, -4, 8, xtol=1e-4))


def alike(rng, n: int, n_columns: int, grouped: bool) -> np.ndarray:
    """Standard normal rows, correlated within groups of consecutive ones."""
    rows = rng.normal(size=(n, n_columns))
    if not grouped:
        return rows
    groups = np.repeat(rng.normal(size=(n // GROUP_SIZE, n_columns)), GROUP_SIZE, axis=0)
    return np.sqrt(LIKENESS) * groups + np.sqrt(1 - LIKENESS) * rows


def saved(truth, p, grouped: bool, *, exclusive: bool) -> Predictions:
    """Predictions of test images for one attribute."""
    n = len(truth)
    groups = np.arange(n) // GROUP_SIZE if grouped else np.arange(n)
    classes = tuple(f"class {k}" for k in range(p.shape[1]))
    labels = Labels("kind", classes, exclusive, truth, np.ones(n, bool))
    ids = np.arange(n).astype(str)
    return Predictions.of(
        ids, np.full(n, "test"), groups, "per-attribute", {"kind": labels}, {"kind": p}
    )
