import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from featurepipe import metrics
from featurepipe.models.answers.calibration import calibration_for, fit_calibrator

METHODS = ["sigmoid", "isotonic", "temperature"]


def make_scores(n=4000, n_classes=5, overconfidence=5.0, seed=0):
    """Scores whose softmax would be right, were they divided by `overconfidence`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 1.5
    uniform = rng.random((n, 1))
    codes = (softmax(logits, axis=1).cumsum(axis=1) < uniform).sum(axis=1)
    return logits * overconfidence, np.eye(n_classes, dtype=bool)[codes]


class GivenScores(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose features are its decision scores."""

    def __init__(self, n_classes):
        self.n_classes = n_classes
        self.classes_ = np.arange(n_classes)

    def fit(self, X, y):
        return self

    def decision_function(self, X):
        return X[:, 1] if self.n_classes == 2 else X

    def predict(self, X):
        return X.argmax(axis=1)


def by_scikit_learn(method, scores, truth):
    rows = np.arange(len(scores))
    given = FrozenEstimator(GivenScores(scores.shape[1]))
    calibrated = CalibratedClassifierCV(given, method=method, cv=[(rows, rows)])
    return calibrated.fit(scores, truth.argmax(axis=1)).predict_proba(scores)


def test_temperature_is_recovered():
    scores, truth = make_scores(overconfidence=5.0)
    calibrator = fit_calibrator("temperature", scores, truth, exclusive=True)
    assert 1 / calibrator.slope == pytest.approx(5.0, rel=0.05)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_temperature_is_found_at_any_scale(scale):
    scores, truth = make_scores()
    calibrator = fit_calibrator("temperature", scores * scale, truth, exclusive=True)
    assert 1 / calibrator.slope == pytest.approx(5.0 * scale, rel=0.05)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_calibration_agrees_with_scikit_learn(method, n_classes):
    scores, truth = make_scores(n_classes=n_classes)
    if n_classes == 2:
        scores = (scores[:, 1] - scores[:, 0])[:, None] * [-0.5, 0.5]
    ours = fit_calibrator(method, scores, truth, exclusive=True).predict_proba(scores)
    np.testing.assert_allclose(ours, by_scikit_learn(method, scores, truth), atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_log_loss_of_held_out_rows_improves(method):
    scores, truth = make_scores()
    held_out, held_out_truth = make_scores(seed=1)
    calibrated = fit_calibrator(method, scores, truth, exclusive=True).predict_proba(held_out)
    codes = held_out_truth.argmax(axis=1)
    before = metrics.log_losses(codes, softmax(held_out, axis=1)).mean()
    assert metrics.log_losses(codes, calibrated).mean() < 0.6 * before


@pytest.mark.parametrize("method", METHODS)
def test_exclusive_rows_sum_to_1(method):
    scores, truth = make_scores(n=300)
    probabilities = fit_calibrator(method, scores, truth, exclusive=True).predict_proba(scores)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.min() >= 0


def test_temperature_never_changes_the_answer():
    scores, truth = make_scores(n=300)
    probabilities = fit_calibrator("temperature", scores, truth, exclusive=True).predict_proba(
        scores
    )
    np.testing.assert_array_equal(probabilities.argmax(axis=1), scores.argmax(axis=1))


@pytest.mark.parametrize("method", METHODS)
def test_curves_of_labels_rise_with_the_score(method):
    scores, truth = make_scores(n=500)
    calibrator = fit_calibrator(method, scores, truth, exclusive=False)
    ladder = np.tile(np.linspace(-40, 40, 200)[:, None], (1, 5))
    probabilities = calibrator.predict_proba(ladder)
    assert (np.diff(probabilities, axis=0) >= 0).all()
    assert (probabilities[-1] > probabilities[0]).all()


@pytest.mark.parametrize("method", METHODS)
def test_labels_are_calibrated_each_for_itself(method):
    scores, truth = make_scores()
    calibrated = fit_calibrator(method, scores, truth, exclusive=False).predict_proba(scores)
    if method != "temperature":
        np.testing.assert_allclose(calibrated.mean(axis=0), truth.mean(axis=0), atol=0.002)
    alone = fit_calibrator(method, scores[:, :1], truth[:, :1], exclusive=False)
    np.testing.assert_allclose(alone.predict_proba(scores[:, :1]), calibrated[:, :1], atol=1e-9)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_classes_without_rows_are_calibrated_like_the_others(method, exclusive):
    scores, truth = make_scores(n=600)
    present = ~truth[:, 0]
    calibrator = fit_calibrator(method, scores[present], truth[present], exclusive=exclusive)
    probabilities = calibrator.predict_proba(scores)
    assert np.isfinite(probabilities).all()
    likely = scores[:, 0] > scores[:, 1:].max(axis=1) + 15
    assert (probabilities[likely, 0] > 0.5).mean() > 0.9


@pytest.mark.parametrize("method", ["sigmoid", "temperature"])
def test_separated_rows_do_not_speak_for_certainty(method):
    scores = np.array([[3.0, -3.0]] * 10 + [[-3.0, 3.0]] * 10)
    truth = scores > 0
    probabilities = fit_calibrator(method, scores, truth, exclusive=True).predict_proba(scores)
    assert 0.9 < probabilities.max() < 0.97


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_say_nothing_are_no_obstacle(method):
    truth = np.eye(4, dtype=bool)[np.arange(40) % 4]
    calibrator = fit_calibrator(method, np.zeros((40, 4)), truth, exclusive=True)
    np.testing.assert_allclose(calibrator.predict_proba(np.zeros((2, 4))), 0.25)


@pytest.mark.parametrize(
    ("method", "exclusive", "expected"),
    [
        ("auto", True, "temperature"),
        ("auto", False, "sigmoid"),
        ("isotonic", True, "isotonic"),
        ("none", False, "none"),
    ],
)
def test_auto_depends_on_the_kind_of_labels(method, exclusive, expected):
    assert calibration_for(method, exclusive=exclusive) == expected
