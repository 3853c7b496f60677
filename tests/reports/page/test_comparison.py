from dataclasses import replace

import numpy as np
import pytest

from featurepipe.reports.page.comparison import N_PICTURES, compare, rival_of
from featurepipe.reports.page.rendering import _environment
from featurepipe.reports.page.thumbnails import Thumbnails
from page_predictions import answered, labels_of, page_run, predictions_of

CLASSES = ("a", "b")


def gone(image_id):
    raise OSError(image_id)


def compared(first, second):
    return compare(first, second, Thumbnails(gone, 10**6))


def run(answers, *, right_in_training=4, confidence=0.9, **more):
    selection = answered([0] * 4, [0] * right_in_training + [1] * (4 - right_in_training), CLASSES)
    predictions = answered([0] * len(answers), answers, CLASSES, confidence=confidence)
    return page_run(predictions, selection, **more)


def test_the_rival_is_the_most_accurate_in_training_of_another_kind():
    taken = run([0, 0], name="taken")
    same_kind = run([0, 0], name="same kind")
    best = run([1, 1], name="best", right_in_training=3, reads=("b",))
    worse = run([0, 0], name="worse on training images", right_in_training=1, reads=("c",))
    network = run([0, 0], name="network", right_in_training=2, is_network=True)
    assert rival_of(taken, [taken, same_kind, worse, best, network]) is best
    assert rival_of(taken, [taken, same_kind, worse, network]) is network
    assert rival_of(taken, [taken, same_kind]) is None


def test_runs_of_other_splits_or_images_are_no_rivals():
    taken = run([0, 0])
    other = replace(run([0, 0], reads=("b",)), split="another")
    more = run([0, 0, 0], reads=("b",))
    assert rival_of(taken, [other, more]) is None


def test_right_and_wrong_are_counted_both_ways():
    found = compared(run([0, 0, 0, 1, 1]), run([0, 1, 1, 0, 1], reads=("b",)))
    of = found.overall
    assert (of.both, of.only_first, of.only_second, of.neither) == (1, 2, 1, 1)
    assert [picture.image_id for picture in found.only_first] == ["1.jpg", "2.jpg"]
    assert [picture.image_id for picture in found.only_second] == ["3.jpg"]
    assert found.only_second[0].lines == (("Truth", "a"), ("a run", "b"), ("a run", "a"))


def test_images_are_matched_by_their_ids():
    first = run([0, 1, 0])
    second = run([1, 0, 0], reads=("b",))
    mixed = replace(second, predictions=second.predictions.take(np.array([2, 0, 1])))
    assert compared(first, mixed).overall == compared(first, second).overall
    assert rival_of(first, [mixed]) is mixed


def test_the_errors_of_which_a_run_is_surest_come_first():
    confidence = np.linspace(0.6, 0.9, 12)
    found = compared(run([0] * 12), run([1] * 12, confidence=confidence, reads=("b",)))
    ids = [picture.image_id for picture in found.only_first]
    assert ids == [f"{row}.jpg" for row in (11, 10, 9, 8, 7, 6, 5, 4)]
    assert len(ids) == N_PICTURES


def test_the_test_in_words():
    first, second = run([0] * 12, name="one"), run([1] * 12, name="two", reads=("b",))
    words = compared(first, second).in_words
    # The mid-p value of 12 to 0: 2 * 0.5 ** 12 / 2.
    assert f"one is significantly more accurate (paired test, p = {0.5**12:.3g}" in words
    words = compared(run([0, 1]), run([1, 0], reads=("b",))).in_words
    assert "do not show that either is more accurate" in words
    assert compared(run([0, 1]), run([0, 1])).in_words == (
        "a run and a run are right on the same 1 image."
    )


def test_several_attributes_are_tested_together_and_one_by_one():
    def two(colors, kinds, **more):
        labels = [labels_of(name, CLASSES, [[1, 0]] * 3) for name in ("color", "kind")]
        scores = [
            [[0.1, 0.9] if code else [0.9, 0.1] for code in codes] for codes in (colors, kinds)
        ]
        return page_run(predictions_of(labels, scores), **more)

    found = compared(two([0, 0, 0], [0, 0, 1]), two([1, 0, 0], [0, 0, 0], reads=("b",)))
    counts = [[cell.value for cell in row[1:5]] for row in found.table.rows]
    assert counts == [[2, 1, 0, 0], [2, 0, 1, 0], [1, 1, 1, 0]]
    assert [row[0].text for row in found.table.rows] == ["color", "kind", "all together"]
    assert found.table.rows[0][6].value == pytest.approx(1)


def test_a_comparison_shows_names_and_runs_nothing():
    found = compared(run([0, 1], name="<b>"), run([1, 0], name="<script>", reads=("b",)))
    template = '{% from "comparison.html.j2" import comparison %}{{ comparison(of) }}'
    html = _environment().from_string(template).render(of=found)
    assert "<script>" not in html
    assert "Only &lt;script&gt; is right" in html
