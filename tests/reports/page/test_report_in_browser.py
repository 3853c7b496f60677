"""The page of `featurepipe report` in a real browser, without a network."""

import io

import numpy as np
import pytest
from PIL import Image

from featurepipe.reports.page.feature_map import feature_map
from featurepipe.reports.page.map_chart import map_chart
from featurepipe.reports.page.thumbnails import Thumbnails
from page_runs import as_frame, data_of, made_up_run, write_report

ODD = {
    "script": "<script>alert(1)</script>",
    "quotes": "\"quoted\" 'name' & <b>bold</b>",
    "emoji": "👗 dress 👖",
    "right to left": "ثوب أحمر",
    "turned": "abc\u202edef",
    "long": "long-" * 100,
}
WIDTHS = (360, 820, 1400)


def picture(image_id):
    file = io.BytesIO()
    Image.new("RGB", (90, 60), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def some_maps():
    X, codes = np.random.default_rng(0).standard_normal((200, 5)), np.arange(200) % 3
    few = feature_map("net:rgb", X, "color", codes, ("black", "blue", "red"), 200)
    many = feature_map(
        "net:rgb", X, "kind", np.arange(200) % 20, [f"k {k}" for k in range(20)], 900
    )
    return [map_chart(few), map_chart(many)]


def some_runs():
    return [
        made_up_run("auto", 0.95, n_images=120, n_unseen=60, ms=8.0, seed=1, head="svm"),
        made_up_run("xception-logistic", 0.85, n_images=120, n_unseen=60, ms=3.0, seed=2),
        made_up_run("no-costs", 0.6, n_images=120, n_unseen=60, ms=None, seed=3, backbone="b"),
        made_up_run(
            "finetune", 0.9, n_images=120, n_unseen=60, ms=5.0, seed=4, head="finetune",
            network=True, fit_s=900.0,
        ),
    ]  # fmt: skip


def odd_runs():
    attributes = ("color", ODD["script"], ODD["long"])
    return [
        made_up_run(
            name, 0.7 + 0.02 * seed, seed=seed, ms=1.0 + seed, head=name, attributes=attributes,
            classes=tuple(sorted(ODD.values())), backbone=name,
        )
        for seed, name in enumerate(ODD.values())
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    runs = some_runs()
    split = {"held_out": ("blue_blue",), "leaks": [("a.jpg", "b.jpg")]}
    board = write_report(
        path,
        runs,
        data=data_of(runs[0], split=split),
        taken="auto",
        thumbnails=Thumbnails(picture, 10**6),
        maps=some_maps(),
        find_nearest=lambda ids: {image: [("a.jpg", "red"), ("b.jpg", "blue")] for image in ids},
    )
    return path, board


@pytest.fixture(scope="module")
def odd_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("odd") / "report.html"
    write_report(path, odd_runs())
    return path


def shown(browser):
    return browser.texts("table.board tbody tr th")


def test_it_asks_for_nothing_and_says_nothing(browser, page):
    browser.open(page[0])
    assert browser.requests() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.messages() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_and_nothing_is_cut(browser, page, width, dark):
    browser.open(page[0], width=width, dark=dark)
    assert browser.violations() == []
    assert not browser.is_cut()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_same_holds_where_everything_is_open(browser, page, width, dark):
    browser.open(page[0], width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    assert browser.violations() == []
    assert not browser.is_cut()


def test_every_picture_shows(browser, page):
    browser.open(page[0])
    browser.run("document.querySelectorAll('img').forEach((e) => { e.loading = 'eager'; })")
    shown = browser.run(
        "return Promise.all([...document.images].map((e) => e.decode().then(() => e.naturalWidth)))"
    )
    assert len(shown) > 20
    assert set(shown) == {90}


def test_tables_of_classes_are_sorted_by_any_column(browser, page):
    browser.open(page[0])
    table = "document.querySelector('#run-1 table[data-sortable]')"
    browser.run(f"{table}.tHead.rows[0].cells[1].querySelector('button').click()")
    counts = browser.run(
        f"return [...{table}.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.value))"
    )
    assert counts == sorted(counts)


@pytest.mark.parametrize("width", WIDTHS)
def test_odd_names_are_shown_and_never_run(browser, odd_page, width):
    browser.open(odd_page, width=width)
    assert browser.messages() == []
    assert browser.run("return document.querySelectorAll('script').length") == 1
    assert not browser.is_cut()
    names = " ".join(shown(browser))
    for name in ODD.values():
        assert name.replace("\u202e", "\\u202e") in names
    assert browser.violations() == []


def test_the_board_has_the_figures_of_the_csv(browser, page):
    path, board = page
    browser.open(path)
    rows = browser.run(
        "return [...document.querySelectorAll('table.board tbody tr')].map((row) => ["
        "row.querySelector('th .name').textContent,"
        "...['accuracy', 'unseen', 'ms'].map((name) => row.querySelector("
        "`[data-column=${name}]`).dataset.value)])"
    )
    assert len(rows) == 4
    frame = as_frame(board)
    for name, accuracy, unseen, ms in rows:
        row = frame.loc[name]
        assert float(accuracy) == row["accuracy"]
        assert float(unseen) == row["unseen_accuracy"]
        if name == "no-costs":
            assert ms == ""
        else:
            assert float(ms) == row["predict_ms_per_image"]


def test_it_sorts_by_number_with_missing_figures_last(browser, page):
    browser.open(page[0])
    click = "document.querySelector('[data-column=ms] button').click()"
    browser.run(click)
    assert [name.split()[0] for name in shown(browser)] == [
        "xception-logistic", "finetune", "auto", "no-costs"
    ]  # fmt: skip
    sort = "return document.querySelector('th[data-column=ms]').ariaSort"
    assert browser.run(sort) == "ascending"
    browser.run(click)
    assert [name.split()[0] for name in shown(browser)] == [
        "auto", "finetune", "xception-logistic", "no-costs"
    ]  # fmt: skip
    assert browser.run(sort) == "descending"


def test_it_filters_and_says_how_many_rows_are_left(browser, page):
    browser.open(page[0])
    choose = (
        "const select = document.querySelector(`[name=${arguments[0]}]`);"
        "select.value = arguments[1];"
        "select.dispatchEvent(new Event('change', {bubbles: true}));"
    )
    browser.run(choose, "head", "logistic")
    assert [name.split()[0] for name in shown(browser)] == ["xception-logistic", "no-costs"]
    assert browser.texts("[role=status]") == ["2 of 4 rows"]
    browser.run(choose, "features", "b")
    assert shown(browser) == ["no-costs"]


def test_without_scripts_every_row_and_no_dead_button_is_shown(browser, odd_page):
    browser.open(odd_page, scripts=False)
    try:
        found = browser.driver.find_elements("css selector", "table.board tbody tr")
        assert len(found) == 6 * 4
        assert all(row.is_displayed() for row in found)
        buttons = browser.driver.find_elements("css selector", "button, select")
        assert not any(button.is_displayed() for button in buttons)
    finally:
        browser.open(odd_page)


@pytest.mark.parametrize("width", [360, 1400])
def test_labels_of_charts_do_not_overlap_and_are_not_cut(browser, tmp_path, width):
    path = tmp_path / "many.html"
    write_report(
        path,
        [
            made_up_run(f"backbone{seed}-logistic", 0.8, seed=seed, ms=1 + 0.1 * seed, fit_s=5.0)
            for seed in range(30)
        ],
    )
    browser.open(path, width=width)
    charts = browser.run(
        "return [...document.querySelectorAll('[aria-labelledby=costs] figure svg')]"
        ".filter((e) => e.checkVisibility())"
        ".map((svg) => [svg.getBoundingClientRect().toJSON(),"
        "[...svg.querySelectorAll('text')].map((e) => e.getBoundingClientRect().toJSON())])"
    )
    assert len(charts) == 2
    for around, boxes in charts:
        assert sum(box["width"] > 100 for box in boxes) > 1
        for place, box in enumerate(boxes):
            assert around["left"] - 0.5 <= box["left"] and box["right"] <= around["right"] + 0.5
            for other in boxes[place + 1 :]:
                # A line box is taller than its letters.
                apart = (
                    box["right"] <= other["left"] + 1
                    or other["right"] <= box["left"] + 1
                    or box["bottom"] <= other["top"] + 3
                    or other["bottom"] <= box["top"] + 3
                )
                assert apart, (box, other)


def test_the_button_turns_light_into_dark(browser, page):
    browser.open(page[0])
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(ground)
    browser.run("document.querySelector('[data-theme-switch]').click()")
    assert browser.run(ground) != light
    assert browser.texts("[data-theme-switch]") == ["Light colours"]


def test_every_chart_is_drawn_and_has_a_name(browser, page):
    browser.open(page[0])
    charts = browser.run(
        "return [...document.querySelectorAll('[aria-labelledby=costs] figure svg[role=img]')]"
        ".filter((e) => e.checkVisibility())"
        ".map((e) => [e.ariaLabel, e.querySelectorAll('.mark').length])"
    )
    # One run has no costs of predicting.
    assert [n_marks for _, n_marks in charts] == [3, 4, 4]
    assert all(name for name, _ in charts)
