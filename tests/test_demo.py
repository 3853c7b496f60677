import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
from draw_garments import HALF_OUTLINES, SHADES, draw_garment


@pytest.mark.parametrize("category", [*HALF_OUTLINES, "shoe"])
def test_garments_vary_and_are_the_same_for_a_seed(category):
    def drawn(color, seed):
        return np.asarray(draw_garment(category, color, np.random.default_rng(seed)), int)

    assert (drawn("red", 0) == drawn("red", 0)).all()
    assert np.abs(drawn("red", 0) - drawn("red", 1)).mean() > 5


@pytest.mark.parametrize("color", SHADES)
def test_garments_have_their_colour(color):
    pictures = [
        np.asarray(draw_garment("dress", color, np.random.default_rng(seed)), float)
        for seed in range(5)
    ]
    middle = np.mean([picture[130:170, 100:140].mean(axis=(0, 1)) for picture in pictures], axis=0)
    nearest = min(SHADES, key=lambda name: np.abs(middle - SHADES[name]).sum())
    assert nearest == color
