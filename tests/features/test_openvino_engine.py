import subprocess
import sys
from itertools import pairwise

import numpy as np
import openvino as ov
import pytest
from PIL import Image
from scipy.spatial.distance import pdist

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.engines import choose_engine, choose_precision, open_engine
from featurepipe.features.engines.openvino_engine import native_precision
from featurepipe.features.images import decode_image
from featurepipe.features.probes import probe_images
from featurepipe.features.recipe import make_recipe
from featurepipe.features.views import find_view
from featurepipe.features.weights import resolve_weights

pytestmark = pytest.mark.keras

MISSION = ("xception", "inception_v3", "resnet50", "inception_resnet_v2")
MOBILENET = find_backbone("mobilenet_v2")
HAS_BFLOAT16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def distances(features, expected):
    return np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.fixture(scope="module")
def small():
    """MobileNetV2 at 96 px with random weights, four images a request."""
    return open_small()


def open_small(**options):
    weights = resolve_weights("random", MOBILENET)
    return open_engine(MOBILENET, weights, size=96, batch_size=4, engine="openvino", **options)


@pytest.mark.parametrize("name", MISSION)
def test_every_backbone_gives_the_features_of_keras(name):
    backbone = find_backbone(name)
    weights = resolve_weights("random", backbone, seed=3)
    pictures = probe_images((backbone.size_px, backbone.size_px))[:3]
    engines = [
        open_engine(backbone, weights, batch_size=3, engine=engine)
        for engine in ("openvino", "keras")
    ]
    features, expected = (engine.embed(pictures) for engine in engines)
    assert features.dtype == np.float32
    assert engines[0].n_features == backbone.n_features
    assert distances(features, expected).max() <= 1e-4
    assert distances(features[1:], expected[:-1]).min() > 1e-3
    # Reduced precision is chosen only where the probes keep to their tolerance.
    chosen = native_precision(backbone, weights, backbone.size_px, "avg")
    assert chosen == ("bfloat16" if HAS_BFLOAT16 else "float32")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "mobilenet_v2"])
def test_real_weights_on_photos(shared, name):
    backbone = find_backbone(name)
    weights = resolve_weights(str(shared / "weights" / f"{name}_notop.h5"), backbone)
    files = sorted((shared / "data" / "photos").iterdir())[::4]
    size = (backbone.size_px, backbone.size_px)
    photos = np.stack([decode_image(path.read_bytes(), size) for path in files])
    expected = open_engine(backbone, weights, batch_size=5, engine="keras").embed(photos[:5])
    features = open_engine(backbone, weights, engine="openvino").embed(photos)
    assert distances(features[:5], expected).max() <= 1e-4
    if not HAS_BFLOAT16:
        return
    reduced = open_engine(backbone, weights, engine="openvino", precision="bfloat16").embed(photos)
    share = np.median(np.linalg.norm(reduced - features, axis=1)) / np.median(pdist(features))
    chosen = native_precision(backbone, weights, backbone.size_px, "avg")
    # These MobileNetV2 weights, batch norm folded, do not bear bfloat16; the probes tell.
    assert (chosen == "bfloat16") == (share <= 0.03) == (name != "mobilenet_v2")


def test_batches_come_back_in_order(small):
    images = np.random.default_rng(0).integers(0, 256, (30, 96, 96, 3), dtype=np.uint8)
    sizes = [4, 1, 3, 4, 4, 2, 4, 4, 4]
    cuts = np.cumsum([0, *sizes])
    batches = [images[a:b] for a, b in pairwise(cuts)]
    found = list(small.embed_batches(iter(batches)))
    assert [len(features) for features in found] == sizes
    np.testing.assert_array_equal(np.concatenate(found), small.embed(images))
    assert len(np.unique(small.embed(images), axis=0)) == 30
    assert small.embed(images[:0]).shape == (0, 1280)


def test_flip_gives_the_mean_of_both_mirror_images():
    recipe = make_recipe("mobilenet_v2", "random", size_px=96, view="flip", engine="openvino")
    engine, view = recipe.open_engine(3), find_view("flip")
    images = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    (features,) = map(view.merge, engine.embed_batches([view.apply(images)]))
    by_hand = (engine.embed(images) + engine.embed(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(features, by_hand, rtol=1e-5)


def test_later_runs_import_no_keras(tmp_path):
    (tmp_path / "images").mkdir()
    for index in range(3):
        pixels = np.full((20, 20, 3), 80 * index, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    code = (
        "import sys; from featurepipe.cli import run; code = run(sys.argv[1:]);"
        "print(code, 'keras' in sys.modules, 'tensorflow' in sys.modules)"
    )
    arguments = ["extract", "images", "--backbone", "mobilenet_v2", "--weights", "random"]
    arguments += ["--size", "64", "--engine", "openvino"]

    def last_line(workspace):
        command = [sys.executable, "-c", code, *arguments, "--workspace", workspace]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return result.stdout.splitlines()[-1]

    assert last_line("first") == "0 True True"
    assert last_line("second") == "0 False False"


def test_the_choice_of_engine_and_precision(monkeypatch):
    assert choose_engine("keras") == "keras"
    monkeypatch.setattr("featurepipe.features.engines._GPU_DEVICES", ())
    assert choose_engine("auto") == "openvino"
    with pytest.raises(UnknownNameError, match="Did you mean 'openvino'"):
        choose_engine("openvin")
    random = resolve_weights("random", MOBILENET)
    settings = {"size": 96, "pooling": "avg"}
    assert choose_precision("auto", "keras", MOBILENET, random, **settings) == "float32"
    assert choose_precision("bfloat16", "keras", MOBILENET, random, **settings) == "bfloat16"
    with pytest.raises(UsageError, match="smaller than float16 has numbers"):
        choose_precision("float16", "openvino", MOBILENET, random, **settings)
    with pytest.raises(UnknownNameError, match="Unknown precision 'float31'"):
        choose_precision("float31", "openvino", MOBILENET, random, **settings)


def test_a_gpu_means_keras(monkeypatch, tmp_path):
    monkeypatch.setattr("featurepipe.features.engines._GPU_DEVICES", (tmp_path,))
    assert choose_engine("auto") == "keras"


def test_keras_in_bfloat16_is_near_float32():
    weights = resolve_weights("random", MOBILENET)
    images = probe_images((96, 96))
    exact, reduced = (
        open_engine(MOBILENET, weights, size=96, precision=precision, engine="keras").embed(images)
        for precision in ("float32", "bfloat16")
    )
    assert reduced.dtype == np.float32
    assert 0 < distances(reduced, exact).max() < 0.05
