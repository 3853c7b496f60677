"""Pictures of what a run gets wrong although it is sure, and right although it is not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.predictions import Predictions
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.charts import brief
from featurepipe.reports.page.thumbnails import Thumbnails
from featurepipe.reports.terminal_text import percent
from featurepipe.words import listed

NOTHING = "no label"

_MOST_CHARACTERS = 100


FindNearest = Callable[[Sequence[str]], Mapping[str, Sequence[tuple[str, str]]]]
"""The training images nearest to images, by their ids: id and classes in words, nearest first."""


@dataclass(frozen=True)
class NearPicture:
    """A training image near another one.

    Attributes
    ----------
    image_id, words : str
    uri : str or None
        As in `Picture`.
    """

    image_id: str
    words: str
    uri: str | None


@dataclass(frozen=True)
class Picture:
    """An image with what is said below it.

    Attributes
    ----------
    image_id : str
    uri : str or None
        Data URI of a thumbnail; None if the image is gone, or too many are shown.
    lines : tuple of (str, str)
        Heading and text of each line.
    is_held_out : bool
        Whether its combination of classes was held out.
    nearest : tuple of NearPicture
    """

    image_id: str
    uri: str | None
    lines: tuple[tuple[str, str], ...]
    is_held_out: bool
    nearest: tuple[NearPicture, ...] = ()


def surest_errors(judged: AttributePredictions, most: int) -> NDArray[np.intp]:
    """Positions of the wrong answers, the most confident first.

    Parameters
    ----------
    judged : AttributePredictions
    most : int
    """
    wrong = np.flatnonzero(~judged.right)
    return wrong[np.argsort(-judged.confidence[wrong], kind="stable")][:most]


def unsure_answers(judged: AttributePredictions, most: int) -> NDArray[np.intp]:
    """Positions of the right answers, the least confident first.

    Parameters
    ----------
    judged : AttributePredictions
    most : int
    """
    right = np.flatnonzero(judged.right)
    return right[np.argsort(judged.confidence[right], kind="stable")][:most]


def pictures_of(
    judged: AttributePredictions,
    rows: NDArray[np.intp],
    attribute: str,
    thumbnails: Thumbnails,
    find_nearest: FindNearest | None = None,
) -> tuple[Picture, ...]:
    """Pictures of some rows, with truth, prediction and confidence.

    Parameters
    ----------
    judged : AttributePredictions
        Of the attribute.
    rows : ndarray of shape (n_pictures,), intp
    attribute : str
    thumbnails : Thumbnails
    find_nearest : FindNearest, optional
        Default: the nearest training images are not shown.
    """
    chosen = judged.predictions.take(rows)
    near = {} if find_nearest is None else find_nearest([str(name) for name in chosen.ids])
    truths, answers = true_names(chosen, attribute), answer_names(chosen, attribute)
    return tuple(
        Picture(
            image_id=brief(str(image_id), _MOST_CHARACTERS),
            uri=thumbnails.of(str(image_id)),
            lines=(
                ("Truth", truth),
                ("Prediction", answer),
                ("Confidence", percent(confidence)),
            ),
            is_held_out=part == "unseen",
            nearest=tuple(
                NearPicture(brief(name, _MOST_CHARACTERS), words, thumbnails.of(name))
                for name, words in near.get(str(image_id), ())
            ),
        )
        for image_id, truth, answer, confidence, part in zip(
            chosen.ids, truths, answers, judged.confidence[rows], chosen.parts, strict=True
        )
    )


def true_names(predictions: Predictions, attribute: str) -> list[str]:
    """The true class or labels of each image, in words.

    Parameters
    ----------
    predictions : Predictions
    attribute : str
    """
    labels = predictions.labels[attribute]
    named = _names(labels.indicator, labels.classes)
    return [
        name if is_labelled else "unknown"
        for name, is_labelled in zip(named, labels.labelled, strict=True)
    ]


def answer_names(predictions: Predictions, attribute: str) -> list[str]:
    """The predicted class or labels of each image, in words.

    Parameters
    ----------
    predictions : Predictions
    attribute : str
    """
    labels = predictions.labels[attribute]
    if not labels.exclusive:
        return _names(predictions.given(attribute), labels.classes)
    codes = predictions.probabilities(attribute).argmax(axis=1)
    return [brief(labels.classes[code], _MOST_CHARACTERS) for code in codes]


def _names(has: NDArray[np.bool_], classes: Sequence[str]) -> list[str]:
    shown = [brief(name, _MOST_CHARACTERS) for name in classes]
    return [listed(shown[k] for k in np.flatnonzero(row)) or NOTHING for row in has]
