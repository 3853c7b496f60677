"""Heads and predictions that are not those of the run, though every digest fits."""

from dataclasses import replace

import numpy as np
import pytest

from featurepipe.errors import RunError
from featurepipe.manifest import Labels
from featurepipe.models.answers.head import ConstantHead, ScoreHead
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.predictions import Predictions
from featurepipe.runs.heads_file import heads_content
from featurepipe.runs.predictions_file import save_predictions
from featurepipe.runs.run_folder import NewRun, load_run, save_run
from run_infos import head_info, network_info, sign

N = 30
CODES = np.arange(N) % 3
INDICATOR = np.eye(3, dtype=bool)[CODES]
LABELS = {"color": Labels("color", ("black", "blue", "red"), True, INDICATOR, np.ones(N, bool))}
X = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
X[np.arange(N), CODES] += 3


def fitted(**settings):
    return fit_heads(X, LABELS, np.arange(N), HeadSettings.of(**settings), n_jobs=1)[0]


@pytest.fixture(scope="module")
def knn():
    return fitted(head="knn")


def answers(part, model):
    ids = np.array([f"{part}/{row}.jpg" for row in range(N)])
    scores, groups = model.predict(X), np.arange(N)
    return Predictions.of(ids, np.full(N, part), groups, model.task, LABELS, scores)


def save(folder, model, info=None):
    test, train = answers("test", model), answers("train", model)
    info = info or head_info(settings=HeadSettings.of("knn"))
    return save_run(folder, NewRun(info, model, test, train))


def with_head(model, **changes):
    return replace(model, heads={"color": replace(model.heads["color"], **changes)})


def without_classes(model):
    known = model.heads["color"].known
    return with_head(model, known=replace(known, constant=known.constant[:0]))


