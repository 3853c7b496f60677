"""scikit-learn estimators: the classifiers of heads, and the steps that prepare features."""
