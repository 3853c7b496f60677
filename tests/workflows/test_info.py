"""featurepipe info: facts for programs, and the same in at most 25 lines for people."""

import json
import shutil

import h5py
import pytest

import featurepipe
from featurepipe.cli import run
from featurepipe.errors import RunError, SplitError, StoreError, WorkspaceError
from featurepipe.features.extraction.pixel_cache import decode_pixels
from featurepipe.manifest import Manifest
from featurepipe.workspace import Workspace
from pictures import draw_data_set
from run_infos import sign

BROKEN = "blue_plain/01.png"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A workspace of 80 images, one of them refused, with a run of each of two splits."""
    root = tmp_path_factory.mktemp("drawn")
    draw_data_set(root / "dataset")
    (root / "dataset" / BROKEN).write_bytes(b"broken")
    featurepipe.extract(
        root / "dataset", attributes=["color", "kind"], backbone="hsv_histogram", workspace=root
    )
    featurepipe.fit(head="logistic", workspace=root)
    featurepipe.fit(head="knn", hold_out=["red_bright"], workspace=root)
    place = Workspace(root)
    manifest = Manifest.load(place.manifest)
    decode_pixels(place.pixels(8), manifest.images(), manifest.ids.tolist(), 8)
    return root


@pytest.fixture
def root(drawn, tmp_path):
    """A copy that may be damaged; its images lie where they were."""
    return shutil.copytree(drawn, tmp_path / "copy")


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def flip(path, name):
    with h5py.File(path, "r+") as file:
        file[name][0] = 255 - file[name][0]


def shown(capsys, *arguments):
    capsys.readouterr()
    assert run(["info", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_workspace_says_what_it_holds(drawn, capsys):
    facts = featurepipe.info(drawn)
    assert facts["images"] == 80
    assert facts["attributes"] == {
        "color": {"black": 20, "blue": 20, "red": 20, "white": 20},
        "kind": {"bright": 40, "plain": 40},
    }
    (store,) = facts["stores"]
    assert (store["done"], store["refused"], store["pending"]) == (79, 1, 0)
    assert [cache["name"] for cache in facts["pixel_caches"]] == ["8"]
    assert [split["unseen"] for split in facts["splits"]] == [10, 0]
    assert {run["head"] for run in facts["runs"]} == {"knn", "logistic"}
    assert facts["damaged"] == []

    lines = shown(capsys, drawn).splitlines()
    assert lines[0] == f"Workspace {drawn}"
    assert "attributes   color, 4 classes: black 20, blue 20, red 20, white 20" in lines
    assert "             kind, 2 classes: bright 40, plain 40" in lines
    assert "features     hsv_histogram-none-128-avg-rgb  79 of 80 images  1 refused" in lines
    assert lines[-1] == "next         featurepipe report"


def test_json_has_everything(drawn, capsys):
    for path in (drawn, *drawn.glob("runs/*"), *drawn.glob("*/*.h5"), *drawn.glob("splits/*.json")):
        assert json.loads(shown(capsys, path, "--json")) == featurepipe.info(path)


def test_a_run_says_how_good_it_is_and_what_is_next(drawn, capsys):
    path = only(drawn, "runs/*knn*")
    facts = featurepipe.info(path / "run.json")
    assert facts == featurepipe.info(path)
    assert (facts["head"], facts["is_network"], facts["task"]) == ("knn", False, "per-attribute")
    assert facts["reads"]["color"] == ["hsv_histogram:rgb"]
    of_all = featurepipe.report(workspace=drawn).set_index(["run", "attribute"]).loc[path.name]
    for name, row in of_all.iterrows():
        for part in ("test", "unseen"):
            prefix = "" if part == "test" else "unseen_"
            measured = facts[f"{part}_accuracy"][name]
            assert measured == pytest.approx(
                {
                    "accuracy": row[f"{prefix}accuracy"],
                    "low": row[f"{prefix}accuracy_low"],
                    "high": row[f"{prefix}accuracy_high"],
                }
            )
    (drawn / "leaderboard.csv").unlink()
    kept = json.loads((path / "run.json").read_text())
    assert facts["run.json"]["settings"] == facts["settings"] == kept["settings"]

    text = shown(capsys, path)
    assert text.startswith(f"Run {path.name}\n\nhead         knn, one for each attribute\n")
    assert "held out (95 % CI)" in text and "test (95 % CI)" in text
    assert text.endswith(f"next         featurepipe predict IMAGES --run {path.name}\n")


def test_a_store_says_what_made_it(drawn, capsys):
    path = only(drawn, "features/*.h5")
    facts = featurepipe.info(path, verify=True)
    assert (facts["what"], facts["images"], facts["n_features"]) == ("feature store", 80, 576)
    assert facts["recipe"]["backbone"] == "hsv_histogram"
    assert list(facts["refused_images"]) == [BROKEN]
    text = shown(capsys, path, "--verify")
    assert "images       79 of 80 done, 1 refused\n" in text
    assert f"refused      {BROKEN}: " in text
    assert "verified     80 rows: checksums and images match\n" in text
    assert text.endswith("next         featurepipe fit --backbone hsv_histogram\n")


def test_a_pixel_cache_is_no_feature_store(drawn, capsys):
    text = shown(capsys, drawn / "pixels" / "8.h5")
    assert text.startswith("Pixel cache 8\n")
    assert "input        8 × 8 px" in text and "backbone" not in text
    assert text.endswith("next         featurepipe train NETWORK\n")


def test_a_split_says_what_it_holds_out(drawn, capsys):
    facts = featurepipe.info(only(drawn, "splits/*red_bright.json"))
    assert facts["settings"]["hold_out"] == ["red_bright"]
    assert facts["train"] + facts["test"] + facts["unseen"] == 79
    text = shown(capsys, facts["path"])
    assert f"images       train   {facts['train']} images" in text
    assert "held out     red_bright\n" in text
    assert "settings     test size 20.0 %, seed 0\n" in text


def test_a_manifest_says_where_images_and_labels_are(drawn, capsys):
    text = shown(capsys, drawn / "manifest.parquet")
    assert f"images       80 in {drawn / 'dataset'}\n" in text
    assert "kind, 2 classes: bright 40, plain 40" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "There is no "),
        ("nothing.h5", "There is no "),
        ("leaderboard.csv", "is the leaderboard. Show it: featurepipe report"),
        ("audit.csv", "is not a file that `info` describes. Give a workspace"),
        ("empty", "is no workspace and no run. Make a workspace: featurepipe extract"),
    ],
)
def test_what_info_cannot_describe_is_a_clear_error(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    for file in ("leaderboard.csv", "audit.csv"):
        (tmp_path / file).write_text("a,b\n")
    with pytest.raises((WorkspaceError, StoreError), match=said):
        featurepipe.info(tmp_path / name)


def test_a_whole_workspace_is_verified(root, capsys):
    facts = featurepipe.info(root, verify=True)
    assert facts["damaged"] == []
    assert facts["stores"][0]["verified"] == "80 rows: checksums and images match"


def damage(root):
    """Damage of each kind, and what is said of it."""
    flip(root / "pixels" / "8.h5", "features")
    broken_split = only(root, "splits/*red_bright.json")
    broken_split.write_text("{}")
    (only(root, "runs/*knn*") / "predictions.npz").write_bytes(b"broken")
    (only(root, "runs/*logistic*") / "heads.skops").write_bytes(b"broken")
    return [
        "8.h5 has 1 bad row: black_bright/00.png (checksum)",
        f"{broken_split.name} (",
        "predictions.npz does not match its SHA-256",
        "heads.skops does not match its SHA-256",
    ]


def test_verifying_a_workspace_lists_all_that_is_wrong(root, capsys):
    problems = damage(root)
    assert run(["info", str(root), "--verify"]) == 1
    *listed, last = capsys.readouterr().err.splitlines()
    assert last == f"featurepipe: The workspace {root} has 4 problems (see above)."
    assert all(said in line for said, line in zip(problems, listed, strict=True)), listed


def test_a_damaged_part_does_not_hide_the_others(root, capsys):
    damage(root)
    facts = featurepipe.info(root)
    # Without verify neither rows nor heads are read.
    assert len(facts["damaged"]) == 2
    assert [run["head"] for run in facts["runs"]] == ["logistic"]
    assert len(facts["splits"]) == 1
    assert "damaged      " in shown(capsys, root)


def test_damaged_parts_are_errors_of_their_own(root):
    damage(root)
    with pytest.raises(StoreError, match="1 bad row"):
        featurepipe.info(root / "pixels" / "8.h5", verify=True)
    with pytest.raises(SplitError):
        featurepipe.info(only(root, "splits/*red_bright.json"))
    with pytest.raises(RunError):
        featurepipe.info(only(root, "runs/*knn*"))
    with pytest.raises(RunError):
        featurepipe.info(only(root, "runs/*logistic*"), verify=True)


def test_a_damaged_manifest_is_among_the_problems(root, caplog):
    (root / "manifest.parquet").write_bytes(b"broken")
    with pytest.raises(WorkspaceError, match=r"has 1 problem \(see above\)"):
        featurepipe.info(root, verify=True)
    assert "manifest.parquet" in caplog.text


def test_a_run_whose_files_changed_is_not_verified(root):
    """Any file that the run saved counts: heads, a network, a curve."""
    path = only(root, "runs/*logistic*")
    (path / "network.keras").write_bytes(bytes(1000))
    sign(path)
    assert featurepipe.info(path, verify=True)["what"] == "run"
    for name in ("network.keras", "inputs.csv", "heads.skops"):
        with (path / name).open("ab") as file:
            file.write(b"x")
    with pytest.raises(RunError) as caught:
        featurepipe.info(path, verify=True)
    lines = str(caught.value).splitlines()
    names = ["heads.skops", "inputs.csv", "network.keras"]
    assert len(lines) == len(names)
    for line, name in zip(lines, names, strict=True):
        assert f"{path / name} does not match its SHA-256 in run.json" in line
    # The board reads none of them.
    assert featurepipe.info(path)["what"] == "run"


def test_a_folder_that_lost_its_run_json_is_among_the_problems(root, caplog):
    path = only(root, "runs/*knn*")
    (path / "run.json").unlink()
    said = f"The folder {path} is no run: it has no run.json."
    with pytest.raises(WorkspaceError, match="has 1 problem"):
        featurepipe.info(root, verify=True)
    assert [message.startswith(said) for message in caplog.messages] == [True]
    caplog.clear()
    assert any(said in problem for problem in featurepipe.info(root)["damaged"])
    assert [message.startswith(f"Left out: {said}") for message in caplog.messages] == [True]
