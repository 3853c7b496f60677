"""Pictures for engines, and how far features lie from what is expected."""

import io

import numpy as np
import pytest
from PIL import Image

from featurepipe.features.extraction.decoding import decode_image

keras = pytest.importorskip("keras")


def picture(seed, width, height, file_format):
    """Bytes of a generated colour picture: smooth shapes and some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


PICTURES = [picture(0, 320, 200, "JPEG"), picture(1, 90, 130, "PNG"), picture(2, 500, 480, "JPEG")]


def decode(files, size):
    return np.stack([decode_image(data, (size, size)) for data in files])


def distances(features, expected):
    return np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)
