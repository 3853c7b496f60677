"""Images of a store are found by their ids, as bytes."""

import numpy as np
import pytest

from featurepipe.features.store import StoredImages

IDS = ["b/2.png", "a/1.png", "é/3.png", "a/10.png"]


@pytest.fixture
def images():
    """The images of rows 0, 1 and 2 of a store whose rows are in no order."""
    raw_ids = np.array([image_id.encode() for image_id in IDS])
    return StoredImages.of(raw_ids, np.array([0, 1, 2]))


def test_they_are_in_the_order_of_their_ids(images):
    assert [raw.decode() for raw in images.ids] == ["a/1.png", "b/2.png", "é/3.png"]
    assert images.rows.tolist() == [1, 0, 2]
    assert len(images) == 3


@pytest.mark.parametrize(
    ("ids", "places"),
    [
        (["é/3.png", "a/1.png", "b/2.png"], [2, 0, 1]),
        # One of another row, one that begins like an id, one that an id begins, one of none.
        (["a/10.png", "a/1", "é/3.png.png", ""], [-1, -1, -1, -1]),
        (["é/3.png" + "x" * 99, "z", "a/1.png"], [-1, -1, 0]),
        (["a/1\udce9.png", "\udce9/3.png", "a/1.png"], [-1, -1, 0]),
        (np.array(["b/2.png", "a/1.png", "b/2.png"]), [1, 0, 1]),
        (np.array(["a/2.png"], dtype=object), [-1]),
        ([], []),
    ],
)
def test_places(images, ids, places):
    assert images.places(ids).tolist() == places


def test_some_of_them(images):
    some = images.take(np.array([0, 2]))
    assert some.places(["a/1.png", "b/2.png", "é/3.png"]).tolist() == [0, -1, 1]
    assert some.rows.tolist() == [1, 2]


def test_a_store_without_images_has_none():
    none = StoredImages.of(np.array([b"a"]), np.empty(0, np.intp))
    assert none.places(["a", "b"]).tolist() == [-1, -1]
