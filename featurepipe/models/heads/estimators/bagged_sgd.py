"""BaggedSGDClassifier: bagged logistic regression, all classes of a member at once.

The recipe of ``BaggingClassifier(SGDClassifier(loss="log_loss"))``. Each member draws rows
and features with replacement, and minimises for each class

    1/n sum_i c_i log(1 + exp(-s_i x_i . w)) + alpha (l1_ratio |w|_1 + (1 - l1_ratio)/2 |w|_2^2)

over its n rows, where s_i is 1 if row i has the class and -1 otherwise, and c_i is the weight of
the row. scikit-learn makes a pass over the rows for each class; here a mini-batch is multiplied
with the weights of all classes at once. Rows and features that a member drew several times are
kept once, with their number: k equal columns of weight w/k each are one column of weight w whose
squared norm counts 1/k.
"""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from featurepipe.cluster.spreading import call_each
from featurepipe.models.heads.estimators.classifier import HeadClassifier

if TYPE_CHECKING:
    from featurepipe.models.heads.estimators.bag_stream import BagStream

Floats = NDArray[np.float32]


class BaggedSGDClassifier(HeadClassifier):
    """Bagged one-vs-rest logistic regression without intercept, by mini-batch SGD.

    Rows are balanced: those of a class weigh ``n / (n_classes * n_of_class)``. With more than
    two classes the rows of all other classes weigh 1, as in SGDClassifier.

    Steps follow Nesterov's momentum and a cosine that reaches 0 with the last pass. The L1 part
    is a proximal step, which leaves weights near 0 rather than at it, as always with
    mini-batches. A class's step is limited by its curvature: the mean of ``p (1 - p)`` in the
    latest mini-batches times the largest eigenvalue of the features' second moment.

    Parameters
    ----------
    n_estimators : int
        Members.
    alpha : float
        Strength of the penalty. The recipe has ``1 / n_samples``.
    l1_ratio : float
        Share of the L1 part of the elastic net, in [0, 1].
    max_samples, max_features : float
        Rows and features that a member draws, as shares of all, in (0, 1].
    max_iter : int
        Passes over the rows.
    batch_size : int
        Most rows of a mini-batch. Mini-batches are smaller where a pass would have fewer than
        25 steps.
    n_jobs : int or None
        Threads, each with a single thread of BLAS; None: 1; -1: one a core.
    random_state : int, RandomState or None

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        For sets of labels, their column numbers.
    coefs_ : ndarray of shape (n_estimators, n_outputs, n_features), float32
        0 for features that a member did not draw. There is one output for two classes,
        otherwise one for each class or label.
    n_iter_ : ndarray of shape (n_estimators,), int
        Passes of each member.
    n_features_in_ : int
    """

    def __init__(
        self,
        n_estimators: int = 10,
        *,
        alpha: float = 1e-4,
        l1_ratio: float = 0.15,
        max_samples: float = 0.5,
        max_features: float = 0.5,
        max_iter: int = 30,
        batch_size: int = 64,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.max_samples = max_samples
        self.max_features = max_features
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state

    @property
    def coef_(self) -> Floats:
        """Mean weights of all members: ndarray of shape (n_outputs, n_features), float32."""
        check_is_fitted(self)
        return self.coefs_.mean(axis=0)

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit all members.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite; converted to float32.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes, or an indicator of sets of labels.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or `X` and `y` cannot be used.
        """
        X, y = validate_data(self, X, y, dtype=np.float32, order="C", multi_output=True)
        truth = self._learn_classes(np.asarray(y))
        seeds = self.draw_seeds()
        # One thread of BLAS in each of ours: more would contend.
        with threadpool_limits(limits=1):
            shared = (self, np.asarray(X), truth)
            members = list(call_each(_fit_member, shared, seeds, n_jobs=self.n_jobs))
        self.coefs_ = np.stack(members)
        self.n_iter_ = np.full(self.n_estimators, self.max_iter)
        return self

    def begin_stream(
        self,
        classes: NDArray[np.intp],
        class_counts: NDArray[np.integer],
        n_samples: int,
        *,
        label_sets: bool = False,
    ) -> "BagStream":
        """Prepare to fit all members chunk by chunk, in `max_iter` passes over the rows.

        Parameters
        ----------
        classes : ndarray of shape (n_classes,), intp
            All classes, ascending, or the column numbers of the labels.
        class_counts : ndarray of shape (n_classes,), int
            Rows of each class or label.
        n_samples : int
            Rows of a pass.
        label_sets : bool
            Whether targets are an indicator of sets of labels.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        """
        from featurepipe.models.heads.estimators.bag_stream import BagStream

        self.learn_classes(classes, label_sets=label_sets)
        return BagStream(self, np.asarray(class_counts), n_samples)

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
        return scores.ravel() if self.kind_ == "binary" else scores

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Mean probability of all members.

        A member's probabilities of several classes are divided by their sum.

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

    def draw_seeds(self) -> list[int]:
        """A seed for each member.

        Raises
        ------
        ValueError
            If a parameter of the bag is out of its range.
        """
        self._check_parameters()
        random = check_random_state(self.random_state)
        return random.randint(np.iinfo(np.int32).max, size=self.n_estimators).tolist()

    def balance(self, n: float, n_true: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Weights that balance the rows of each output's class with all others.

        Parameters
        ----------
        n : float
            Number of rows.
        n_true : ndarray of shape (n_outputs,), float
            How many of them have each output's class.

        Returns
        -------
        of_true, of_others : ndarray of shape (n_outputs,), dtype of `n_true`
            Weight in each output's loss of a row that has its class, and of another row.
        """
        least = np.finfo(np.float32).tiny
        if self.kind_ == "classes":
            return n / (len(n_true) * np.maximum(n_true, least)), np.ones_like(n_true)
        return n / (2 * np.maximum(n_true, least)), n / (2 * np.maximum(n - n_true, least))

    def _checked(self, X: ArrayLike) -> Floats:
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float32, reset=False)

    def _member_probabilities(self, scores: Floats) -> NDArray[np.float64]:
        probabilities = expit(scores.astype(np.float64))
        if self.kind_ == "binary":
            return np.hstack([1 - probabilities, probabilities])
        if self.kind_ == "labels":
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

    def fit_member(self, X: Floats, truth: Floats, seed: int) -> Floats:
        """Weights of a member: ndarray of shape (n_outputs, n_features), float32."""
        # Only here: the compiler takes a second to import, and prediction needs none.
        from featurepipe.models.heads.estimators.descent import Descent, Problem

        rng = np.random.default_rng(seed)
        n_times = draw_counts(rng, len(X), self.max_samples)
        n_copies = draw_counts(rng, X.shape[1], self.max_features)
        rows, features = np.flatnonzero(n_times), np.flatnonzero(n_copies)
        problem = Problem(
            X=X[np.ix_(rows, features)],
            truth=truth[rows],
            costs=self._costs(truth[rows], n_times[rows].astype(np.float64)) / n_times.sum(),
            alpha=self.alpha,
            l1_ratio=self.l1_ratio,
            n_copies=n_copies[features].astype(np.float32),
        )
        descent = Descent.on(problem, self.max_iter, self.batch_size)
        for _ in range(self.max_iter):
            order = rng.permutation(len(rows))
            descent.go_over(*problem.rows(order), n_rows=len(rows))
        coef = np.zeros((truth.shape[1], X.shape[1]), dtype=np.float32)
        coef[:, features] = descent.weights
        return coef

    def _costs(self, truth: Floats, counts: NDArray[np.float64]) -> Floats:
        """Weight of each row, drawn `counts` times, in each output's loss."""
        of_true, of_others = self.balance(counts.sum(), counts @ truth)
        return (counts[:, None] * np.where(truth > 0, of_true, of_others)).astype(np.float32)


def _fit_member(shared: tuple[BaggedSGDClassifier, Floats, Floats], seed: int) -> Floats:
    bag, X, truth = shared
    return bag.fit_member(X, truth, seed)


def draw_counts(rng: np.random.Generator, n: int, share: float) -> NDArray[np.intp]:
    """How often each of `n` is drawn, when a share of them is drawn with replacement.

    Parameters
    ----------
    rng : Generator
    n : int
    share : float
        In (0, 1].

    Returns
    -------
    ndarray of shape (n,), intp
    """
    return np.bincount(rng.integers(0, n, max(1, int(share * n))), minlength=n)
