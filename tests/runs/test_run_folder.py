import dataclasses
import importlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops

from featurepipe.errors import DiskFullError, RunError
from featurepipe.manifest import Labels
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.output_folders import MARKER
from featurepipe.predictions import Predictions
from featurepipe.runs import run_folder
from featurepipe.runs.heads_file import heads_content, load_heads
from featurepipe.runs.run_facts import NetworkShape
from featurepipe.runs.run_files import file_digests
from featurepipe.runs.run_folder import NewRun, load_run, save_run
from featurepipe.workspace import Workspace
from run_infos import head_info, network_info, sign

N_IMAGES = 60
FILES = ["heads.skops", "predictions.npz", "run.json", "selection.npz"]


def make_images():
    rng = np.random.default_rng(0)
    codes = np.arange(N_IMAGES) % 3
    X = rng.normal(size=(N_IMAGES, 8)).astype(np.float32)
    X[np.arange(N_IMAGES), codes] += 3
    indicator = np.eye(3, dtype=bool)[codes]
    labels = Labels("color", ("black", "blue", "red"), True, indicator, np.ones(N_IMAGES, bool))
    return X, {"color": labels}


def fit(**settings):
    X, labels = make_images()
    settings = HeadSettings.of(**{"head": "logistic", **settings})
    return fit_heads(X, labels, np.arange(N_IMAGES), settings, n_jobs=1)[:2]


def predictions_of(part, scores):
    ids = np.array([f"{part}/{row}.jpg" for row in range(N_IMAGES)])
    parts = np.full(N_IMAGES, part)
    groups, labels = np.arange(N_IMAGES), make_images()[1]
    return Predictions.of(ids, parts, groups, "per-attribute", labels, scores)


def save(folder, info=None, **settings):
    X, _ = make_images()
    model, out_of_fold = fit(**settings)
    test = dataclasses.replace(predictions_of("test", model.predict(X)), task=model.task)
    selection = dataclasses.replace(predictions_of("train", out_of_fold), task=model.task)
    facts = {"settings": HeadSettings.of(**{"head": "logistic", **settings})} | (info or {})
    save_run(folder, NewRun(head_info(**facts), model, test, selection))
    return model, test


@pytest.mark.parametrize("calibrate", ["sigmoid", "isotonic", "temperature", "none"])
@pytest.mark.parametrize(
    ("head", "threshold", "task"),
    [
        ("bagged-sgd", "1%", "per-attribute"),
        ("bagged-sgd", "0.001", "multi-label"),
        ("logistic", "1%", "per-attribute"),
        ("knn", "1%", "multi-label"),
    ],
)
def test_loaded_heads_predict_what_the_saved_ones_did(tmp_path, head, threshold, calibrate, task):
    model, _ = save(
        tmp_path / "run", head=head, calibrate=calibrate, task=task, variance_threshold=threshold
    )
    loaded = load_run(tmp_path / "run").model
    X, _ = make_images()
    np.testing.assert_array_equal(loaded.predict(X)["color"], model.predict(X)["color"])
    assert loaded.classes == {"color": ("black", "blue", "red")}
    assert loaded.task == task


def test_a_run_is_four_files_and_the_marker_of_written_folders(tmp_path):
    _, test = save(tmp_path / "runs" / "xception-1")
    assert sorted(path.name for path in (tmp_path / "runs/xception-1").iterdir()) == [
        MARKER,
        *FILES,
    ]
    run = load_run(tmp_path / "runs" / "xception-1")
    assert run.name == "xception-1"
    n_bytes = (tmp_path / "runs/xception-1/heads.skops").stat().st_size
    assert run.info.costs.model_bytes == n_bytes > 0
    files = file_digests(run.folder)
    assert list(files) == [name for name in FILES if name != "run.json"]
    costs = dataclasses.replace(head_info().costs, model_bytes=n_bytes)
    expected = head_info(costs=costs, files=files)
    assert run.info == expected
    np.testing.assert_array_equal(run.predictions.scores["color"], test.scores["color"])
    assert set(run.selection.parts) == {"train"}


@pytest.mark.parametrize("head", ["bagged-sgd", "logistic", "svm", "knn"])
def test_the_same_run_gives_the_same_bytes(tmp_path, head):
    save(tmp_path / "a", head=head, calibrate="isotonic")
    save(tmp_path / "b", head=head, calibrate="isotonic")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_names_that_look_like_skops_own_are_kept(tmp_path):
    X, labels = make_images()
    names = ('"file": "7.npy"', '"__id__": 3', "__id__")
    odd = {"7.npy": dataclasses.replace(labels["color"], attribute="7.npy", classes=names)}
    model, _, _ = fit_heads(X, odd, np.arange(N_IMAGES), HeadSettings.of("logistic"), n_jobs=1)
    (tmp_path / "heads.skops").write_bytes(heads_content(model))
    assert load_heads(tmp_path / "heads.skops").classes == {"7.npy": names}


