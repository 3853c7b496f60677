"""Runs as ONNX files: they answer as `predict` does, and say what they are."""

import json
import shutil
import sys

import numpy as np
import onnx
import pytest
from google.protobuf.message import EncodeError

import featurepipe
from command_line import fail, succeed
from featurepipe.errors import ExportError, ModelFileError, UsageError
from featurepipe.features.onnx import blocks
from featurepipe.workflows.exports.model_runtimes import open_exported
from histogram_runs import given_pictures, make_workspace
from onnx_running import run_model

TOP = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace of 80 images of two attributes, with runs on colour histograms."""
    root = tmp_path_factory.mktemp("place")
    make_workspace(root)
    featurepipe.fit(head="bagged-sgd", task="multi-label", workspace=root)
    featurepipe.fit(head="logistic", task="joint", workspace=root)
    return root


@pytest.fixture(scope="module")
def exported(place):
    export = featurepipe.export("hsv_histogram-knn", place / "model.onnx", workspace=place)
    return place, export


@pytest.fixture
def copied(exported, tmp_path):
    _, export = exported
    shutil.copyfile(export.target, tmp_path / "model.onnx")
    shutil.copyfile(export.golden, tmp_path / "model.golden.npz")
    return tmp_path / "model.onnx"


def assert_as_predict(place, run, model, pictures):
    """The model says of a batch of pictures what the run says of each."""
    predictor = featurepipe.Predictor(run, workspace=place)
    outputs = run_model(str(model), pixels=pictures)
    attributes = json.loads(metadata(model)["attributes"])
    answers = predictor.predict(list(pictures), top=TOP)
    for number, answer in enumerate(answers):
        for name, best in answer["attributes"].items():
            classes = attributes[name]["classes"]
            assert len(best) == len(classes)
            for one in best:
                column = classes.index(one["class"])
                probability = outputs[f"{name}_probabilities"][number, column]
                assert probability == pytest.approx(one["probability"], abs=1e-4)
                assert outputs[f"{name}_given"][number, column] == one["given"]
                assert outputs[f"{name}_known"][number] == (not one["unknown"])
    return outputs


def metadata(path):
    return {one.key: one.value for one in onnx.load(path).metadata_props}


@pytest.mark.parametrize(
    "run",
    ["hsv_histogram-knn", "hsv_histogram-bagged-sgd-multi-label", "hsv_histogram-logistic-joint"],
)
def test_a_run_answers_as_predict_does(place, tmp_path, run):
    target = tmp_path / "model.onnx"
    export = featurepipe.export(run, target, workspace=place)

    outputs = assert_as_predict(place, run, target, given_pictures())

    assert export.run == run
    assert export.n_images == 16
    assert export.n_bytes == target.stat().st_size
    assert export.largest_difference < 1e-4
    assert ("color_scores" in outputs) == (not run.endswith("joint"))


def test_the_coverage_is_an_input_with_a_default(exported):
    _, export = exported
    pictures = given_pictures(16)

    usual, most = (
        run_model(str(export.target), pixels=pictures, **given)
        for given in ({}, {"coverage": np.array(0.5)})
    )

    for name in ("color", "kind"):
        p_values = usual[f"{name}_p_value"]
        np.testing.assert_array_equal(usual[f"{name}_known"], p_values > 1 - 0.95)
        np.testing.assert_array_equal(most[f"{name}_known"], p_values > 1 - 0.5)
        np.testing.assert_array_equal(usual[f"{name}_probabilities"], most[f"{name}_probabilities"])


def test_a_model_says_what_it_is(exported):
    place, export = exported
    said = metadata(export.target)
    facts = json.loads((place / "runs" / "hsv_histogram-knn" / "run.json").read_text())

    assert said["featurepipe"] == featurepipe.__version__
    assert (said["run"], said["run_digest"]) == ("hsv_histogram-knn", facts["digest"])
    attributes = json.loads(said["attributes"])
    assert attributes["kind"] == {
        "classes": ["bright", "plain"], "exclusive": True, "thresholds": [0.5, 0.5],
    }  # fmt: skip
    assert json.loads(said["input"])["resized_to"] == [[128, 128]]
    assert json.loads(said["licences"]) == {"hsv_histogram": "MIT"}
    assert json.loads(said["coverage"]) == 0.95
    figures = {row["attribute"]: row for row in json.loads(said["figures"])}
    color = figures["color"]
    assert color["n_test"] == 16
    assert 0 <= color["accuracy_low"] <= color["accuracy"] <= color["accuracy_high"] <= 1


def test_a_check_needs_the_two_files_alone(copied):
    checked = featurepipe.check(copied)

    assert checked.n_images == 16
    assert checked.largest_difference <= 1e-4


def test_golden_images_are_test_images_with_their_answers(exported):
    _, export = exported
    with np.load(export.golden, allow_pickle=False) as golden:
        pixels = golden["pixels_0"]
        expected = {name: golden[f"{name}_0"] for name in ("color_probabilities", "kind_known")}

    outputs = run_model(str(export.target), pixels=pixels[None])

    assert pixels.shape == (12, 12, 3)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name][0], value, atol=1e-6)


def test_a_model_that_was_changed_is_an_error(copied, capsys):
    model = onnx.load(copied)
    # The temperature of the neighbours' votes.
    for constant in model.graph.initializer:
        value = onnx.numpy_helper.to_array(constant)
        if value.shape == () and value == 0.07:
            constant.CopyFrom(onnx.numpy_helper.from_array(np.array(0.5), constant.name))
    onnx.save(model, copied)

    with pytest.raises(ExportError, match=r"golden image \d+, \w+_probabilities by"):
        featurepipe.check(copied)
    assert "answers otherwise than when it was exported" in fail(capsys, "check", copied)


@pytest.mark.parametrize("name", ["kind_known", "color_given"])
def test_another_answer_is_an_error(copied, name):
    golden = copied.with_suffix(".golden.npz")
    with np.load(golden) as file:
        arrays = dict(file)
    arrays[f"{name}_3"] = ~arrays[f"{name}_3"]
    np.savez(golden, **arrays)

    with pytest.raises(ExportError, match=f"golden image 3, {name} differs"):
        featurepipe.check(copied)


def test_files_that_are_no_model_are_refused(copied, tmp_path):
    other = tmp_path / "other.onnx"
    with pytest.raises(ModelFileError, match="There is no file"):
        featurepipe.check(other)
    shutil.copyfile(copied, other)
    with pytest.raises(ModelFileError, match=r"other\.golden\.npz cannot be read"):
        featurepipe.check(other)
    model = onnx.load(copied)
    del model.metadata_props[:]
    onnx.save(model, copied)
    with pytest.raises(ModelFileError, match="was not exported by featurepipe"):
        featurepipe.check(copied)
    copied.write_bytes(b"no model")
    with pytest.raises(ModelFileError, match="cannot be read as an ONNX file"):
        featurepipe.check(copied)


def test_a_model_that_answers_otherwise_is_not_written(place, tmp_path, monkeypatch):
    write = blocks.write_histogram

    def write_wrong(nodes, pixels, size_px):
        return write(nodes, nodes.op("Gather", pixels, np.array([2, 1, 0]), axis=3), size_px)

    monkeypatch.setattr(blocks, "write_histogram", write_wrong)

    with pytest.raises(ExportError, match=r"run: \d+ answers about 16 test images differ"):
        featurepipe.export("hsv_histogram-knn", tmp_path / "model.onnx", workspace=place)
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_more_than_two_gigabytes_is_refused(place, tmp_path, monkeypatch):
    class Large:
        def SerializeToString(self):  # noqa: N802
            raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr(
        "featurepipe.workflows.exports.export_run.build_run_graph", lambda *_, **__: Large()
    )

    with pytest.raises(UsageError, match="knn does not fit into an ONNX file, which holds at most"):
        featurepipe.export("hsv_histogram-knn", tmp_path / "model.onnx", workspace=place)
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_runtime_nothing_is_written(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(UsageError, match=r"Run: pip install 'featurepipe\[onnx\]'"):
        featurepipe.export("hsv_histogram-knn", tmp_path / "model.onnx", workspace=place)
    assert list(tmp_path.iterdir()) == []


def test_options_of_stores_and_runs_are_not_mixed(place, tmp_path):
    target = tmp_path / "model.onnx"
    with pytest.raises(UsageError, match="--labels only applies to stores"):
        featurepipe.export("hsv_histogram-knn", target, labels=True, workspace=place)
    with pytest.raises(UsageError, match="can hold one run, not 2"):
        featurepipe.export(["a", "b"], target, workspace=place)
    for option in ({"weights": ["a.h5"]}, {"page": tmp_path / "page"}):
        with pytest.raises(UsageError, match=f"--{next(iter(option))} only applies to runs"):
            featurepipe.export("store", tmp_path / "a.npz", **option, workspace=place)
    assert list(tmp_path.iterdir()) == []


def test_by_the_command_line(place, tmp_path, capsys):
    target = tmp_path / "model.onnx"

    text = succeed(capsys, "export", "hsv_histogram-knn", target, "--workspace", place)
    facts = json.loads(succeed(capsys, "check", target, "--json"))

    assert f"{target}: run hsv_histogram-knn," in text
    assert f"Compared on 16 test images by {facts['runtime']}: same answers" in text
    assert facts["n_images"] == 16


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras")
@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("fashionnet", {"size_px": 16}),
        ("smallervggnet", {"size_px": 16, "task": "multi-label"}),
        ("pair", {"backbone": "mobilenet_v2", "weights": "random", "size_px": 32, "unfreeze": 1}),
    ],
)
def test_networks_answer_as_predict_does(place, tmp_path, monkeypatch, network, options):
    pytest.importorskip("tf2onnx")
    monkeypatch.setattr("featurepipe.reports.plots.plot_training", lambda *_: {})
    options = {"batch_size": 8, "epochs": 1, "augment": False, **options}
    run = featurepipe.train(network, **options, workspace=place)["run"].iloc[0]
    target = tmp_path / "model.onnx"

    featurepipe.export(run, target, workspace=place)

    pictures = given_pictures(3)
    outputs = assert_as_predict(place, run, target, pictures)
    assert ("same" in outputs) == (network == "pair")
    assert featurepipe.check(target).n_images > 0
    if network == "pair":
        converted = featurepipe.export(run, tmp_path / "model.xml", workspace=place)
        assert "same" not in open_exported(converted.target).answer(pictures)
        assert featurepipe.check(converted.target).n_images > 0
        others = given_pictures(3, (20, 20), seed=6)
        compared = run_model(str(target), pixels=pictures, other_pixels=others)["same"]
        for k in range(3):
            paths = [tmp_path / f"{name}.png" for name in ("one", "other")]
            for path, picture in zip(paths, (pictures[k], others[k]), strict=True):
                save(path, picture)
            expected = featurepipe.same(*paths, run=run, workspace=place)
            assert compared[k] == pytest.approx(expected, abs=1e-4)


def save(path, picture):
    from PIL import Image

    Image.fromarray(picture).save(path)
