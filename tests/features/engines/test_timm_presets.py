"""Networks of timm with random weights, compared with timm itself."""

import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

import featurepipe
from command_line import fail, succeed
from featurepipe.errors import FeaturepipeError, UsageError, WeightsError
from featurepipe.features.engines import open_engine
from featurepipe.features.extraction.recipe import make_recipe, repeat_recipe
from featurepipe.features.model_files.model_preset import ModelPreset
from featurepipe.features.store import FeatureStore
from pictures import draw, draw_data_set

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'featurepipe[timm]'")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def save(folder, name="test_resnet", seed=0, **options):
    from timm.models import save_for_hf

    torch.manual_seed(seed)
    save_for_hf(timm.create_model(name, **options), folder, safe_serialization=True)
    return f"timm:local-dir:{folder}"


def loaded(source, **options):
    name = source.removeprefix("timm:")
    return timm.create_model(name, pretrained=True, num_classes=0, **options).eval()


def noise(side, n_images=5):
    return np.random.default_rng(2).integers(0, 256, (n_images, side, side, 3), dtype=np.uint8)


def normalised(model, pixels):
    cfg = model.pretrained_cfg
    channels = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(cfg[name])[:, None, None] for name in ("mean", "std"))
    return (channels - mean) / std


def assert_close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    away = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert away.max() < tolerance


def features_of(source, pixels, **options):
    network = make_recipe(source, **options).network
    return open_engine(network, batch_size=2, engine="openvino").embed(pixels)


def refused(source, kind=FeaturepipeError, **options):
    with pytest.raises(kind) as error:
        features_of(source, noise(160, 1), **options)
    return str(error.value)


def test_a_convolutional_network(tmp_path):
    source = save(tmp_path / "net")
    model = loaded(source)
    # Two sizes, since it takes any.
    for side in (160, 96):
        with torch.no_grad():
            images = normalised(model, noise(side))
            pooled, maps = model(images).numpy(), model.forward_features(images).numpy()
        assert_close(features_of(source, noise(side), size_px=side), pooled)
        largest = features_of(source, noise(side), size_px=side, pooling="max")
        assert_close(largest, maps.max(axis=(2, 3)))
    assert "'features' of timm:local-dir" in refused(source, pooling="cls")


@pytest.mark.parametrize("name", ["test_vit", "test_vit3"])
def test_a_vision_transformer(tmp_path, name):
    source = save(tmp_path / "net", name)
    model = loaded(source)
    with torch.no_grad():
        images = normalised(model, noise(160))
        pooled, tokens = model(images).numpy(), model.forward_features(images).numpy()
    n_prefix = model.num_prefix_tokens
    assert tokens.shape[1] == 100 + n_prefix
    mean = tokens[:, n_prefix:].mean(axis=1)
    assert_close(features_of(source, noise(160)), pooled)
    assert_close(features_of(source, noise(160), pooling="mean"), mean)
    if model.has_class_token:
        both = np.concatenate([tokens[:, 0], mean], axis=1)
        assert_close(features_of(source, noise(160), pooling="cls+mean"), both)
    else:
        assert "has no class token" in refused(source, pooling="cls")
    assert make_recipe(source).key.prefix_tokens == n_prefix


def test_a_transformer_of_one_size_is_built_for_another(tmp_path):
    options = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    source = save(tmp_path / "net", "vit_tiny_patch16_224", **options)
    model = loaded(source, img_size=64)
    with torch.no_grad():
        expected = model(normalised(model, noise(64))).numpy()
    assert_close(features_of(source, noise(64), size_px=64), expected)


def test_from_pictures_to_answers(tmp_path, monkeypatch, capsys):
    from timm.data import create_transform, resolve_model_data_config

    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=3)
    first, second, *_ = sorted((tmp_path / "dataset").rglob("*.png"))
    for path, size in ((first, (301, 190)), (second, (170, 400))):
        Image.fromarray(noise(400, 1)[0]).resize(size).save(path)
    draw(tmp_path / "new.png", "red", False, seed=99)
    source = save(tmp_path / "net")
    (extraction,) = featurepipe.extract(
        tmp_path / "dataset", backbone=source, workspace=tmp_path, precision="float32"
    )
    with FeatureStore.open(extraction.store) as store:
        ids, features, key = store.ids, store.features(np.arange(len(store.ids))), store.key
    assert (key.backbone, key.weights.kind, key.size_px) == ("timm:net", "preset", 160)
    model = loaded(source)
    transform = create_transform(**resolve_model_data_config(model))
    images = [transform(Image.open(tmp_path / "dataset" / name).convert("RGB")) for name in ids]
    with torch.no_grad():
        expected = model(torch.stack(images)).numpy()
    assert_close(features, expected)
    succeed(capsys, "fit", "--features", "timm:net", "--head", "logistic")
    answer = succeed(capsys, "predict", "new.png")
    assert "red_plain" in answer
    (tmp_path / "net").rename(tmp_path / "moved")
    assert "There is no folder" in fail(capsys, "predict", "new.png")
    moved = ("--weights", "timm:net=timm:local-dir:moved")
    assert succeed(capsys, "predict", "new.png", *moved) == answer
    save(tmp_path / "moved", seed=1)
    assert "sha256" in fail(capsys, "predict", "new.png", *moved)


