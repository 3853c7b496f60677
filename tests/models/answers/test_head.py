import numpy as np
import pytest
import skops.io

from featurepipe.models.answers.calibration import SoftmaxCalibrator
from featurepipe.models.answers.head import ConstantHead, KnownClasses, ScoreHead
from featurepipe.runs.heads_file import TRUSTED_TYPES

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
    kept = skops.io.loads(skops.io.dumps(head), trusted=TRUSTED_TYPES)
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
    kept = skops.io.loads(skops.io.dumps(head), trusted=TRUSTED_TYPES)
    assert kept.predict_proba(np.zeros((1, 3))).tolist() == [[1, 0]]


def test_no_rows_have_no_probabilities():
    head = ScoreHead(SETS, (), (0, 4))
    assert head.predict_proba(np.zeros((0, 4))).shape == (0, 4)
    assert head.decision_scores(np.zeros((0, 4))).shape == (0, 4)
