import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import BaseEstimator

from featurepipe.errors import FitError
from featurepipe.models.answers.calibration import SoftmaxCalibrator
from featurepipe.models.answers.head import ConstantHead, FeatureHead, KnownClasses, ScoreHead
from kept_heads import keep

# The third class is in every row, the fourth in none.
TRUTH = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0]], bool)
SETS = KnownClasses.of(TRUTH, exclusive=False)


def test_classes_are_learnt_where_some_rows_have_them_and_others_lack_them():
    assert SETS.learnt.tolist() == [0, 1]
    assert SETS.constant.tolist() == [0, 0, 1, 0]
    probabilities = SETS.all_probabilities(np.array([[0.2, 0.7]]))
    assert probabilities.tolist() == [[0.2, 0.7, 1, 0]]
    scores = SETS.all_scores(np.array([[-1.0, 2.0]]))
    np.testing.assert_array_equal(scores, [[-1, 2, np.nan, np.nan]])


def test_targets_are_codes_a_yes_or_no_or_an_indicator():
    assert SETS.targets(TRUTH).tolist() == [[1, 0], [0, 1], [1, 1]]
    single = KnownClasses.of(TRUTH[:, [0, 2]], exclusive=False)
    assert single.targets(TRUTH[:, [0, 2]]).tolist() == [1, 0, 1]
    assert (SETS.as_label_sets, single.as_label_sets) == (True, False)
    codes = np.array([2, 0, 2])
    exclusive = KnownClasses.of(codes[:, None] == np.arange(3), exclusive=True)
    assert exclusive.learnt.tolist() == [0, 2]
    assert exclusive.targets(codes[:, None] == np.arange(3)).tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("exclusive", "expected"),
    [(True, [1 / (1 + np.e), np.e / (1 + np.e)]), (False, [0.5, np.e / (1 + np.e)])],
)
def test_a_networks_scores_become_probabilities(exclusive, expected):
    known = KnownClasses(np.array([0, 1]), np.zeros(2), exclusive)
    head = ScoreHead(known, ((3, 5),), (1, 3))
    rows = np.array([[9, 0, 1, 7, 8]], np.float32)
    assert head.decision_scores(rows).tolist() == [[0, 1]]
    np.testing.assert_allclose(head.predict_proba(rows), [expected])
    assert head.select(rows).tolist() == [[7, 8]]
    kept = keep(head)
    np.testing.assert_array_equal(kept.predict_proba(rows), head.predict_proba(rows))


def test_a_calibrator_takes_the_place_of_uncalibrated_probabilities():
    known = KnownClasses(np.array([0, 2]), np.zeros(3), True)
    head = ScoreHead(known, (), (0, 3), calibrator=SoftmaxCalibrator(2.0))
    rows = np.array([[0.5, 9, 0]], np.float32)
    np.testing.assert_allclose(head.predict_proba(rows), [[np.e / (1 + np.e), 0, 1 / (1 + np.e)]])


def test_a_head_without_classes_to_tell_apart_answers_with_constants():
    known = KnownClasses.of(np.array([[1, 0], [1, 0]], bool), exclusive=True)
    head = ConstantHead(known, ((0, 3),))
    assert head.predict_proba(np.zeros((2, 3))).tolist() == [[1, 0], [1, 0]]
    assert np.isnan(head.decision_scores(np.zeros((2, 3)))).all()
    kept = keep(head)
    assert kept.predict_proba(np.zeros((1, 3))).tolist() == [[1, 0]]


def test_no_rows_have_no_probabilities():
    head = ScoreHead(SETS, (), (0, 4))
    assert head.predict_proba(np.zeros((0, 4))).shape == (0, 4)
    assert head.decision_scores(np.zeros((0, 4))).shape == (0, 4)


class Answers(BaseEstimator):
    """Answers by heart: scores or probabilities for any rows."""

    def __init__(self, classes, scores=None, probabilities=None):
        self.classes_ = np.array(classes)
        if scores is not None:
            self.decision_function = lambda X: np.array(scores)
        if probabilities is not None:
            self.predict_proba = lambda X: np.array(probabilities)


def head_of(n_learnt, exclusive=True, **answers):
    known = KnownClasses(np.arange(n_learnt), np.zeros(n_learnt), exclusive)
    classes = answers.pop("classes", range(n_learnt))
    return FeatureHead(known, ((0, 2),), Answers(classes, **answers))


ROW = np.zeros((1, 2))


def test_an_estimator_without_probabilities_gets_those_of_its_scores():
    head = head_of(3, scores=[[0.0, np.log(2), np.log(5)]])
    np.testing.assert_allclose(head.predict_proba(ROW), [[1 / 8, 2 / 8, 5 / 8]])
    # Two classes have one score.
    two = head_of(2, scores=[3.0])
    assert two.decision_scores(ROW).tolist() == [[-3, 3]]
    np.testing.assert_allclose(two.predict_proba(ROW), [[expit(-6), expit(6)]])
    sets = head_of(2, exclusive=False, scores=[[0.0, 2.0]])
    np.testing.assert_allclose(sets.predict_proba(ROW), [[0.5, expit(2)]])


def test_an_estimator_without_scores_gets_those_of_its_probabilities():
    head = head_of(3, probabilities=[[0.25, 0.75, 0.0]])
    np.testing.assert_allclose(head.decision_scores(ROW), np.log([[0.25, 0.75, 1e-4]]))
    assert head.predict_proba(ROW).tolist() == [[0.25, 0.75, 0]]
    sets = head_of(2, exclusive=False, probabilities=[[0.5, 1.0]])
    np.testing.assert_allclose(sets.decision_scores(ROW), [[0, np.log(9999)]])
    # A single label has a column for its absence, too.
    single = head_of(1, exclusive=False, probabilities=[[0.2, 0.8]])
    np.testing.assert_allclose(single.decision_scores(ROW), [[np.log(4)]])


def test_columns_follow_the_classes_whatever_order_the_estimator_has():
    head = head_of(3, classes=[2, 0, 1], scores=[[1, 2, 3]], probabilities=[[0.2, 0.3, 0.5]])
    assert head.decision_scores(ROW).tolist() == [[2, 3, 1]]
    assert head.predict_proba(ROW).tolist() == [[0.3, 0.5, 0.2]]
    assert head_of(2, classes=[1, 0], scores=[4.0]).decision_scores(ROW).tolist() == [[4, -4]]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"scores": [[1, 2, 3, 4, 5, 6]]}, "has 6 scores for 4 classes"),
        ({"probabilities": [[0.5, 0.5]]}, "has 2 scores for 4 classes"),
        ({"scores": [[1, 2, 3, np.nan]]}, "scores that are not finite"),
        ({"scores": [[1, 2, 3, np.inf]]}, "scores that are not finite"),
        ({"scores": [[1, 2, 3, 4]], "classes": [1, 2, 3, 4]}, "has the classes [1, 2, 3, 4]"),
        ({"scores": [[1, 2, 3, 4]], "classes": [0, 1, 2]}, "was fitted on [0, 1, 2, 3]"),
    ],
)
def test_scores_that_are_none_of_the_classes_are_refused(answers, said):
    with pytest.raises(FitError) as caught:
        head_of(4, **answers).decision_scores(ROW)
    assert said in str(caught.value)
