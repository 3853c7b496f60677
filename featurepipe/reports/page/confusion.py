"""Confusion: which classes are taken for which."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.charts import (
    WIDTH,
    Chart,
    Values,
    brief,
    count_cell,
    name_cell,
    named,
    share_cell,
)
from featurepipe.reports.page.svg import drawing, text
from featurepipe.reports.plot_text import text_width
from featurepipe.reports.terminal_text import count, percent
from featurepipe.words import counted, visible

MOST_CLASSES = 120
MOST_PAIRS = 15

_WIDEST_NAME_PX = 150.0
_READABLE_PX = 22.0
"""Cells of this size hold their count."""


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that are taken for another.

    Attributes
    ----------
    truth, answer : str
        Names of the classes.
    n_images : int
    share : float
        Of the class's images.
    """

    truth: str
    answer: str
    n_images: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of an exclusive attribute.

    Attributes
    ----------
    classes : tuple of str
        Those that are true or predicted, at most `MOST_CLASSES` of them with the most errors,
        ordered so that classes that are confused stand together.
    counts : ndarray of shape (n_classes, n_classes), intp
        Images by true class (row) and predicted class (column).
    pairs : tuple of ConfusedPair
        The most confused, at most `MOST_PAIRS`, over all classes.
    n_pairs : int
        All pairs that are confused.
    n_left_out : int
        Classes without a row.
    n_right, n_images : int
    """

    classes: tuple[str, ...]
    counts: NDArray[np.intp]
    pairs: tuple[ConfusedPair, ...]
    n_pairs: int
    n_left_out: int
    n_right: int
    n_images: int


def confusion_of(judged: AttributePredictions, attribute: str) -> Confusion:
    """Count the predictions by true and predicted class.

    Parameters
    ----------
    judged : AttributePredictions
        Of an exclusive attribute; at least one image.
    attribute : str
    """
    labels = judged.predictions.labels[attribute]
    names, n_classes = np.array(labels.classes, object), len(labels.classes)
    answers = judged.predictions.probabilities(attribute).argmax(axis=1)
    cells = np.bincount(labels.codes * n_classes + answers, minlength=n_classes**2)
    counts = cells.reshape(n_classes, n_classes)
    wrong = counts - np.diag(np.diag(counts))
    present = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    n_wrong = (wrong.sum(axis=0) + wrong.sum(axis=1))[present]
    kept = np.sort(present[np.argsort(-n_wrong, kind="stable")[:MOST_CLASSES]])
    kept = kept[confused_together(counts[np.ix_(kept, kept)])]
    return Confusion(
        classes=tuple(names[kept]),
        counts=counts[np.ix_(kept, kept)],
        pairs=_pairs(wrong, counts.sum(axis=1), labels.classes),
        n_pairs=int((wrong > 0).sum()),
        n_left_out=len(present) - len(kept),
        n_right=int(np.trace(counts)),
        n_images=int(counts.sum()),
    )


def confused_together(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """An order of classes in which those that are confused stand together.

    Hierarchical clustering (average linkage) of the shares of each class that are taken for the
    other, both ways, with the leaves in optimal order (Bar-Joseph, Gifford & Jaakkola 2001, Fast
    optimal leaf ordering for hierarchical clustering).

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes), intp
        A confusion matrix.

    Returns
    -------
    ndarray of shape (n_classes,), intp
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    likeness = (shares + shares.T) / 2
    np.fill_diagonal(likeness, 0)
    if len(counts) < 3 or not likeness.any():
        return np.arange(len(counts))
    distances = likeness.max() - likeness
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average", optimal_ordering=True)
    return leaves_list(tree).astype(np.intp)


def confusion_chart(confusion: Confusion) -> Chart:
    """Draw a confusion matrix; its values are the most confused pairs.

    Parameters
    ----------
    confusion : Confusion
    """
    said = (
        f"{count(confusion.n_right)} of {counted(confusion.n_images, 'image')} are right, on the "
        "diagonal."
    )
    if confusion.pairs:
        worst = confusion.pairs[0]
        said += (
            f" The most common error: {brief(worst.truth)} taken for {brief(worst.answer)}, "
            f"{counted(worst.n_images, 'image')}."
        )
    caption = (
        f"{said} Rows are true classes, columns are predictions. Classes that are often confused "
        "stand together."
    )
    if confusion.n_left_out:
        caption += (
            f" {counted(confusion.n_left_out, 'class', 'classes')} with fewer errors are not shown."
        )
    width, drawn = _drawn(confusion, said)
    return Chart(
        "Confusion matrix",
        drawn,
        caption,
        _values(confusion),
        is_wide=width > WIDTH,
        values_heading="Most confused classes",
    )


