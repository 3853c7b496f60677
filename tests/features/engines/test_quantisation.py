import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys

import numpy as np
import openvino as ov
import pytest

from featurepipe.errors import UsageError
from featurepipe.features.engines import open_engine, probes, quantisation
from featurepipe.features.engines.calibration_pictures import calibration_pictures
from featurepipe.features.engines.openvino_graph import graph_file
from featurepipe.features.extraction.file_recipe import FileOptions
from featurepipe.features.extraction.recipe import make_recipe
from small_graphs import PX, save_network, without_nncf

needs_nncf = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason="NNCF, the extra int8, is not installed"
)
PICTURES = calibration_pictures(range(1000, 1020), (PX, PX))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network in a file, small enough to be quantised in seconds."""
    path = save_network(tmp_path_factory.mktemp("network") / "small.xml")
    return make_recipe(str(path), "none", size_px=PX, of_file=FileOptions("none")).network


def embed(network, precision):
    return open_engine(network, batch_size=4, engine="openvino", precision=precision).embed(
        PICTURES
    )


@needs_nncf
def test_int8_keeps_the_features_nearly(network):
    exact, found = embed(network, "float32"), embed(network, "int8")
    assert found.dtype == np.float32
    assert 1e-4 < probes.distance(found, exact, "int8") <= quantisation.MAX_DISTANCE


@needs_nncf
def test_layers_are_in_int8(network):
    graph = ov.Core().read_model(graph_file(network, "int8"))
    stored = [
        node.get_element_type() for node in graph.get_ops() if node.get_type_name() == "Constant"
    ]
    assert stored.count(ov.Type.i8) + stored.count(ov.Type.u8) == 4


@needs_nncf
def test_the_same_network_is_quantised_alike(network, monkeypatch, tmp_path):
    found, first = embed(network, "int8"), graph_file(network, "int8")
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path))
    again = graph_file(network, "int8")
    assert again != first
    assert again.name == first.name
    assert again.with_suffix(".bin").read_bytes() == first.with_suffix(".bin").read_bytes()
    np.testing.assert_array_equal(embed(network, "int8"), found)


@needs_nncf
def test_the_engine_says_what_quantised(network):
    engine = open_engine(network, batch_size=4, engine="openvino", precision="int8")
    assert engine.versions["nncf"] == importlib.metadata.version("nncf")


@needs_nncf
def test_a_graph_in_the_cache_needs_no_nncf(network, monkeypatch, tmp_path):
    found = embed(network, "int8")
    without_nncf(monkeypatch)
    np.testing.assert_array_equal(embed(network, "int8"), found)


def test_nncf_that_is_missing_is_named_before_anything_is_converted(network, monkeypatch, tmp_path):
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path))
    without_nncf(monkeypatch)
    with pytest.raises(UsageError) as error:
        graph_file(network, "int8")
    assert str(error.value) == (
        "small in int8 is not in the cache yet, and NNCF, which converts it, is not "
        "installed. Run: pip install 'featurepipe[int8]'. Or use another --precision."
    )
    assert list(tmp_path.rglob("*")) == []


@needs_nncf
def test_a_damaged_graph_is_quantised_again(network, monkeypatch, tmp_path, caplog):
    found = embed(network, "int8")
    shutil.copytree(graph_file(network).parent, tmp_path / "graphs")
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path))
    graph_file(network, "int8").with_suffix(".bin").write_bytes(b"")
    np.testing.assert_array_equal(embed(network, "int8"), found)
    assert "The graph of small in the cache is damaged" in caplog.text


@needs_nncf
def test_layers_that_break_the_features_stay_in_float32(monkeypatch, tmp_path):
    graph = save_network(tmp_path / "float.xml", loudest=3000, on_pixels=True)
    exported = tmp_path / "int8.xml"

    def moved():
        exact, found = (
            ov.Core().compile_model(one, "CPU")(PICTURES)[0] for one in (graph, exported)
        )
        return probes.distance(found, exact, "int8")

    monkeypatch.setattr(quantisation, "MAX_DISTANCE", 10.0)
    assert quantisation.quantise(graph, exported) == 0
    assert moved() > 0.15
    monkeypatch.setattr(quantisation, "MAX_DISTANCE", 0.05)
    assert quantisation.quantise(graph, exported) in (1, 2)
    assert moved() < 0.1


@needs_nncf
def test_a_processor_without_vnni_computes_the_same(network, tmp_path):
    np.save(tmp_path / "pictures.npy", PICTURES)
    code = (
        "import sys, numpy as np, openvino as ov;"
        "graph = ov.Core().compile_model(sys.argv[1], 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'});"
        "np.save(sys.argv[2] + '/found.npy', graph(np.load(sys.argv[2] + '/pictures.npy'))[0])"
    )
    # Processors other than those of Intel and AMD ignore it.
    subprocess.run(
        [sys.executable, "-c", code, graph_file(network, "int8"), tmp_path],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        check=True,
    )
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, embed(network, "int8"), rtol=1e-3, atol=1e-3)
