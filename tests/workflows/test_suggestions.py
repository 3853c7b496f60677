"""How much an image counts, and what is said about it."""

from dataclasses import replace

import numpy as np
import pytest

from featurepipe.workflows.suggestions import Suggestions


@pytest.fixture
def suggestions():
    return Suggestions(
        cells={
            "color": [("red",), ("blue",), ("red",)],
            "kind": [("dress",), ("dress",), ("shirt",)],
        },
        classes={"color": ("blue", "red"), "kind": ("dress", "shirt")},
        exclusive={"color": True, "kind": True},
        probabilities={
            "color": np.array([[0.41, 0.59], [1, 0], [0.1, 0.9]]),
            "kind": np.array([[0.7, 0.3], [0.6, 0.4], [0.5, 0.5]]),
        },
        doubts=np.array([[0.82, 0, 0.2], [0.6, 0.8, 1]]),
        n_labelled={"red_dress": 3, "blue_dress": 1},
    )


def test_doubt_counts_less_where_many_images_of_the_combination_are_labelled(suggestions):
    assert suggestions.weights == pytest.approx([0.82 / 4, 0.8 / 2, 1])


def test_the_reason_names_the_least_sure_attribute_and_a_missing_combination(suggestions):
    assert suggestions.reason(0, 0) == "least sure of color (red 59 %, blue 41 %)"
    assert suggestions.reason(1, 1) == (
        "least sure of kind (dress 60 %, shirt 40 %); nearest to 1 other image"
    )
    assert suggestions.reason(2, 1200) == (
        "least sure of kind (dress 50 %, shirt 50 %); nearest to 1,200 other images; "
        "no image of red_shirt has a label"
    )


def test_no_percentage_of_certainty_is_called_unsure(suggestions):
    sure = {"color": np.array([[0.001, 0.999]]), "kind": np.array([[0.999, 0.001]])}
    certain = replace(suggestions, probabilities=sure, doubts=np.array([[0.002], [0.002]]))
    assert certain.reason(0, 7) == "sure of every attribute; nearest to 7 other images"
