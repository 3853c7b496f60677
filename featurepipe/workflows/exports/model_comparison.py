"""Comparison: whether a model answers for images as its run does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import ExportError
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.answers.rejection import conformal_p_values
from featurepipe.predictions import COVERAGE
from featurepipe.words import counted
from featurepipe.workflows.exports.exported_model import TOLERANCE, Answer, output_names

# Of a squared distance in float32: relative, and of rows of length 1 that are subtracted.
_RELATIVE, _ABSOLUTE = 2e-4, 4e-6


@dataclass(frozen=True)
class Expected:
    """What a run says of images.

    Attributes
    ----------
    scores : mapping of str to ndarray of shape (n_images, n_classes), float64
        For each attribute, as `HeadModel.predict` returns them.
    p_values : mapping of str to ndarray of shape (n_images,), float64
        For each attribute, as `HeadModel.image_p_values` returns them.
    """

    scores: Mapping[str, NDArray[np.float64]]
    p_values: Mapping[str, NDArray[np.float64]]

    def take(self, row: int) -> Self:
        """The same of one image."""
        return type(self)(
            {name: scores[[row]] for name, scores in self.scores.items()},
            {name: values[[row]] for name, values in self.p_values.items()},
        )


class Comparison:
    """Compares the answers of a model with those of its run, image by image.

    Probabilities are equal within `TOLERANCE`. Which classes are given, and whether there is an
    answer, are equal unless a difference of that size could decide them. P-values are ranks: they
    are those of probabilities and distances within rounding.

    Parameters
    ----------
    model : HeadModel

    Attributes
    ----------
    largest_difference : float
        Of a probability.
    n_undecided : int
        Answers that rounding decides.
    """

    def __init__(self, model: HeadModel) -> None:
        self._model = model
        self.largest_difference = 0.0
        self.n_undecided = 0
        self._n_images = 0
        self._problems: list[str] = []

    def add(self, image_id: str, answer: Answer, expected: Expected) -> None:
        """Compare what is answered for an image."""
        self._n_images += 1
        probabilities = self._model.in_words(expected.scores)
        for attribute, (_, wanted) in probabilities.items():
            names = output_names(attribute)
            got = answer[names["probabilities"]]
            difference = float(np.abs(got - wanted).max())
            # A comparison that fails for NaN, too.
            if not difference <= TOLERANCE:
                self._tell(image_id, attribute, f"a probability differs by {difference:.2e}")
            self.largest_difference = max(self.largest_difference, difference)
            undecided = self._is_near_tie(attribute, got) or self._is_near_limit(attribute, answer)
            self.n_undecided += undecided
            if undecided:
                continue
            low, high = self._p_bounds(attribute, answer)
            p_value = float(expected.p_values[attribute][0])
            if not low <= p_value <= high:
                self._tell(image_id, attribute, f"the p-value is not {p_value:.4f}")
            known = p_value > 1 - COVERAGE
            given = self._model.given(attribute, expected.scores[attribute]) & known
            if known != answer[names["known"]][0] or (given != answer[names["given"]]).any():
                self._tell(image_id, attribute, "the answer is another one")

    def is_undecided(self, answer: Answer) -> bool:
        """Whether rounding decides an answer for an image."""
        return any(
            self._is_near_tie(name, answer[output_names(name)["probabilities"]])
            or self._is_near_limit(name, answer)
            for name in self._model.classes
        )

    def require_equal(self, run: str, kind: str) -> None:
        """Stop if some answer differed.

        Parameters
        ----------
        run : str
            Its name.
        kind : str
            The kind of model, such as ``"ONNX"``.

        Raises
        ------
        ExportError
        """
        if self._problems:
            # It computes in single precision.
            advice = " If not, export to .onnx." if kind == "OpenVINO" else ""
            n_images = counted(self._n_images, "test image")
            raise ExportError(
                f"The {kind} model of {run} answers otherwise than the run: "
                f"{counted(self._problems, 'answer')} about {n_images} "
                f"{'differs' if len(self._problems) == 1 else 'differ'}, the first: "
                f"{self._problems[0]}. Nothing was written. If images changed since, extract and "
                f"fit again.{advice}"
            )

    def _tell(self, image_id: str, attribute: str, what: str) -> None:
        self._problems.append(f"{image_id}, {attribute}: {what}")

    def _is_near_tie(self, attribute: str, probabilities: NDArray[np.float32]) -> bool:
        row = probabilities[0].astype(np.float64)
        if self._model.exclusive[attribute]:
            second, first = np.sort(row)[-2:]
            return bool(first - second <= 2 * TOLERANCE)
        return bool((np.abs(row - self._model.thresholds[attribute]) <= TOLERANCE).any())

    def _is_near_limit(self, attribute: str, answer: Answer) -> bool:
        low, high = self._p_bounds(attribute, answer)
        return (low > 1 - COVERAGE) != (high > 1 - COVERAGE)

    def _p_bounds(self, attribute: str, answer: Answer) -> tuple[float, float]:
        """The lowest and highest p-value of an answer that differs by rounding alone."""
        model, names = self._model, output_names(attribute)
        probabilities = answer[names["probabilities"]].astype(np.float64)
        confidence = model.confidence(attribute, probabilities)
        # That of a set of labels is a product.
        n_factors = 1 if model.exclusive[attribute] else probabilities.shape[1]
        squared = np.square(answer[names["distance"]])
        room = _RELATIVE * squared + _ABSOLUTE
        bounds = []
        for sign in (1, -1):
            distance = np.sqrt(np.maximum(squared + sign * room, 0))
            p_value = model.rejectors[attribute].p_values_at(
                distance, confidence - sign * n_factors * TOLERANCE
            )
            bounds.append(
                float(conformal_p_values(model.lowest_p_values, p_value, model.group_size)[0])
            )
        return bounds[0], bounds[1]
