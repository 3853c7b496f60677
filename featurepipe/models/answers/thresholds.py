"""Thresholds: the probability above which each label is given."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from featurepipe.errors import UsageError
from featurepipe.probabilities import USUAL_THRESHOLD


@dataclass(frozen=True)
class Aim:
    """The aim of thresholds.

    Attributes
    ----------
    figure : {"f1", "precision", "recall"}
    at_least : float or None
        The least precision or recall, in (0, 1]. None for the best F1.
    """

    figure: str
    at_least: float | None = None


def parse_aim(text: str) -> Aim:
    """Read ``f1``, ``precision=0.9`` or ``recall=0.8``.

    Parameters
    ----------
    text : str

    Returns
    -------
    Aim

    Raises
    ------
    UsageError
        If the text is none of these, or the share is not in (0, 1].
    """
    figure, _, share = text.partition("=")
    if text == "f1":
        return Aim("f1")
    try:
        at_least = float(share)
    except ValueError:
        at_least = np.nan
    if figure not in ("precision", "recall") or not 0 < at_least <= 1:
        raise UsageError(
            f"Cannot read the thresholds {text!r}. Expected f1, precision=SHARE or recall=SHARE "
            "with a share above 0 and up to 1, for example precision=0.9."
        )
    return Aim(figure, at_least)


def fit_thresholds(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], aim: Aim
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Choose for each label the probability above which it is given.

    Candidates lie midway between neighbouring probabilities of the rows, and between the
    lowest and 0. The best F1 wins. Among those that reach a precision, the one with the
    highest recall wins; among those that reach a recall, the one with the highest precision.
    At a tie the highest threshold wins.

    Figures of the same rows at these thresholds are optimistic, the more so the rarer a label
    is. Measure on other rows.

    Parameters
    ----------
    probabilities : ndarray of shape (n_samples, n_labels), float64
        In [0, 1], for rows that the head was not fitted on.
    truth : ndarray of shape (n_samples, n_labels), bool
    aim : Aim

    Returns
    -------
    thresholds : ndarray of shape (n_labels,), float64
        In [0, 1). A label is given where its probability is greater. 0.5 for labels that no
        row has.
    reached : ndarray of shape (n_labels,), bool
        False where no threshold reaches the precision (the most precise one is used) or the
        recall (the lowest one is used), and for labels that no row has.
    """
    chosen = [
        _fit_threshold(column, has_label, aim)
        for column, has_label in zip(probabilities.T, truth.T, strict=True)
    ]
    return (
        np.array([threshold for threshold, _ in chosen], dtype=np.float64),
        np.array([reached for _, reached in chosen], dtype=bool),
    )


def _fit_threshold(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], aim: Aim
) -> tuple[float, bool]:
    # A label with probability 0 is not given at any threshold.
    if not (truth & (probabilities > 0)).any():
        return USUAL_THRESHOLD, False
    precision, recall, lowest_given = precision_recall_curve(truth, probabilities)
    cuts = _cuts_below(lowest_given)
    is_candidate = lowest_given > 0
    # The curve ends in a point without a threshold.
    precision, recall = precision[:-1][is_candidate], recall[:-1][is_candidate]
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    best = {"f1": f1, "precision": recall, "recall": precision}[aim.figure]
    bounded = {"f1": f1, "precision": precision, "recall": recall}[aim.figure]
    at_least = 0.0 if aim.at_least is None else aim.at_least
    reached = bool((bounded >= at_least).any())
    if not reached:
        at_least = bounded.max()
    best = np.where(bounded >= at_least, best, -1.0)
    highest = np.flatnonzero(best == best.max())[-1]
    return float(cuts[is_candidate][highest]), reached


def _cuts_below(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest midway threshold below each of the ascending probabilities."""
    neighbours = np.concatenate([[0.0], probabilities[:-1]])
    midway = (neighbours + probabilities) / 2
    # Adjacent floats have none between them, and their mean may be the upper one.
    return np.where(midway < probabilities, midway, neighbours)
