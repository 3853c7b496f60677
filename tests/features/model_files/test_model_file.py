import json
from itertools import product

import numpy as np
import onnx
import openvino as ov
import pytest

from featurepipe.errors import ModelFileError
from featurepipe.features.model_files.model_file import ModelFile, is_model_file
from model_graphs import Graph, kernel

SIDE = 16


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache, empty, outside the folder of the files."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path, cache):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def save_vector(path, shape=("n", 3, SIDE, SIDE), **options):
    graph = Graph(shape)
    return graph.save(path, graph.vector(), **options)


EXTERNAL = {"save_as_external_data": True, "location": "small.weights", "size_threshold": 0}


def refused(path):
    with pytest.raises(ModelFileError) as error:
        ModelFile.open(path)
    return str(error.value)


def test_what_a_network_takes(folder):
    file = ModelFile.open(save_vector(folder / "small.onnx", (1, 3, SIDE, SIDE)))
    (port,) = file.facts.inputs
    assert port.in_words() == "pixels (1 x 3 x 16 x 16, f32)"
    assert (file.name, file.fixed_px, file.facts.beside) == ("small", SIDE, ())
    assert not file.takes_whole_numbers
    free = ModelFile.open(save_vector(folder / "free.onnx", ("n", "c", "h", "w")))
    assert (free.facts.inputs[0].shape, free.fixed_px) == ((None,) * 4, None)
    graph = Graph(("n", SIDE, SIDE, 3), "NHWC", "u8")
    whole = ModelFile.open(graph.save(folder / "whole.onnx", graph.vector()))
    assert (whole.takes_whole_numbers, whole.fixed_px) == (True, SIDE)


def test_names(folder):
    path = save_vector(folder / "first.onnx")
    for stem, name in [
        ("small", "small"),
        ("my net (1)", "my_net_1_"),
        ("resnet50", "resnet50_onnx"),
        ("ResNet-50", "ResNet-50_onnx"),
        ("hsv_histogram", "hsv_histogram_onnx"),
        ("pixels", "pixels_onnx"),
        ("x" * 200, "x" * 60),
    ]:
        path = path.rename(folder / f"{stem}.onnx")
        assert ModelFile.open(path).name == name


def test_what_is_found_out_is_kept_by_the_content(folder, cache, monkeypatch):
    path = save_vector(folder / "small.onnx")
    file = ModelFile.open(path)
    kept = list((cache / "models").glob("*.json"))
    assert len(kept) == 1

    def fails(*_, **__):
        raise AssertionError("another process was started")

    monkeypatch.setattr("featurepipe.features.engines.conversion_process.subprocess.run", fails)
    assert ModelFile.open(path.rename(folder / "renamed.onnx")).sha256 == file.sha256
    kept[0].write_text("{")
    with pytest.raises(AssertionError, match="another process"):
        ModelFile.open(folder / "renamed.onnx")


def test_weights_beside_are_part_of_the_digest(folder):
    path = save_vector(folder / "small.onnx", **EXTERNAL)
    file = ModelFile.open(path)
    assert file.facts.beside == ("small.weights",)
    assert ModelFile.open(path) == file
    weights = folder / "small.weights"
    content = bytearray(weights.read_bytes())
    content[5] ^= 1
    weights.write_bytes(content)
    changed = ModelFile.open(path)
    assert changed.sha256 != file.sha256
    assert changed.facts == file.facts
    weights.unlink()
    message = refused(path)
    assert message.startswith("small.onnx keeps weights in 'small.weights', which is not beside it")
    assert f"Put that file into {folder}." in message


@pytest.mark.parametrize("location", ["../stolen", "sub/../../stolen", "/etc/hostname", "."])
def test_weights_elsewhere_are_never_read(folder, location):
    path = save_vector(folder / "small.onnx", **EXTERNAL)
    (folder / "small.weights").rename(folder.parent / "stolen")
    (folder / "sub").mkdir()
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    assert f"keeps weights in {location!r}, which is not beside it" in refused(path)


def test_weights_of_a_branch_are_found_as_well(folder):
    """Whatever refers to a file: here the body of an If."""
    tensor = onnx.numpy_helper.from_array(kernel(), "inner")
    onnx.external_data_helper.set_external_data(tensor, "../stolen")
    tensor.ClearField("raw_data")
    inner = onnx.helper.make_node("Constant", [], ["inner"], value=tensor)
    output = onnx.helper.make_empty_tensor_value_info("inner")
    body = onnx.helper.make_graph([inner], "body", [], [output])
    graph = Graph(("n", 3, SIDE, SIDE))
    condition = graph.constant(np.array(True))
    chosen = graph.add("If", condition, then_branch=body, else_branch=body)
    path = graph.save(folder / "small.onnx", graph.add("Conv", "pixels", chosen))
    assert "keeps weights in '../stolen', which is not beside it" in refused(path)


