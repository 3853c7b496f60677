import numpy as np
import pandas as pd
import pytest
from rich.text import Text

from featurepipe.errors import UnknownNameError
from featurepipe.reports.board import COLUMNS
from featurepipe.reports.terminal_board import board_text, runs_table

WORDS = ("run", "backbone", "view", "weights", "head", "solver", "calibrate", "task")
LONG = "a-very-long-name-of-a-run-that-somebody-gave-" + "x" * 80
HOSTILE = "red\x1b[2J\nrun\x07"


def board_of(*rows):
    """A board of rows by column; what is not given is missing, as on a real one."""
    board = pd.DataFrame(list(rows), columns=list(COLUMNS))
    types = dict.fromkeys(COLUMNS, "float64")
    types |= dict.fromkeys((*WORDS, "attribute", "split", "interval"), "object")
    counts = ("n_train", "n_test", "n_unseen", "epochs", "n_parameters", "model_bytes")
    types |= dict.fromkeys(counts, "Int64")
    types |= dict.fromkeys(("tied_with_best", "log_loss_tied_with_best", "current"), "boolean")
    return board.astype(types)


def row(run, accuracy, *, tied=None, attribute="all", **others):
    row = {
        "run": run,
        "backbone": "xception",
        "view": "rgb",
        "weights": "imagenet",
        "head": "logistic",
        "task": "per-attribute",
        "attribute": attribute,
        "split": "test20-seed0",
        "current": True,
        "n_train": 1728,
        "n_test": 432,
        "n_unseen": 0,
        "interval": "images",
        "selection_accuracy": 0.9,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.02,
        "accuracy_high": accuracy + 0.01,
        "tied_with_best": tied,
        "log_loss": 0.12345,
        "fit_s": 5.01,
        "predict_ms_per_image": 11.84,
    }
    return row | others


def run_rows(run, accuracy, **others):
    """A run's rows of two attributes, and of all together."""
    attributes = ("color", "kind", "all")
    return [row(run, accuracy, attribute=name, **others) for name in attributes]


def lines_of(text):
    return [Text.from_ansi(line) for line in text.splitlines()]


def table_of(text):
    """Lines of the first table: its header, and one a run."""
    return text.split("\n\n")[1].splitlines()


FIVE = [
    *run_rows("xception-logistic", 0.965, tied=True, selection_accuracy=0.95),
    *run_rows("xception-knn", 0.960, tied=True, predict_ms_per_image=9.5, fit_s=0.2),
    *run_rows("xception-bagged-sgd", 0.9449, tied=False, selection_accuracy=0.97, fit_s=660),
    *run_rows("xception-finetune", 0.9449, tied=False, log_loss=0.0123, fit_s=5400),
    *run_rows("xception-grey-knn", 0.093, tied=False, log_loss=1.2),
]


def test_a_table_has_one_line_a_run():
    lines = table_of(board_text(board_of(*FIVE), 90))
    assert lines == [
        "#  run                  accuracy (95 % CI)     selection  log-loss     fit  ms/image",
        "1  xception-logistic    96.5 % (94.5–97.5)  =     95.0 %    0.123    5 s       11.8",
        "2  xception-knn         96.0 % (94.0–97.0)  =     90.0 %    0.123    0.2 s      9.50",
        "3  xception-bagged-sgd  94.5 % (92.5–95.5)        97.0 %    0.123   11 min     11.8",
        "3  xception-finetune    94.5 % (92.5–95.5)        90.0 %    0.0123   1.5 h     11.8",
        "5  xception-grey-knn     9.3 % (7.3–10.3)         90.0 %    1.20     5 s       11.8",
    ]


def test_the_run_to_take_is_named_with_its_interval_and_those_tied():
    advice = board_text(board_of(*FIVE), 1000).split("\n\n")[2]
    assert advice == (
        "Take xception-bagged-sgd: it has the best selection accuracy (97.0 %); it is right on "
        "94.5 % of the 432 test images (95 % interval 92.5–95.5 %). 2 of 5 runs are tied for the "
        "best accuracy (=); the cheapest of them is xception-knn (9.50 ms/image)."
    )


def test_of_runs_with_the_same_selection_accuracy_the_cheapest_is_taken():
    board = board_of(
        row("slow", 0.96, predict_ms_per_image=20),
        row("fast", 0.95, predict_ms_per_image=10),
        row("unknown", 0.94, predict_ms_per_image=np.nan),
    )
    assert (
        "Take fast: it has the best selection accuracy (90.0 %; 2 other runs reach it at no lower "
        "cost)" in board_text(board, 1000)
    )


