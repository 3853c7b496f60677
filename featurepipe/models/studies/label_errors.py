"""Labels that are likely wrong, by confident learning (Northcutt et al., 2021)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
from cleanlab.multilabel_classification.rank import (
    get_label_quality_scores as get_multilabel_quality_scores,
)
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray

from featurepipe.predictions import Predictions
from featurepipe.probabilities import normalized


@dataclass(frozen=True)
class LabelError:
    """One label that is likely wrong.

    Attributes
    ----------
    image, attribute : str
    given, suggested : tuple of str
        Classes; exactly one each for an exclusive attribute.
    score : float
        How suspicious the label is, in [0, 1]: 1 - cleanlab's label quality.
    probability_given, probability_suggested : float
        The least probability of the classes that only one of the two has; NaN if there are
        none.
    """

    image: str
    attribute: str
    given: tuple[str, ...]
    suggested: tuple[str, ...]
    score: float
    probability_given: float
    probability_suggested: float


def find_label_errors(predictions: Predictions) -> list[LabelError]:
    """Find labels that contradict out-of-fold probabilities.

    Parameters
    ----------
    predictions : Predictions
        Rows predicted by heads that were fitted without them.

    Returns
    -------
    list of LabelError
        The most suspicious first.
    """
    errors: list[LabelError] = []
    for attribute, labels in predictions.labels.items():
        rows = np.flatnonzero(labels.labelled)
        indicator = labels.indicator[rows]
        n_images = indicator.sum(axis=0)
        # A class that no row has, or a label that all rows have, cannot be learnt.
        known = (n_images > 0) & (labels.exclusive | (n_images < len(rows)))
        if not known.any() or (labels.exclusive and known.sum() < 2):
            continue
        probabilities = predictions.probabilities(attribute)[rows][:, known]
        if labels.exclusive:
            better, scores = _exclusive(indicator[:, known], normalized(probabilities))
        else:
            better, scores = _label_sets(indicator[:, known], probabilities)
        suggested = indicator.copy()
        suggested[:, known] = better
        for row in np.flatnonzero((suggested != indicator).any(axis=1)):
            probability = predictions.probabilities(attribute)[rows[row]]
            errors.append(
                LabelError(
                    image=str(predictions.ids[rows[row]]),
                    attribute=attribute,
                    given=tuple(_named(labels.classes, indicator[row])),
                    suggested=tuple(_named(labels.classes, suggested[row])),
                    score=float(scores[row]),
                    probability_given=_least(probability[indicator[row] & ~suggested[row]]),
                    probability_suggested=_least(probability[suggested[row] & ~indicator[row]]),
                )
            )
    return sorted(errors, key=lambda error: -error.score)


def _exclusive(
    given: NDArray[np.bool_], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Suggested labels, and how suspicious the given ones are."""
    codes = given.argmax(axis=1)
    wrong = find_label_issues(codes, probabilities, n_jobs=1)
    others = np.where(given, -1, probabilities).argmax(axis=1)
    better = given.copy()
    better[wrong] = np.eye(given.shape[1], dtype=bool)[others[wrong]]
    return better, 1 - get_label_quality_scores(codes, probabilities)


def _label_sets(
    given: NDArray[np.bool_], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    sets = [np.flatnonzero(row).tolist() for row in given]
    wrong = find_multilabel_issues_per_class(sets, probabilities, n_jobs=1)
    return given ^ wrong, 1 - get_multilabel_quality_scores(sets, probabilities)


def _named(classes: tuple[str, ...], has: NDArray[np.bool_]) -> Iterator[str]:
    return (classes[column] for column in np.flatnonzero(has))


def _least(probabilities: NDArray[np.float64]) -> float:
    return float(probabilities.min()) if len(probabilities) else float("nan")
