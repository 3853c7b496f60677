import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.precision_recall import label_curves, precision_recall_chart
from page_predictions import labels_of, predictions_of


def judged(n_labels=4, n=60, **more):
    rng = np.random.default_rng(0)
    truth = rng.random((n, n_labels)) < 0.4
    scores = np.clip(0.5 * truth + 0.6 * rng.random((n, n_labels)), 0, 1)
    scores[:, -1] = 1 - scores[:, -1]
    labels = labels_of("tags", [f"tag {k}" for k in range(n_labels)], truth, exclusive=False,
                       labelled=[True] * n)  # fmt: skip
    return (
        truth,
        scores,
        AttributePredictions.of(predictions_of([labels], [scores], **more), "tags"),
    )


def test_curves_are_those_of_scikit_learn():
    truth, scores, of = judged()
    together, *by_label = label_curves(of, "tags")
    for curve, true, score in [(together, truth.ravel(), scores.ravel())] + [
        (curve, truth[:, k], scores[:, k]) for k, curve in enumerate(by_label)
    ]:
        precision, recall, _ = precision_recall_curve(true, score)
        assert (np.sort(curve.precision) == np.sort(precision)).all()
        assert (curve.recall == recall[::-1]).all()
        assert curve.average_precision == average_precision_score(true, score)


def test_the_threshold_in_use_is_marked():
    truth, scores, of = judged(thresholds={"tags": np.array([0.3, 0.5, 0.7, 0.99])})
    curve = label_curves(of, "tags")[3]
    given = scores[:, 2] > 0.7
    assert curve.threshold == 0.7
    assert curve.used_precision == pytest.approx(truth[given, 2].mean())
    assert curve.used_recall == pytest.approx(given[truth[:, 2]].mean())


def test_labels_without_an_image_have_no_curve():
    labels = labels_of("tags", ["a", "b"], [[1, 0], [0, 0]], exclusive=False, labelled=[True, True])
    of = AttributePredictions.of(predictions_of([labels], [[[0.9, 0.2], [0.1, 0.1]]]), "tags")
    assert [curve.label for curve in label_curves(of, "tags")] == ["all labels together", "a"]
    nothing = AttributePredictions.of(of.predictions.take(np.array([1])), "tags")
    assert label_curves(nothing, "tags") == []


def test_of_many_labels_the_best_and_the_worst_are_drawn():
    _, _, of = judged(9)
    curves = label_curves(of, "tags")
    chart = precision_recall_chart(curves)
    by_ap = sorted(curves[1:], key=lambda curve: curve.average_precision)
    drawn = str(chart.drawing)
    assert by_ap[-1].label in drawn
    assert by_ap[0].label in drawn
    assert by_ap[4].label not in drawn
    assert len(chart.values.rows) == 10
