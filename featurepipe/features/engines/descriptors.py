"""Descriptors: features that NumPy computes without a network."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.engines.protocol import Engine, LocatedFeatures, LocatesFeatures
from featurepipe.features.headless import HeadlessNetwork

_N_HUES, _N_SATURATIONS, _N_VALUES = 16, 6, 6
_N_BINS = _N_HUES * _N_SATURATIONS * _N_VALUES
# Of the distance from the centre; 1 is the middle of an edge.
_CENTRE_DEVIATION = 0.5


class HsvHistogram(Engine, LocatesFeatures):
    """A histogram of colours, weighted towards the middle of the image.

    Hue, saturation and value of a pixel follow A. R. Smith, "Color Gamut Transform
    Pairs" (SIGGRAPH 1978). With `max` and `min` the largest and smallest of its red,
    green and blue in [0, 255], and `delta` their difference:

    ==========  ====================================================  =======
    hue         in turns: ((green - blue) / delta mod 6) / 6 where    16 bins
                red is `max`, ((blue - red) / delta + 2) / 6 where
                green is, ((red - green) / delta + 4) / 6 where blue
                is; 0 for greys
    saturation  delta / max; 0 for black                              6 bins
    value       max / 255                                             6 bins
    ==========  ====================================================  =======

    The interval [0, 1] of each is divided into equal bins; 1 itself is in the last.
    Feature ``(hue * 6 + saturation) * 6 + value`` is the square root of that bin's
    share of the weight of all pixels. The weight of a pixel is
    ``exp(-(x² + y²) / (2 * 0.5²))``, where x and y go from -1 to 1 across the
    image, since objects are mostly in the middle.

    Parameters
    ----------
    network : HeadlessNetwork
        Its pooling is ``avg``.

    Attributes
    ----------
    name : str
        ``"descriptors"``.
    versions : dict of str to str
        Version of NumPy.
    input_size : (int, int)
        Height and width of the images.
    n_features : int
        576.
    batch_size : int
        64.
    n_parallel : int
        1.
    """

    name = "descriptors"
    n_features = _N_BINS
    # Each is committed: a commit of few images takes longer than they do.
    batch_size = 64
    n_parallel = 1

    def __init__(self, network: HeadlessNetwork) -> None:
        self._pixel_weights = pixel_weights(network.size_px)
        self.versions = {"numpy": np.__version__}
        self.input_size = network.input_size
        self._worker = ThreadPoolExecutor(1, "descriptors")

    def start(self, images: NDArray[np.uint8]) -> Future[NDArray[np.float32]]:
        """Begin to compute the features of a batch; see `Engine`.

        The squares of each row sum to 1.
        """
        return self._worker.submit(self._compute, images)

    def locate(self, pictures: NDArray[np.uint8]) -> "LocatedColours":
        """The colours of pictures, pixel by pixel.

        Parameters
        ----------
        pictures : ndarray of shape (n_pictures, height, width, 3), uint8
        """
        bins = np.stack([_bin_colours(picture) for picture in pictures])
        return LocatedColours(bins.reshape(pictures.shape[:3]), self._pixel_weights)

    def _compute(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        shares = np.empty((len(images), self.n_features))
        # One by one: what is computed in between then stays in the processor's cache.
        for image, row in zip(images, shares, strict=True):
            row[:] = np.bincount(_bin_colours(image), self._pixel_weights, self.n_features)
        return np.sqrt(shares).astype(np.float32)


@dataclass(frozen=True)
class LocatedColours(LocatedFeatures):
    """Bins of the pixels of pictures.

    Attributes
    ----------
    bins : ndarray of shape (n_pictures, height, width), int16
    pixel_weights : ndarray of shape (height * width,), float64
        They sum to 1.
    """

    bins: NDArray[np.int16]
    pixel_weights: NDArray[np.float64]

    def evidence(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each pixel contributes; see `LocatedFeatures`.

        The pixels of a bin share what the bin contributes, by their weights: a feature is the
        square root of a sum, so that no pixel alone has a part in it.
        """
        return np.stack([self._of_picture(bins.ravel(), weights) for bins in self.bins]).reshape(
            self.bins.shape
        )

    def _of_picture(
        self, bins: NDArray[np.int16], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        shares = np.bincount(bins, self.pixel_weights, _N_BINS)
        # sqrt(share) * weight, a share of which falls to each pixel.
        per_weight = np.divide(weights, np.sqrt(shares), out=np.zeros(_N_BINS), where=shares > 0)
        return self.pixel_weights * per_weight[bins]


def pixel_weights(size: int) -> NDArray[np.float64]:
    """The weight of each pixel of an image; see `HsvHistogram`.

    Parameters
    ----------
    size : int
        Side of the image in pixels.

    Returns
    -------
    ndarray of shape (size * size,), float64
        They sum to 1.
    """
    position = (2 * np.arange(size) + 1) / size - 1
    along = np.exp(-(position**2) / (2 * _CENTRE_DEVIATION**2))
    weights = np.outer(along, along).ravel()
    return weights / weights.sum()


def _bin_colours(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Number of the bin of each pixel.

    Exact: a quotient of these integers that is no integer is at least 1 / 765
    off the next one, which is far more than single precision rounds by.
    """
    red, green, blue = image.reshape(-1, 3).T.astype(np.int16)
    high = np.maximum(np.maximum(red, green), blue)
    delta = high - np.minimum(np.minimum(red, green), blue)
    hue = _divide(8 * _sixth_turns(red, green, blue, high, delta), 3 * np.maximum(delta, 1))
    saturation = np.minimum(_divide(6 * delta, np.maximum(high, 1)), _N_SATURATIONS - 1)
    value = np.minimum(6 * high // 255, _N_VALUES - 1)
    return (hue * _N_SATURATIONS + saturation) * _N_VALUES + value


def _sixth_turns(
    red: NDArray[np.int16],
    green: NDArray[np.int16],
    blue: NDArray[np.int16],
    high: NDArray[np.int16],
    delta: NDArray[np.int16],
) -> NDArray[np.int16]:
    """Hue in sixths of a turn, times `delta`: an integer in [0, 6 * delta)."""
    from_red = green - blue
    from_red += 6 * delta * (from_red < 0)
    others = np.where(high == green, 2 * delta + blue - red, 4 * delta + red - green)
    return np.where(high == red, from_red, others)


def _divide(dividend: NDArray[np.int16], divisor: NDArray[np.int16]) -> NDArray[np.int16]:
    return np.divide(dividend, divisor, dtype=np.float32).astype(np.int16)