def test_no_file_holds_a_pickle(tmp_path):
    save(tmp_path / "run", head="bagged-sgd")
    for path in (tmp_path / "run").glob("*.[ns]*[pz]*"):
        for name in zipfile.ZipFile(path).namelist():
            assert name.endswith((".npy", "schema.json"))
    with np.load(tmp_path / "run" / "selection.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays)


def test_a_run_of_the_same_name_is_replaced(tmp_path):
    save(tmp_path / "run", {"machine": "one"})
    (tmp_path / "run" / "stray.txt").write_text("left over")
    save(tmp_path / "run", {"machine": "two"})
    assert load_run(tmp_path / "run").info.machine == "two"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [MARKER, *FILES]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_stands_until_the_new_one_is_complete(tmp_path, monkeypatch):
    save(tmp_path / "run", {"machine": "one"})

    def fill_disk(path, predictions):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "save_predictions", fill_disk)
    with pytest.raises(DiskFullError):
        save(tmp_path / "run", {"machine": "two"})
    assert load_run(tmp_path / "run").info.machine == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    (tmp_path / ".run.part").mkdir()
    (tmp_path / ".run.part" / "heads.skops").write_bytes(b"half")
    save(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("n_renamed", [0, 1])
def test_a_kill_while_a_run_is_replaced_loses_nothing(tmp_path, monkeypatch, n_renamed):
    home = Workspace(tmp_path)
    save(home.run("run"), {"machine": "one"})
    rename, renamed = Path.rename, []

    def killed(self, target):
        # Renaming of files is `replace`: only the two renames of the folder come here.
        if len(renamed) == n_renamed:
            raise SystemExit
        renamed.append(rename(self, target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        # A killed process removes nothing.
        patch.setattr("featurepipe.files.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            save(home.run("run"), {"machine": "two"})
    assert len(renamed) == n_renamed
    assert home.run("run").exists() == (n_renamed == 0)
    assert home.runs() == [home.run("run")]
    assert load_run(home.run("run")).info.machine == "one"
    with home.writing():
        names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["run"]


def test_what_was_replaced_goes_once_the_new_run_is_there(tmp_path):
    home = Workspace(tmp_path)
    save(home.run("run"), {"machine": "two"})
    shutil.copytree(home.run("run"), tmp_path / "runs" / ".run.replaced")
    (tmp_path / "runs" / ".training-0123").mkdir()
    assert home.runs() == [home.run("run")]
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    # The checkpoints of a training are not what a kill left over.
    assert names == [".training-0123", "run"]


def test_a_reader_leaves_alone_what_another_process_is_replacing(tmp_path):
    home = Workspace(tmp_path)
    save(home.run("run"))
    with home.writing():
        home.run("run").rename(tmp_path / "runs" / ".run.replaced")
        assert home.runs() == []
    assert home.runs() == [home.run("run")]


def test_predictions_must_be_of_the_runs_attributes_and_task(tmp_path):
    save(tmp_path / "shoes", {"settings": HeadSettings.of(head="logistic", task="joint")})
    with pytest.raises(RunError) as caught:
        load_run(tmp_path / "shoes")
    assert str(caught.value) == (
        f"Run 'shoes' is damaged: {tmp_path / 'shoes' / 'predictions.npz'} has task and attributes "
        "per-attribute, color, but its run.json has joint, color. Fit it again."
    )


def test_a_network_is_known_by_its_info(tmp_path):
    model, test = save(tmp_path / "heads")
    assert load_run(tmp_path / "heads").network is None
    (tmp_path / "weights.keras").write_bytes(b"12345")
    shape = NetworkShape(size_px=96, outputs={"color": 3}, same=(-2, 1.5))
    info = network_info(network=shape)
    train = predictions_of("train", test.scores)
    new = NewRun(info, model, test, train, {"network.keras": tmp_path / "weights.keras"})
    run = save_run(tmp_path / "network", new)
    heads_bytes = (tmp_path / "network" / "heads.skops").stat().st_size
    assert run.info.costs.model_bytes == heads_bytes + 5
    network = load_run(tmp_path / "network").network
    assert (network.name, network.title, network.framing.size) == (
        "smallervggnet", "smallervggnet", (96, 96)
    )  # fmt: skip
    assert (network.outputs, network.same) == ({"color": 3}, (-2.0, 1.5))
    assert network.path == tmp_path / "network" / "network.keras"
    assert network.path.read_bytes() == b"12345"


@pytest.mark.parametrize("name", FILES)
def test_missing_files_are_named(tmp_path, name):
    save(tmp_path / "shoes")
    (tmp_path / "shoes" / name).unlink()
    with pytest.raises(RunError, match=rf"Run 'shoes' is damaged.*{name} is missing"):
        _ = load_run(tmp_path / "shoes").model


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("n_bytes", [0, 100])
def test_truncated_files_are_named(tmp_path, name, n_bytes):
    save(tmp_path / "shoes")
    path = tmp_path / "shoes" / name
    path.write_bytes(path.read_bytes()[:n_bytes])
    said = "cannot be read" if name == "run.json" else "does not match its SHA-256"
    with pytest.raises(RunError, match=rf"Run 'shoes' is damaged.*{name} {said}"):
        _ = load_run(tmp_path / "shoes").model
    if name != "run.json":
        sign(tmp_path / "shoes")
        with pytest.raises(RunError, match=rf"Run 'shoes' is damaged.*{name} cannot be read"):
            _ = load_run(tmp_path / "shoes").model


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": "featurepipe run 0"}'])
def test_foreign_runs_are_refused(tmp_path, content):
    save(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(RunError, match="Run 'run' was not written by this version"):
        load_run(tmp_path / "run")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"run\.json is missing"):
        load_run(tmp_path)


def test_the_model_is_read_only_when_asked_for(tmp_path):
    save(tmp_path / "run")
    (tmp_path / "run" / "heads.skops").unlink()
    assert load_run(tmp_path / "run").name == "run"


def test_types_that_no_run_has_are_refused_and_nothing_runs(tmp_path, monkeypatch):
    save(tmp_path / "run")
    marker = tmp_path / "it_ran"
    (tmp_path / "trojan.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Horse:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    horse = importlib.import_module("trojan").Horse()
    (tmp_path / "run" / "heads.skops").write_bytes(heads_content(horse))
    sign(tmp_path / "run")
    marker.unlink()
    del sys.modules["trojan"]
    with pytest.raises(RunError, match=r"Run 'run' is not trusted.*trojan\.Horse"):
        _ = load_run(tmp_path / "run").model
    assert not marker.exists()
    assert "trojan" not in sys.modules


def test_forged_types_are_refused_and_nothing_runs(tmp_path):
    save(tmp_path / "run")
    path, marker = tmp_path / "run" / "heads.skops", tmp_path / "it_ran"
    schema = {
        "__class__": "system",
        "__module__": "os",
        "__loader__": "ReduceNode",
        "__reduce__": {
            "args": json.loads(
                zipfile.ZipFile(io.BytesIO(heads_content((f"touch {marker}",)))).read("schema.json")
            )
        },
        "content": None,
        "protocol": 2,
        "_skops_version": skops.__version__,
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
    sign(tmp_path / "run")
    with pytest.raises(RunError, match=r"Run 'run' is (damaged|not trusted)"):
        _ = load_run(tmp_path / "run").model
    assert not marker.exists()


class Bomb:
    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


def test_a_pickle_by_another_name_is_refused_and_nothing_runs(tmp_path):
    save(tmp_path / "run")
    (tmp_path / "run" / "heads.skops").write_bytes(pickle.dumps(Bomb()))
    sign(tmp_path / "run")
    with pytest.raises(RunError, match=r"heads\.skops cannot be read"):
        _ = load_run(tmp_path / "run").model
    assert not Bomb.exploded


def test_other_objects_are_no_model(tmp_path):
    save(tmp_path / "run")
    (tmp_path / "run" / "heads.skops").write_bytes(heads_content({"heads": 3}))
    sign(tmp_path / "run")
    with pytest.raises(RunError, match="it holds a dict"):
        _ = load_run(tmp_path / "run").model


def test_heads_are_read_without_importing_all_of_scikit_learn(tmp_path):
    save(tmp_path / "run", calibrate="isotonic")
    # In a process of its own: here all that other tests need is imported already.
    code = (
        "import sys; from pathlib import Path; from featurepipe.runs.run_folder import load_run;"
        "print(load_run(Path(sys.argv[1])).model.classes);"
        "print({'torch', 'sklearn.gaussian_process'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "set()"
