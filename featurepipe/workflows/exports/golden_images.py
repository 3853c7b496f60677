"""GoldenImages: test images, made smaller, with the answers by which a model is checked."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurepipe.models.answers.head_model import HeadModel
from featurepipe.workflows.exports.exported_model import (
    CONTINUOUS,
    DECIDED,
    PIXELS,
    Answer,
    ExportedModel,
    output_names,
)
from featurepipe.workflows.exports.model_comparison import Comparison

_N_GOLDEN = 16
_GOLDEN_SIDE_PX = 256


class GoldenImages:
    """Test images for the golden file: of as many different answers as possible.

    Parameters
    ----------
    model : HeadModel
    """

    def __init__(self, model: HeadModel) -> None:
        self._comparison = Comparison(model)
        self._attributes = list(model.classes)
        self._first: dict[tuple[Any, ...], Image.Image] = {}
        self._others: list[Image.Image] = []

    def consider(self, picture: Image.Image, answer: Answer) -> None:
        """Keep a picture, made smaller, if it is one of the first, or of a new kind of answer."""
        kind = tuple(
            (answer[f"{name}_probabilities"].argmax(), bool(answer[f"{name}_known"][0]))
            for name in self._attributes
        )
        is_new = kind not in self._first
        kept = self._first if is_new else self._others
        if len(kept) >= _N_GOLDEN:
            return
        small = picture.copy()
        small.thumbnail((_GOLDEN_SIDE_PX, _GOLDEN_SIDE_PX))
        if is_new:
            self._first[kind] = small
        else:
            self._others.append(small)

    def answers(self, model: ExportedModel) -> dict[str, NDArray[Any]]:
        """The arrays of the golden file: of each image its pixels and the outputs for them.

        Images whose answer rounding decides come last, and have probabilities alone: another
        machine may decide otherwise.
        """
        found: list[tuple[bool, NDArray[np.uint8], Answer]] = []
        for picture in [*self._first.values(), *self._others]:
            pixels = np.array(picture)
            answer = model.answer(pixels[None])
            found.append((self._comparison.is_undecided(answer), pixels, answer))
        found.sort(key=lambda one: one[0])
        arrays: dict[str, NDArray[Any]] = {}
        for number, (is_undecided, pixels, answer) in enumerate(found[:_N_GOLDEN]):
            arrays[f"{PIXELS}_{number}"] = pixels
            kinds = CONTINUOUS if is_undecided else (*CONTINUOUS, *DECIDED)
            for attribute in self._attributes:
                names = [output_names(attribute)[kind] for kind in kinds]
                arrays |= {f"{name}_{number}": answer[name][0] for name in names}
        return arrays
