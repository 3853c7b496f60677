from dataclasses import replace

import numpy as np
import pytest

from featurepipe.errors import RunError, UnknownNameError
from featurepipe.manifest import Labels
from featurepipe.predictions import Predictions, Task, answer_confidence


def labels_of(attribute, classes, indicator, *, exclusive=True):
    indicator = np.array(indicator, bool)
    return Labels(attribute, tuple(classes), exclusive, indicator, indicator.any(axis=1))


def make_predictions(task="per-attribute"):
    return Predictions.of(
        ids=np.array(["a/1.jpg", "b/2.jpg", "ü/3.jpg"]),
        parts=np.array(["test", "test", "unseen"]),
        groups=np.array([4, 0, 4]),
        task=task,
        labels={
            "color": labels_of("color", ["blue", "red"], [[1, 0], [0, 1], [0, 0]]),
            "tags": labels_of("tags", ["new", "old"], [[1, 0], [1, 1], [1, 0]], exclusive=False),
        },
        scores={
            "color": np.array([[0.6, 0.4], [0.9, 0.1], [0.0, 0.0]]),
            "tags": np.array([[0.7, 0.4], [0.9, 0.5], [0.8, 0.1]]),
        },
    )


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


def test_save_and_load_give_the_same_predictions(tmp_path):
    saved = make_predictions("multi-label")
    saved.save(tmp_path / "predictions.npz")
    loaded = Predictions.load(tmp_path / "predictions.npz")
    assert loaded.ids.tolist() == saved.ids.tolist()
    assert loaded.parts.tolist() == saved.parts.tolist()
    assert loaded.groups.tolist() == saved.groups.tolist()
    assert loaded.task is Task.MULTI_LABEL
    assert list(loaded.labels) == ["color", "tags"]
    for name, labels in saved.labels.items():
        assert loaded.labels[name].classes == labels.classes
        assert loaded.labels[name].exclusive is labels.exclusive
        np.testing.assert_array_equal(loaded.labels[name].indicator, labels.indicator)
        np.testing.assert_array_equal(loaded.labels[name].labelled, labels.labelled)
        np.testing.assert_array_equal(loaded.scores[name], saved.scores[name])


def test_ids_of_dtype_object_are_saved_as_text(tmp_path):
    predictions = make_predictions()
    with_objects = Predictions.of(
        predictions.ids.astype(object),
        predictions.parts,
        predictions.groups,
        predictions.task,
        predictions.labels,
        predictions.scores,
    )
    with_objects.save(tmp_path / "predictions.npz")
    assert Predictions.load(tmp_path / "predictions.npz").ids.tolist() == [*predictions.ids]


def test_no_predictions_survive_saving(tmp_path):
    make_predictions().select("train").save(tmp_path / "predictions.npz")
    assert len(Predictions.load(tmp_path / "predictions.npz")) == 0


def test_same_predictions_give_the_same_bytes(tmp_path):
    make_predictions().save(tmp_path / "a.npz")
    make_predictions().save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_missing_predictions_are_named(tmp_path):
    with pytest.raises(RunError, match=r"none\.npz is missing"):
        Predictions.load(tmp_path / "none.npz")