@pytest.mark.parametrize(
    ("tied", "said"),
    [
        ([True, True], "Both runs are tied for the best accuracy (=)"),
        ([True, True, True], "All 3 runs are tied for the best accuracy (=)"),
        ([True, False], "No other run is tied with run0 for the best accuracy."),
        ([None, None], "Their accuracies were not compared"),
    ],
)
def test_ties_are_said_in_words(tied, said):
    rows = [row(f"run{n}", 0.9 - n / 100, tied=each) for n, each in enumerate(tied)]
    text = board_text(board_of(*rows), 1000)
    assert said in text
    assert ("=  " in text) == (sum(each or 0 for each in tied) > 1)


def test_runs_on_other_labels_or_images_are_marked_and_not_recommended():
    old = run_rows("old-run", 0.97, selection_accuracy=0.99, current=False)
    text = board_text(board_of(*old, *run_rows("new-run", 0.9), *run_rows("newest", 0.89)))
    assert "old-run (old)" in text and "new-run (old)" not in text
    assert "Take new-run: " in text
    assert "\n(old)      fitted on other labels or images than the present ones; `predict`" in text
    text = board_text(board_of(*old))
    assert "All runs of this split were fitted on other labels or images" in text
    assert "(old)" not in board_text(board_of(*run_rows("new-run", 0.9)))


def test_a_single_run_is_compared_with_none():
    text = board_text(board_of(row("alone", 0.95, n_test=1)), 1000)
    assert (
        "alone is the only run: selection accuracy 90.0 %; it is right on 95.0 % of the test "
        "image (95 % interval 93.0–96.0 %)." in text
    )
    assert "1,728 training images, 1 test image\n" in text
    assert "tied" not in text


def test_without_test_images_there_is_no_accuracy():
    rows = [row(name, np.nan, n_test=0, log_loss=np.nan) for name in ("a", "b")]
    text = board_text(board_of(*rows), 1000)
    assert [line.split()[:5] for line in table_of(text)[1:]] == [
        ["–", name, "xception", "logistic", "–"] for name in ("a", "b")
    ]
    assert "there are no test images to measure its accuracy on" in text
    assert "The runs have no test images in common" in text
    assert "nan" not in text.lower()


def test_without_selection_accuracies_no_run_is_recommended():
    rows = [row(name, 0.9, selection_accuracy=np.nan) for name in ("a", "b")]
    assert "No run has a selection accuracy to choose by." in board_text(board_of(*rows))


def test_unseen_combinations_have_a_column_where_there_are_any():
    seen = row("a", 0.9)
    unseen = row("b", 0.8, n_unseen=12, unseen_accuracy=0.4567, unseen_harmonic_mean=0.5815)
    assert "unseen" not in board_text(board_of(seen))
    text = board_text(board_of(seen, unseen))
    header, first, second = table_of(text)
    assert "unseen" in header
    assert "harmonic mean" in header
    assert first.split()[6:8] == ["–", "–"]
    assert second.split()[6:10] == ["45.7", "%", "58.1", "%"]
    assert "0 to 12 images of held-out combinations" in text.replace("\n", " ")


def test_sets_of_labels_are_right_as_a_whole():
    tags = row("a", 0.9, attribute="tags", subset_accuracy=0.9)
    text = board_text(board_of(tags, row("a", 0.9)), 1000)
    assert "whose tags is right; of a set of labels, all must be right" in text
    assert "of a set of labels" not in board_text(board_of(*FIVE))


def series(run, **others):
    return row(
        run,
        0.75,
        split="seed0 (3 splits)",
        interval="splits",
        accuracy_sd=0.0125,
        log_loss_sd=0.012,
        **others,
    )


def test_a_series_has_its_own_table_first():
    rows = [series("both"), series("other", selection_accuracy=0.95), *run_rows("run1", 0.9)]
    text = board_text(board_of(*rows), 1000)
    title, table, advice, *_ = text.split("\n\n")
    assert title == "Series seed0 (3 splits): mean ± standard deviation over the splits"
    assert "75.0 ± 1.2 % (73.0–76.0)" in table and "0.123 ± 0.0120" in table
    assert advice == (
        "Take other: it has the best mean selection accuracy (95.0 %); it is right on 75.0 % of "
        "the test images, on average (95 % interval 73.0–76.0 %)."
    )
    assert text.index("Series") < text.index("Split test20-seed0")


