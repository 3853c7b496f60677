"""LogisticSweep: L2 logistic regression whose strength is chosen on inner folds.

The protocol of linear probes on frozen features: 45 values of C from 1e-6 to 1e5. All inner folds
are fitted at once, and each value of C starts from the solution for the one before. Solutions lie
in the space that the rows span. They are found along its principal axes, where the second
derivatives are nearly diagonal, ``curvature * variance + penalty``: scaled by the root of that,
L-BFGS needs about 15 evaluations at any C.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.utils.validation import check_is_fitted, validate_data

from featurepipe.models.heads.estimators.classifier import HeadClassifier
from featurepipe.splits import inner_folds, pool_rare

Floats = NDArray[np.floating]

PROBED_CS = tuple(np.logspace(-6, 5, 45).tolist())
"""The values of C in the linear probes of DINOv2 and Patho-Bench."""

# Among 1e-4 to 1 on standardised features, this was within 0.025 of the best accuracy on
# MobileNetV2 features of flowers and on four synthetic sets.
_C_WITHOUT_FOLDS = 0.01
# On 3,537 rows and with four seeds, two of five folds chose the C that all five chose, or the one
# beside it (log-loss of other rows 0.005 higher), in less than half of the time.
_ENOUGH_ROWS = 1000
_PATIENCE = 4
_CLEARLY = 1.01
# Keeps the axes' scales finite where a fit is certain of every row.
_LEAST_CURVATURE = 1e-6


class LogisticSweep(HeadClassifier):
    """L2 logistic regression that chooses C by the log-loss of rows held out by inner folds.

    The model is scikit-learn's LogisticRegression, with an intercept that is not penalised: one
    sigmoid for two classes, a softmax for more, and for sets of labels a sigmoid for each label,
    with one C for all labels. Log-loss distinguishes values of C that are equally accurate on
    some hundred rows; among equal ones the stronger penalty wins. Folds are fitted until 1,000
    rows have been held out. The path ends after four values in a row (a decade of the default
    ones) that are above the lowest log-loss by 1 % or more.

    Parameters
    ----------
    Cs : sequence of float
        Values of C, ascending; the penalty is ``|w|^2 / (2 C)`` beside the sum of losses.
    n_folds : int
    tol : float
        A fit ends with a step that lowers the objective (mean loss of a row plus penalty, all
        folds together) by less than this share of it, or of 1 if it is lower.
    max_iter : int
        Most steps of L-BFGS for each value of C.
    random_state : int
        Of the folds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Of sets of labels, their column numbers.
    coef_ : ndarray of shape (n_outputs, n_features), dtype of `X`
        One output for two classes, else one a class or label.
    intercept_ : ndarray of shape (n_outputs,), dtype of `X`
    C_ : float
        0.01 if no row can be held out, since all rows, or those of each class, are in one
        group.
    losses_ : ndarray of shape (n_Cs,), float64
        Mean log-loss of the held-out rows for each of `Cs`; NaN beyond the end of the path.
    n_iter_ : int
        Steps of the fit on all rows.
    n_features_in_ : int
    """

    def __init__(
        self,
        Cs: Sequence[float] = PROBED_CS,
        *,
        n_folds: int = 5,
        tol: float = 1e-6,
        max_iter: int = 1000,
        random_state: int = 0,
    ) -> None:
        self.Cs = Cs
        self.n_folds = n_folds
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Choose C on inner folds, then fit all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite. Standardise them, so that the penalty affects all features equally.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes, or an indicator of sets of labels.
        groups : array-like of shape (n_samples,), int, optional
            Rows of a group are never on both sides of a fold. Default: every row is a group.

        Raises
        ------
        ValueError
            If `X` and `y` cannot be used.
        """
        features, targets = validate_data(
            self, X, y, dtype=(np.float64, np.float32), multi_output=True
        )
        truth = self._learn_classes(np.asarray(targets)).T.astype(features.dtype)
        centre = features.mean(axis=0)
        basis = _row_space(features - centre)
        ones = np.ones(len(features), features.dtype)
        axes = np.column_stack([(features - centre) @ basis, ones])
        start = self._choose(axes, truth, groups)
        everything = _Fits(axes, truth, np.ones((1, len(axes)), bool), self.kind_ == "classes")
        weights, self.n_iter_ = everything.minimise(self.C_, start, self.tol, self.max_iter)
        self.coef_ = weights[0, :, :-1] @ basis.T
        self.intercept_ = weights[0, :, -1] - self.coef_ @ centre
        if self.kind_ == "classes":
            # A softmax ignores a common term.
            self.intercept_ -= self.intercept_.mean()
        return self

    def decision_function(self, X: ArrayLike) -> Floats:
        """Log-odds of two classes or of each label; logits of several classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) for two classes, else (n_samples, n_outputs), dtype of `X`
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        scores = features @ self.coef_.T + self.intercept_
        return scores.ravel() if self.kind_ == "binary" else scores

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Probability of each class or label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), dtype of `X`
        """
        scores = self.decision_function(X)
        if self.kind_ == "binary":
            return np.column_stack([expit(-scores), expit(scores)])
        return softmax(scores, axis=1) if self.kind_ == "classes" else expit(scores)

    def _choose(self, axes: Floats, truth: Floats, groups: ArrayLike | None) -> Floats:
        """Learn `C_` and `losses_`; returns weights from which the fit of all rows starts."""
        self.C_, self.losses_ = _C_WITHOUT_FOLDS, np.full(len(self.Cs), np.nan)
        best = np.zeros((1, len(truth), axes.shape[1]), axes.dtype)
        folds = self._folds(axes, truth, np.arange(len(axes)) if groups is None else groups)
        if folds is None:
            return best
        judged, weights, lowest = folds.judged(), np.repeat(best, len(folds.fitted), axis=0), np.inf
        for number, C in enumerate(self.Cs):
            weights, _ = folds.minimise(C, weights, self.tol, self.max_iter)
            loss = float(folds.losses(weights)[0][judged].mean(dtype=np.float64))
            self.losses_[number] = loss
            if loss < lowest:
                lowest, self.C_, best = loss, float(C), weights.mean(axis=0, keepdims=True)
            if self.losses_[: number + 1][-_PATIENCE:].min() > _CLEARLY * lowest:
                break
        return best

    def _folds(self, axes: Floats, truth: Floats, groups: ArrayLike) -> "_Fits | None":
        """The folds' fits; None if every held-out row has a class that its fold did not learn."""
        if len(np.unique(groups)) < 2:
            return None
        strata = np.unique(truth, axis=1, return_inverse=True)[1]
        if self.kind_ == "labels":
            strata = pool_rare(strata, self.n_folds)
        pairs = inner_folds(strata, groups, self.n_folds, self.random_state)
        n_held_out = np.cumsum([len(validation) for _, validation in pairs])
        pairs = pairs[: np.searchsorted(n_held_out, _ENOUGH_ROWS) + 1]
        fitted = np.zeros((len(pairs), len(axes)), bool)
        for is_fitted, (training, _) in zip(fitted, pairs, strict=True):
            is_fitted[training] = True
        folds = _Fits(axes, truth, fitted, self.kind_ == "classes")
        return folds if folds.judged().any() else None


