"""What the page says of made-up runs."""

import re
from html import unescape

import numpy as np
import pytest

from featurepipe.predictions import ALL
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.answer import question
from featurepipe.reports.page.data_section import class_tables, combination_grid, combination_list
from featurepipe.reports.paired_tests import sign_flip_test
from featurepipe.reports.terminal_text import percent
from page_runs import as_frame, data_of, made_up_run, write_report


def said(path):
    html = path.read_text()
    html = html[html.index("<body") : html.rindex("<script>")]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", html)))


@pytest.fixture
def page(tmp_path):
    return tmp_path / "report.html"


def two_runs(**options):
    return [
        made_up_run("slow", 0.9, seed=1, ms=9.0, n_images=100, **options),
        made_up_run("fast", 0.88, seed=2, ms=1.0, n_images=100, **options),
    ]


def test_the_answer_names_the_run_its_interval_and_the_cheapest_that_is_tied(page):
    board = write_report(page, two_runs())
    row = as_frame(board).loc["slow"]
    text = said(page)
    interval = f"{100 * row['accuracy_low']:.1f}–{100 * row['accuracy_high']:.1f} %"
    assert (
        f"Take slow: it has the best selection accuracy (90.0 %); it is right on "
        f"{percent(row['accuracy'])} of the 100 test images (95 % interval {interval}). Both runs "
        "are tied for the best accuracy; the cheapest of them is fast (1.00 ms/image)."
    ) in text


def test_the_answer_says_what_is_left_open(page):
    runs = two_runs(attributes=("color", "kind"))
    write_report(page, runs)
    assert (
        "Not known: how it does on images from another source than these, or on combinations of "
        "classes that training never saw, since this split holds out none, nor whether "
        "near-duplicates lie in both training and test."
    ) in said(page)
    write_report(page, runs, data=data_of(runs[0], split={"leaks": [("a", "b"), ("c", "d")]}))
    assert "2 pairs of near-duplicates across training and test images may make" in said(page)
    write_report(page, runs, data=data_of(runs[0], split={"leaks": []}))
    assert "since this split holds out none. To use it" in said(page)


def test_a_class_with_few_test_images_is_named(page):
    runs = [made_up_run("only", 0.9, n_images=8, classes=("blue", "green", "red"))]
    write_report(page, runs)
    assert "or on color red, which has only 2 test images" in said(page)


def test_a_run_that_is_better_on_unseen_combinations_is_named(page):
    taken = made_up_run("taken", 0.9, seed=1, n_images=100, n_unseen=50, unseen_accuracy=0.4)
    other = {"n_images": 100, "n_unseen": 50, "selection_accuracy": 0.8, "seed": 1}
    better = made_up_run("better", 0.9, unseen_accuracy=1, **other)
    board = as_frame(write_report(page, [taken, better]))
    assert board.loc["better", "unseen_accuracy"] == 1
    assert (
        "of 50 images; better is right on 100.0 % (92.9–100.0). If new images show combinations "
        "that no training image does, take that one."
    ) in said(page)
    alike = made_up_run("better", 0.9, unseen_accuracy=0.5, **other)
    write_report(page, [taken, alike])
    assert "take that one" not in said(page)


def test_unseen_combinations_are_part_of_the_answer(page):
    runs = two_runs(n_unseen=40)
    row = as_frame(write_report(page, runs)).loc["slow"]
    figures = f"({100 * row['unseen_accuracy_low']:.1f}–{100 * row['unseen_accuracy_high']:.1f})"
    assert (
        f"On combinations held out from training it is right on "
        f"{percent(row['unseen_accuracy'])} {figures} of 40 images."
    ) in said(page)
    assert "Seen against unseen combinations" in said(page)


def test_a_series_has_its_mean_in_the_answer_and_a_table(page):
    runs = [
        made_up_run(f"x-{k}", 0.9, split=f"s{k}", number=k, family="x", seed=k) for k in range(5)
    ]
    board = as_frame(write_report(page, runs))
    mean = board.loc["x-0 (5 splits)"]
    assert (
        f"Over its series of splits, the same settings are right on {percent(mean['accuracy'])} ± "
        f"{percent(mean['accuracy_sd'])} of test images (mean ± standard deviation)."
    ) in said(page)
    assert page.read_text().count("<details>") >= 3


def test_only_outdated_runs_give_no_run_to_take(page):
    write_report(page, two_runs(), data=None, outdated={"slow", "fast"})
    text = said(page)
    assert "Fit again to compare heads on these." in text
    assert "To use it" not in text
    assert "nothing is known about them here" in text
    assert 'class="badge take"' not in page.read_text()


