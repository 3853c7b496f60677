"""Evidence: which places of an image its features come from, in pixels of that image."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.engines.descriptors import HsvHistogram
from featurepipe.features.engines.protocol import LocatedFeatures, LocatesFeatures
from featurepipe.features.extraction.decoding import decode_framed
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.features.extraction.views import View, find_view
from featurepipe.features.framing import Framing
from featurepipe.features.grids import spread


@dataclass(frozen=True)
class LocatedImage:
    """The features of an image, place by place.

    Attributes
    ----------
    located : LocatedFeatures
        Of its pictures, as the view shows them.
    view : View
    framing : Framing
    """

    located: LocatedFeatures
    view: View
    framing: Framing

    def grid(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each place of the framed image contributes to a weighted sum of its features.

        Parameters
        ----------
        weights : ndarray of shape (n_features,), float64

        Returns
        -------
        ndarray of shape (n_rows, n_columns), float64
            They sum to ``features @ weights``.
        """
        return self.view.place_back(self.located.evidence(weights), self.framing.size)

    def evidence(
        self, weights: NDArray[np.float64], image_size: tuple[int, int], size: tuple[int, int]
    ) -> NDArray[np.float64]:
        """The same for each pixel of the image at some size; 0 where it is cropped away.

        Parameters
        ----------
        weights : ndarray of shape (n_features,), float64
        image_size : (int, int)
            Height and width of the image in its file.
        size : (int, int)
            Height and width at which it is shown.

        Returns
        -------
        ndarray of shape (height, width), float64
            They sum to ``features @ weights``.
        """
        left, top, right, bottom = self.framing.box(image_size)
        y, x = size[0] / image_size[0], size[1] / image_size[1]
        box = (left * x, top * y, right * x, bottom * y)
        return spread(self.grid(weights), size, box, smooth=True)


class FeatureLocator:
    """Tells which places of images the features of a recipe come from.

    Parameters
    ----------
    recipe : Recipe
    opened : dict of Hashable to LocatesFeatures
        What was opened for other recipes; views of one network share it.

    Raises
    ------
    NotLinearError
        If its features are no sums over places.
    FeaturepipeError
        If its network cannot be loaded; see `featurepipe.errors`.
    """

    def __init__(self, recipe: Recipe, opened: dict[Hashable, LocatesFeatures]) -> None:
        self.recipe = recipe
        key = recipe.network, recipe.precision
        if key not in opened:
            opened[key] = _open(recipe)
        self._opened = opened[key]

    def locate(self, data: bytes) -> LocatedImage:
        """Compute the features of an image, place by place.

        Parameters
        ----------
        data : bytes
            As for `decode_image`.

        Raises
        ------
        ImageError
            As `decode_image`.
        """
        framing, view = self.recipe.framing, find_view(self.recipe.view)
        pixels = decode_framed(data, [framing], fast=self.recipe.fast_decode)[framing]
        return LocatedImage(self._opened.locate(view.apply(pixels[None])), view, framing)


def _open(recipe: Recipe) -> LocatesFeatures:
    if recipe.network.backbone.kind == "descriptor":
        return HsvHistogram(recipe.network)
    # Only here, since it imports OpenVINO.
    from featurepipe.features.engines.feature_maps import FeatureMaps

    return FeatureMaps(recipe.network, recipe.precision)
