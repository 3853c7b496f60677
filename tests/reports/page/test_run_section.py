import numpy as np
import pandas as pd
import pytest

from featurepipe.reports.page.learning_chart import learning_chart
from featurepipe.reports.page.reliability_chart import reliability_chart, reliability_curves
from featurepipe.reports.page.rendering import _environment
from featurepipe.reports.page.run_section import run_section
from featurepipe.reports.page.thumbnails import Thumbnails
from featurepipe.reports.page.training_chart import training_charts
from featurepipe.reports.page.trial_chart import in_words, trial_chart, trials_of
from page_predictions import answered, labels_of, page_run, predictions_of

HOSTILE = ("<script>alert(1)</script>", "\"quoted\" & 'name'", "🦊", "עברית", 500 * "x")

TRIALS = [
    {"attribute": "kind", "blocks": ("a", "b"), "seen_accuracy": 0.9, "unseen_accuracy": 0.8,
     "chosen": False},
    {"attribute": "kind", "blocks": ("c",), "seen_accuracy": 0.88, "unseen_accuracy": 0.79,
     "chosen": True},
]  # fmt: skip


def gone(image_id):
    raise OSError(image_id)


def section_of(run, **more):
    return run_section(run, Thumbnails(gone, 10**6), anchor="run-1", **{"is_open": True, **more})


def html_of(section):
    template = (
        '{% from "run.html.j2" import run_section %}{{ run_section(section, section.split) }}'
    )
    return _environment().from_string(template).render(section=section)


def history(**changes):
    columns = {
        "epoch": [1, 2, 3], "stage": ["top", "top", "all"], "train_loss": [3.0, 2.0, 1.0],
        "validation_loss": [3.0, np.inf, 1.5], "best": [False, False, True],
        "train_accuracy:kind": [0.1, 0.2, 0.3], "validation_accuracy:kind": [0.1, 0.2, 0.25],
    }  # fmt: skip
    return pd.DataFrame({**columns, **changes})


def test_a_section_has_figures_tables_and_pictures():
    run = page_run(answered([0, 0, 1], [0, 1, 1], ["a", "b"]), trials=TRIALS)
    section = section_of(run)
    (kind,) = section.attributes
    assert section.accuracy.startswith("66.7 % (")
    assert [chart.heading for chart in kind.charts] == [
        "Confusion matrix", "Reliability", "Features tried",
    ]  # fmt: skip
    assert [picture.image_id for picture in kind.errors] == ["1.jpg"]
    assert (kind.n_errors, kind.n_images) == (1, 3)
    html = html_of(section)
    assert '<details class="run" id="run-1" open>' in html
    assert "0.jpg" in html


def test_names_are_shown_and_never_run():
    k = len(HOSTILE)
    run = page_run(answered(range(k), [*range(1, k), 0], HOSTILE), name="<b>run", command="<i>")
    html = html_of(section_of(run))
    for markup in ("<script>", "<b>", "<i>"):
        assert markup not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "🦊" in html


@pytest.mark.parametrize(
    "predictions",
    [
        answered([0], [0], ["only"]),
        answered([-1, -1], [0, 1], ["a", "b"]),
        answered([0, 1], [0, 1], ["a", "b"]),
        predictions_of(
            [labels_of("tags", ["a", "b"], [[0, 0], [0, 0]], exclusive=False,
                       labelled=[True, False])],
            [[[0.2, 0.1], [0.9, 0.9]]],
            task="multi-label",
        ),
    ],
    ids=["one class and one image", "no label", "no error", "no label given"],
)  # fmt: skip
def test_little_data_makes_a_section(predictions):
    assert "</details>" in html_of(section_of(page_run(predictions), is_open=False))


def test_without_test_labels_the_section_says_so():
    run = page_run(answered([-1, -1], [0, 1], ["a", "b"]))
    assert section_of(run).attributes[0].classes is None
    assert "No test image is labelled for this attribute." in html_of(section_of(run))


def test_reliability_without_figures_is_missing_not_wrong():
    nothing = {"log_loss": None, "ece": None, "bins": []}
    some = {"ece": 0.02, "bins": [{"n_images": 3, "confidence": 1.0, "accuracy": 1.0}]}
    chart = reliability_chart(reliability_curves(nothing, some))
    assert "is – before calibration and 0.0200 after" in chart.caption
    assert [cell.text for cell in chart.values.rows[0]] == ["90–100 %", "0", "–", "3", "100.0 %"]


def test_trials_say_what_was_chosen_and_why():
    trials = trials_of(TRIALS, "kind")
    assert in_words(trials) == (
        "Reads c, chosen from 2 trials on training images: 88.0 % right on seen combinations, "
        "79.0 % on held-out combinations"
    )
    assert trial_chart(trials).values.rows[0][0].text == "c (chosen)"
    assert trials_of(TRIALS, "color") is None


def test_trials_without_held_out_combinations_are_ranked():
    trials = trials_of([{**trial, "unseen_accuracy": None} for trial in TRIALS], "kind")
    assert trial_chart(trials).values.columns == ("Features", "Seen")


def test_a_training_names_its_best_epoch_and_what_is_not_finite():
    loss, accuracy = training_charts(history())
    assert loss.caption == (
        "3 epochs. The weights of epoch 3 were kept (the point): 1.50 in validation. No finite "
        "value in validation in 1 epoch."
    )
    assert "25.0 % in validation" in accuracy.caption
    assert '"nan"' not in str(loss.drawing)
    assert training_charts(history().iloc[:0]) == []


def test_a_learning_curve_says_what_all_images_give():
    points = [
        {"n_train": n, "attribute": "kind", "accuracy": accuracy, "accuracy_sd": deviation}
        for n, accuracy, deviation in ((100, 0.5, 0.02), (1000, 0.75, np.nan))
    ]
    chart = learning_chart(points)
    assert chart.caption.startswith("With 1,000 images, kind is right in 75.0 %.")
    assert "one standard deviation over the draws" in chart.caption
    assert [cell.value for cell in chart.values.rows[0][1:]] == [100, 0.5, 0.02]
    assert "nan" not in str(chart.drawing)
    assert str(chart.drawing).count('class="whisker"') == 1
