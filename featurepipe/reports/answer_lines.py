"""Answers about an image in words, a line for each attribute."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from featurepipe.reports.lettering import spell

Answer = Sequence[Mapping[str, Any]]
"""Classes of each attribute, one attribute after the other and the most probable class first, with
``attribute, class, probability, given, unknown``; see `featurepipe.predict`."""


def by_attribute(answer: Answer) -> dict[str, Answer]:
    """The classes of each attribute.

    Parameters
    ----------
    answer : sequence of mapping
    """
    return {name: list(rows) for name, rows in groupby(answer, key=lambda best: best["attribute"])}


def answer_lines(answer: Answer, most: int | None = None) -> list[str]:
    """The answer to each attribute, a line each; see `answer_line`.

    Parameters
    ----------
    answer : sequence of mapping
    most : int, optional
    """
    return [answer_line(classes, most) for classes in by_attribute(answer).values()]


def answer_line(classes: Answer, most: int | None = None) -> str:
    """The answer to one attribute: the class, all labels that are given, or that it is unknown.

    Parameters
    ----------
    classes : sequence of mapping
        Of one attribute, at least one.
    most : int, optional
        Longer names are shortened to so many characters.

    Examples
    --------
    >>> red = {"attribute": "color", "class": "red", "probability": 0.951, "unknown": False}
    >>> answer_line([red | {"given": True}, red | {"class": "pink", "given": True}])
    'color: red 95 %, pink 95 %'
    >>> answer_line([red | {"given": False}])
    'color: none (red 95 %)'
    >>> answer_line([red | {"given": False, "unknown": True}])
    'color: unknown (red 95 %)'
    """
    best, attribute = classes[0], spell(classes[0]["attribute"], most)
    likely = f"({_share(best, most)})"
    if best["unknown"]:
        return f"{attribute}: unknown {likely}"
    given = [_share(label, most) for label in classes if label["given"]]
    return f"{attribute}: {', '.join(given) or f'none {likely}'}"


def _share(label: Mapping[str, Any], most: int | None) -> str:
    return f"{spell(label['class'], most)} {100 * label['probability']:.0f} %"
