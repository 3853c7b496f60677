"""Runs as models of OpenVINO: they answer as the run does, in single precision."""

import json
import shutil

import numpy as np
import openvino
import pytest

import featurepipe
from command_line import succeed
from featurepipe.errors import ExportError, ModelFileError
from featurepipe.workflows.exports.model_runtimes import OpenVinoModel
from histogram_runs import RUN, given_pictures, make_workspace

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("place")
    make_workspace(root, heads=["knn", "logistic"])
    return root


@pytest.fixture(scope="module")
def exported(place, tmp_path_factory):
    return featurepipe.export(RUN, tmp_path_factory.mktemp("out") / "model.xml", workspace=place)


@pytest.fixture
def copied(exported, tmp_path):
    for suffix in (".xml", ".bin", ".golden.npz"):
        shutil.copyfile(exported.target.with_suffix(suffix), tmp_path / f"model{suffix}")
    return tmp_path / "model.xml"


@pytest.mark.parametrize("run", [RUN, "hsv_histogram-logistic"])
def test_openvino_answers_as_predict_does(place, tmp_path, run):
    target = tmp_path / "model.xml"
    export = featurepipe.export(run, target, workspace=place)
    pictures = given_pictures(size=(150, 133))

    outputs = OpenVinoModel(target).answer(pictures)

    answers = featurepipe.Predictor(run, workspace=place).predict(list(pictures), top=10)
    said = openvino.Core().read_model(target).get_rt_info(["featurepipe", "attributes"])
    attributes = json.loads(said.astype(str))
    for number, answer in enumerate(answers):
        for name, best in answer["attributes"].items():
            for one in best:
                column = attributes[name]["classes"].index(one["class"])
                probability = outputs[f"{name}_probabilities"][number, column]
                assert probability == pytest.approx(one["probability"], abs=1e-4)
                assert outputs[f"{name}_given"][number, column] == one["given"]
                assert outputs[f"{name}_known"][number] == (not one["unknown"])
    assert export.n_bytes == sum(
        target.with_suffix(suffix).stat().st_size for suffix in (".xml", ".bin")
    )
    assert export.runtime.startswith("OpenVINO 20")
    assert "openvino.compile_model" in export.program.read_text()


def test_a_check_repeats_the_comparison(copied, capsys):
    facts = json.loads(succeed(capsys, "check", copied, "--json"))

    assert facts["n_images"] == 16
    assert facts["runtime"].startswith("OpenVINO 20")
    golden = dict(np.load(copied.with_suffix(".golden.npz")))
    golden["color_given_0"] = ~golden["color_given_0"]
    np.savez(copied.with_suffix(".golden.npz"), **golden)
    with pytest.raises(ExportError, match=r"color_given differs \(OpenVINO 20"):
        featurepipe.check(copied)


def test_files_that_are_no_model_are_refused(copied):
    copied.with_suffix(".bin").unlink()
    with pytest.raises(ModelFileError, match=r"keep the \.xml and the \.bin file together"):
        featurepipe.check(copied)
    copied.write_text('<net name="none" version="11"/>')
    with pytest.raises(ModelFileError, match="was not exported by featurepipe"):
        featurepipe.check(copied)
    copied.write_text("no graph")
    with pytest.raises(ModelFileError, match=r"model\.xml is no model of OpenVINO"):
        featurepipe.check(copied)


def test_a_graph_of_others_is_refused(tmp_path):
    given = openvino.opset13.parameter([1], np.float32)
    openvino.save_model(openvino.Model([given], [given]), tmp_path / "other.xml")

    with pytest.raises(ModelFileError, match="was not exported by featurepipe"):
        featurepipe.check(tmp_path / "other.xml")


def test_nothing_unfinished_lies_beside_the_model(exported):
    names = sorted(path.name for path in exported.target.parent.iterdir())

    assert names == [
        "model.bin", "model.golden.npz", "model.md", "model.xml", "model_predict.py",
    ]  # fmt: skip
