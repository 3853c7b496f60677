"""HeadClassifier: the base of the classifiers of heads."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d


class HeadClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of two classes, of several classes or of sets of labels.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        For sets of labels, their column numbers.
    kind_ : {"binary", "classes", "labels"}
        What the targets are.
    """

    classes_: NDArray[Any]
    kind_: str

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that it also takes sets of labels."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict the most probable class, or the labels with a probability above 0.5.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        probabilities = self.predict_proba(X)
        if self.kind_ == "labels":
            return (probabilities > 0.5).astype(int)
        return self.classes_[probabilities.argmax(axis=1)]

    def learn_classes(self, classes: NDArray[np.intp], *, label_sets: bool) -> None:
        """Learn the classes from themselves, before any rows are read.

        Parameters
        ----------
        classes : ndarray of shape (n_classes,), intp
            All classes, ascending, or the column numbers of the labels.
        label_sets : bool
            Whether targets are an indicator of sets of labels.
        """
        if label_sets:
            self.kind_, self.classes_ = "labels", np.asarray(classes)
        else:
            self._learn_classes(np.asarray(classes))

    def _learn_classes(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Learn the classes from targets; their truth as `truth_of` has it."""
        check_classification_targets(y)
        if type_of_target(y) == "multilabel-indicator":
            self.kind_, self.classes_ = "labels", np.arange(y.shape[1])
        else:
            y = column_or_1d(y, warn=True)
            self.classes_ = np.unique(y)
            if len(self.classes_) < 2:
                raise ValueError(
                    "The number of classes has to be greater than one; got "
                    f"{len(self.classes_)} class."
                )
            self.kind_ = "binary" if len(self.classes_) == 2 else "classes"
        return self.truth_of(y)

    def truth_of(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Targets as 1 where a row has an output's class, else 0.

        Parameters
        ----------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)

        Returns
        -------
        ndarray of shape (n_samples, n_outputs), float32
            One output for two classes, otherwise one for each class or label.
        """
        if self.kind_ == "labels":
            return np.asarray(y, dtype=np.float32)
        outputs = self.classes_[1:] if self.kind_ == "binary" else self.classes_
        return (np.asarray(y)[:, None] == outputs).astype(np.float32)