def test_a_series_whose_splits_chose_differently_can_be_shown():
    varied = {"head": "varies", "backbone": "varies", "view": "varies"}
    rows = [series("auto", **varied), series("auto", attribute="color", **varied)]
    text = board_text(board_of(*rows), 1000)
    _, table, *_ = text.split("\n\n")
    assert "different stores" in table and "varies" in table


def test_the_splits_with_the_most_runs_are_shown():
    one_each = [row("lonely", 0.9, split=f"split{n}") for n in range(8)]
    board = board_of(*one_each, row("a", 0.9, split="z"), row("b", 0.8, split="z"))
    text = board_text(board)
    assert [line.split()[1].rstrip(":") for line in text.splitlines() if "Split " in line] == [
        "split0", "split1", "split2", "split3", "z"
    ]  # fmt: skip
    assert "4 more splits: add --full." in text
    assert board_text(board, full=True).count("Split ") == 9


def test_an_attribute_is_ranked_by_its_own_accuracy():
    rows = [
        row("a", 0.9), row("a", 0.5, attribute="color"),
        row("b", 0.8), row("b", 0.7, attribute="color", selection_accuracy=0.95),
    ]  # fmt: skip
    text = board_text(board_of(*rows), 1000, attribute="color")
    assert [line.split()[1] for line in table_of(text)[1:]] == ["b", "a"]
    assert "For color, take b: it has the best selection accuracy (95.0 %)" in text
    assert "share of test images whose color is right" in text


def test_an_unknown_attribute_is_refused():
    with pytest.raises(
        UnknownNameError, match=r"Unknown attribute 'colour'\. Did you mean 'color'"
    ):
        board_text(board_of(*FIVE), attribute="colour")


def test_features_that_a_name_does_not_say_stand_below():
    rows = [
        row("auto-knn", 0.9, attribute="color", backbone="hsv_histogram"),
        row("auto-knn", 0.9, attribute="kind", backbone="xception", view="grey"),
        row("auto-knn", 0.9, backbone="hsv_histogram+xception", view="rgb+grey"),
    ]
    assert "auto-knn reads hsv_histogram for color, xception:grey for kind." in board_text(
        board_of(*rows), 90
    )
    wide = board_text(board_of(*rows), 120)
    assert "reads" not in wide and " hsv_histogram+xception:grey " in wide


def test_a_narrow_terminal_drops_columns_and_says_so():
    rows = [row(f"xception-bagged-sgd-multi-label-{n}", 0.9) for n in range(3)]
    text = board_text(board_of(*rows), 60)
    assert table_of(text)[0].split() == ["#", "run", "accuracy", "(95", "%", "CI)", "log-loss"]
    assert "also shows fit, ms/image." in text.replace("\n", " ")
    assert "A wider terminal" not in board_text(board_of(*rows), 100)


