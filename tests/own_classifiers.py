"""Classifiers that a user might write, for tests of heads of one's own."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class NearestMean(ClassifierMixin, BaseEstimator):
    """Scores are negative distances from the classes' means; classes are in descending order."""

    def __init__(self, power=1.0):
        self.power = power

    def fit(self, X, y):
        self.classes_ = np.unique(y)[::-1]
        self.means_ = np.array([X[y == name].mean(axis=0) for name in self.classes_])
        return self

    def decision_function(self, X):
        apart = np.linalg.norm(X[:, None] - self.means_, axis=2) ** self.power
        return -apart if len(self.classes_) > 2 else apart[:, 0] - apart[:, 1]

    def predict(self, X):
        apart = np.linalg.norm(X[:, None] - self.means_, axis=2)
        return self.classes_[apart.argmin(axis=1)]


class Upwards(NearestMean):
    """Its distances are scores by mistake: the nearest class has the lowest."""

    def decision_function(self, X):
        return -super().decision_function(X)


class Endless(NearestMean):
    """Some of its scores are not finite."""

    def decision_function(self, X):
        return super().decision_function(X) * np.inf


class Listener(NearestMean):
    """Keeps a function that has no name."""

    def fit(self, X, y):
        self.listen_ = lambda: None
        return super().fit(X, y)


class Forgetful(NearestMean):
    """Is another one when it was saved and loaded."""

    def __getstate__(self):
        return super().__getstate__() | {"means_": self.means_[::-1]}


class Broken(NearestMean):
    """Cannot be fitted."""

    def fit(self, X, y):
        raise ZeroDivisionError("no such luck")
