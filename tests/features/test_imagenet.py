"""Names are recognised whole, in either number and any spelling of their gaps."""

import pytest

from featurepipe.features.imagenet import imagenet_classes_among


@pytest.mark.parametrize(
    "name",
    ["tench", "Tinca tinca", "Golden_Retriever", "golden-retrievers", "t-shirt", "TShirts",
     "daisies", "blue jeans", "jack-o'-lantern", "sunglasses", "paintbrushes", "n01440764",
     "minibus", "minibuses", "matchsticks", "churches", "hatchets", "abacus", "foxes", "backpack"],
)  # fmt: skip
def test_classes_of_imagenet_are_known(name):
    expected = [] if name == "foxes" else [name]
    assert imagenet_classes_among([name]) == expected


def test_parts_of_names_are_not_enough():
    names = ["retriever", "goldenretrieverish", "dress", "black", "shirt", "es", "", "blue", "red"]
    assert imagenet_classes_among(names) == []


def test_the_order_of_the_names_is_kept():
    assert imagenet_classes_among(["zebra", "dress", "ant"]) == ["zebra", "ant"]
