import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from featurepipe.errors import ExtractionError, UnknownNameError, UsageError, WeightsError
from featurepipe.features.engines import open_engine
from featurepipe.features.engines.openvino_graph import graph_file
from featurepipe.features.engines.probes import probe_images
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.extraction.views import find_view

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
]


def distances(features, expected):
    return np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.fixture(scope="module")
def small():
    """MobileNet at 96 px with random weights, four images a request."""
    return open_small()


def open_small(weights="random", **options):
    network = make_recipe("mobilenet", weights, size_px=96, **options).network
    return open_engine(network, batch_size=4, engine="openvino")


def noise(n_images, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n_images, 96, 96, 3), dtype=np.uint8)


def test_batches_that_are_started_at_once_come_back_in_order(small):
    images, sizes = noise(60), [4, 1, 3, 4, 4, 2, 4, 4, 4] * 2
    batches = np.split(images, np.cumsum(sizes)[:-1])
    assert len(batches) > 2 * small.n_parallel
    futures = [small.start(batch) for batch in batches]
    found = [future.result() for future in futures]
    assert [len(features) for features in found] == sizes
    np.testing.assert_array_equal(np.concatenate(found), small.embed(images))
    assert len(np.unique(small.embed(images), axis=0)) == 60


def test_any_number_of_images(small):
    assert small.embed(noise(0)).shape == (0, 1024)
    assert small.embed(noise(1)).shape == (1, 1024)
    assert small.batch_size == 4


def test_several_threads_may_start_batches(small):
    images = noise(24)
    with ThreadPoolExecutor(6) as threads:
        found = threads.map(small.embed, np.split(images, 6))
    np.testing.assert_array_equal(np.concatenate(list(found)), small.embed(images))


def test_the_caller_may_drop_the_images(small):
    expected = small.embed(noise(4))
    futures = [small.start(noise(4)) for _ in range(8)]
    for future in futures:
        np.testing.assert_array_equal(future.result(), expected)


def test_a_batch_that_fails_says_so_and_harms_no_other(small):
    for _ in range(3 * small.n_parallel):
        with pytest.raises(RuntimeError, match="shape"):
            small.start(noise(4)[:, :50])
    assert small.embed(noise(9)).shape == (9, 1024)


def test_the_batch_size_that_is_found():
    network = make_recipe("mobilenet", "random", size_px=96).network
    assert open_engine(network, engine="openvino").batch_size == 16


def test_flip_gives_the_mean_of_both_mirror_images(small):
    view, images = find_view("flip"), noise(3, seed=1)
    features = view.merge(small.embed(view.apply(images)))
    by_hand = (small.embed(images) + small.embed(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(features, by_hand, rtol=1e-5)


def test_unknown_layer():
    with pytest.raises(UnknownNameError) as error:
        open_small(pooling="conv_pw_13_rel")
    assert str(error.value) == (
        "Unknown layer 'conv_pw_13_rel'. Did you mean 'conv_pw_13_relu'? "
        "Or use avg or max; the last layer is 'conv_pw_13_relu'."
    )


def test_later_runs_import_no_keras(small, tmp_path):
    code = (
        "import sys; from featurepipe.features.engines import open_engine;"
        "from featurepipe.features.engines.probes import probe_images;"
        "from featurepipe.features.extraction.recipe import make_recipe;"
        "network = make_recipe('mobilenet', 'random', size_px=96).network;"
        "engine = open_engine(network, engine='openvino');"
        "engine.embed(probe_images((96, 96))).tofile(sys.argv[1]);"
        "print({'keras', 'tensorflow'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "features")]
    # Nor does it matter which backend it would have.
    environment = os.environ | {"KERAS_BACKEND": "none"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "set()\n", done.stderr
    features = np.fromfile(tmp_path / "features", np.float32).reshape(-1, 1024)
    np.testing.assert_allclose(features, small.embed(probe_images((96, 96))), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [".bin", ".xml", ".crc32"])
def test_a_damaged_graph_in_the_cache_is_converted_again(
    small, caplog, monkeypatch, tmp_path, suffix
):
    features = small.embed(noise(4))
    network = make_recipe("mobilenet", "random", size_px=96).network
    # A cache of its own: other processes may be reading theirs.
    shutil.copytree(graph_file(network).parent, tmp_path / "graphs")
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path))
    graph = graph_file(network)
    damaged, conversions = graph.with_suffix(suffix), []
    sound = damaged.read_bytes()

    def restore(graph, make):
        conversions.append(graph.stem.split("-")[0])
        damaged.write_bytes(sound)

    monkeypatch.setattr("featurepipe.features.engines.openvino_graph._keep", restore)
    spoilt = bytearray(sound)
    spoilt[len(sound) // 2] ^= 1
    for content in (bytes(spoilt), sound[:-1], b""):
        damaged.write_bytes(content)
        np.testing.assert_array_equal(open_small().embed(noise(4)), features)
        assert "The graph of mobilenet in the cache is damaged" in caplog.text
    with damaged.open("wb") as file:
        file.truncate(10**12)
    open_small()
    assert conversions == ["mobilenet"] * 4
    open_small()
    assert conversions == ["mobilenet"] * 4


@pytest.fixture
def another_backend(monkeypatch, tmp_path):
    """Nothing is converted yet, and Keras computes with another backend."""
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path))
    monkeypatch.setattr("featurepipe.features.engines.keras_engine.backend", lambda: "jax")


def test_with_another_backend_tensorflow_converts_elsewhere(small, another_backend):
    converted = open_small().embed(noise(4))
    np.testing.assert_allclose(converted, small.embed(noise(4)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("last_line", "kind", "text"),
    [
        ("UsageError: Unknown layer 'x'.", UsageError, "Unknown layer 'x'."),
        ("WeightsError: a.h5 does not fit: b.", WeightsError, "a.h5 does not fit: b."),
        (
            "ModuleNotFoundError: No module named 'tensorflow'",
            ExtractionError,
            "mobilenet could not be converted (ModuleNotFoundError: No module "
            "named 'tensorflow'). Use --engine keras.",
        ),
    ],
)
def test_what_fails_elsewhere_is_raised_here(
    another_backend, monkeypatch, tmp_path, last_line, kind, text
):
    done = subprocess.CompletedProcess([], 1, stdout="", stderr=f"a warning\n{last_line}\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    # Random weights would be drawn and saved first.
    weights = tmp_path / "a.h5"
    weights.write_bytes(b"read elsewhere")
    with pytest.raises(kind) as error:
        open_small(str(weights))
    assert (type(error.value), str(error.value)) == (kind, text)
    assert list(tmp_path.rglob("*.xml")) == []
