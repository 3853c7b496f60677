import numpy as np
import pytest

from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.class_table import class_figures, class_values
from featurepipe.shares import exact_interval
from page_predictions import answered, labels_of, predictions_of


def test_figures_of_classes():
    predictions = answered(
        [0, 0, 0, 1], [0, 0, 1, 1], ["a", "b", "never"], confidence=[0.9, 0.7, 0.8, 0.6]
    )
    a, b = class_figures(AttributePredictions.of(predictions, "kind"), "kind")
    assert (a.name, a.n_images, a.recall, a.precision) == ("a", 3, pytest.approx(2 / 3), 1)
    assert a.recall_interval == exact_interval(2, 3)
    assert a.precision_interval == exact_interval(2, 2)
    assert a.confidence == pytest.approx(0.8)
    assert (b.n_images, b.recall, b.precision, b.confidence) == (1, 1, 0.5, pytest.approx(0.7))


def test_labels_of_sets_are_given_above_their_thresholds():
    labels = labels_of("tags", ["new", "old"], [[1, 0], [1, 1], [0, 1]], exclusive=False)
    scores = [[0.7, 0.4], [0.9, 0.5], [0.8, 0.1]]
    predictions = predictions_of([labels], [scores], thresholds={"tags": np.array([0.75, 0.3])})
    new, old = class_figures(AttributePredictions.of(predictions, "tags"), "tags")
    assert (new.recall, new.precision, new.confidence) == (0.5, 0.5, pytest.approx(0.85))
    assert (old.recall, old.precision, old.confidence) == (0.5, 0.5, pytest.approx(0.45))


def test_a_class_that_is_only_predicted_has_no_recall_and_comes_last():
    predictions = answered([0, 0], [0, 1], ["a", "b"])
    figures = class_figures(AttributePredictions.of(predictions, "kind"), "kind")
    assert np.isnan(figures[1].recall)
    values = class_values(figures, exclusive=True)
    assert [row[0].text for row in values.rows] == ["a", "b"]
    assert values.rows[1][2].text == "–"
