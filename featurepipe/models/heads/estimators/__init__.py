"""scikit-learn estimators: the heads' own classifiers."""
