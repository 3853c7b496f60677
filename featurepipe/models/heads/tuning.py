"""Settings of a head chosen on inner folds of the rows that it is fitted on."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from featurepipe.metrics import label_set_log_loss, log_loss
from featurepipe.models.answers.calibration import fit_calibrator
from featurepipe.models.heads.registry import build_head, fit_head, group_parameters
from featurepipe.splits import inner_folds

Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]
Setting = dict[str, Any]

GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "bagged-sgd": {
        "alpha_by_rows": (1.0, 0.1, 10.0),
        "variance_threshold": ("1%", "0%", "10%"),
        "scaling": ("as-is", "standardised", "normalised"),
    },
    "logistic": {
        "variance_threshold": ("1%", "0%", "10%"),
        "scaling": ("standardised", "as-is", "normalised-standardised"),
    },
    "knn": {
        "variance_threshold": ("1%", "0%", "10%"),
        "scaling": ("as-is", "standardised"),
    },
}
"""What is tried for each head, in all combinations, as arguments of `build_head`: the default
first. C and the number of neighbours are not among it: `logistic` and `knn` choose them in
every fit."""


def fit_tuned_head(
    name: str,
    X: ArrayLike,
    y: NDArray[np.intp],
    groups: NDArray[np.intp],
    *,
    strata: ArrayLike,
    calibrated: bool,
    n_folds: int,
    seed: int,
    **options: Any,
) -> tuple[Pipeline, dict[str, Any]]:
    """Choose a head's settings of `GRIDS` on inner folds, and fit all rows with them.

    The lowest mean log-loss of the rows held out wins if it is below the default's by more
    than one standard error of their difference over the folds; else the default stays.
    Log-loss tells settings apart that are equally accurate on some hundred rows. Of a head
    that will be calibrated it is that of scores over their best temperature: else settings
    would win that only make bagged SGD more confident, which calibration does anyway.

    Parameters
    ----------
    name : str
        A key of `GRIDS`.
    X : array-like of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,) or (n_samples, n_labels), intp
        Classes, or an indicator of sets of labels.
    groups : ndarray of shape (n_samples,), intp
        Rows of one group are never on both sides of a fold.
    strata : array-like of shape (n_samples,)
        What the folds keep in proportion.
    calibrated : bool
        Whether scores will be calibrated, or the head's own probabilities kept.
    n_folds, seed : int
        As of `featurepipe.splits.inner_folds`; `seed` is also the head's.
    **options
        Of `build_head`.

    Returns
    -------
    head : Pipeline
        Fitted on all rows.
    tuned : dict
        ``chosen`` (of `build_head`'s arguments), and ``log_loss`` and ``default_log_loss``
        of the rows held out; None where no rows could be held out, and the default stays.
    """
    grid = GRIDS[name]
    settings: list[Setting] = [
        dict(zip(grid, values, strict=True)) for values in product(*grid.values())
    ]
    heads = [build_head(name, seed=seed, **options, **setting) for setting in settings]
    folds = _folds(y, groups, strata, n_folds, seed)
    if len(folds) < 2:
        untold = {"log_loss": None, "default_log_loss": None}
        return fit_head(heads[0], X, y, groups), {"chosen": settings[0], **untold}
    search = GridSearchCV(
        heads[0],
        {"steps": [head.steps for head in heads]},
        scoring=partial(_score, calibrated),
        refit=_choose,
        cv=folds,
        # Heads are fitted side by side already.
        n_jobs=1,
        error_score="raise",
    )
    search.fit(X, y, **group_parameters(heads[0], groups))
    found = -search.cv_results_["mean_test_score"]
    losses = {"log_loss": float(found[search.best_index_]), "default_log_loss": float(found[0])}
    return search.best_estimator_, {"chosen": settings[search.best_index_], **losses}


def describe_tuned(tuned: Mapping[str, Any]) -> str:
    """What `fit_tuned_head` chose, in words."""
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
    y: NDArray[np.intp], groups: NDArray[np.intp], strata: ArrayLike, n_folds: int, seed: int
) -> Folds:
    """Inner folds that hold out only what the other rows of the fold can teach."""
    if len(np.unique(groups)) < 2:
        return []
    folds = []
    for training, validation in inner_folds(strata, groups, n_folds, seed):
        validation = validation[_is_known(y[training], y[validation])]
        varies = np.any(y[training] != y[training[0]])
        if varies and len(validation):
            folds.append((training, validation))
    return folds


def _is_known(fitted: NDArray[np.intp], held_out: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which rows have no class, or no label or lack of one, that the fitted rows do not have."""
    if fitted.ndim == 1:
        return np.isin(held_out, fitted)
    lowest, highest = fitted.min(axis=0), fitted.max(axis=0)
    is_known: NDArray[np.bool_] = ((held_out >= lowest) & (held_out <= highest)).all(axis=1)
    return is_known


def _score(calibrated: bool, head: Pipeline, X: ArrayLike, y: NDArray[np.intp]) -> float:
    """Log-loss of rows held out, negative: the higher the better; of sets the mean over labels."""
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
        return -log_loss(truth.argmax(axis=1), probabilities)
    return -label_set_log_loss(truth, probabilities) / truth.shape[1]


def _choose(results: Mapping[str, Sequence[float]]) -> int:
    n_folds = sum(name.startswith("split") for name in results)
    losses = -np.array([results[f"split{fold}_test_score"] for fold in range(n_folds)])
    best = int(losses.mean(axis=0).argmin())
    gains = losses[:, 0] - losses[:, best]
    standard_error = gains.std(ddof=1) / np.sqrt(n_folds)
    return best if gains.mean() > standard_error else 0