def _row_space(centred: Floats) -> Floats:
    """Principal axes of the rows, orthonormal: ndarray of shape (n_features, n_axes)."""
    n_rows, n_features = centred.shape
    if n_features <= n_rows:
        squares, axes = eigh(centred.T @ centred, driver="evd")
        return axes
    # In single precision, axes with little variance would be far from orthonormal.
    rows = centred.astype(np.float64)
    squares, directions = eigh(rows @ rows.T, driver="evd")
    varies = squares > np.finfo(np.float64).eps * n_rows * squares[-1]
    axes = rows.T @ (directions[:, varies] / np.sqrt(squares[varies]))
    return axes.astype(centred.dtype)


@dataclass(frozen=True)
class _Fits:
    """Regressions side by side, each on some of the rows.

    Attributes
    ----------
    axes : ndarray of shape (n_rows, n_axes + 1)
        Coordinates along the axes. The last column is 1, and its weight is the intercept.
    truth : ndarray of shape (n_outputs, n_rows)
        1 where a row has an output's class, else 0.
    fitted : ndarray of shape (n_fits, n_rows), bool
        Which rows each regression is fitted on.
    exclusive : bool
        Softmax over all outputs, otherwise a sigmoid for each.
    """

    axes: Floats
    truth: Floats
    fitted: NDArray[np.bool_]
    exclusive: bool

    def minimise(self, C: float, start: Floats, tol: float, max_iter: int) -> tuple[Floats, int]:
        """Weights of shape (n_fits, n_outputs, n_axes + 1), and the number of steps."""
        dtype = self.axes.dtype
        n_fitted = self.fitted.sum(axis=1)[:, None, None]
        shares = (self.fitted[:, None] / n_fitted).astype(dtype)
        penalty = (1 / (C * n_fitted) * (np.arange(start.shape[2]) < start.shape[2] - 1)).astype(
            dtype
        )
        probabilities = self.losses(start)[1]
        curvature = (shares * probabilities * (1 - probabilities)).sum(axis=2, keepdims=True)
        variance = np.square(self.axes).mean(axis=0)
        scale = 1 / np.sqrt(np.maximum(curvature, _LEAST_CURVATURE) * variance + penalty)

        def objective(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights = scaled.reshape(start.shape).astype(dtype) * scale
            losses, probabilities = self.losses(weights)
            slopes = np.reshape(shares * (probabilities - self.truth), (-1, len(self.axes)))
            gradient = (slopes @ self.axes).reshape(start.shape) + penalty * weights
            value = np.sum(shares * losses, dtype=np.float64)
            value += np.sum(penalty * np.square(weights), dtype=np.float64) / 2
            return float(value), (scale * gradient).ravel().astype(np.float64)

        minimum = minimize(
            objective,
            (start / scale).ravel().astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            options={"ftol": tol, "gtol": 0, "maxiter": max_iter},
        )
        return minimum.x.reshape(start.shape).astype(dtype) * scale, minimum.nit

    def losses(self, weights: Floats) -> tuple[Floats, Floats]:
        """Log-loss and probabilities of each row, by each of the fits.

        Returns
        -------
        losses : ndarray of shape (n_fits, 1, n_rows) if exclusive, else as `probabilities`
        probabilities : ndarray of shape (n_fits, n_outputs, n_rows)
        """
        n_fits, n_outputs, n_axes = weights.shape
        scores = weights.reshape(-1, n_axes) @ self.axes.T
        scores = scores.reshape(n_fits, n_outputs, -1)
        if not self.exclusive:
            return np.logaddexp(0, scores) - self.truth * scores, expit(scores)
        true_scores = np.einsum("fkn,kn->fn", scores, self.truth)[:, None]
        highest = scores.max(axis=1, keepdims=True)
        odds = np.exp(scores - highest)
        total = odds.sum(axis=1, keepdims=True)
        return np.log(total) + highest - true_scores, odds / total

    def judged(self) -> NDArray[np.bool_]:
        """Which losses belong to held-out rows: ndarray of the shape of `losses`, bool.

        Without those of classes, or of labels, that the fit could not learn from its rows.
        """
        n_true = self.fitted.astype(np.float32) @ self.truth.T.astype(np.float32)
        if self.exclusive:
            known = ((n_true > 0) @ self.truth > 0)[:, None]
        else:
            known = ((n_true > 0) & (n_true < self.fitted.sum(axis=1, keepdims=True)))[:, :, None]
        return ~self.fitted[:, None] & known
