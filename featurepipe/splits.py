"""Named, saved divisions of the images into training, test and unseen rows.

However a split is made, rows of one group never part: images of identical bytes,
and those that share a value of the group column, directly or through others.
"""

import hashlib
import itertools
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold

from featurepipe.errors import SplitError, UnknownNameError
from featurepipe.files import replacing
from featurepipe.manifest import SPLIT_COLUMN, Manifest

PARTS = ("train", "test", "unseen")

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

# One for training, one for testing, and one more so that inner folds can tell them apart.
_MIN_GROUPS = 3
_FORMAT = 1
_MAX_NAME = 80
_MAX_DRAWS = 50
_ROUNDING = 1e-9
_OPEN, _TRAIN, _TEST = 0, 1, 2


@dataclass(frozen=True)
class SplitSettings:
    """How a split is to be made.

    Attributes
    ----------
    test_size : float
        Share of the images to test on, between 0 and 1, both excluded.
    seed : int
        At least 0.
    hold_out : tuple of str
        Combinations that training never sees, such as ``"black_dress"``; kept sorted.
    group : str or None
        Column of the labels' table whose values name images that belong together.
    repeats : int
        Number of splits, at least 1.

    Raises
    ------
    SplitError
        If a value is out of its range.
    """

    test_size: float = 0.2
    seed: int = 0
    hold_out: tuple[str, ...] = ()
    group: str | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "hold_out", tuple(sorted(set(self.hold_out))))
        if not 0 < self.test_size < 1:
            raise SplitError(
                f"The test size is {self.test_size}, expected a share between 0 and 1, such as 0.2."
            )
        if self.repeats < 1:
            raise SplitError(f"The number of repeats is {self.repeats}, expected at least 1.")
        if self.seed < 0:
            raise SplitError(f"The seed is {self.seed}, expected 0 or more.")


