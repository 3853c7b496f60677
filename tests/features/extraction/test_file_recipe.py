"""The network of a file, as a key says it; the key may come from anyone."""

from dataclasses import replace

import pytest

from featurepipe.errors import FeaturepipeError, StoreMismatchError, UnknownNameError
from featurepipe.features.extraction.file_recipe import FileOptions
from featurepipe.features.extraction.recipe import make_recipe, repeat_recipe
from model_graphs import Graph

SIDE = 16


@pytest.fixture
def path(tmp_path):
    graph = Graph(("n", 3, "h", "w"))
    return graph.save(tmp_path / "small.onnx", graph.tokens(), graph.vector())


def recipe_of(path, output, pooling):
    said = {"mean": 0.5, "resize": "shorter-side+crop", "crop_pct": 0.8, "channels": "bgr"}
    given = FileOptions(said, output, 2)
    return make_recipe(str(path), size_px=SIDE, pooling=pooling, view="grey", of_file=given)


def test_a_key_gives_the_same_recipe_again(path):
    recipe = recipe_of(path, "node3", "cls+mean")
    key = recipe.key
    assert (key.output, key.prefix_tokens, key.pooling) == ("node3", 2, "cls+mean")
    assert key.resize == "pillow-bilinear-crop-20"
    again = repeat_recipe(key, str(path))
    assert again.key == key
    assert again.network.graph == recipe.network.graph
    # Wherever the file lies, and whatever it is called.
    renamed = path.rename(path.with_name("other.onnx"))
    assert repeat_recipe(key, str(renamed)).key == key


def test_whatever_decides_features_is_in_the_key(path):
    recipe = recipe_of(path, "node3", "mean")
    others = [recipe_of(path, "node4", "mean"), recipe_of(path, "node3", "cls")]
    others.append(make_recipe(str(path), size_px=SIDE, of_file=FileOptions("none", "node3", 2)))
    others.append(make_recipe(str(path), size_px=20, of_file=FileOptions("none", "node3", 2)))
    keys = {other.key.to_json() for other in (recipe, *others)}
    assert len(keys) == 5


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"preprocessing": "torch"}, StoreMismatchError, "made with the preprocessing 'torch'"),
        ({"preprocessing": "scale=0.0 mean=0"}, StoreMismatchError, "Extract them again."),
        ({"resize": "pillow-bilinear-crop-3"}, UnknownNameError, "Unknown resizing"),
        ({"resize": "opencv-area"}, UnknownNameError, "Unknown resizing"),
    ],
)
def test_keys_that_say_what_is_impossible(path, change, error, message):
    key = replace(recipe_of(path, "node3", "cls").key, **change)
    with pytest.raises(error, match=message):
        repeat_recipe(key, str(path))


def test_another_file_is_refused(path):
    key = recipe_of(path, "node3", "cls").key
    graph = Graph(("n", 3, "h", "w"))
    graph.save(path, graph.vector())
    with pytest.raises(StoreMismatchError, match="sha256"):
        repeat_recipe(key, str(path))
    with pytest.raises(FeaturepipeError, match="There is no network at"):
        repeat_recipe(key, str(path.with_name("absent.onnx")))


@pytest.mark.parametrize("name", ["../../elsewhere", "/tmp/elsewhere", "a/b", "\x1b[31m"])
def test_a_name_leads_to_no_other_folder_of_the_cache(path, name, tmp_path, monkeypatch):
    key = replace(recipe_of(path, "node3", "cls").key, backbone=name)
    network = repeat_recipe(key, str(path)).network
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path / "cache"))
    file = network.cache_file("graphs", ".xml")
    assert file.parent == tmp_path / "cache" / "graphs"
    assert file.name.isprintable()
