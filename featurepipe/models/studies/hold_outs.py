"""Which training rows are held out together to try features and heads on.

Ordinary folds tell how well an attribute is recognised in combinations of classes that were
trained on. For the others, combinations are held out: those which new images may have, though
the training rows lack them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Rows
from featurepipe.models.studies.grouped_variance import variance_of_mean
from featurepipe.splits import combination_folds, inner_folds

OBJECTIVES = ("balanced", "unseen", "seen")
"""What a choice maximises: the mean of both accuracies, or one of them."""

_N_FOLDS = 5
_N_IMAGINED = 10_000

Folds = list[tuple[Rows, Rows]]
"""For each fold the rows that are asked, and all rows that are held out with them."""


Right = NDArray[np.float64]
"""How often each row is answered correctly, in [0, 1]; NaN where it was not asked."""


@dataclass(frozen=True)
class UnseenFolds:
    """Folds that hold out combinations of classes.

    Attributes
    ----------
    other : str or None
        The attribute whose classes are combined with this one's; None: those of all
        attributes.
    weight : float
        Share of the lacking combinations that are of this kind, in (0, 1].
    folds : list of (ndarray of intp, ndarray of intp)
    """

    other: str | None
    weight: float
    folds: Folds


@dataclass(frozen=True)
class HoldOuts:
    """One attribute of some rows, and which of them are held out together.

    Attributes
    ----------
    name : str
    labels : Labels
    seen : list of (ndarray of intp, ndarray of intp)
        Ordinary folds.
    unseen : tuple of UnseenFolds
        Empty if no combination can be held out.
    """

    name: str
    labels: Labels
    seen: Folds
    unseen: tuple[UnseenFolds, ...]

    @classmethod
    def of(cls, labels: Mapping[str, Labels], groups: Rows, seed: int) -> list[Self]:
        """Draw the folds of every attribute.

        Parameters
        ----------
        labels : mapping of str to Labels
        groups : ndarray of shape (n_rows,), intp
            Rows of a group are never on both sides.
        seed : int
        """
        weights = lacking_combinations(labels, seed)
        of_all: Folds = []
        if any(None in of_attribute for of_attribute in weights.values()):
            exclusive = [truth for truth in labels.values() if truth.exclusive]
            of_all = combination_folds(exclusive, groups, _N_FOLDS, seed)
        drawn = []
        for name, truth in labels.items():
            missing = np.flatnonzero(~truth.labelled)
            unseen = []
            for other, weight in weights.get(name, {}).items():
                folds = of_all
                if other is not None:
                    folds = combination_folds([truth, labels[other]], groups, _N_FOLDS, seed)
                if folds:
                    away = [(rows, np.union1d(others, missing)) for rows, others in folds]
                    unseen.append(UnseenFolds(other, weight, away))
            seen = _ordinary_folds(truth, groups, seed)
            drawn.append(cls(name, truth, seen, tuple(unseen)))
        return drawn


@dataclass(frozen=True)
class HeldOutAnswers:
    """How often each row is answered correctly, in ordinary folds and without its combination.

    Attributes
    ----------
    seen, unseen : ndarray of shape (n_rows,), float64
        In [0, 1]; NaN where the row was not asked.
    """

    seen: Right
    unseen: Right

    def wanted(self, objective: str) -> list[Right]:
        """What an objective averages over its rows.

        Parameters
        ----------
        objective : str
            One of `OBJECTIVES`. Where no row's combination could be held out, ordinary folds
            decide.
        """
        if objective == "seen" or np.isnan(self.unseen).all():
            return [self.seen]
        return [self.unseen] if objective == "unseen" else [self.seen, self.unseen]


def mean_right(right: Sequence[Right]) -> float:
    """Mean of the means over the rows that were asked; NaN without any.

    Parameters
    ----------
    right : sequence of ndarray of shape (n_rows,), float64
    """
    shares = [rows[~np.isnan(rows)] for rows in right]
    return float(np.mean([share.mean() if len(share) else np.nan for share in shares]))


def is_worse(
    than: Sequence[Right], right: Sequence[Right], groups: Rows, n_errors: float = 1
) -> bool:
    """Whether a mean is lower by more than some standard errors of the paired difference.

    Parameters
    ----------
    than, right : sequence of ndarray of shape (n_rows,), float64
        What is compared by `mean_right`.
    groups : ndarray of shape (n_rows,), intp
        Rows of a group are not independent.
    n_errors : float
        Number of standard errors.
    """
    variances = []
    for better, worse in zip(than, right, strict=True):
        asked = ~np.isnan(better)
        variances.append(variance_of_mean((better - worse)[asked], groups[asked]))
    error = np.sqrt(np.sum(variances)) / len(than)
    return mean_right(than) - mean_right(right) > n_errors * error


def is_worse_on_either(than: HeldOutAnswers, answers: HeldOutAnswers, groups: Rows) -> bool:
    """Whether the seen or the unseen accuracy is worse by more than two standard errors.

    Parameters
    ----------
    than, answers : HeldOutAnswers
    groups : ndarray of shape (n_rows,), intp
    """
    measures = zip(than.wanted("balanced"), answers.wanted("balanced"), strict=True)
    return any(is_worse([there], [here], groups, 2) for there, here in measures)


def unseen_right(attribute: HoldOuts, tested: Mapping[tuple[str, str | None], Right]) -> Right:
    """How often each row is right without its combination, over the kinds of combinations.

    Parameters
    ----------
    attribute : HoldOuts
    tested : mapping of (str, str or None) to ndarray of shape (n_rows,), float64
        For each attribute and `UnseenFolds.other` how often each row is right; NaN where it
        was not asked.

    Returns
    -------
    ndarray of shape (n_rows,), float64
        Weighted means. NaN for rows that no fold asked, and for all rows without any folds.
    """
    sums, weights = np.zeros((2, len(attribute.labels)))
    for unseen in attribute.unseen:
        right = tested[attribute.name, unseen.other]
        if unseen.other is not None and (unseen.other, attribute.name) in tested:
            mistaken = 1 - np.nanmean(tested[unseen.other, attribute.name])
            right = np.where(np.isnan(right), mistaken, right)
        asked = ~np.isnan(right)
        sums[asked] += unseen.weight * right[asked]
        weights[asked] += unseen.weight
    is_told = attribute.labels.labelled & (weights > 0)
    return np.divide(sums, weights, out=np.full(len(sums), np.nan), where=is_told)


def is_right(scores: NDArray[np.float64], labels: Labels) -> NDArray[np.bool_]:
    """Which rows are answered correctly.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_classes), float64
        The class with the highest one is the answer; of sets of labels, all above 0.5.
    labels : Labels

    Returns
    -------
    ndarray of shape (n_rows,), bool
    """
    if labels.exclusive:
        return np.asarray(scores.argmax(axis=1) == labels.codes)
    return np.asarray(((scores > 0.5) == labels.indicator).all(axis=1))


def lacking_combinations(
    labels: Mapping[str, Labels], seed: int
) -> dict[str, dict[str | None, float]]:
    """How the combinations which the rows lack differ from those that they have.

    New images are imagined whose attributes are independent, each class as frequent as in
    the rows. Among those whose combination no row has, a pair of two attributes' classes may be
    new, or only the combination of all. Holding out pairs is much harsher: it leaves no row
    with both classes.

    Parameters
    ----------
    labels : mapping of str to Labels
    seed : int

    Returns
    -------
    dict of str to dict of (str or None) to float
        For each exclusive attribute, the share of the imagined images whose class is new beside
        that of another attribute; None for those without such a pair. If there are
        several new pairs, each counts equally. Shares of 0 are left out. With two attributes,
        everything is a pair.

    Examples
    --------
    >>> from featurepipe.manifest.labels import labels_of
    >>> color = labels_of("color", [("black",), ("blue",), ("blue",)])
    >>> category = labels_of("category", [("jeans",), ("jeans",), ("dress",)])
    >>> lacking_combinations({"color": color, "category": category}, seed=0)
    {'color': {'category': 1.0}, 'category': {'color': 1.0}}
    """
    exclusive = {name: truth for name, truth in labels.items() if truth.exclusive}
    names = list(exclusive)
    if len(names) <= 2:
        return {name: {other: 1.0 for other in names if other != name} for name in names}
    labelled = np.all([truth.labelled for truth in exclusive.values()], axis=0)
    codes = np.column_stack([truth.codes for truth in exclusive.values()])
    imagined = _imagine(codes, seed)
    lacks = ~_rows_in(imagined, codes[labelled])
    if not lacks.any():
        return {name: {None: 1.0} for name in names}
    imagined = imagined[lacks]
    weights: dict[str, dict[str | None, float]] = {}
    for k, name in enumerate(names):
        others = [j for j in range(len(names)) if j != k]
        is_new = np.column_stack([_is_new_pair(codes, imagined, [k, j]) for j in others])
        share = is_new / np.maximum(is_new.sum(axis=1, keepdims=True), 1)
        shares: dict[str | None, float] = {None: 1 - float(share.sum(axis=1).mean())}
        for j, of_pair in zip(others, share.mean(axis=0).tolist(), strict=True):
            shares[names[j]] = of_pair
        weights[name] = {other: weight for other, weight in shares.items() if weight > 0}
    return weights


def _imagine(codes: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """Draw each attribute's class on its own, as often as it occurs."""
    rng = np.random.default_rng(seed)
    columns = [rng.choice(column[column >= 0], _N_IMAGINED) for column in codes.T]
    return np.column_stack(columns)


def _is_new_pair(
    codes: NDArray[np.intp], imagined: NDArray[np.intp], pair: list[int]
) -> NDArray[np.bool_]:
    known = codes[:, pair]
    return ~_rows_in(imagined[:, pair], known[(known >= 0).all(axis=1)])


def _rows_in(rows: NDArray[np.intp], known: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which rows also occur among the known ones."""
    numbers = np.unique(np.vstack([known, rows]), axis=0, return_inverse=True)[1].reshape(-1)
    return np.isin(numbers[len(known) :], numbers[: len(known)])


def _ordinary_folds(truth: Labels, groups: Rows, seed: int) -> Folds:
    labelled, missing = np.flatnonzero(truth.labelled), np.flatnonzero(~truth.labelled)
    strata = truth.codes[labelled]
    if not truth.exclusive:
        strata = np.unique(truth.indicator[labelled], axis=0, return_inverse=True)[1]
    folds = inner_folds(strata.reshape(-1), groups[labelled], _N_FOLDS, seed)
    asked = [labelled[validation] for _, validation in folds]
    return [(rows, np.union1d(rows, missing)) for rows in asked]
