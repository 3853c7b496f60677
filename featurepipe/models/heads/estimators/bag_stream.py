"""BagStream: a bag that is fitted chunk by chunk, in several passes over the rows."""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier, draw_counts

if TYPE_CHECKING:
    from featurepipe.models.heads.estimators.chunked_descent import StreamMember

Floats = NDArray[np.float32]


class BagStream:
    """Fits a `BaggedSGDClassifier` on chunks of rows.

    Every pass reads the same rows in the same order, in chunks of any size; no chunk spans two
    passes. Steps get shorter towards the end of the last pass, as in `BaggedSGDClassifier.fit`.
    Make it with `BaggedSGDClassifier.begin_stream`.

    Parameters
    ----------
    bag : BaggedSGDClassifier
        It knows its classes, and is fitted once `finish` is called.
    class_counts : ndarray of shape (n_classes,), int
        Rows of each class or label in a pass.
    n_samples : int
        Rows of a pass.
    """

    def __init__(
        self, bag: BaggedSGDClassifier, class_counts: NDArray[np.integer], n_samples: int
    ) -> None:
        self._bag, self._n_samples = bag, n_samples
        n_true = class_counts.astype(np.float32)
        self._n_true = n_true[1:] if bag.kind_ == "binary" else n_true
        self._balance = bag.balance(n_samples, self._n_true)
        self._seeds = bag.draw_seeds()
        self._members: list[StreamMember] = []
        self._n_read = 0

    def learn(self, X: Floats, y: NDArray[Any], *, n_jobs: int = 1) -> None:
        """Take the steps of all members over the next chunk.

        Parameters
        ----------
        X : ndarray of shape (n_rows, n_features), float32
            Finite.
        y : ndarray of shape (n_rows,) or (n_rows, n_labels)
            Classes, or an indicator of sets of labels.
        n_jobs : int
            Threads; results do not depend on it.

        Raises
        ------
        ValueError
            If the chunk goes beyond the end of a pass, or the last pass is over.
        """
        n_left = self._n_samples - self._n_read % self._n_samples
        if self._n_read == self._n_samples * self._bag.max_iter or len(X) > n_left:
            raise ValueError(
                f"The chunk has {len(X)} rows after {self._n_read}; expected at most {n_left}, in "
                f"{self._bag.max_iter} passes of {self._n_samples}."
            )
        features, truth = np.ascontiguousarray(X, np.float32), self._bag.truth_of(y)
        costs = np.where(truth > 0, *self._balance).astype(np.float32)
        if not self._members:
            self._begin_members(X.shape[1])
        with _controller().limit(limits=1):
            Parallel(n_jobs=n_jobs, backend="threading")(
                delayed(member.read)(features, truth, costs, self._n_read)
                for member in self._members
            )
        self._n_read += len(X)

    def finish(self) -> None:
        """Give the bag the weights of its members."""
        bag = self._bag
        bag.coefs_ = np.zeros((bag.n_estimators, len(self._n_true), bag.n_features_in_), np.float32)
        for coef, member in zip(bag.coefs_, self._members, strict=True):
            coef[:, member.features] = member.weights
        bag.n_iter_ = np.full(bag.n_estimators, -(-self._n_read // self._n_samples))

    def _begin_members(self, n_features: int) -> None:
        # Only here: the compiler takes a second to import.
        from featurepipe.models.heads.estimators.chunked_descent import StreamMember

        bag = self._bag
        bag.n_features_in_ = n_features
        of_true, of_others = self._balance
        shares = self._n_true / self._n_samples
        mean_costs = (shares * of_true + (1 - shares) * of_others).astype(np.float32)
        self._members = [
            StreamMember(
                bag,
                seed,
                draw_counts(np.random.default_rng(seed), n_features, bag.max_features),
                mean_costs,
                self._n_samples,
            )
            for seed in self._seeds
        ]


@cache
def _controller() -> ThreadpoolController:
    # Looking for the libraries takes as long as a small chunk does.
    return ThreadpoolController()