def _pairs(
    wrong: NDArray[np.intp], n_true: NDArray[np.intp], classes: tuple[str, ...]
) -> tuple[ConfusedPair, ...]:
    truths, answers = np.nonzero(wrong)
    n_images = wrong[truths, answers]
    shares = n_images / n_true[truths]
    order = np.lexsort((-shares, -n_images))[:MOST_PAIRS]
    return tuple(
        ConfusedPair(
            classes[truths[at]], classes[answers[at]], int(n_images[at]), float(shares[at])
        )
        for at in order
    )


def _values(confusion: Confusion) -> Values:
    rows = tuple(
        (
            name_cell(brief(pair.truth)),
            name_cell(brief(pair.answer)),
            count_cell(pair.n_images),
            share_cell(pair.share),
        )
        for pair in confusion.pairs
    )
    more = confusion.n_pairs - len(rows)
    caption = f"{counted(more, 'more pair')} with fewer images not listed." if more else ""
    return Values(("Truth", "Prediction", "Images", "Of the class"), rows, caption)


def _drawn(confusion: Confusion, said: str) -> tuple[float, Markup]:
    """Width and drawing."""
    n = len(confusion.classes)
    cell = float(np.clip(540 // n, 9, 40))
    size_px = 12 if cell >= 14 else 9
    widest = 1.08 * max(text_width(visible(name), size_px) for name in confusion.classes)
    names_px = float(np.ceil(min(widest, _WIDEST_NAME_PX))) + 6
    left, top = max(names_px, 44.0) + 8, names_px + 22
    end = cell * n
    parts = [
        text(left, 12, "Prediction", css="quiet"),
        text(0, top - 8, "Truth", css="quiet"),
        _grid(left, top, cell, n),
    ]
    for number, name in enumerate(confusion.classes):
        middle = (number + 0.5) * cell + 0.35 * size_px
        parts.append(named(left - 5, top + middle, name, names_px, size_px=size_px, anchor="end"))
        parts.append(named(left + middle, top - 5, name, names_px, size_px=size_px, upwards=True))
    parts += _cells(confusion, left, top, cell)
    width, height = left + end + 4, top + end + 4
    return width, drawing(width, height, f"Confusion matrix. {said}", parts)


def _grid(left: float, top: float, cell: float, n: int) -> Markup:
    """A line a class, or one for every fifth of many."""
    step = 1 if n <= 40 else 5
    edges = [*range(0, n, step), n]
    end = cell * n
    path = "".join(
        f"M{left:g} {top + cell * edge:g}h{end:g}M{left + cell * edge:g} {top:g}v{end:g}"
        for edge in edges
    )
    return Markup('<path class="grid" d="{}"/>').format(path)


def _cells(confusion: Confusion, left: float, top: float, cell: float) -> list[Markup]:
    counts = confusion.counts
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [brief(name, 40) for name in confusion.classes]
    totals = counts.sum(axis=1)
    # The most confused pair has the full colour.
    worst = (shares - np.diag(np.diag(shares))).max()
    side, parts = cell - 1, []
    for row, column in np.argwhere(counts > 0):
        is_right, share = row == column, shares[row, column]
        opacity = 0.15 + 0.75 * share if is_right else 0.2 + 0.8 * np.sqrt(share / worst)
        x, y = left + cell * column + 0.5, top + cell * row + 0.5
        title = (
            f"{names[row]} → {names[column]}: {count(counts[row, column])} of "
            f"{count(totals[row])} ({percent(share)})"
        )
        parts.append(
            Markup(
                '<path class="{}" fill-opacity="{:.2f}" d="M{:g} {:g}h{:g}v{:g}h-{:g}z">'
                "<title>{}</title></path>"
            ).format("right" if is_right else "wrong", opacity, x, y, side, side, side, title)
        )
        if cell >= _READABLE_PX and text_width(f"{counts[row, column]}", 11) < cell:
            parts.append(
                Markup('<text class="count" x="{:g}" y="{:g}">{}</text>').format(
                    x + side / 2, y + side / 2 + 4, counts[row, column]
                )
            )
    return parts
