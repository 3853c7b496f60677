from dataclasses import replace

import pytest

from featurepipe.errors import WeightsError
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.store import WeightsKey
from featurepipe.workflows.moved_weights import recipes_now


def test_weights_that_are_gone_are_named(tmp_path):
    made = replace(make_recipe("mobilenet_v2", "random").key, weights=WeightsKey("file", "0" * 64))
    path = tmp_path / "mine.h5"

    with pytest.raises(WeightsError) as raised:
        recipes_now([(made, str(path))], ())

    assert str(raised.value) == (
        f"The weights of mobilenet_v2 are gone: there is no file {path}. Say where they are now "
        "with --weights mobilenet_v2=PATH."
    )
