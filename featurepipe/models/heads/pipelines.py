"""A head's settings -> an unfitted pipeline that reads features, and how it is fitted."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from featurepipe.models.heads.estimators.scaling import BlockScale
from featurepipe.models.heads.estimators.variances import build_variance_threshold
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.registry import GRIDS, find_head

SCALINGS: dict[str, tuple[BaseEstimator, ...]] = {
    "as-is": (),
    "standardised": (StandardScaler(),),
    "normalised": (Normalizer(),),
    "normalised-standardised": (Normalizer(), StandardScaler()),
}
"""Steps that scale features before a head: normalised rows have length 1, standardised columns
mean 0 and variance 1."""

NOT_TUNED: Mapping[str, Any] = MappingProxyType({})


def build_head(
    settings: HeadSettings,
    n_train_rows: int,
    *,
    label_sets: bool = False,
    widths: Sequence[int] = (),
    tuned: Mapping[str, Any] = NOT_TUNED,
) -> Pipeline:
    """Build an unfitted head: steps that prepare features, and a classifier.

    Parameters
    ----------
    settings : HeadSettings
    n_train_rows : int
        Number of rows it will be fitted on. Bagged SGD divides its penalty by it.
    label_sets : bool
        Whether targets are sets of labels. Classifiers that take one label at a time then get
        one classifier for each label.
    widths : sequence of int
        Numbers of features of the blocks that lie side by side; empty for one block. Several
        blocks are prepared separately, and `BlockScale` gives them equal influence.
    tuned : mapping of str to Any
        What tuning chose: ``variance_threshold``, ``scaling`` (a key of `SCALINGS`) or
        ``alpha_by_rows``, the factor of bagged SGD's penalty.

    Returns
    -------
    Pipeline
        It ends in a classifier with `decision_function` and `predict_proba`; one of the user's
        own may have only one of them.
    """
    threshold = tuned.get("variance_threshold", settings.variance_threshold)
    steps = [build_variance_threshold(threshold)]
    if settings.own is not None:
        classifier = settings.own.build()
    else:
        alpha = tuned.get("alpha_by_rows", 1.0) / n_train_rows
        needed, classifier = find_head(settings.head, settings.solver)(alpha, settings.seed)
        scalers = SCALINGS[tuned.get("scaling", GRIDS[settings.head]["scaling"][0])]
        steps += [*map(clone, scalers), *needed]
    # Classifiers of others that take sets of labels answer in several shapes.
    if label_sets and (settings.own or not get_tags(classifier).classifier_tags.multi_label):
        classifier = OneVsRestClassifier(classifier)
    if len(widths) > 1:
        steps = [_side_by_side(steps, widths)]
    return make_pipeline(*steps, classifier)


def _side_by_side(steps: Sequence[BaseEstimator], widths: Sequence[int]) -> ColumnTransformer:
    # A single block has about as much variance as features, once they are standardised.
    common = BlockScale(float(np.mean(widths)))
    ends = np.cumsum([0, *widths]).tolist()
    return ColumnTransformer(
        [
            (f"block{number}", make_pipeline(*map(clone, [*steps, common])), slice(start, end))
            for number, (start, end) in enumerate(pairwise(ends), start=1)
        ]
    )


def fit_head(head: Pipeline, X: ArrayLike, y: ArrayLike, groups: ArrayLike) -> Pipeline:
    """Fit what `build_head` returned.

    Parameters
    ----------
    head : Pipeline
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
    groups : array-like of shape (n_samples,), int
        Where the head itself holds rows out, it keeps the rows of a group on one side.
    """
    return head.fit(X, y, **group_parameters(head, groups))


def group_parameters(head: Pipeline, groups: ArrayLike) -> dict[str, ArrayLike]:
    """Parameters that `fit` of a head, or of a search over it, takes beside `X` and `y`.

    Parameters
    ----------
    head : Pipeline
    groups : array-like of shape (n_samples,), int

    Returns
    -------
    dict of str to array-like
        Empty if the head itself holds no rows out.
    """
    name, classifier = head.steps[-1]
    return {f"{name}__groups": groups} if has_fit_parameter(classifier, "groups") else {}
