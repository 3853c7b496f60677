"""Heads of one's own: fitted, saved, read again, repeated; and what is refused before that."""

import json
import shutil
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

import featurepipe
from featurepipe.cli import run
from featurepipe.errors import RunError, UsageError
from featurepipe.features.store import FeatureStore
from featurepipe.models.heads.estimators.variances import build_variance_threshold
from featurepipe.reports.info_text import info_text
from featurepipe.runs.run_folder import load_run
from own_classifiers import Broken, Endless, Forgetful, Listener, NearestMean, Upwards
from pictures import draw_data_set
from run_infos import sign

TREE = "sklearn.tree._tree.Tree"
NEAREST = "own_classifiers.NearestMean"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    draw_data_set(folder / "dataset", n_each=8)
    options = {"attributes": ["color", "kind"], "backbone": "hsv_histogram"}
    featurepipe.extract(folder / "dataset", **options, workspace=folder)
    return folder


@pytest.fixture
def place(made, monkeypatch):
    """A workspace without runs, for the names of runs depend on those before them."""
    monkeypatch.chdir(made)
    yield made
    shutil.rmtree(made / "runs", ignore_errors=True)


def images(folder):
    return sorted(map(str, folder.glob("dataset/*/*.png")))[::8]


def fit(head, **options):
    return featurepipe.fit(head=head, **options)["run"].unique().tolist()


def by_hand(head, place, kept):
    """The class of each test row, by the estimator after the variance threshold."""
    with FeatureStore.open(next(place.glob("features/*.h5"))) as store:
        features = dict(zip(store.ids, store.features(), strict=True))
    X, X_test = (
        np.stack([features[i] for i in part.ids]) for part in (kept.selection, kept.predictions)
    )
    seeded = clone(head)
    if "random_state" in head.get_params():
        seeded.set_params(random_state=0)
    if "linearsvc__random_state" in head.get_params():
        seeded.set_params(linearsvc__random_state=0)
    steps = make_pipeline(build_variance_threshold("1%"), seeded)
    return {
        name: steps.fit(X, truth.indicator.argmax(axis=1)).predict(X_test)
        for name, truth in kept.selection.labels.items()
    }


@pytest.mark.parametrize(
    ("head", "options", "name"),
    [
        (RandomForestClassifier(10), {"trusted": TREE}, "RandomForestClassifier"),
        (make_pipeline(StandardScaler(), LinearSVC()), {}, "LinearSVC"),
        (SVC(), {"task": "joint", "calibrate": "none"}, "SVC-joint"),
        (LinearSVC(C=2), {"task": "multi-label"}, "LinearSVC-multi-label"),
        (
            RandomForestClassifier(10),
            {"task": "multi-label", "trusted": [TREE], "thresholds": "f1"},
            "RandomForestClassifier-multi-label",
        ),
        (NearestMean(), {"trusted": [NEAREST]}, "NearestMean"),
        # Ten rows of each of two classes are too few for 25 neighbours; all rows are not.
        (KNeighborsClassifier(25), {}, "KNeighborsClassifier"),
    ],
)
def test_a_head_of_ones_own_is_a_run_like_others(place, head, options, name):
    (made,) = fit(head, **options)
    assert made == f"hsv_histogram-{name}"
    trusted = options.get("trusted", ())
    kept = load_run(place / "runs" / made, [trusted] if isinstance(trusted, str) else trusted)
    assert kept.info.head == name.split("-")[0] and kept.info.solver is None
    if kept.info.task == "per-attribute":
        for attribute, predicted in by_hand(head, place, kept).items():
            scores = kept.predictions.scores[attribute]
            assert scores.argmax(axis=1).tolist() == predicted.tolist()
    answers = featurepipe.predict(images(place), run=made, trusted=trusted)
    assert len(answers) == 2 * len(images(place)) and (answers["refused"] == "").all()
    assert (kept.predictions.scores["color"].max(axis=1) > 0.5).mean() > 0.3
    featurepipe.repeat(made, head=head)
    assert featurepipe.info(kept.folder, verify=True, trusted=trusted)["what"] == "run"
    # No heads are read for these.
    featurepipe.audit(run=made)
    board = featurepipe.report()
    assert set(board.loc[board["run"] == made, "head"]) == {name.split("-")[0]}


def test_the_same_fit_replaces_its_run_and_other_parameters_do_not(place):
    before = fit(LinearSVC(C=3))
    assert fit(LinearSVC(C=3, random_state=0)) == before
    other = fit(LinearSVC(C=4))
    assert other != before and other[0].startswith("hsv_histogram-LinearSVC")


def test_the_same_seed_gives_the_same_bytes(place):
    content = []
    for _ in range(2):
        (name,) = fit(RandomForestClassifier(5), seed=7, trusted=[TREE])
        content.append((place / "runs" / name / "heads.skops").read_bytes())
    assert content[0] == content[1]


def test_auto_features_and_curves(place):
    (name,) = fit(NearestMean(), features="auto", trusted=[NEAREST], curve="images")
    assert name == "auto-NearestMean"
    assert load_run(place / "runs" / name).info.curve
    featurepipe.repeat(name, head=NearestMean())


