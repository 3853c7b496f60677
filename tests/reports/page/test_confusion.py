import numpy as np
import pytest

from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.confusion import (
    MOST_CLASSES,
    confused_together,
    confusion_chart,
    confusion_of,
)
from page_predictions import answered


def judged(*arguments, **more):
    return AttributePredictions.of(answered(*arguments, **more), "kind")


def test_counts_stand_by_true_and_predicted_class():
    found = confusion_of(judged([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], ["a", "b"]), "kind")
    assert found.classes == ("a", "b")
    assert found.counts.tolist() == [[1, 1], [1, 2]]
    assert (found.n_right, found.n_images, found.n_pairs) == (3, 5, 2)


def test_the_most_confused_pairs_come_first_with_their_share_of_the_true_class():
    truths = [0] * 4 + [1] * 3 + [2] * 2
    answers = [0, 1, 1, 1, 1, 2, 1, 2, 0]
    found = confusion_of(judged(truths, answers, ["a", "b", "c"]), "kind")
    pairs = [(pair.truth, pair.answer, pair.n_images, pair.share) for pair in found.pairs]
    assert pairs == [
        ("a", "b", 3, 0.75),
        ("c", "a", 1, 0.5),
        ("b", "c", 1, pytest.approx(1 / 3)),
    ]


def test_planted_pairs_of_120_classes_stand_side_by_side():
    rng = np.random.default_rng(0)
    n = 120
    counts = np.diag(np.full(n, 20)) + rng.integers(0, 2, (n, n))
    planted = rng.permutation(n).reshape(-1, 2)
    counts[planted[:, 0], planted[:, 1]] += 15
    place = np.argsort(confused_together(counts))
    assert (np.abs(place[planted[:, 0]] - place[planted[:, 1]]) == 1).all()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_without_errors_classes_keep_their_order(n):
    assert confused_together(np.eye(n, dtype=int) * 3).tolist() == list(range(n))


def test_of_more_classes_those_with_most_errors_are_shown():
    n = MOST_CLASSES + 30
    answers = np.arange(n)
    answers[100:] = np.roll(answers[100:], 1)
    names = [f"{k:03d}" for k in range(n)]
    found = confusion_of(judged(np.arange(n), answers, names), "kind")
    assert len(found.classes) == MOST_CLASSES
    assert set(names[100:]) <= set(found.classes)
    assert found.n_left_out == 30
    assert "30 classes with fewer errors" in confusion_chart(found).caption


def test_only_cells_with_images_are_drawn():
    chart = confusion_chart(
        confusion_of(judged([0, 0, 1, 2], [0, 1, 1, 2], ["a", "b", "c"]), "kind")
    )
    drawn = str(chart.drawing)
    assert (drawn.count('class="right"'), drawn.count('class="wrong"')) == (3, 1)
    assert "a → b: 1 of 2 (50.0 %)" in drawn


def test_names_are_never_markup():
    chart = confusion_chart(
        confusion_of(judged([0, 1], [1, 0], ["<script>", '"' + 500 * "x"]), "kind")
    )
    assert "<script>" not in str(chart.drawing)
    assert "&lt;script&gt;" in str(chart.drawing)