@dataclass(frozen=True, eq=False)
class Split:
    """A named division of images.

    Attributes
    ----------
    name : str
        Safe as a file's name.
    settings : SplitSettings
        What it was made by.
    repeat : int
        Which of the settings' repeats it is, from 0.
    ids : ndarray of shape (n_images,), str objects, sorted
    parts : ndarray of shape (n_images,), str objects
        ``"train"``, ``"test"`` or ``"unseen"``.
    groups : ndarray of shape (n_images,), int64
        Images of one number belong together.
    left_out : tuple of str
        Ids of images that could be on no side without a leak; `findings` says why.
    findings : tuple of str
        What a person must be told.
    number : int
        Order of creation in a workspace, from 0.
    """

    name: str
    settings: SplitSettings
    repeat: int
    ids: NDArray[np.object_]
    parts: NDArray[np.object_]
    groups: Integers
    left_out: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    number: int = 0

    @property
    def series(self) -> str:
        """Name that all repeats of one split share, however many were asked for."""
        series = _name(replace(self.settings, repeats=1), repeat=0)
        # A split that came with the images is no repeat of any other.
        return series if self.name.startswith(series) else self.name

    def rows(self, part: str) -> NDArray[np.intp]:
        """Positions in `ids` of one part's images.

        Parameters
        ----------
        part : {"train", "test", "unseen"}

        Returns
        -------
        ndarray of shape (n_images_of_part,), intp
        """
        return np.flatnonzero(self.parts == part)

    def counts(self) -> dict[str, int]:
        """Number of images of each part."""
        return {part: len(self.rows(part)) for part in PARTS}

    def covers(self, ids: Iterable[str]) -> bool:
        """Whether it was made for exactly these images.

        Parameters
        ----------
        ids : iterable of str
            Ids of labelled and readable images, as `divisible_ids` gives them.
        """
        return set(ids) == {*self.ids, *self.left_out}

    def divides_like(self, other: "Split") -> bool:
        """Whether both divide the same images in the same way, whatever their names."""
        return (
            np.array_equal(self.ids, other.ids)
            and np.array_equal(self.parts, other.parts)
            and np.array_equal(self.groups, other.groups)
        )

    def registered(self, number: int, taken: Collection[str]) -> "Split":
        """The same split with its place in a workspace.

        Parameters
        ----------
        number : int
            Order of creation.
        taken : collection of str
            Names that other splits have; if its own is among them, it is numbered.
        """
        # Some file systems take names that differ in case for one.
        known = {name.lower() for name in taken}
        numbered = (f"{self.name}-{count}" for count in itertools.count(2))
        names = itertools.chain([self.name], numbered)
        return replace(
            self, number=number, name=next(name for name in names if name.lower() not in known)
        )

    def save(self, path: Path | str) -> None:
        """Write the split as one JSON file, whole or not at all."""
        images = {
            part: {self.ids[row]: int(self.groups[row]) for row in self.rows(part)}
            for part in PARTS
        }
        about = {
            "format": _FORMAT,
            "name": self.name,
            "number": self.number,
            "settings": asdict(self.settings),
            "repeat": self.repeat,
            "findings": self.findings,
            "left_out": self.left_out,
            "group_of_image": images,
        }
        with replacing(Path(path)) as beside:
            beside.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Split":
        """Read a saved split.

        Raises
        ------
        SplitError
            If the file is missing, damaged or something else.
        """
        try:
            about = json.loads(Path(path).read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise ValueError(f"its format is {about['format']}, not {_FORMAT}")
            return _stored_split(about)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SplitError(
                f"{path} is not a sound split ({error}): expected a file that featurepipe wrote. "
                "Remove it; featurepipe fit makes it again."
            ) from error


def divisible_ids(manifest: Manifest, digests: Mapping[str, bytes | str]) -> NDArray[np.object_]:
    """Ids of the images that splits divide: labelled and readable ones.

    Parameters
    ----------
    manifest : Manifest
    digests : mapping of str to bytes or str
        Digest of the bytes of each readable image, by its id.

    Returns
    -------
    ndarray of shape (n_images,), str objects, sorted
    """
    labelled = np.zeros(len(manifest), dtype=bool)
    for labels in manifest.labels().values():
        labelled |= labels.labelled
    readable = np.array([image_id in digests for image_id in manifest.ids], dtype=bool)
    return manifest.ids[labelled & readable]


def make_splits(
    manifest: Manifest, digests: Mapping[str, bytes | str], settings: SplitSettings
) -> list[Split]:
    """Divide the labelled and readable images.

    A split that came with the images serves, unless held-out combinations, a group
    or repeats are asked for; its training images that belong together with test
    images are left out. Otherwise groups are drawn at random, each set of labels in
    its share (rare sets together with others of their rarest label), so that every
    class has a group in training and in test; that goes before the share.

    Parameters
    ----------
    manifest : Manifest
    digests : mapping of str to bytes or str
        Digest of the bytes of each readable image, by its id.
    settings : SplitSettings

    Returns
    -------
    list of Split
        One per repeat. The same arguments give the same splits.

    Raises
    ------
    SplitError
        If a class has too few images, or would not be trained on.
    UnknownNameError
        If there is no such combination or group column.
    """
    use_given = not settings.hold_out and settings.group is None and settings.repeats == 1
    if settings.group not in (None, manifest.group_column):
        manifest = manifest.relabelled(group=settings.group)
    images = _divisible(manifest, digests)
    if use_given and SPLIT_COLUMN in manifest.table:
        given = manifest.table[SPLIT_COLUMN].loc[images.ids.tolist()]
        return [_given_split(images, given.to_numpy(dtype=object), settings)]
    settings = replace(settings, group=manifest.group_column)
    unseen, left_out = _hold_out(images, settings.hold_out)
    rest = np.flatnonzero(~(unseen | left_out))
    _refuse_rare_classes(images.take(rest), settings)
    findings = []
    if left_out.any():
        findings.append(
            f"{_count(images.ids[left_out])} left out, belonging together with held-out images: "
            f"{_some(images.ids[left_out])}"
        )
    splits = []
    for repeat in range(settings.repeats):
        parts = np.where(unseen, "unseen", "train").astype(object)
        parts[rest[_draw_test(images.take(rest), settings, repeat)]] = "test"
        name = _name(settings, repeat)
        splits.append(_new_split(images, parts, left_out, name, settings, repeat, findings))
    return splits


def inner_folds(
    strata: ArrayLike, groups: ArrayLike, n_folds: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Divide training rows into folds, under the same rule as the test rows.

    Parameters
    ----------
    strata : array-like of shape (n_rows,)
        What to keep in proportion: codes of classes, or of sets of classes.
    groups : array-like of shape (n_rows,), int
        Rows of one group never part.
    n_folds : int
        Folds wanted; there are fewer where groups, or rows of the most frequent
        stratum, are fewer.
    seed : int

    Returns
    -------
    list of (ndarray of intp, ndarray of intp)
        Positions of training and of validation rows, one pair per fold.

    Raises
    ------
    SplitError
        If the rows are of fewer than two groups.
    """
    groups = np.asarray(groups)
    _, strata, counts = np.unique(np.asarray(strata), return_inverse=True, return_counts=True)
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise SplitError(
            f"{len(groups)} training rows of {n_groups} group cannot be divided into folds: "
            "expected at least 2 groups. Add images, or group them by another column."
        )
    if counts.max() < 2:
        strata = np.zeros_like(strata)
    folds = StratifiedGroupKFold(
        n_splits=min(n_folds, n_groups, max(2, counts.max())),
        shuffle=True,
        random_state=int(np.random.SeedSequence(seed).generate_state(1)[0]),
    )
    with warnings.catch_warnings():
        # A class rarer than there are folds is absent from some of them; that is known,
        # and better than fewer folds for all the others.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        pairs = list(folds.split(np.zeros(len(groups)), strata, groups))
    return [(training, validation) for training, validation in pairs if len(validation)]


# The images to divide


@dataclass(frozen=True)
class _Images:
    """Images in the order of their ids, their groups, and which classes each has."""

    ids: NDArray[np.object_]
    groups: Integers
    combinations: NDArray[np.object_]
    classes: tuple[tuple[str, str], ...]
    has: Bools

    def take(self, rows: NDArray[np.intp]) -> "_Images":
        """Some of the images, their groups numbered anew."""
        groups = np.unique(self.groups[rows], return_inverse=True)[1].astype(np.int64)
        return _Images(
            self.ids[rows], groups, self.combinations[rows], self.classes, self.has[rows]
        )

    def groups_have(self) -> Bools:
        """Which classes each group has: bool of shape (n_groups, n_classes)."""
        rows, columns = np.nonzero(self.has)
        have = np.zeros((self.groups.max(initial=-1) + 1, len(self.classes)), dtype=bool)
        have[self.groups[rows], columns] = True
        return have


def _divisible(manifest: Manifest, digests: Mapping[str, bytes | str]) -> _Images:
    ids = divisible_ids(manifest, digests)
    if not len(ids):
        raise SplitError(
            f"None of the {len(manifest)} images is both labelled and readable "
            f"({len(digests)} are readable): expected at least {_MIN_GROUPS} of each class. Give "
            "labels with --labels, or mend the images."
        )
    labels, table = manifest.labels(ids), manifest.table.loc[ids.tolist()]
    keys: list[Sequence[Hashable]] = [[digests[image_id] for image_id in ids]]
    if manifest.group_column is not None:
        keys.append(table[manifest.group_column].tolist())
    return _Images(
        ids=ids,
        groups=_join(len(ids), keys),
        combinations=manifest.combinations().loc[ids.tolist()].to_numpy(dtype=object),
        classes=tuple((name, label) for name in labels for label in labels[name].classes),
        has=np.hstack([labels[name].indicator for name in labels]),
    )


def _join(n_rows: int, keys: Sequence[Sequence[Hashable]]) -> Integers:
    """Number rows so that two with an equal key, directly or through others, have one number."""
    parent = list(range(n_rows))

    def first(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for values in keys:
        row_of: dict[Hashable, int] = {}
        for row, value in enumerate(values):
            if value is not None:
                ends = first(row), first(row_of.setdefault(value, row))
                parent[max(ends)] = min(ends)
    firsts = [first(row) for row in range(n_rows)]
    return np.unique(firsts, return_inverse=True)[1].astype(np.int64)


def _new_split(
    images: _Images,
    parts: NDArray[np.object_],
    left_out: Bools,
    name: str,
    settings: SplitSettings,
    repeat: int,
    findings: Sequence[str],
) -> Split:
    kept = images.take(np.flatnonzero(~left_out))
    return Split(
        name=name,
        settings=settings,
        repeat=repeat,
        ids=kept.ids,
        parts=parts[~left_out],
        groups=kept.groups,
        left_out=tuple(images.ids[left_out]),
        findings=tuple(findings),
    )


def _stored_split(about: dict[str, Any]) -> Split:
    rows = [
        (image_id, part, group)
        for part in PARTS
        for image_id, group in about["group_of_image"][part].items()
    ]
    twice = [image_id for image_id, count in Counter(row[0] for row in rows).items() if count > 1]
    if twice:
        raise ValueError(f"image {twice[0]!r} is in several parts")
    ids, parts, groups = zip(*sorted(rows), strict=True)
    return Split(
        name=about["name"],
        settings=SplitSettings(**about["settings"]),
        repeat=about["repeat"],
        ids=np.array(ids, dtype=object),
        parts=np.array(parts, dtype=object),
        groups=np.array(groups, dtype=np.int64),
        left_out=tuple(about["left_out"]),
        findings=tuple(about["findings"]),
        number=about["number"],
    )


# Given splits and held-out combinations


def _given_split(images: _Images, given: NDArray[np.object_], asked: SplitSettings) -> Split:
    is_test = given == "test"
    left_out = ~is_test & np.isin(images.groups, images.groups[is_test])
    is_train = ~is_test & ~left_out
    findings = []
    if asked.test_size != SplitSettings.test_size:
        findings.append(f"The images come with a split: the test size {asked.test_size} is unused")
    if left_out.any():
        findings.append(
            f"{_count(images.ids[left_out])} of the given training part left out, belonging "
            f"together with test images: {_some(images.ids[left_out])}"
        )
    if not is_test.any():
        raise SplitError(
            "The given split has no test image that is labelled and readable: expected some. Mend "
            "them, or ask for another split, such as --repeats 2."
        )
    has_train, has_test = images.has[is_train].any(axis=0), images.has[is_test].any(axis=0)
    untrained = [images.classes[k] for k in np.flatnonzero(~has_train)]
    if untrained:
        attribute, label = untrained[0]
        raise SplitError(
            f"Class {label!r} of {attribute!r} has no training image in the given split: expected "
            "some of every class. Change its labels, or ask for another split, such as --repeats 2."
        )
    untested = [f"{label} ({attribute})" for attribute, label in images.classes]
    untested = [name for name, tested in zip(untested, has_test, strict=True) if not tested]
    if untested:
        findings.append(f"Classes without a test image in the given split: {_some(untested)}")
    # Settings play no role in a given split, so it is the same whatever they are.
    return _new_split(images, given, left_out, "given", SplitSettings(), 0, findings)


def _hold_out(images: _Images, names: tuple[str, ...]) -> tuple[Bools, Bools]:
    """Which images are of a held-out combination, and which others belong together with them."""
    known = {name for name in images.combinations if name is not None}
    for name in names:
        if name not in known:
            raise UnknownNameError("combination", name, known)
    unseen = np.array([combination in names for combination in images.combinations], dtype=bool)
    left_out = np.isin(images.groups, images.groups[unseen]) & ~unseen
    trained = images.has[~(unseen | left_out)].any(axis=0)
    for k in np.flatnonzero(images.has[unseen].any(axis=0) & ~trained):
        attribute, label = images.classes[k]
        raise SplitError(
            f"Holding out {', '.join(names)} leaves no image of the class {label!r} of "
            f"{attribute!r} to train on: expected it in other combinations too. Hold out fewer."
        )
    return unseen, left_out


def _refuse_rare_classes(images: _Images, settings: SplitSettings) -> None:
    n_groups = images.groups_have().sum(axis=0)
    rare = np.flatnonzero(n_groups < _MIN_GROUPS)
    if not len(rare):
        return
    attribute, label = images.classes[rare[0]]
    what = f"distinct values of {settings.group!r}" if settings.group else "distinct images"
    others = f" (other classes that have too few: {len(rare) - 1})" if len(rare) > 1 else ""
    raise SplitError(
        f"Class {label!r} of {attribute!r} has {n_groups[rare[0]]} readable {what} to divide, "
        f"expected at least {_MIN_GROUPS}{others}. Add images of it, join it with another class, "
        "or leave its label empty."
    )


# Drawing


def _draw_test(images: _Images, settings: SplitSettings, repeat: int) -> Bools:
    """Which images are drawn for the test."""
    rng = np.random.default_rng(np.random.SeedSequence([settings.seed, repeat]))
    have, sizes = images.groups_have(), np.bincount(images.groups)
    strata = _strata(have, settings.test_size)
    for _ in range(_MAX_DRAWS):
        order = rng.permutation(len(sizes))
        sides = _reserve(order, sizes, have)
        if sides is not None:
            _fill(sides, order, sizes, strata, settings.test_size)
            return (sides == _TEST)[images.groups]
    raise SplitError(
        f"No division of {len(images.ids)} images was found that has every class in training and "
        f"in test; {_MAX_DRAWS} were tried. Add images of the rarest classes, or try another seed."
    )


def _strata(have: Bools, test_size: float) -> Integers:
    """Stratum of each group: its classes, or if they are rare together, the rarest of them."""
    _, strata, counts = np.unique(have, axis=0, return_inverse=True, return_counts=True)
    strata = strata.reshape(-1)
    rarest = np.where(have, have.sum(axis=0), len(have) + 1).argmin(axis=1)
    pooled = np.where(counts[strata] < math.ceil(1 / test_size), -1 - rarest, strata)
    return np.unique(pooled, return_inverse=True)[1].astype(np.int64)


def _reserve(order: Integers, sizes: Integers, have: Bools) -> NDArray[np.int8] | None:
    """Sides with one group of each class in test and one in training, the others open.

    None if this order leads into a dead end, which takes many classes that share
    their few groups.
    """
    sides = np.full(len(sizes), _OPEN, dtype=np.int8)
    n_groups = have.sum(axis=0)
    # How many groups of each class are or may still come on a side.
    chances = {_TEST: n_groups.copy(), _TRAIN: n_groups.copy()}
    by_size = order[np.argsort(sizes[order], kind="stable")]
    for k in np.argsort(n_groups, kind="stable"):
        members = by_size[have[by_size, k]]
        # A small group in test and a large one in training leave the share free.
        for side, other, candidates in (
            (_TEST, _TRAIN, members),
            (_TRAIN, _TEST, members[::-1]),
        ):
            if (sides[members] == side).any():
                continue
            for group in candidates[sides[candidates] == _OPEN]:
                if (chances[other][have[group]] > 1).all():
                    sides[group] = side
                    chances[other][have[group]] -= 1
                    break
            else:
                return None
    return sides


def _fill(
    sides: NDArray[np.int8], order: Integers, sizes: Integers, strata: Integers, test_size: float
) -> None:
    """Add open groups to the test: the whole share of each stratum, then largest remainders."""
    in_test = sizes * (sides == _TEST)
    missing = test_size * sizes.sum() - in_test.sum()
    quotas = test_size * np.bincount(strata, sizes) - np.bincount(strata, in_test)
    quotas = np.maximum(quotas, 0)
    if quotas.sum() > max(missing, 0):
        # Rare strata had more reserved than their share: the others give way.
        quotas *= max(missing, 0) / quotas.sum()
    rank = np.zeros(len(quotas), dtype=np.int64)
    remaining = []
    for group in order[sides[order] == _OPEN]:
        stratum = strata[group]
        if sizes[group] <= quotas[stratum] + _ROUNDING:
            sides[group] = _TEST
            quotas[stratum] -= sizes[group]
            missing -= sizes[group]
        else:
            remaining.append((rank[stratum], stratum, group))
            rank[stratum] += 1
    for _, _, group in sorted(remaining, key=lambda place: (place[0], -quotas[place[1]])):
        if sizes[group] < 2 * missing - _ROUNDING:
            sides[group] = _TEST
            missing -= sizes[group]


# Words


def _name(settings: SplitSettings, repeat: int) -> str:
    """A readable name that is safe for files, and another one for other settings."""
    share = f"{100 * settings.test_size:g}"
    name = f"test{share}-seed{settings.seed}"
    if settings.hold_out:
        name += f"-without-{'+'.join(settings.hold_out)}"
    if settings.group:
        name += f"-by-{settings.group}"
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "_", name)[:_MAX_NAME]
    texts = [*settings.hold_out, settings.group or ""]
    is_ambiguous = any(re.search(r"\+|-by-|-repeat", text) for text in texts)
    if safe != name or is_ambiguous or float(share) / 100 != settings.test_size:
        exact = json.dumps(asdict(replace(settings, repeats=1)), sort_keys=True)
        safe += f"-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"
    return safe + (f"-repeat{repeat + 1}of{settings.repeats}" if settings.repeats > 1 else "")


def _count(ids: NDArray[np.object_]) -> str:
    return f"{len(ids)} image{'' if len(ids) == 1 else 's'}"


def _some(names: Sequence[str] | NDArray[np.object_]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