def test_info_shows_the_parameters(place):
    (name,) = fit(LogisticRegression(C=0.5))
    text = info_text(featurepipe.info(place / "runs" / name))
    assert "parameters   LogisticRegression(C=0.5, random_state=0)" in text
    assert (
        'In Python: featurepipe.fit(head=LogisticRegression(…), features="hsv_histogram:rgb")'
        in text
    )


REFUSED = [
    (RandomForestClassifier(5), f"made of {TREE}, which neither skops nor featurepipe trusts"),
    (NearestMean(), f"If you trust them, name them: trusted=['{NEAREST}']"),
    (SVC(decision_function_shape="ovo"), "The head has 6 scores for 4 classes"),
    (
        Upwards(),
        "The head Upwards predicts another class than the one with its highest score, for 100%",
    ),
    (Endless(), "The head has scores that are not finite"),
    (Broken(), "features: no such luck. Change its parameters"),
    (Listener(), "The head Listener cannot be saved and loaded without pickle ("),
    (
        Forgetful(),
        "The head Forgetful cannot be saved and loaded without pickle (its answers change)",
    ),
    (make_pipeline(FunctionTransformer(lambda X: X), SVC()), "without pickle ("),
    (LogisticRegression(class_weight={"red": 2}), "are not in class_weight"),
]


@pytest.mark.parametrize(("head", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_used_is_refused_first(place, monkeypatch, head, said):
    monkeypatch.setattr("featurepipe.workflows.fit._fit_run", pytest.fail)
    before = sorted(place.rglob("*"))
    with pytest.raises(UsageError) as caught:
        fit(head, seed=41)
    assert said in str(caught.value), str(caught.value)
    assert sorted(place.rglob("*")) == before


@pytest.fixture
def untrusted(place, monkeypatch):
    """A run whose head needs a type that is not imported yet."""
    (name,) = fit(NearestMean(), trusted=[NEAREST])
    monkeypatch.delitem(sys.modules, "own_classifiers")
    yield name
    assert "own_classifiers" not in sys.modules


def test_a_type_is_trusted_by_name_only(place, untrusted):
    for read in (
        lambda: featurepipe.predict(images(place), run=untrusted),
        lambda: featurepipe.predict(
            images(place), run=untrusted, trusted=["own_classifiers.Other"]
        ),
        lambda: featurepipe.info(place / "runs" / untrusted, verify=True),
    ):
        with pytest.raises(RunError) as caught:
            read()
        assert f"Run '{untrusted}' is not trusted: its head is made of {NEAREST}" in str(
            caught.value
        )
        assert str(caught.value).endswith(f"use Python: trusted=['{NEAREST}'].")


def test_the_command_line_trusts_no_type(place, untrusted, capsys):
    assert run(["predict", *images(place), "--run", untrusted]) == 1
    assert "is not trusted" in capsys.readouterr().err


def test_a_run_of_another_head_may_hold_no_other_type(place, untrusted):
    """Whatever the caller trusts, a head of featurepipe is made of nothing else."""
    (knn,) = fit("knn")
    folder = place / "runs" / knn
    (folder / "heads.skops").write_bytes((place / "runs" / untrusted / "heads.skops").read_bytes())
    sign(folder)
    with pytest.raises(RunError, match="holds types that no run has"):
        _ = load_run(folder, [NEAREST]).model


def test_run_json_holds_no_estimator(place):
    (name,) = fit(LinearSVC(C=5))
    folder = place / "runs" / name
    path = folder / "run.json"
    facts = json.loads(path.read_text())
    assert facts["settings"]["own"].keys() == {"parameters", "digest"}
    facts["settings"]["own"]["estimator"] = {"C": 3}
    path.write_text(json.dumps(facts))
    with pytest.raises(RunError, match="estimator"):
        load_run(folder)


@pytest.mark.parametrize("task", ["per-attribute", "multi-label"])
def test_the_heads_must_be_made_of_the_class_that_run_json_names(place, task):
    (name,), (other,) = fit(LinearSVC(C=7), task=task), fit(SVC(C=7), task=task)
    folder = place / "runs" / name
    content = (place / "runs" / other / "heads.skops").read_bytes()
    (folder / "heads.skops").write_bytes(content)
    sign(folder)
    with pytest.raises(RunError, match=r"> SVC instead of Pipeline > .*> LinearSVC"):
        _ = load_run(folder).model


@pytest.mark.parametrize(
    ("run", "head", "said"),
    [
        ("own", None, "in Python: featurepipe.repeat('{name}', head=LinearSVC(…))"),
        ("own", LinearSVC(C=9), "The head LinearSVC(C=9, random_state=0) is not that of run"),
        ("own", LinearSVC, "The head is a class"),
        ("knn", LinearSVC(C=8), "has the head knn of featurepipe"),
    ],
)
def test_only_the_estimator_of_the_run_repeats_it(place, run, head, said):
    (name,) = fit(LinearSVC(C=8) if run == "own" else "knn")
    with pytest.raises(UsageError) as caught:
        featurepipe.repeat(name, head=head)
    assert said.format(name=name) in str(caught.value)


def test_options_without_a_meaning_are_refused(place):
    with pytest.raises(UsageError, match="trusted only applies to an estimator"):
        fit("knn", trusted=[NEAREST])
