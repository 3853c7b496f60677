"""A store key from another program: a clear error, whatever it holds."""

import json

import pytest

from featurepipe.errors import StoreError
from featurepipe.features.store.key import StoreKey
from run_infos import RECIPE


def changed(**fields):
    return json.dumps({**RECIPE.as_dict(), **fields})


def with_weights(**fields):
    return changed(weights={"kind": "random", **fields})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("null", "it is None"),
        ("[1]", "it is [1]"),
        ("{", "it is no JSON (EOF while parsing"),
        ("[" * 100_000, "it is no JSON (recursion limit exceeded"),
        ("9" * 5000, "it is no JSON (number out of range"),
        (changed(weights=None), "the field 'weights' is None"),
        (changed(weights=[]), "the field 'weights' is []"),
        (changed(backbone={"a": 1}), "the field 'backbone' is {'a': 1}"),
        (changed(view=None), "the field 'view' is None"),
        (changed(size_px=True), "the field 'size_px' is True"),
        (changed(size_px=8.0), "the field 'size_px' is 8.0"),
        (changed(size_px=0), "the field 'size_px' is 0"),
        (changed(size_px=10**9), "the field 'size_px' is 1000000000"),
        (changed(pooling=["x" * 99]), f"the field 'pooling' is ['{'x' * 58}…"),
        (with_weights(kind={}), "the field 'weights.kind' is {}"),
        (with_weights(seed=True), "the field 'weights.seed' is True"),
        (with_weights(seed=-1), "the field 'weights.seed' is -1"),
        (with_weights(seed=10**30), f"the field 'weights.seed' is {10**30}"),
        (with_weights(sha256=[]), "the field 'weights.sha256' is []"),
    ],
)
def test_the_wrong_field_is_named(text, said):
    with pytest.raises(StoreError) as caught:
        StoreKey.from_json(text, "a.h5")
    message = str(caught.value)
    assert message.startswith(f"a.h5 holds no valid store key: {said}"), message
    assert message.endswith("or extract the features again.")


def test_optional_fields_may_be_null():
    assert StoreKey.from_json(with_weights(seed=None), "a.h5").weights.seed is None