def test_weights_decide_not_where_they_are(tmp_path):
    source, other = save(tmp_path / "net"), save(tmp_path / "other" / "net")
    key = make_recipe(source).key
    assert make_recipe(other).key == key
    assert repeat_recipe(key, other).network.weights.preset == other
    assert make_recipe(save(tmp_path / "third" / "net", seed=1)).key != key
    config = tmp_path / "net" / "config.json"
    said = json.loads(config.read_text())
    said["pretrained_cfg"] |= {"license": "cc-by-nc-4.0", "crop_pct": 0.5}
    config.write_text(json.dumps(said))
    network = make_recipe(source).network
    assert network.backbone.licence == "cc-by-nc-4.0"
    assert network.framing.shorter_px == 320


def test_pickles_are_not_loaded(tmp_path):
    source = save(tmp_path / "net")
    state = loaded(source).state_dict()
    (tmp_path / "net" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "net" / "pytorch_model.bin")
    message = refused(source, WeightsError)
    assert "no weights in safetensors" in message and "pickle" in message


def test_weights_that_are_missing_are_not_random(tmp_path):
    from safetensors.torch import load_file, save_file

    source = save(tmp_path / "net")
    path = tmp_path / "net" / "model.safetensors"
    state = load_file(path)
    del state["layer1.0.conv1.weight"]
    save_file(state, path)
    assert "lacks 1 of the network's weights, such as layer1.0.conv1.weight" in refused(source)


def test_what_cannot_be_done(tmp_path):
    source = save(tmp_path / "net")
    config = tmp_path / "net" / "config.json"
    said = json.loads(config.read_text())
    said["pretrained_cfg"]["crop_mode"] = "border"
    config.write_text(json.dumps(said))
    assert "crop mode 'border'" in refused(source, UsageError)
    assert "Did you mean 'resnet18'?" in refused("timm:resnet1", UsageError)
    assert "timm:hf-hub:timm/resnet18" in refused("timm:timm/resnet18", UsageError)
    assert "OpenVINO" in refused(save(tmp_path / "net"), UsageError, engine="keras")


class _Hub(BaseHTTPRequestHandler):
    """Answers like the hub of Hugging Face, for one repository."""

    def __init__(self, folder, *given):
        self.folder = folder
        super().__init__(*given)

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.folder / self.path.rpartition("/")[2]
        if "/tester/small/resolve/main/" not in self.path or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{len(data)}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *given):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder of a repository `tester/small` on a hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, tmp_path / "hub"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "hub"
    server.shutdown()
    server.server_close()


def test_a_repository_of_a_hub(tmp_path, hub, monkeypatch):
    source = save(hub)
    by_name = "timm:hf-hub:tester/small"
    key = make_recipe(by_name).key
    assert key.backbone == by_name
    assert key.weights == make_recipe(source).key.weights
    assert_close(features_of(by_name, noise(160)), features_of(source, noise(160)), 1e-6)
    # Nothing is fetched again, and what is not there says so.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert make_recipe(by_name).key == key
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path / "another"))
    message = refused(by_name, WeightsError)
    assert "http://127.0.0.1:9 could not be reached" in message
    assert "timm:local-dir:PATH" in message


def test_a_hub_with_a_pickle_only(hub):
    save(hub)
    (hub / "model.safetensors").rename(hub / "pytorch_model.bin")
    assert "no weights in safetensors" in refused("timm:hf-hub:tester/small", WeightsError)


def test_the_name_of_a_preset(tmp_path):
    preset = ModelPreset.open(save(tmp_path / "net"))
    assert preset.facts.library == f"timm {timm.__version__}"
    assert (preset.name, preset.weights.label) == ("timm:net", "net")