def changed_classifier(model, **changes):
    """The heads with other attributes of a classifier, on a copy."""
    head = model.heads["color"]
    classifier = head.estimator.steps[-1][1]
    other = type(classifier)()
    vars(other).update(vars(classifier) | changes)
    estimator = type(head.estimator)([*head.estimator.steps[:-1], ("last", other)])
    return with_head(model, estimator=estimator)


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda m: fitted(head="bagged-sgd"), "> BaggedSGDClassifier instead of Pipeline > Rel"),
        (lambda m: fitted(head="knn", calibrate="isotonic"), "the calibration of 'color'"),
        (lambda m: fitted(head="knn", task="multi-label"), "task differ"),
        (lambda m: replace(m, heads="color"), "heads differ"),
        (lambda m: replace(m, heads={}), "heads differ"),
        (lambda m: replace(m, heads={"color": 3}), "'int' object has no attribute 'known'"),
        (lambda m: replace(m, classes={}), "classes differ"),
        (lambda m: replace(m, classes={"color": ()}), "classes differ"),
        (lambda m: replace(m, exclusive={"color": False}), "exclusive differ"),
        (lambda m: replace(m, rejectors={}), "rejectors differ"),
        (lambda m: replace(m, rejectors={"color": 1}), "a rejector is of another type"),
        (lambda m: replace(m, lowest_p_values=np.array([0.5, 0.1])), "p-values are not ascending"),
        (lambda m: replace(m, lowest_p_values=np.full(3, np.nan)), "p-values are not ascending"),
        (lambda m: replace(m, lowest_p_values=[0.5]), "they cannot answer: "),
        (lambda m: replace(m, thresholds={"color": np.ones(3)}), "thresholds differ"),
        (lambda m: replace(m, thresholds=None), "they cannot answer: "),
        (lambda m: replace(m, combinations=np.zeros((2, 4))), "combinations are of another shape"),
        (without_classes, "known classes of 'color'"),
        (lambda m: with_head(m, calibrator="none"), "the calibration of 'color'"),
        (lambda m: with_head(m, columns=((0, 9),)), "the columns ((0, 9),) instead of ((0, 8),)"),
        (lambda m: with_head(m, estimator="knn"), "the estimator  instead of Pipeline > Rel"),
        (
            lambda m: replace(m, heads={"color": ConstantHead(m.heads["color"].known, ((0, 8),))}),
            "the calibration of 'color'",
        ),
        (lambda m: changed_classifier(m, directions_=np.ones((3, 2))), "they cannot answer: "),
        (
            lambda m: changed_classifier(m, truth_=np.full((N, 3), np.nan)),
            "scores that are not finite",
        ),
        (lambda m: changed_classifier(m, truth_=None), "they cannot answer: "),
    ],
)
def test_other_heads_are_refused(tmp_path, knn, forge, said):
    save(tmp_path / "run", knn)
    assert isinstance(load_run(tmp_path / "run").model, HeadModel)
    (tmp_path / "run" / "heads.skops").write_bytes(heads_content(forge(knn)))
    sign(tmp_path / "run")
    with pytest.raises(RunError, match="are not those of the run") as caught:
        _ = load_run(tmp_path / "run").model
    assert said in str(caught.value), str(caught.value)
    assert str(caught.value).endswith("Fit it again.")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"head": "knn"}, None),
        ({"head": "knn", "solver": "exact", "calibrate": "sigmoid"}, "the calibration of 'color'"),
        ({"head": "logistic"}, "the estimator Pipeline > RelativeVarianceThreshold > CosineNeigh"),
        ({"head": "knn", "variance_threshold": "0.1"}, "instead of Pipeline > AbsoluteVarianceThr"),
    ],
)
def test_heads_must_be_those_of_the_settings(tmp_path, knn, settings, said):
    save(tmp_path / "run", knn, head_info(settings=HeadSettings.of(**settings)))
    run = load_run(tmp_path / "run")
    if said is None:
        assert run.n_features == 8
        return
    with pytest.raises(RunError) as caught:
        _ = run.model
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "columns", "said"),
    [
        ((0, 3), ((3, 8),), None),
        ((0, 2), ((3, 8),), "the scores (0, 2) instead of (0, 3)"),
        ((0, 3), ((2, 8),), "the columns ((2, 8),)"),
        ((0, 3), ((3, 10**12),), "the columns ((3, 1000000000000),)"),
        ((0, 3), ((3, 9),), "they cannot answer: "),
    ],
)
def test_the_heads_of_a_network_must_fit_its_outputs(tmp_path, knn, scores, columns, said):
    head = knn.heads["color"]
    score_head = ScoreHead(head.known, columns, scores, calibrator=head.calibrator)
    rejector = replace(
        knn.rejectors["color"], ends=np.array([5]), bank=knn.rejectors["color"].bank[:, 3:]
    )
    model = replace(knn, heads={"color": score_head}, rejectors={"color": rejector})
    test, train = answers("test", knn), answers("train", knn)
    run = save_run(tmp_path / "run", NewRun(network_info(), model, test, train))
    if said is None:
        assert load_run(run.folder).n_features == 8
        return
    with pytest.raises(RunError, match="Train it again") as caught:
        _ = load_run(run.folder).model
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda test, train: (test.take([]), train), "predictions.npz has no test image"),
        (lambda test, train: (train, train), "predictions.npz has no test image, or has training"),
        (lambda test, train: (test, train.take([])), "selection.npz has no training image"),
        (lambda test, train: (test, test), "selection.npz has no training image, or has others"),
        (lambda test, train: (test, replace(train, ids=test.ids)), "both have the image 'test/0."),
        (
            lambda test, train: (test, replace(train, labels=dark(train.labels))),
            "have other classes of 'color'",
        ),
    ],
)
def test_predictions_that_contradict_each_other_are_refused(tmp_path, knn, change, said):
    save(tmp_path / "run", knn)
    test, train = change(answers("test", knn), answers("train", knn))
    save_predictions(tmp_path / "run" / "predictions.npz", test)
    save_predictions(tmp_path / "run" / "selection.npz", train)
    sign(tmp_path / "run")
    with pytest.raises(RunError) as caught:
        load_run(tmp_path / "run")
    assert said in str(caught.value)


def dark(labels):
    return {"color": replace(labels["color"], classes=("black", "brown", "red"))}
