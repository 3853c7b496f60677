import numpy as np
import pytest

from featurepipe.errors import RunError
from featurepipe.predictions import Predictions, Task
from featurepipe.runs.predictions_file import load_predictions, save_predictions
from small_predictions import make_predictions, with_thresholds


def test_save_and_load_give_the_same_predictions(tmp_path):
    saved = make_predictions("multi-label")
    save_predictions(tmp_path / "predictions.npz", saved)
    loaded = load_predictions(tmp_path / "predictions.npz")
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
    save_predictions(tmp_path / "predictions.npz", with_objects)
    assert load_predictions(tmp_path / "predictions.npz").ids.tolist() == [*predictions.ids]


def test_no_predictions_survive_saving(tmp_path):
    save_predictions(tmp_path / "predictions.npz", make_predictions().select("train"))
    assert len(load_predictions(tmp_path / "predictions.npz")) == 0


def test_same_predictions_give_the_same_bytes(tmp_path):
    save_predictions(tmp_path / "a.npz", make_predictions())
    save_predictions(tmp_path / "b.npz", make_predictions())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_missing_predictions_are_named(tmp_path):
    with pytest.raises(RunError, match=r"none\.npz is missing"):
        load_predictions(tmp_path / "none.npz")


@pytest.mark.parametrize("n_bytes", [0, 10, 300, 900])
def test_truncated_predictions_are_refused(tmp_path, n_bytes):
    path = tmp_path / "predictions.npz"
    save_predictions(path, make_predictions())
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(RunError, match=r"predictions\.npz cannot be read"):
        load_predictions(path)


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
    save_predictions(path, make_predictions())
    with np.load(path) as file:
        arrays = dict(file)
    arrays[name] = wrong(arrays[name])
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(RunError, match=r"predictions\.npz cannot be read") as caught:
        load_predictions(path)
    assert said in str(caught.value)


def test_thresholds_survive_taking_and_saving(tmp_path):
    save_predictions(tmp_path / "predictions.npz", with_thresholds().select("test"))
    loaded = load_predictions(tmp_path / "predictions.npz")
    assert loaded.thresholds["tags"].tolist() == [0.75, 0.3]
    assert loaded.thresholds["color"].tolist() == [0.5, 0.5]