def test_openvino_s_weights_lie_in_a_bin_file(folder):
    model = ov.convert_model(str(save_vector(folder / "small.onnx")))
    ov.save_model(model, folder / "small.xml", compress_to_fp16=False)
    file = ModelFile.open(folder / "small.xml")
    assert file.facts.beside == ("small.bin",)
    weights = folder / "small.bin"
    content = weights.read_bytes()
    weights.write_bytes(bytes(len(content)))
    assert ModelFile.open(folder / "small.xml").sha256 != file.sha256
    weights.unlink()
    assert "keeps weights in 'small.bin', which is not beside it" in refused(folder / "small.xml")


@pytest.mark.parametrize(
    "shape, dtype, shown",
    [
        (("n", "tokens"), "i64", "pixels (? x ?, i64)"),
        (("n", 3, SIDE, SIDE), "i8", "pixels (? x 3 x 16 x 16, i8)"),
        (("n", 1, SIDE, SIDE), "f32", "pixels (? x 1 x 16 x 16, f32)"),
        (("n", 3, SIDE, 2 * SIDE), "f32", "pixels (? x 3 x 16 x 32, f32)"),
        (("n", 3, 8, SIDE, SIDE), "f32", "pixels (? x 3 x 8 x 16 x 16, f32)"),
    ],
)
def test_networks_that_take_no_square_images(folder, shape, dtype, shown):
    graph = Graph(shape, dtype=dtype)
    graph.nodes.clear()
    path = graph.save(folder / "text.onnx", graph.add("Abs", "pixels"))
    message = refused(path)
    assert message.startswith(f"text.onnx takes {shown}, but a backbone takes one batch of square")
    assert message.endswith("Export only the part that reads images.")


def test_several_inputs(folder):
    graph = Graph(("n", 3, SIDE, SIDE))
    graph.inputs.append(
        onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, ["n", 5])
    )
    path = graph.save(folder / "two.onnx", graph.add("Add", graph.vector(), "mask"))
    assert "takes pixels (? x 3 x 16 x 16, f32), mask (? x 5, f32), but" in refused(path)


DAMAGED = [b"", bytes(100), b"PK\3\4 no archive", b"<net><layers>"]


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        *product([".onnx", ".xml", ".tflite"], DAMAGED),
        pytest.param(".keras", DAMAGED[2], marks=pytest.mark.keras),
    ],
)
def test_damaged_files(folder, cache, suffix, content):
    path = folder / f"small{suffix}"
    path.write_bytes(content)
    path.with_suffix(".bin").write_bytes(b"")
    message = refused(path)
    assert message.startswith("small" + suffix)
    assert "Export it again" in message
    assert len(message) < 500
    assert not (cache / "models").exists()


def test_a_file_cut_short(folder):
    path = save_vector(folder / "small.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    assert "small.onnx" in refused(path)


@pytest.mark.parametrize("suffix", [".xml", ".tflite"])
def test_a_file_of_another_kind(folder, suffix):
    path = save_vector(folder / "small.onnx").rename(folder / f"small{suffix}")
    path.with_suffix(".bin").write_bytes(b"")
    assert f"small{suffix} cannot be read as a network (" in refused(path)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite", ".keras"])
def test_no_file(folder, suffix):
    (folder / f"small{suffix}").mkdir()
    assert "There is no network at" in refused(folder / f"small{suffix}")
    assert "There is no network at" in refused(folder / f"absent{suffix}")


def test_files_of_python_in_the_current_folder_are_not_run(folder, monkeypatch):
    path = save_vector(folder / "small.onnx")
    for name in ("onnx", "openvino", "json", "featurepipe"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'run')!r}, 'w')")
    monkeypatch.chdir(folder)
    assert ModelFile.open(path).fixed_px == SIDE
    assert not (folder / "run").exists()


def test_names_of_files():
    assert is_model_file("a/b.ONNX")
    assert is_model_file("b.keras")
    assert not is_model_file("b.h5")
    assert not is_model_file("onnx")


def test_facts_are_json(folder):
    file = ModelFile.open(save_vector(folder / "small.onnx"))
    again = type(file.facts).model_validate_json(json.dumps(file.facts.model_dump()))
    assert again == file.facts
