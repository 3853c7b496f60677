"""Choose a head's penalty, variance threshold and scaling on inner folds."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from featurepipe.metrics import label_set_log_losses, log_losses
from featurepipe.models.answers.calibration import fit_calibrator
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.pipelines import build_head, fit_head, group_parameters
from featurepipe.models.heads.registry import GRIDS
from featurepipe.splits import inner_folds

Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


def fit_tuned_head(
    settings: HeadSettings,
    X: ArrayLike,
    y: NDArray[np.intp],
    groups: NDArray[np.intp],
    *,
    strata: ArrayLike,
    widths: Sequence[int] = (),
    label_sets: bool = False,
) -> tuple[Pipeline, dict[str, Any]]:
    """Choose among the `GRIDS` of a head on inner folds, and fit all rows with the choice.

    The lowest mean log-loss of the held-out rows wins if it is below the default's by more
    than one standard error of their difference over the folds; otherwise the default stays.
    Log-loss distinguishes settings that are equally accurate on some hundred rows. If the head
    will be calibrated, scores are first divided by their best temperature: otherwise settings
    would win that only make bagged SGD more confident, which calibration does anyway.

    Parameters
    ----------
    settings : HeadSettings
    X : array-like of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,) or (n_samples, n_labels), intp
        Classes, or an indicator of sets of labels.
    groups : ndarray of shape (n_samples,), intp
        Rows of a group are never on both sides of a fold.
    strata : array-like of shape (n_samples,)
        What the folds keep in proportion.
    widths, label_sets
        See `featurepipe.models.heads.pipelines.build_head`.

    Returns
    -------
    head : Pipeline
        Fitted on all rows.
    tuned : dict
        ``chosen`` (as `build_head` takes it), and ``log_loss`` and ``default_log_loss`` of the
        held-out rows. Both are None if no rows could be held out, and the default stays.
    """
    grid = GRIDS[settings.head]
    choices = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    heads = [
        build_head(settings, len(groups), widths=widths, label_sets=label_sets, tuned=choice)
        for choice in choices
    ]
    folds = _folds(y, groups, strata, settings)
    if len(folds) < 2:
        untold = {"log_loss": None, "default_log_loss": None}
        return fit_head(heads[0], X, y, groups), {"chosen": choices[0], **untold}
    search = GridSearchCV(
        heads[0],
        {"steps": [head.steps for head in heads]},
        scoring=partial(_score, settings.calibrate != "none"),
        refit=_choose,
        cv=folds,
        # Heads are fitted side by side already.
        n_jobs=1,
        error_score="raise",
    )
    search.fit(X, y, **group_parameters(heads[0], groups))
    mean_losses = -search.cv_results_["mean_test_score"]
    return search.best_estimator_, {
        "chosen": choices[search.best_index_],
        "log_loss": float(mean_losses[search.best_index_]),
        "default_log_loss": float(mean_losses[0]),
    }


def describe_tuned(tuned: Mapping[str, Any]) -> str:
    """Describe what `fit_tuned_head` chose, for a person.

    Parameters
    ----------
    tuned : mapping
        As `fit_tuned_head` returns it.
    """
    chosen = ", ".join(f"{name} {value}" for name, value in tuned["chosen"].items())
    if tuned["log_loss"] is None:
        return f"{chosen} (the defaults: no rows could be held out)"
    if tuned["log_loss"] == tuned["default_log_loss"]:
        return f"{chosen} (the defaults; log-loss of held-out rows {tuned['log_loss']:.4f})"
    return (
        f"{chosen} (log-loss of held-out rows {tuned['log_loss']:.4f}, by default "
        f"{tuned['default_log_loss']:.4f})"
    )


def _folds(
    y: NDArray[np.intp], groups: NDArray[np.intp], strata: ArrayLike, settings: HeadSettings
) -> Folds:
    """Inner folds that hold out only rows whose classes the fold's other rows have."""
    if len(np.unique(groups)) < 2:
        return []
    folds = []
    for training, validation in inner_folds(strata, groups, settings.n_folds, settings.seed):
        validation = validation[_is_known(y[training], y[validation])]
        varies = np.any(y[training] != y[training[0]])
        if varies and len(validation):
            folds.append((training, validation))
    return folds


def _is_known(fitted: NDArray[np.intp], held_out: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which held-out rows have only classes, labels and missing labels that fitted rows have."""
    if fitted.ndim == 1:
        return np.isin(held_out, fitted)
    lowest, highest = fitted.min(axis=0), fitted.max(axis=0)
    is_known: NDArray[np.bool_] = ((held_out >= lowest) & (held_out <= highest)).all(axis=1)
    return is_known


def _score(calibrated: bool, head: Pipeline, X: ArrayLike, y: NDArray[np.intp]) -> float:
    """Negative log-loss of held-out rows; for sets of labels the mean over labels."""
    exclusive = y.ndim == 1
    truth = y[:, None] == head.classes_ if exclusive else y > 0
    if calibrated:
        scores = head.decision_function(X).astype(np.float64)
        # scikit-learn scores two exclusive classes by one number.
        scores = scores[:, None] * [-1, 1] if scores.ndim == 1 else scores
        calibrator = fit_calibrator("temperature", scores, truth, exclusive=exclusive)
        probabilities = calibrator.predict_proba(scores)
    else:
        probabilities = head.predict_proba(X).astype(np.float64)
    if exclusive:
        return -float(log_losses(truth.argmax(axis=1), probabilities).mean())
    return -float(label_set_log_losses(truth, probabilities).mean()) / truth.shape[1]


def _choose(results: Mapping[str, Sequence[float]]) -> int:
    n_folds = sum(name.startswith("split") for name in results)
    losses = -np.array([results[f"split{fold}_test_score"] for fold in range(n_folds)])
    best = int(losses.mean(axis=0).argmin())
    gains = losses[:, 0] - losses[:, best]
    standard_error = gains.std(ddof=1) / np.sqrt(n_folds)
    return best if gains.mean() > standard_error else 0
