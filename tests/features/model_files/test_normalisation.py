import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurepipe.features.model_files.normalisation import Normalisation

above_0 = st.floats(min_value=1e-9, max_value=1e9)
three = st.tuples(*[st.floats(-1e9, 1e9)] * 3)


@given(above_0, three, st.tuples(above_0, above_0, above_0), st.sampled_from(["rgb", "bgr"]))
def test_a_text_gives_the_same_numbers_again(scale, mean, std, channels):
    given = Normalisation(scale, mean, std, channels)
    assert Normalisation.from_text(given.text) == given


def test_texts_of_a_store_s_key():
    assert Normalisation().text == "none"
    assert Normalisation.from_text("none") == Normalisation()
    assert Normalisation(channels="bgr").text == (
        "scale=1.0 mean=0.0,0.0,0.0 std=1.0,1.0,1.0 channels=bgr"
    )


ONES = "1.0,1.0,1.0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "torch",
        f"scale=1.0 mean={ONES} std={ONES}",
        f"scale=1.0 mean={ONES} std={ONES} channels=grey",
        f"scale=1.0 mean=1.0,1.0 std={ONES} channels=rgb",
        f"scale=1.0 mean={ONES},1.0 std={ONES} channels=rgb",
        f"scale=1 mean={ONES} std={ONES} channels=rgb",
        f"scale=1.0  mean={ONES} std={ONES} channels=rgb",
        f"mean={ONES} scale=1.0 std={ONES} channels=rgb",
        f"scale=0.0 mean={ONES} std={ONES} channels=rgb",
        f"scale=nan mean={ONES} std={ONES} channels=rgb",
        f"scale=1.0 mean={ONES} std=1.0,0.0,1.0 channels=rgb",
        f"scale=1.0 mean=inf,1.0,1.0 std={ONES} channels=rgb",
    ],
)
def test_what_is_no_such_text_is_refused(text):
    with pytest.raises(ValueError):
        Normalisation.from_text(text)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_impossible_numbers(wrong):
    assert not Normalisation(scale=wrong).is_possible()
    assert not Normalisation(std=(1.0, wrong, 1.0)).is_possible()
    assert Normalisation(mean=(-1.0, 0.0, 5.0)).is_possible()
