"""Probes: generated pictures by which the features of two engines are compared.

float32 engines must agree within rounding. Reduced precision must not move the
features of an image by more than a small share of the distance between different
images: a share of their length, or a cosine, would say little, since features of
random weights all have nearly the same direction. Pixels, which are uint8, must be equal.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

N_PROBES = 8
FLOAT32_TOLERANCE = 1e-4
REDUCED_TOLERANCE = 0.03


def probe_images(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Generated pictures of waves, edges and grain, equal on every machine.

    Parameters
    ----------
    size : (int, int)
        Height and width.

    Returns
    -------
    ndarray of shape (N_PROBES, height, width, 3), uint8
    """
    return np.stack([_picture(number, size) for number in range(N_PROBES)])


def _picture(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    # Integers only: every processor computes them alike.
    y, x, channel = np.ogrid[: size[0], : size[1], :3]
    y, x = y * 256 // size[0], x * 256 // size[1]
    waves = np.abs(
        (x * (1 + number % 3) + y * (1 + number // 3) + 60 * channel * number) % 511 - 255
    )
    disc = (x - 128 + 20 * (number - 4)) ** 2 + (y - 128) ** 2 < (30 + 10 * number) ** 2
    bars = ((x // (9 + 3 * number) + channel * (number % 2)) % 2 == 0) & (y > 100)
    grain = (x * x * 7 + y * y * 13 + x * y * (number + 3)) % 37 - 18
    # As different as photographs are: dark and bright, flat and full of contrast.
    brightness, contrast = 30 + 200 * (number * 3 % 8) // 7, 1 + number * 5 % 8
    shade = brightness + contrast * ((waves - 128) // 2 + 90 * disc + 40 * bars + grain) // 5
    return np.clip(shade, 0, 255).astype(np.uint8)


def distance(features: NDArray[Any], reference: NDArray[Any], precision: str) -> float:
    """Distance of the features of the probes from a reference.

    Parameters
    ----------
    features, reference : ndarray of shape (N_PROBES, n_features), float32 or uint8
    precision : str
        Precision in which `features` were computed.

    Returns
    -------
    float
        ``float32``, ``uint8``: the largest ``||a - b|| / ||b||``. Else the median
        ``||a - b||`` as a share of the median distance between two pictures
        of the reference.
    """
    # In float32, since differences of uint8 would wrap around.
    errors = np.linalg.norm(np.subtract(features, reference, dtype=np.float32), axis=1)
    if precision in ("float32", "uint8"):
        return float((errors / np.linalg.norm(reference, axis=1)).max())
    return float(np.median(errors) / median_distance(reference))


def median_distance(features: NDArray[np.float32]) -> float:
    """Median distance between two different rows."""
    between = np.linalg.norm(features[:, None] - features[None], axis=-1)
    return float(np.median(between[np.triu_indices(len(features), k=1)]))


def tolerance(precision: str) -> float:
    """The largest `distance` at which two engines are considered equal."""
    return {"float32": FLOAT32_TOLERANCE, "uint8": 0.0}.get(precision, REDUCED_TOLERANCE)
