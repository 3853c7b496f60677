"""BaggedSGDClassifier: bagged logistic regression, all classes of a member at once.

The recipe of ``BaggingClassifier(SGDClassifier(loss="log_loss"))``. Each member draws rows
and features with replacement, and minimises for each class on its own

    1/n sum_i c_i log(1 + exp(-s_i x_i . w)) + alpha (l1_ratio |w|_1 + (1 - l1_ratio)/2 |w|_2^2)

over its n rows, s_i being 1 where row i has the class and -1 elsewhere, c_i the weight of the
row. scikit-learn goes through the rows once for each class; here a mini-batch is multiplied
with the weights of all classes at once. Rows and features that a member drew several times
are kept once, with their number: k equal columns of weight w/k each are one of weight w whose
squared norm counts 1/k.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from threadpoolctl import ThreadpoolController, threadpool_limits

from featurepipe.models.heads.estimators.classifier import HeadClassifier

if TYPE_CHECKING:
    from featurepipe.models.heads.estimators.chunked_descent import StreamMember
    from featurepipe.models.heads.estimators.descent import Descent, Problem

Floats = NDArray[np.float32]

_PATIENCE = 5


class BaggedSGDClassifier(HeadClassifier):
    """Bagged one-vs-rest logistic regression without intercept, by mini-batch SGD.

    Steps follow Nesterov's momentum and a cosine that ends at 0 with the last pass; the
    L1 part is a proximal step, which leaves weights near 0 rather than at it, as ever
    with mini-batches. A class's step is no longer than its curvature allows: the mean of
    ``p (1 - p)`` in the latest mini-batches times the largest eigenvalue of the features'
    second moment.

    Parameters
    ----------
    n_estimators : int
        Members.
    penalty : {"elasticnet", "l2"}
    alpha : float or None
        Strength of the penalty; None: ``1 / n_samples``.
    l1_ratio : float
        Share of the L1 part of an elastic net, in [0, 1].
    max_samples, max_features : float
        Rows and features that a member draws, as shares of all, in (0, 1].
    balanced : bool
        Whether rows of a class weigh ``n / (n_classes * n_of_class)``; of more than two
        classes, the rows of all others weigh 1, as SGDClassifier has it.
    max_iter : int
        Passes over the rows.
    early_stopping : bool
        Whether a member stops once the log-loss of the rows that it did not draw has not
        fallen for 5 passes, and takes the weights from before.
    batch_size : int
        Rows of a mini-batch, at most; less where a pass would have fewer than 25 steps.
    n_jobs : int or None
        Threads, each with a single thread of BLAS; None: 1; -1: one a core.
    random_state : int, RandomState or None

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Of sets of labels, their column numbers.
    coefs_ : ndarray of shape (n_estimators, n_outputs, n_features), float32
        0 for features that a member did not draw. There is one output for two classes,
        else one a class or label.
    n_iter_ : ndarray of shape (n_estimators,), int
        Passes of each member.
    n_features_in_ : int
    """

    def __init__(
        self,
        n_estimators: int = 10,
        *,
        penalty: str = "elasticnet",
        alpha: float | None = None,
        l1_ratio: float = 0.15,
        max_samples: float = 0.5,
        max_features: float = 0.5,
        balanced: bool = True,
        max_iter: int = 30,
        early_stopping: bool = False,
        batch_size: int = 64,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.max_samples = max_samples
        self.max_features = max_features
        self.balanced = balanced
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state

    @property
    def coef_(self) -> Floats:
        """Mean weights of all members: ndarray of shape (n_outputs, n_features), float32."""
        check_is_fitted(self)
        return self.coefs_.mean(axis=0)

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit all members.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite; computed with in float32.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes, or an indicator of sets of labels.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or `X` and `y` are of no use.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float32, order="C", multi_output=True)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float32)
        truth = self._learn_classes(np.asarray(y))
        self.__dict__.pop("_stream", None)
        random = check_random_state(self.random_state)
        seeds = random.randint(np.iinfo(np.int32).max, size=self.n_estimators)
        # One thread of BLAS in each of ours: more would contend.
        with threadpool_limits(limits=1):
            members = Parallel(n_jobs=self.n_jobs, backend="threading")(
                delayed(self._fit_member)(X, truth, weights, seed) for seed in seeds
            )
        self.coefs_ = np.stack([coef for coef, _ in members])
        self.n_iter_ = np.array([n_passes for _, n_passes in members])
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        class_counts: ArrayLike | None = None,
        n_samples: int | None = None,
    ) -> Self:
        """Fit all members on the next chunk of a stream.

        With `n_samples` the stream is `max_iter` passes over so many rows in one order, in
        chunks of any size of which none spans two passes, and steps shorten towards its end as
        those of `fit` do. What comes after it would move nothing, and is refused. Without,
        there is no end, and steps stay at a tenth of the longest; `alpha` of None is then one
        over the rows seen.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Finite; computed with in float32.
        y : array-like of shape (n_rows,) or (n_rows, n_labels)
            Classes, or an indicator of sets of labels.
        classes : array-like of shape (n_classes,), optional
            All classes; those of the first call serve. Default: those of the first chunk, whose
            labels these are where `y` is of sets.
        sample_weight : array-like of shape (n_rows,), optional
            How often each row counts.
        class_counts : array-like of shape (n_classes,), optional
            Rows of each of `classes`, or of each label, in a pass, for balance; those of the
            first call serve. Default: those seen so far.
        n_samples : int, optional
            Rows of a pass; that of the first call serves.

        Raises
        ------
        ValueError
            If a parameter is out of its range, `X`, `y` or `classes` are of no use, the chunk
            goes beyond the end of a pass or of the stream, or `early_stopping` is set.
        """
        begins = not hasattr(self, "_stream")
        if begins:
            self._check_parameters()
            if self.early_stopping:
                raise ValueError("early_stopping needs all rows: use fit, or set it to False.")
        elif self._stream is None:
            raise ValueError(
                f"The stream ended with pass {self.n_iter_[0]}: use fit, or another estimator."
            )
        chunk, targets = validate_data(
            self, X, y, dtype=np.float32, order="C", multi_output=True, reset=begins
        )
        targets = np.asarray(targets)
        if begins:
            self._learn_stream(targets, classes, class_counts, n_samples)
        truth = self._truth_of_known(targets)
        self._read(chunk, truth, _check_sample_weight(sample_weight, chunk, dtype=np.float32))
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Mean score of all members.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) for two classes, else (n_samples, n_outputs), float64
        """
        scores = (self._checked(X) @ self.coef_.T).astype(np.float64)
        return scores.ravel() if self._kind == "binary" else scores

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Mean probability of all members; a member's of several classes are over their sum.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
        """
        features = self._checked(X)
        members = [self._member_probabilities(features @ coef.T) for coef in self.coefs_]
        return np.mean(members, axis=0)

    def _checked(self, X: ArrayLike) -> Floats:
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float32, reset=False)

    def _member_probabilities(self, scores: Floats) -> NDArray[np.float64]:
        probabilities = expit(scores.astype(np.float64))
        if self._kind == "binary":
            return np.hstack([1 - probabilities, probabilities])
        if self._kind == "labels":
            return probabilities
        total = probabilities.sum(axis=1, keepdims=True)
        uniform = np.full_like(probabilities, 1 / probabilities.shape[1])
        return np.divide(probabilities, total, out=uniform, where=total > 0)

    def _check_parameters(self) -> None:
        for name in ("n_estimators", "max_iter", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1.")
        for name in ("max_samples", "max_features"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share in (0, 1].")
        if self.penalty not in ("elasticnet", "l2"):
            raise ValueError(f"penalty is {self.penalty!r}, expected 'elasticnet' or 'l2'.")

    def _fit_member(
        self, X: Floats, truth: Floats, weights: Floats, seed: int
    ) -> tuple[Floats, int]:
        """Weights of a member, of shape (n_outputs, n_features), and its number of passes."""
        rng = np.random.default_rng(seed)
        n_times = _draw(rng, len(X), self.max_samples)
        n_copies = _draw(rng, X.shape[1], self.max_features)
        rows, features = np.flatnonzero(n_times), np.flatnonzero(n_copies)
        costs = self._costs(truth[rows], n_times[rows] * weights[rows])
        # Only here: the compiler takes a second to import, and prediction needs none.
        from featurepipe.models.heads.estimators.descent import Descent, Problem

        problem = Problem(
            X=X[np.ix_(rows, features)],
            truth=truth[rows],
            costs=costs / n_times.sum(),
            alpha=1 / len(X) if self.alpha is None else self.alpha,
            l1_ratio=self.l1_ratio if self.penalty == "elasticnet" else 0.0,
            n_copies=n_copies[features].astype(np.float32),
        )
        judge = None
        if self.early_stopping and len(rows) < len(X):
            left_out = np.flatnonzero(n_times == 0)
            judge = _Judge(X[np.ix_(left_out, features)], truth[left_out])
        descent = Descent.on(problem, self.max_iter, self.batch_size)
        found, n_passes = _descend(descent, problem, rng, self.max_iter, judge)
        coef = np.zeros((truth.shape[1], X.shape[1]), dtype=np.float32)
        coef[:, features] = found
        return coef, n_passes

    def _costs(self, truth: Floats, counts: Floats) -> Floats:
        """Weight of each row in each output's loss."""
        of_true, of_others = self._balance(counts.sum(), counts @ truth)
        return (counts[:, None] * np.where(truth > 0, of_true, of_others)).astype(np.float32)

    def _balance(self, n: float, n_true: Floats) -> tuple[Any, Any]:
        """Weight in each output's loss of rows that have its class, and of others."""
        if not self.balanced:
            return np.ones_like(n_true), np.ones_like(n_true)
        least = np.finfo(np.float32).tiny
        if self._kind == "classes":
            return n / (len(n_true) * np.maximum(n_true, least)), np.ones_like(n_true)
        return n / (2 * np.maximum(n_true, least)), n / (2 * np.maximum(n - n_true, least))

    def _learn_stream(
        self,
        y: NDArray[Any],
        classes: ArrayLike | None,
        class_counts: ArrayLike | None,
        n_samples: int | None,
    ) -> None:
        if y.ndim == 2 and y.shape[1] > 1:
            self._kind, self.classes_ = "labels", np.arange(y.shape[1])
        else:
            classes = np.unique(y) if classes is None else np.asarray(classes)
            self._learn_classes(classes)
        n_true = None
        if class_counts is not None:
            n_true = np.asarray(class_counts, np.float32)
            if n_true.shape != self.classes_.shape:
                raise ValueError(
                    f"class_counts is of shape {n_true.shape}, expected {self.classes_.shape}: "
                    "the rows of each class."
                )
            if self._kind != "labels":
                n_true = n_true[np.argsort(np.asarray(classes))]
                n_samples = int(n_true.sum()) if n_samples is None else n_samples
            if n_samples is None:
                raise ValueError("n_samples is None, expected the number of rows of class_counts.")
            n_true = n_true[1:] if self._kind == "binary" else n_true
        random = check_random_state(self.random_state)
        seeds = random.randint(np.iinfo(np.int32).max, size=self.n_estimators)
        self._stream: _Stream | None = _Stream(seeds.tolist(), n_samples, n_true)

    def _truth_of_known(self, y: NDArray[Any]) -> Floats:
        if self._kind == "labels":
            if y.shape[1:] != self.classes_.shape:
                raise ValueError(f"y is of shape {y.shape}, expected {len(self.classes_)} labels.")
        else:
            y = column_or_1d(y, warn=True)
            if len(unknown := np.setdiff1d(y, self.classes_)):
                raise ValueError(f"y has {unknown[:5]}, expected classes of the first call only.")
        return self._truth_of(y)

    def _read(self, X: Floats, truth: Floats, weights: Floats) -> None:
        """Take all members over a chunk."""
        stream = self._stream
        assert stream is not None
        position = stream.advance(truth, weights)
        of_true, of_others = self._balance(stream.n, stream.n_true)
        costs = weights[:, None] * np.where(truth > 0, of_true, of_others).astype(np.float32)
        alpha = 1 / stream.n if self.alpha is None else self.alpha
        if not stream.members:
            shares = stream.n_true / stream.n
            mean_costs = (shares * of_true + (1 - shares) * of_others).astype(np.float32)
            stream.members = [
                self._begin_member(seed, X.shape[1], mean_costs) for seed in stream.seeds
            ]
        with _controller().limit(limits=1):
            Parallel(n_jobs=self.n_jobs, backend="threading")(
                delayed(member.read)(X, truth, costs, position, alpha) for member in stream.members
            )
        self.coefs_ = np.zeros((self.n_estimators, *truth.shape[1:], X.shape[1]), np.float32)
        for coef, member in zip(self.coefs_, stream.members, strict=True):
            coef[:, member.features] = member.weights
        self.n_iter_ = np.full(self.n_estimators, stream.n_passes)
        if stream.n_samples and stream.position == stream.n_samples * self.max_iter:
            self._stream = None

    def _begin_member(self, seed: int, n_features: int, mean_costs: Floats) -> "StreamMember":
        # Only here, as in `_fit_member`.
        from featurepipe.models.heads.estimators.chunked_descent import StreamMember

        stream = self._stream
        assert stream is not None
        return StreamMember(
            seed,
            _draw(np.random.default_rng(seed), n_features, self.max_features),
            self.max_samples,
            self.l1_ratio if self.penalty == "elasticnet" else 0.0,
            mean_costs,
            self.batch_size,
            stream.n_samples,
            self.max_iter,
        )