def test_one_run_has_nothing_to_be_compared_with(page):
    write_report(page, [made_up_run("only", 0.9)])
    text = said(page)
    assert "only is the only run: selection accuracy 90.0 %" in text
    assert "There is only one run of this split with known costs" in text
    assert "No network was trained on this split." in text
    assert "data-filters" not in page.read_text()[: page.read_text().rindex("<script>")]


def test_missing_costs_leave_the_chart_of_the_others(page):
    runs = [made_up_run("a", ms=None), made_up_run("b", ms=None, seed=1)]
    write_report(page, runs)
    html = page.read_text()
    assert "ms per image, features included" not in html
    assert "seconds to fit" in html


def test_multi_label_attributes_have_a_page(page):
    runs = [made_up_run("a", exclusive=False), made_up_run("b", exclusive=False, seed=1)]
    write_report(page, runs)
    assert "2 classes; an image may have several; 60 images each" in said(page)


def test_fine_tuning_is_judged_by_a_paired_test(page):
    network = made_up_run("net", 0.97, n_images=300, network=True, head="finetune", fit_s=600)
    head = made_up_run("head", 0.8, n_images=300, seed=1)
    write_report(page, [network, head])
    right = [AttributePredictions.of(run.predictions, ALL).right for run in (network, head)]
    p_value = sign_flip_test(right[0].astype(int) - right[1].astype(int))
    assert p_value < 0.001
    only = (right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum()
    assert (
        f"Training a network makes it more accurate. The best network, net, is right on "
        f"{percent(right[0].mean())} of the test images; the best heads on frozen features, head, "
        f"on {percent(right[1].mean())}. Only the network is right on {only[0]} images, only the "
        f"heads on {only[1]}: more than chance explains (McNemar's test, p < 0.001). The "
        "network took 10 min to train, the heads 3 s to fit"
    ) in said(page)


def test_networks_that_answered_other_images_are_not_compared(page):
    network = made_up_run("net", 0.97, n_images=30, network=True, head="finetune")
    write_report(page, [network, made_up_run("head", 0.8, n_images=40)])
    assert "Networks and heads answered different images" in said(page)


def test_the_question_is_short_for_many_attributes():
    names = [f"a{k}" for k in range(9)]
    words = re.sub(r"<[^>]*>", "", question(names))
    assert (
        words
        == "Which run should recognise a0, a1, a2, a3, a4 and 4 more attributes in new images?"
    )
    assert len(question(["x" * 500])) < 200


def test_classes_and_combinations_are_counted():
    run = made_up_run("a", n_images=10, n_unseen=4, attributes=("color", "kind"))
    data = data_of(run, split={"held_out": ("blue_blue",)})
    table = class_tables(data, data.splits["test20-seed0"])[0]
    blue = data.labels["color"].indicator[:, 0]
    parts = data.splits["test20-seed0"].parts
    assert table.classes[0].counts == {
        part: int((blue & (parts == part)).sum()) for part in ("train", "test", "unseen")
    }
    grid = combination_grid(data)
    assert dict(grid.rows) == {
        "blue": [(12, True), (0, False)],
        "red": [(0, False), (12, False)],
    }
    assert combination_list(data) == ([("blue_blue", 12, True), ("red_red", 12, False)], 2, 4)


def test_a_page_of_many_images_and_classes_is_small(page):
    classes = tuple(f"class {k:03}" for k in range(120))
    runs = [made_up_run(name, 0.8, n_images=2000, classes=classes, seed=k)
            for k, name in enumerate("ab")]  # fmt: skip
    write_report(page, runs)
    assert page.stat().st_size < 400_000
    assert "120 classes; from 32 images to 34" in said(page)


def test_the_page_forbids_every_request(page):
    write_report(page, two_runs())
    html = page.read_text()
    assert "default-src 'none'" in html
    found = re.findall(r"(?:src|href|action)\s*=\s*[\"']?([^\"' >]+)|url\(([^)]*)\)|@import", html)
    assert {a or b for a, b in found} <= {
        "data:,",
        "#main",
        "#answer",
        "#data",
        "#board",
        "#costs",
        "#runs",
    }
    assert np.all([name not in html for name in ("http:", "https:", "//cdn")]) or (
        set(re.findall(r"https?://[^\"' ]+", html)) == {"http://www.w3.org/2000/svg"}
    )
