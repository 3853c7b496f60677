from dataclasses import replace

import numpy as np
import pytest

from featurepipe.errors import UnknownNameError
from featurepipe.predictions import Predictions, Task
from small_predictions import make_predictions, rebuild, with_thresholds


def test_answers_are_right_where_the_most_probable_class_is_true():
    assert make_predictions().correct("color").tolist() == [True, False, False]


def test_sets_are_right_where_exactly_the_true_labels_exceed_one_half():
    assert make_predictions().correct("tags").tolist() == [True, False, True]


def test_missing_labels_are_never_right():
    predictions = make_predictions()
    predictions.labels["tags"].labelled[0] = False
    assert not predictions.correct("tags")[0]


def test_exclusive_labels_of_a_multi_label_run_are_normalised():
    predictions = make_predictions("multi-label")
    predictions.scores["color"][1] = [0.9, 0.3]
    np.testing.assert_allclose(
        predictions.probabilities("color"), [[0.6, 0.4], [0.75, 0.25], [0.5, 0.5]]
    )
    assert predictions.probabilities("tags") is predictions.scores["tags"]


def test_probabilities_of_a_per_attribute_run_are_its_scores():
    predictions = make_predictions()
    assert predictions.probabilities("color") is predictions.scores["color"]


def test_select_takes_one_part():
    test = make_predictions().select("test")
    assert test.ids.tolist() == ["a/1.jpg", "b/2.jpg"]
    assert test.labels["color"].codes.tolist() == [0, 1]
    assert test.scores["tags"].tolist() == [[0.7, 0.4], [0.9, 0.5]]


def test_take_keeps_the_order_asked_for():
    taken = make_predictions().take(np.array([2, 1]))
    assert taken.ids.tolist() == ["ü/3.jpg", "b/2.jpg"]
    assert taken.groups.tolist() == [4, 0]


def test_unknown_parts_and_tasks_are_refused():
    predictions = make_predictions()
    with pytest.raises(ValueError, match="'together' is not a valid Task"):
        Predictions.of(
            predictions.ids,
            predictions.parts,
            predictions.groups,
            "together",
            predictions.labels,
            predictions.scores,
        )
    with pytest.raises(UnknownNameError, match=r"Unknown task 'multilabel'.*'multi-label'"):
        Task.named("multilabel")
    with pytest.raises(ValueError, match="do not fit"):
        replace(predictions, parts=np.array(["test", "test", "seen"]))


def test_labels_are_given_above_one_half_unless_said():
    predictions = make_predictions()
    assert predictions.thresholds["tags"].tolist() == [0.5, 0.5]
    assert predictions.given("tags").tolist() == [[True, False], [True, False], [True, False]]


def test_labels_are_given_above_their_own_thresholds():
    predictions = with_thresholds()
    assert predictions.given("tags").tolist() == [[False, True], [True, True], [True, False]]
    assert predictions.correct("tags").tolist() == [False, True, True]
    assert predictions.thresholds["color"].tolist() == [0.5, 0.5]


def test_thresholds_of_exclusive_attributes_change_no_answer():
    predictions = rebuild(make_predictions(), thresholds={"color": np.array([0.9, 0.0])})
    assert predictions.correct("color").tolist() == [True, False, False]


@pytest.mark.parametrize("thresholds", [{"tags": np.zeros(3)}, {"size": np.zeros(2)}])
def test_thresholds_that_do_not_fit_are_refused(thresholds):
    with pytest.raises(ValueError, match="do not fit"):
        rebuild(make_predictions(), thresholds=thresholds)


def test_log_losses_are_of_the_true_class_or_label_set():
    predictions = make_predictions().take(np.array([0, 1]))
    np.testing.assert_allclose(predictions.log_losses("color"), -np.log([0.6, 0.1]))
    np.testing.assert_allclose(predictions.log_losses("tags"), -np.log([0.7 * 0.6, 0.9 * 0.5]))


def test_the_highest_log_losses_are_of_what_is_least_believed():
    predictions = make_predictions().take(np.array([0, 1]))
    np.testing.assert_allclose(predictions.highest_log_losses("color"), -np.log([0.4, 0.1]))
    highest = -np.log([0.3 * 0.4, 0.1 * 0.5])
    np.testing.assert_allclose(predictions.highest_log_losses("tags"), highest)


def test_confidence_depends_on_the_thresholds():
    np.testing.assert_allclose(
        with_thresholds().confidence("tags"), [0.3 * 0.4, 0.9 * 0.5, 0.8 * 0.9]
    )
    np.testing.assert_allclose(make_predictions().confidence("color"), [0.6, 0.9, 0.0])
