"""Presets without their libraries; with them, see tests/features/engines."""

import importlib.util

import pytest

import featurepipe
from featurepipe.errors import UsageError
from featurepipe.features.engines import conversion_process
from featurepipe.features.extraction.file_recipe import FileOptions
from featurepipe.features.extraction.recipe import make_recipe, repeat_recipe
from featurepipe.features.model_files.model_preset import ModelPreset, is_preset
from pictures import draw_data_set
from refusals import content

FACTS = {
    "sha256": "5" * 64,
    "library": "timm 1.0",
    "licence": "cc-by-nc-4.0",
    "preprocessing": {
        "source": "timm 1.0", "size_px": 96, "resize": "shorter-side+crop", "crop_pct": 0.75,
        "interpolation": "bicubic", "scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "prefix_tokens": 5,
    },
}  # fmt: skip


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What the other process was asked; its answer is `FACTS`."""
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path / "cache"))
    asked = []

    def answer(task, name, advice, **arguments):
        asked.append((task, arguments))
        return FACTS

    monkeypatch.setattr(conversion_process, "run_conversion", answer)
    return asked


def refused(*given, **options):
    with pytest.raises(UsageError) as error:
        make_recipe(*given, **options)
    return str(error.value)


def test_which_names_are_presets():
    assert is_preset("timm:resnet18.a1_in1k") and is_preset("keras-hub:hf://keras/vit")
    assert not is_preset("timm") and not is_preset("folder/timm:x.onnx") and not is_preset("vgg16")


def test_what_the_library_says_is_kept_and_decides(asked):
    recipe = make_recipe("timm:some.net", pooling="mean")
    key = recipe.key
    assert asked == [("inspect_preset", {"source": "timm:some.net"})]
    assert (key.backbone, key.size_px, key.resize) == (
        "timm:some.net",
        96,
        "pillow-bicubic-crop-128",
    )
    assert key.preprocessing.endswith(" mean=0.5,0.4,0.3 std=1.0,1.0,1.0 channels=rgb")
    assert (key.prefix_tokens, key.weights.kind, key.weights.sha256) == (5, "preset", "5" * 64)
    assert recipe.origin == {"weights_label": "some.net", "weights_source": "timm:some.net"}
    assert recipe.network.backbone.licence == "cc-by-nc-4.0"
    assert recipe.store_name == "timm_some.net-55555555-96-mean-rgb"
    repeated = repeat_recipe(key, "timm:some.net")
    assert (repeated.key, repeated.network) == (key, recipe.network)
    assert len(asked) == 1


def test_what_a_person_says_comes_first(asked):
    said = FileOptions({"std": 0.5, "resize": "squash"})
    key = make_recipe("keras-hub:net", size_px=64, of_file=said).key
    assert (key.size_px, key.resize) == (64, "pillow-bicubic")
    assert " mean=0.5,0.4,0.3 std=0.5,0.5,0.5 " in key.preprocessing


@pytest.mark.parametrize("library", ["timm:local-dir", "keras-hub"])
def test_a_folder_is_looked_at_again_when_it_changes(tmp_path, asked, library):
    folder = tmp_path / "my net"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    preset = ModelPreset.open(f"{library}:{folder}")
    assert preset.name == f"{library.partition(':')[0]}:my net"
    assert preset.source == f"{library}:{folder}"
    ModelPreset.open(preset.source)
    assert len(asked) == 1
    (folder / "config.json").write_text("[]")
    ModelPreset.open(preset.source)
    assert len(asked) == 2


def test_impossible_presets(asked):
    assert "'timm:' names no network" in refused("timm:")
    assert "There is no folder '/nowhere'" in refused("timm:local-dir:/nowhere")
    assert "Omit --engine keras" in refused("timm:net", engine="keras")
    assert "--output applies to networks in files" in refused(
        "timm:net", of_file=FileOptions(output="features")
    )


@pytest.mark.parametrize("library, module", [("timm", "timm"), ("keras-hub", "keras_hub")])
def test_a_library_that_is_not_installed(tmp_path, library, module):
    if importlib.util.find_spec(module) is not None:
        pytest.skip(f"{library} is installed")
    draw_data_set(tmp_path / "dataset", n_each=1)
    before = content(tmp_path)
    with pytest.raises(UsageError, match=rf"pip install 'featurepipe\[{library}\]'"):
        featurepipe.extract(tmp_path / "dataset", backbone=f"{library}:net", workspace=tmp_path)
    assert content(tmp_path) == before
