"""The budget of memory: threads share it, and large images are decoded one after the other."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from featurepipe.errors import ImageError
from featurepipe.features.extraction import decoding
from featurepipe.features.extraction.image_headers import MAX_BYTES
from featurepipe.features.extraction.memory_budget import MemoryBudget, count_cpus

N_THREADS = 6


def png(side):
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("budget_of_images", "most"), [(0.5, 1), (1, 1), (1.9, 1), (2.9, 2), (3, 3), (99, 6)]
)
def test_images_share_the_budget(monkeypatch, budget_of_images, most):
    # 8 bytes for each of 40 x 40 pixels.
    monkeypatch.setattr(decoding, "MEMORY", MemoryBudget(int(budget_of_images * 8 * 40 * 40)))
    running, seen, lock = set(), [], threading.Lock()
    load, meeting = decoding._load, threading.Barrier(most)

    def watched(image, data):
        with lock:
            running.add(threading.get_ident())
            seen.append(len(running))
        # Fails unless so many threads decode at once.
        meeting.wait(60)
        with lock:
            running.discard(threading.get_ident())
        return load(image, data)

    monkeypatch.setattr(decoding, "_load", watched)
    with ThreadPoolExecutor(N_THREADS) as pool:
        decoded = pool.map(lambda data: decoding.decode_image(data, (2, 2)), [png(40)] * N_THREADS)
        for pixels in decoded:
            np.testing.assert_array_equal(pixels[0, 0], [255, 0, 0])
    assert max(seen) == most


def test_a_share_returns_after_an_error(monkeypatch):
    monkeypatch.setattr(decoding, "MEMORY", MemoryBudget(1))
    for _ in range(2):
        with pytest.raises(ImageError, match="truncated"):
            decoding.decode_image(png(40)[:60], (2, 2))
    with decoding.MEMORY.take(1):
        pass


def test_the_largest_image_fits_and_ordinary_ones_never_wait():
    photograph = 25_000_000
    assert decoding.MEMORY.n_bytes >= MAX_BYTES
    assert decoding.MEMORY.n_bytes >= count_cpus() * photograph * 10
