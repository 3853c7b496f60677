import hashlib

import numpy as np
import pytest

from featurepipe.runs.fitted_on import split_sha256
from featurepipe.splits import Split, SplitSettings


@pytest.mark.parametrize("n_images", [1, 10_000, 10_001, 25_000])
def test_the_digest_of_a_split_is_that_of_its_three_lists(n_images):
    ids = np.array([f"it's/{row}.jpg" for row in range(n_images)], dtype=object)
    parts = np.array(["train", "test"] * n_images, dtype=object)[:n_images]
    split = Split("split", SplitSettings(), 0, ids, parts, np.arange(n_images))
    text = repr([ids.tolist(), parts.tolist(), list(range(n_images))])
    assert split_sha256(split) == hashlib.sha256(text.encode()).hexdigest()
