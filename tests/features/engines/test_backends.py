"""Every backend of Keras gives the features of every other, and of OpenVINO."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from featurepipe.features.engines import open_engine
from featurepipe.features.engines.keras_engine import save_weights
from featurepipe.features.engines.probes import probe_images
from featurepipe.features.extraction.recipe import make_recipe
from hidden_modules import hiding

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
]

SIZE = 32
# More than a batch, and no multiple of it.
PICTURES = probe_images((SIZE, SIZE))[:7]

COMPUTE = """
import sys
import numpy as np
import featurepipe
from featurepipe.features.engines import open_engine
from featurepipe.features.engines.quiet_keras import computes_on_gpu
from featurepipe.features.engines.probes import probe_images
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.store import FeatureStore
_, path, images, place = sys.argv
network = make_recipe("mobilenet", path, size_px=32).network
engine = open_engine(network, batch_size=4, precision="bfloat16", engine="keras")
np.save(f"{place}/bfloat16.npy", engine.embed(probe_images((32, 32))[:7]))
options = {"backbone": "mobilenet", "size_px": 32, "batch_size": 4, "engine": "keras"}
(done,) = featurepipe.extract(images, weights=path, workspace=place, **options)
with FeatureStore.open(done.store) as store:
    np.save(f"{place}/float32.npy", store.features())
print(engine.name, sorted(engine.versions), computes_on_gpu())
"""


def distances(features, expected):
    return np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    save_weights(make_recipe("mobilenet", "random", size_px=SIZE).network, path)
    return path


@pytest.fixture(scope="module")
def expected(weights_file):
    """What OpenVINO computes."""
    network = make_recipe("mobilenet", str(weights_file), size_px=SIZE).network
    return open_engine(network, engine="openvino").embed(PICTURES)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The pictures as files that are decoded to the same pixels."""
    folder = tmp_path_factory.mktemp("images")
    for number, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_each_backend_gives_the_same_features(backend, weights_file, images, expected, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    code = COMPUTE if backend == "tensorflow" else hiding("tensorflow") + COMPUTE
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, (weights_file, images, tmp_path))],
        env=os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"keras-{backend} {sorted(['keras', backend])} False\n"
    features, reduced = (np.load(tmp_path / f"{name}.npy") for name in ("float32", "bfloat16"))
    assert features.dtype == reduced.dtype == np.float32
    assert distances(features, expected).max() <= 1e-4
    assert 1e-4 < distances(reduced, expected).max() < 0.05
    # The pictures differ by more than what is allowed, or the test says nothing.
    assert distances(expected[1:], expected[:-1]).min() > 1e-3