def test_a_terminal_shows_the_run_to_take_in_bold(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = board_text(board_of(*FIVE), is_terminal=True)
    bold = [line for line in table_of(text)[2:] if "\x1b[1m" in line]
    assert [Text.from_ansi(line).plain.split()[1] for line in bold] == ["xception-bagged-sgd"]
    assert "\x1b" not in board_text(board_of(*FIVE))


BOARDS = {
    "one run": [*run_rows("alone", 0.9)],
    "five runs": FIVE,
    "twenty runs": [
        each for n in range(20) for each in run_rows(f"run{n}", 0.9 - n / 40, tied=n < 7)
    ],
    "long names": [*run_rows(LONG, 0.9, tied=True), *run_rows("b" + LONG, 0.9, tied=True)],
    "wide letters": run_rows("特徴" * 40, 0.9, split="分割" * 30),
    "escapes": [
        *run_rows(HOSTILE, 0.9, tied=True, split=HOSTILE, head=HOSTILE),
        *run_rows("[bold]b[/bold]", 0.8, tied=True, split=HOSTILE, backbone=HOSTILE),
        row("c", 0.7, attribute=HOSTILE, split=HOSTILE),
        row("c", 0.7, split=HOSTILE),
    ],
    "no test images": [*run_rows("a", np.nan), *run_rows("b", np.nan)],
    "unseen": [
        *run_rows("a", 0.9, unseen_accuracy=0.3, n_unseen=12),
        *run_rows(LONG, 0.9, unseen_accuracy=1, n_unseen=12),
    ],
    "series": [series(LONG, unseen_accuracy=0.5, unseen_accuracy_sd=0.1), *run_rows("a", 0.9)],
    "large figures": [
        *run_rows("a", 1.0, log_loss=123456, fit_s=1e7, predict_ms_per_image=1e6, n_train=10**9)
    ],
}


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("width", [60, 100, 160])
@pytest.mark.parametrize("name", BOARDS)
def test_every_line_fits(name, width, is_terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    board = board_of(*BOARDS[name])
    for options in ({}, {"full": True}, {"attribute": board["attribute"][0]}):
        text = board_text(board, width, is_terminal=is_terminal, **options)
        assert max(line.cell_len for line in lines_of(text)) <= width
        assert not any(line.plain.strip().startswith("%") for line in lines_of(text))
        assert "\x1b[2J" not in text and "\x07" not in text
        assert "nan" not in text.lower() and "<NA>" not in text


def test_markup_and_control_characters_are_shown_as_they_are():
    text = board_text(board_of(*BOARDS["escapes"]), 1000)
    assert r"red\u001b[2J\nrun\u0007" in text
    assert "[bold]b[/bold]" in text


def test_every_figure_is_shown_once():
    rows = [
        *run_rows("a", 0.9, brier=0.02, model_bytes=2_246_867, n_parameters=None),
        *run_rows("b", 0.8, brier=0.03, model_bytes=3_246_867, n_parameters=23_587_712),
    ]
    text = board_text(board_of(*rows), 100, full=True)
    assert "training images 1,728, test images 432" in text.replace("\n", " ")
    of_run, of_attribute = text.split("\n\n")[2:]
    assert of_run.splitlines()[1:] == [
        "1  a    2.25 MB",
        "2  b    3.25 MB  23,587,712",
    ]
    header, first, *_ = of_attribute.splitlines()
    assert header.split() == ["#", "attribute", "accuracy", "brier"]
    assert first.split() == ["1", "color", "90.0", "%", "(88.0–91.0)", "0.0200"]
    assert [line.split()[-1] for line in of_attribute.splitlines()[4:]] == ["0.0300"] * 3


def test_every_figure_of_one_attribute():
    text = board_text(board_of(*FIVE), 100, full=True, attribute="kind")
    assert "color" not in text
    assert text.count("kind") >= 5


def test_an_empty_board_says_so():
    assert board_text(board_of()) == "The board has no runs."


def summary_of(*runs, attributes=("color", "kind", "all")):
    return pd.DataFrame(
        [
            {
                "run": run,
                "backbone": "xception",
                "view": "rgb",
                "split": split,
                "attribute": attribute,
                "n_train": 1728,
                "selection_accuracy": 0.9 + position / 100,
                "fit_s": 5.0,
            }
            for run, split in runs
            for position, attribute in enumerate(attributes)
        ]
    )


def test_a_fit_ends_with_a_line_a_run():
    text = runs_table(summary_of(("a", "s"), ("b-bagged-sgd", "s")))
    assert text == (
        "              training  selection\n"
        "run             images   accuracy   color    kind  fit\n"
        "a                1,728     92.0 %  90.0 %  91.0 %  5 s\n"
        "b-bagged-sgd     1,728     92.0 %  90.0 %  91.0 %  5 s\n"
        "\n"
        "Selection accuracy is the share of training images with every attribute right, each "
        "predicted by a\nmodel that was not fitted on it. Compare the runs on test images: "
        "featurepipe report"
    )


def test_a_fit_names_the_splits_where_there_are_several():
    assert "split" in runs_table(summary_of(("a", "s"), ("b", "t"))).splitlines()[1]


def test_a_fit_of_one_attribute_shows_it_once():
    table = runs_table(summary_of(("a", "s"), attributes=("color", "all")))
    assert "color" not in table
    assert "share of training images that are right" in table


@pytest.mark.parametrize("width", [60, 100])
def test_lines_of_a_fit_fit(width):
    many = [f"attribute{n}" for n in range(12)]
    for attributes in (("color", "all"), ("x" * 70, "kind", "all"), (*many, "all")):
        summary = summary_of((LONG, "s" * 50), (HOSTILE, HOSTILE), attributes=attributes)
        text = runs_table(summary, width)
        assert max(line.cell_len for line in lines_of(text)) <= width
        assert "\x1b" not in text
