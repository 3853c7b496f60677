import numpy as np
import pandas as pd
import pytest

from featurepipe.errors import RunError, UnknownNameError, WorkspaceError
from featurepipe.manifest import Labels, read_manifest
from featurepipe.predictions import Predictions
from featurepipe.runs.choosing import all_runs, find_pair_run, find_run
from featurepipe.runs.predictions_file import save_predictions
from featurepipe.runs.run_facts import NetworkShape
from featurepipe.runs.run_files import file_digests
from featurepipe.runs.run_info import write_run_info
from featurepipe.workspace import Workspace
from run_infos import head_info, network_info

SAME = NetworkShape(size_px=32, outputs={"color": 2}, same=(-1.0, 2.0))


@pytest.fixture
def home(tmp_path):
    home = Workspace(tmp_path / "home")
    names = [f"{part}/{row}.jpg" for part in ("test", "train") for row in range(2)]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    table = tmp_path / "labels.csv"
    pd.DataFrame({"path": names, "color": ["blue", "red"] * 2}).to_csv(table, index=False)
    home.root.mkdir()
    read_manifest(tmp_path / "images", labels=table).save(home.manifest)
    return home


def save(home, name, make=head_info, accuracy=0.5, ms=10.0, number=0, **changes):
    info = make(**changes)
    attributes = info.attributes
    info = info.model_copy(
        update={
            "selection_accuracy": dict.fromkeys([*attributes, "all"], accuracy),
            "split": info.split.model_copy(update={"number": number}),
            "costs": type(info.costs)(None, 1.0, ms),
        }
    )
    indicator = np.eye(2, dtype=bool)[[0, 1]]
    labels = {
        each: Labels(each, ("blue", "red"), True, indicator, np.ones(2, bool))
        for each in attributes
    }
    for file, part in (("predictions.npz", "test"), ("selection.npz", "train")):
        predictions = Predictions.of(
            ids=np.array([f"{part}/0.jpg", f"{part}/1.jpg"]),
            parts=np.full(2, part),
            groups=np.arange(2),
            task=info.task,
            labels=labels,
            scores={each: indicator.astype(float) for each in attributes},
        )
        save_predictions(home.run(name) / file, predictions)
    files = file_digests(home.run(name))
    write_run_info(home.run(name), info.model_copy(update={"files": files}))


def test_the_best_by_training_rows_is_chosen_and_the_faster_of_two(home):
    save(home, "a", accuracy=0.7)
    save(home, "b", accuracy=0.9, ms=20.0)
    save(home, "c", accuracy=0.9, ms=5.0)
    save(home, "unmeasured", accuracy=None, ms=None)
    assert find_run(home, None).name == "c"
    assert find_run(home, "a").name == "a"
    assert find_run(home, "runs/b/").name == "b"
    assert [run.name for run in all_runs(home)] == ["a", "b", "c", "unmeasured"]


def test_runs_of_other_splits_and_attributes_are_not_compared(home):
    save(home, "first", accuracy=0.5, number=1)
    save(home, "later", accuracy=0.9, number=2)
    save(home, "relabelled", accuracy=0.9, number=1, attributes=("kind",))
    assert find_run(home, None).name == "first"


def test_without_a_run_on_the_present_labels_it_says_what_has_changed(home, caplog):
    save(home, "old", accuracy=0.5, attributes=("kind",))
    for find in (find_run, lambda home, name: find_run(home, name, heads_only=True)):
        with pytest.raises(WorkspaceError) as caught:
            find(home, None)
        assert str(caught.value) == (
            f"No run of the workspace {home.root} was fitted on the present labels and images. "
            "Since old was: the attributes are now color instead of kind. Fit or train again, or "
            "name an old run: --run old"
        )
    assert not caplog.messages
    assert find_run(home, "old").name == "old"
    assert caplog.messages == [
        "Run old was fitted on other labels or images than the present ones: the attributes are "
        "now color instead of kind."
    ]
    home.manifest.unlink()
    assert find_run(home, "old").name == "old"
    assert len(caplog.messages) == 1


def test_networks_can_be_left_out(home):
    save(home, "heads", accuracy=0.5)
    save(home, "network", network_info, accuracy=0.9)
    assert find_run(home, None).name == "network"
    assert find_run(home, None, heads_only=True).name == "heads"


def test_a_run_that_compares_images_is_found(home):
    save(home, "heads", accuracy=0.9)
    with pytest.raises(WorkspaceError, match=r"can compare images\. .*featurepipe train pair"):
        find_pair_run(home, None)
    save(home, "pair", network_info, accuracy=0.6, network=SAME)
    save(home, "pair-2", network_info, accuracy=0.7, network=SAME)
    assert find_pair_run(home, None).name == "pair-2"
    assert find_pair_run(home, "pair").name == "pair"
    with pytest.raises(RunError, match="Run 'heads' cannot compare images"):
        find_pair_run(home, "heads")


def test_a_run_that_compares_images_is_one_of_the_present_labels(home):
    save(home, "pair", network_info, accuracy=0.9, network=SAME, attributes=("kind",))
    with pytest.raises(WorkspaceError, match="the attributes are now color instead of kind"):
        find_pair_run(home, None)
    save(home, "pair-2", network_info, accuracy=0.6, network=SAME, number=1)
    assert find_pair_run(home, None).name == "pair-2"


def test_what_is_missing_is_said(home):
    with pytest.raises(WorkspaceError, match="has no run yet"):
        find_run(home, None)
    save(home, "network", network_info)
    with pytest.raises(WorkspaceError, match="has no run of heads yet"):
        find_run(home, None, heads_only=True)
    for find in (find_run, find_pair_run):
        with pytest.raises(UnknownNameError, match=r"Unknown run 'netwrk'\. Did you mean"):
            find(home, "netwrk")


def test_damaged_runs_are_left_out_and_named(home, caplog):
    save(home, "good", accuracy=0.5)
    save(home, "bad", accuracy=0.9)
    save(home, "worse", accuracy=0.9)
    (home.run("bad") / "predictions.npz").unlink()
    (home.run("worse") / "run.json").write_text("[" * 100_000)
    assert find_run(home, None).name == "good"
    said = caplog.messages
    assert len(said) == 2
    assert said[0].startswith("Left out: Run 'bad' is damaged: ")
    assert said[1].startswith("Left out: Run 'worse' is damaged: ")
    assert "recursion" in said[1]
    with pytest.raises(RunError, match="Run 'bad' is damaged"):
        find_run(home, "bad")
    (home.run("good") / "selection.npz").unlink()
    with pytest.raises(WorkspaceError, match=r"No run of .* The first of 3 problems: Run 'bad' is"):
        find_run(home, None)
