"""Networks as files: what is saved, what is loaded, and what is refused."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest

from featurepipe.errors import RunError
from featurepipe.features.backbones import BACKBONES, find_backbone
from featurepipe.models.networks.saved import SavedNetwork
from small_networks import (
    GARMENTS,
    LITTLE,
    PX,
    TINY_PX,
    TINY_WIDTH,
    build,
    build_tiny,
    images,
)

keras = pytest.importorskip("keras")

from featurepipe.features.engines.keras_engine import preprocess  # noqa: E402
from featurepipe.models.networks.layers import build_augmentation  # noqa: E402
from featurepipe.models.networks.trained import (  # noqa: E402
    TrainedNetwork,
    require_known_classes,
)

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
]


@pytest.fixture(scope="module")
def fashionnet():
    return build("fashionnet")


@pytest.fixture(scope="module")
def tiny():
    return build_tiny()


def save(network, tmp_path):
    path = tmp_path / "run-7" / "network.keras"
    path.parent.mkdir(exist_ok=True)
    network.model.save(path)
    return path


def outputs_of(network):
    return {output.layer: output.n_classes for output in network.outputs}


def test_a_saved_network_reads_as_it_did(fashionnet, tmp_path):
    # What was trained on before shares its layers and is no part of the file.
    fashionnet.training_graph(build_augmentation(LITTLE))
    path, seen = save(fashionnet, tmp_path), images(5)
    engine = TrainedNetwork(path, outputs_of(fashionnet), batch_size=2)
    assert engine.input_size == (PX, PX)
    assert engine.n_features == 5 + 256 + 128
    rows = engine.embed(seen)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, fashionnet.score_and_embed(seen), rtol=1e-4, atol=1e-5)


def test_an_embedding_that_all_outputs_read_is_read_once(tiny, tmp_path):
    saved = SavedNetwork(save(tiny, tmp_path), "finetune", TINY_PX, outputs_of(tiny))
    engine, seen = saved.open_engine(4), images(3, TINY_PX)
    assert engine.n_features == 5 + TINY_WIDTH
    np.testing.assert_allclose(engine.embed(seen), tiny.score_and_embed(seen), rtol=1e-5)


def test_layers_of_the_trunk_make_way_for_attributes_of_their_name(tmp_path):
    labels = {"flatten": GARMENTS["color"], "pixels": GARMENTS["article"]}
    network = build_tiny(labels, layer=keras.layers.Flatten(name="flatten"))
    seen = images(3, TINY_PX)
    engine = TrainedNetwork(save(network, tmp_path), outputs_of(network), 3)
    np.testing.assert_allclose(engine.embed(seen), network.score_and_embed(seen), rtol=1e-5)


def test_half_precision_is_saved_and_loaded(tmp_path):
    before = keras.config.dtype_policy().name
    network = build("smallervggnet", size_px=16, precision="bfloat16")
    assert keras.config.dtype_policy().name == before
    assert network.trunk.compute_dtype == "bfloat16" or any(
        layer.compute_dtype == "bfloat16" for layer in network.trunk.layers
    )
    # Scores are float32, and so are all weights.
    assert {each.dtype.name for each in network.get_weights()} == {"float32"}
    assert {keras.backend.standardize_dtype(x.dtype) for x in network.model.outputs} == {"float32"}
    seen = images(3, 16)
    engine = TrainedNetwork(save(network, tmp_path), outputs_of(network), 3)
    rows = engine.embed(seen)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, network.score_and_embed(seen), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "outputs", [{"article": 3, "color": 5}, {"article": 3, "breed": 2}, {"nothing": 1}]
)
def test_other_outputs_than_the_run_says_are_damage(tiny, tmp_path, outputs):
    path = save(tiny, tmp_path)
    with pytest.raises(RunError, match=r"Run 'run-7' is damaged: .* has other outputs"):
        TrainedNetwork(path, outputs, 2)


def damaged(data):
    """The same archive, of which a member is none of Keras'."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"{}" if name == "config.json" else old.read(name))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"garbage", lambda data: data[: len(data) // 2], damaged, lambda _: None],
    ids=["garbage", "half", "no-config", "missing"],
)
def test_a_damaged_network_is_told(tiny, tmp_path, damage):
    path = save(tiny, tmp_path)
    data = damage(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(RunError) as caught:
        TrainedNetwork(path, outputs_of(tiny), 2)
    text = str(caught.value)
    assert text.startswith(f"Run 'run-7' is damaged: {path} cannot be read (")
    assert "Train it again" in text
    assert "\n" not in text


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """The network at a path with other members: `change` maps their contents by name."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, content in members.items():
            new.writestr(name, content)


def read_a_file(members):
    """Keras itself builds this layer in safe mode, and reads the file meanwhile."""
    vocabulary = {"vocabulary": "/etc/passwd"}
    config = {"module": "keras.layers", "class_name": "StringLookup", "config": vocabulary}
    members["config.json"] = json.dumps(config).encode()


def nest_deeply(members):
    members["config.json"] = b"[" * 100_000


def link_elsewhere(members):
    content = io.BytesIO(members["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        file["more"] = h5py.ExternalLink("/etc/secret.h5", "weights")
    members["model.weights.h5"] = content.getvalue()


@pytest.mark.parametrize(
    ("change", "compression", "message"),
    [
        (read_a_file, zipfile.ZIP_STORED, "keras.layers.StringLookup belongs to no network"),
        (nest_deeply, zipfile.ZIP_STORED, "recursion depth"),
        (link_elsewhere, zipfile.ZIP_STORED, "'/more' is a link"),
        (dict, zipfile.ZIP_DEFLATED, "it is compressed"),
    ],
)
def test_files_that_keras_would_not_write_are_refused(tiny, tmp_path, change, compression, message):
    path = save(tiny, tmp_path)
    rewritten(path, change, compression)
    with pytest.raises(RunError, match=r"Run 'run-7' is damaged: .* cannot be read") as caught:
        TrainedNetwork(path, outputs_of(tiny), 2)
    assert message in str(caught.value)


MODULES = {spec.module: spec for spec in BACKBONES.values() if spec.kind == "network"}


@pytest.mark.parametrize("module", MODULES)
def test_preprocessing_of_every_backbone_is_known(tmp_path, module):
    pixels = keras.Input((32, 32, 3))
    path = tmp_path / "network.keras"
    keras.Model(pixels, preprocess(MODULES[module], pixels)).save(path)
    require_known_classes(path)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "nasnet_mobile", "convnext_tiny"])
def test_layers_of_backbones_are_known(tmp_path, name):
    constructor = getattr(keras.applications, find_backbone(name).constructor)
    path = tmp_path / "network.keras"
    constructor(weights=None, include_top=False, pooling="max").save(path)
    require_known_classes(path)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = keras.layers.Lambda(lambda x: __import__("pathlib").Path("trace").touch() or x)
    path, trace = tmp_path / "network.keras", tmp_path / "trace"
    keras.Sequential([keras.Input((3,)), layer]).save(path)
    # Where that is allowed, to load it is to run it.
    keras.saving.load_model(path, safe_mode=False)
    assert trace.exists()
    trace.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        TrainedNetwork(path, {"article": 3}, 2)
    assert not trace.exists()
