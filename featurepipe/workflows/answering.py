"""How images are answered: the options of it, and what is said of one image."""

from collections.abc import Iterable, Mapping
from typing import Any

from featurepipe.errors import UnknownNameError, UsageError

COVERAGE_PER = ("image", "attribute")
"""What gets an answer at the target coverage: images to all attributes, or to each attribute."""

Answer = list[dict[str, Any]]
"""What is answered about one image: the best classes of each attribute."""


def answer_json(
    image: str | int, answer: Iterable[Mapping[Any, Any]], refused: str = ""
) -> dict[str, Any]:
    """What is said of one image, as `featurepipe predict --json` prints it.

    Parameters
    ----------
    image : str or int
        Its path, or its position.
    answer : iterable of mapping
        As `featurepipe.workflows.predictor.Predictor.answer`; other keys are left out.
    refused : str
        Why there is no answer.

    Returns
    -------
    dict
        ``image``, and ``refused`` or ``attributes``: for each attribute the best classes, the
        most probable first, each with ``class, probability, given, unknown``.
    """
    if refused:
        return {"image": image, "refused": refused}
    attributes: dict[str, list[dict[str, Any]]] = {}
    for best in answer:
        named = {name: best[name] for name in ("class", "probability", "given", "unknown")}
        attributes.setdefault(best["attribute"], []).append(named)
    return {"image": image, "attributes": attributes}


def check_answering(top: int, coverage: float, coverage_per: str) -> None:
    """Stop at an impossible way to answer; see `featurepipe.predict`.

    Raises
    ------
    UsageError
    UnknownNameError
        If there is no such `coverage_per`.
    """
    if top < 1:
        raise UsageError(f"--top is {top}. Set the number of classes to name, at least 1.")
    if not 0 < coverage <= 1:
        raise UsageError(f"--coverage is {coverage}. Set a share above 0 and up to 1.")
    if coverage_per not in COVERAGE_PER:
        raise UnknownNameError("--coverage-per", coverage_per, COVERAGE_PER)