@pytest.mark.parametrize("n_bytes", [0, 10, 300, 900])
def test_truncated_predictions_are_refused(tmp_path, n_bytes):
    path = tmp_path / "predictions.npz"
    make_predictions().save(path)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(RunError, match=r"predictions\.npz cannot be read"):
        Predictions.load(path)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("scores_0", lambda a: a[:2], "scores_0 is float64 of shape (2, 2), expected float64 of"),
        ("scores_0", lambda a: a.ravel(), "scores_0 is float64 of shape (6,), expected float64"),
        ("scores_0", lambda a: a.astype(str), "scores_0 is <U32 of shape (3, 2), expected float64"),
        ("scores_1", lambda a: a.astype(complex), "scores_1 is complex128 of shape (3, 2)"),
        ("scores_1", lambda a: a * np.nan, "scores_1 has values that are not from 0 to 1"),
        ("scores_1", lambda a: a - 1, "scores_1 has values that are not from 0 to 1"),
        ("scores_1", lambda a: a + 1, "scores_1 has values that are not from 0 to 1"),
        ("scores_0", lambda a: a.astype(">f8"), "scores_0 is >f8 of shape (3, 2)"),
        ("p_values_0", lambda a: a[:, None], "p_values_0 is float64 of shape (3, 1)"),
        ("image_p_values_1", lambda a: a[1:], "image_p_values_1 is float64 of shape (2,)"),
        ("thresholds_1", lambda a: a * np.inf, "thresholds_1 has values that are not from 0 to 1"),
        ("groups", lambda a: a[:2], "groups is int64 of shape (2,), expected int64 of shape (3)"),
        ("groups", lambda a: a.astype(float), "groups is float64 of shape (3,)"),
        ("ids", lambda a: a[[0, 0, 1]], "ids has 'a/1.jpg' twice"),
        ("ids", lambda a: a[:, None], "ids is <U7 of shape (3, 1), expected text of shape (any)"),
        ("ids", lambda a: a[:0], "expected bool of shape (0, 2)"),
        ("parts", lambda a: np.array(["test", "test", "seen"]), "do not fit each other"),
        ("task", lambda a: np.array("together"), "'together' is not a valid Task"),
        ("attributes", lambda a: a[[0, 0]], "attributes has 'color' twice"),
        ("classes_0", lambda a: a[[0, 0]], "classes_0 has 'blue' twice"),
        ("classes_0", lambda a: a[:0], "classes_0 is empty"),
        ("classes_0", lambda a: a.astype(object), "classes_0.npy holds Python objects"),
        (
            "classes_0",
            lambda a: np.array(["a", "\ud800"]),
            "classes_0 has text that is not Unicode",
        ),
        ("exclusive_0", lambda a: a.astype(int), "exclusive_0 is int64 of shape ()"),
        ("labelled_0", lambda a: ~a, "indicator_0 does not fit labelled_0"),
        ("indicator_0", lambda a: a | True, "indicator_0 does not fit labelled_0"),
        ("indicator_1", lambda a: None, "it has no indicator_1"),
    ],
)
def test_a_wrong_array_is_named(tmp_path, name, wrong, said):
    path = tmp_path / "predictions.npz"
    make_predictions().save(path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays[name] = wrong(arrays[name])
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(RunError, match=r"predictions\.npz cannot be read") as caught:
        Predictions.load(path)
    assert said in str(caught.value)


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


def rebuild(predictions, **changes):
    names = ("ids", "parts", "groups", "task", "labels", "scores")
    return Predictions.of(**{name: getattr(predictions, name) for name in names}, **changes)


def with_thresholds():
    return rebuild(make_predictions(), thresholds={"tags": np.array([0.75, 0.3])})


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


def test_thresholds_survive_taking_and_saving(tmp_path):
    with_thresholds().select("test").save(tmp_path / "predictions.npz")
    loaded = Predictions.load(tmp_path / "predictions.npz")
    assert loaded.thresholds["tags"].tolist() == [0.75, 0.3]
    assert loaded.thresholds["color"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("thresholds", [{"tags": np.zeros(3)}, {"size": np.zeros(2)}])
def test_thresholds_that_do_not_fit_are_refused(thresholds):
    with pytest.raises(ValueError, match="do not fit"):
        rebuild(make_predictions(), thresholds=thresholds)


def test_confidence_is_the_probability_of_the_answer():
    probabilities = np.array([[0.7, 0.2], [0.4, 0.1]])
    exclusive = answer_confidence(probabilities, np.array([0.5, 0.5]), exclusive=True)
    np.testing.assert_allclose(exclusive, [0.7, 0.4])
    of_sets = answer_confidence(probabilities, np.array([0.5, 0.15]), exclusive=False)
    np.testing.assert_allclose(of_sets, [0.7 * 0.2, 0.6 * 0.9])


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