@dataclass
class _Stream:
    """Where a stream is, and what is known of it."""

    seeds: list[int]
    n_samples: int | None
    known_n_true: Floats | None
    position: int = 0
    seen: float = 0.0
    seen_true: Floats | float = 0.0
    members: "list[StreamMember]" = field(default_factory=list)

    @property
    def n(self) -> float:
        """Rows of a pass, or those seen where that is not known."""
        return self.seen if self.n_samples is None else self.n_samples

    @property
    def n_true(self) -> Floats:
        """Rows of `n` that have each output's class."""
        if self.known_n_true is not None:
            return self.known_n_true
        return np.asarray(self.seen_true * (self.n / self.seen), np.float32)

    @property
    def n_passes(self) -> int:
        """Passes begun."""
        return 1 if self.n_samples is None else -(-self.position // self.n_samples)

    def advance(self, truth: Floats, weights: Floats) -> int:
        """Count the rows of a chunk; where it begins."""
        begin, end = self.position, self.position + len(truth)
        if self.n_samples is not None and begin % self.n_samples + len(truth) > self.n_samples:
            raise ValueError(
                f"The chunk has {len(truth)} rows, expected at most the "
                f"{self.n_samples - begin % self.n_samples} left of the {self.n_samples} of a pass."
            )
        self.position = end
        self.seen += float(weights.sum())
        self.seen_true = self.seen_true + weights @ truth
        return begin


@dataclass(frozen=True)
class _Judge:
    """Rows that a member did not draw."""

    X: Floats
    truth: Floats

    def log_loss(self, weights: Floats) -> float:
        """Mean log-loss of all outputs."""
        scores = self.X @ weights.T
        return float(np.mean(np.logaddexp(0, scores) - self.truth * scores))


@cache
def _controller() -> ThreadpoolController:
    # To look for the libraries takes as long as a small chunk does.
    return ThreadpoolController()


def _draw(rng: np.random.Generator, n: int, share: float) -> NDArray[np.intp]:
    """How often each of `n` is drawn, with replacement."""
    return np.bincount(rng.integers(0, n, max(1, int(share * n))), minlength=n)


def _descend(
    descent: "Descent",
    problem: "Problem",
    rng: np.random.Generator,
    n_passes: int,
    judge: _Judge | None,
) -> tuple[Floats, int]:
    """Weights of shape (n_outputs, n_features), and the passes that were made."""
    best, best_loss, best_pass = descent.weights, np.inf, 0
    for n_passed in range(1, n_passes + 1):
        order = rng.permutation(len(problem.X))
        descent.go_over(*problem.rows(order), n_rows=len(order))
        if judge is None:
            continue
        loss = judge.log_loss(descent.weights)
        if loss < best_loss:
            best, best_loss, best_pass = descent.weights.copy(), loss, n_passed
        elif n_passed - best_pass >= _PATIENCE:
            return best, n_passed
    return (descent.weights if judge is None else best), n_passes
