"""What the classifiers of heads share: two classes, several classes, or sets of labels."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d


class HeadClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that learns what its targets are, and answers from probabilities.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Of sets of labels, their column numbers.
    """

    classes_: NDArray[Any]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn is told of it: it also takes sets of labels."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class, or the set of labels that are more probable than not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        probabilities = self.predict_proba(X)
        if self._kind == "labels":
            return (probabilities > 0.5).astype(int)
        return self.classes_[probabilities.argmax(axis=1)]

    def _learn_classes(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """What `_truth_of` says of `y`, whose classes these shall be."""
        check_classification_targets(y)
        if type_of_target(y) == "multilabel-indicator":
            self._kind, self.classes_ = "labels", np.arange(y.shape[1])
        else:
            y = column_or_1d(y, warn=True)
            self.classes_ = np.unique(y)
            if len(self.classes_) < 2:
                raise ValueError(
                    "The number of classes has to be greater than one; got "
                    f"{len(self.classes_)} class."
                )
            self._kind = "binary" if len(self.classes_) == 2 else "classes"
        return self._truth_of(y)

    def _truth_of(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """1 where a row has an output's class, else 0, of shape (n_samples, n_outputs).

        There is one output for two classes, else one a class or label.
        """
        if self._kind == "labels":
            return np.asarray(y, dtype=np.float32)
        outputs = self.classes_[1:] if self._kind == "binary" else self.classes_
        return (np.asarray(y)[:, None] == outputs).astype(np.float32)
