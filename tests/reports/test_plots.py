import struct
import threading
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest

from featurepipe.reports.plots import plot_training

SVG = "{http://www.w3.org/2000/svg}"
STAGES = {"top": 3, "last blocks": 4, "without augmentation": 2}


def make_history(*outputs, stages=None, best=None):
    stages = stages or STAGES
    n = sum(stages.values())
    history = pd.DataFrame(
        {
            "epoch": np.arange(1, n + 1),
            "stage": np.repeat(list(stages), list(stages.values())),
            "seconds": 2.5,
            "learning_rate": 1e-3,
        }
    )
    for name in outputs:
        for part, more in {"train": 0.0, "validation": 0.25}.items():
            history[f"{part}_loss:{name}"] = 1 / history["epoch"] + more
            history[f"{part}_accuracy:{name}"] = 1 - 0.5 / history["epoch"] - more
    for part in ("train", "validation"):
        losses = [history[f"{part}_loss:{name}"] for name in outputs]
        history[f"{part}_loss"] = np.sum(losses, axis=0)
    return history.assign(best=history["epoch"] == best)


def svg_of(history, title="a run"):
    return ElementTree.fromstring(plot_training(history, title)["training.svg"])


def texts(svg):
    return [element.text for element in svg.iter(f"{SVG}text")]


def ids(svg, *beginnings):
    found = [element.get("id") for element in svg.iter(f"{SVG}g") if element.get("id")]
    return [each for each in found if each.startswith(beginnings)]


def lines(svg):
    return ids(svg, "train-", "validation-")


def points_of(svg, line):
    """Corners of a line, or None where nothing is drawn."""
    (group,) = [each for each in svg.iter(f"{SVG}g") if each.get("id") == line]
    path = group.find(f"{SVG}path")
    return [] if path is None else path.get("d").replace("M", "L").split("L")[1:]


def size_px(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert png[12:16] == b"IHDR"
    return struct.unpack(">II", png[16:24])


def test_all_names_are_in_the_picture_as_text():
    written = texts(svg_of(make_history("color", "category", best=7), "finetune-ab12"))
    for name in ["finetune-ab12", "total", *STAGES, "train", "validation", "epoch"]:
        assert name in written
    assert written.count("color") == written.count("category") == 2
    assert "weights kept: epoch 7" in written
    assert written.count("loss (nats)") == 3
    assert written.count("accuracy (share right)") == 2


@pytest.mark.parametrize(("n_outputs", "n_lines"), [(1, 4), (2, 10), (5, 22), (12, 50)])
def test_each_panel_has_two_lines(n_outputs, n_lines):
    names = [f"attribute {number}" for number in range(n_outputs)]
    svg = svg_of(make_history(*names, best=4))
    drawn = lines(svg)
    assert len(drawn) == len(set(drawn)) == n_lines
    assert ("train-loss-total" in drawn) == (n_outputs > 1)
    assert len(ids(svg, "best-")) == n_lines / 2
    # Two borders of three stages.
    assert len(ids(svg, "stage-")) == n_lines
    assert all(len(points_of(svg, each)) == 9 for each in drawn)


def test_ids_are_those_of_the_outputs_in_their_order():
    assert lines(svg_of(make_history("b", "a"))) == [
        f"{part}-{panel}"
        for panel in ("loss-total", "loss-1", "accuracy-1", "loss-2", "accuracy-2")
        for part in ("train", "validation")
    ]


def test_lines_differ_in_dash_and_colour():
    svg = svg_of(make_history("color"))
    styles = {}
    for part in ("train", "validation"):
        (group,) = [each for each in svg.iter(f"{SVG}g") if each.get("id") == f"{part}-loss-1"]
        styles[part] = group.find(f"{SVG}path").get("style")
    assert "#0072b2" in styles["train"] and "stroke-dasharray" in styles["train"]
    assert "#d55e00" in styles["validation"] and "stroke-dasharray" not in styles["validation"]


def test_the_total_of_a_single_output_is_left_out():
    written = texts(svg_of(make_history("labels")))
    assert "total" not in written
    # Loss and accuracy lie side by side, so that both name the stages.
    assert written.count("last blocks") == 2


@pytest.mark.parametrize("title", ["a $b$ <c> & \"d\" 'e' --> ]]> _f_ \\alpha %", "$", "颜色: é"])
def test_odd_names_are_written_as_they_are(title):
    name = f"x:{title}"
    written = texts(svg_of(make_history(name, stages={f"s {title}"[:24]: 2}), f"t {title}"))
    assert written.count(name) == 2
    assert f"t {title}" in written
    assert f"s {title}"[:24] in written


def test_what_xml_does_not_allow_is_replaced():
    written = texts(svg_of(make_history("a\x00b\n\tc"), "x\x1b\udcff"))
    assert "a\ufffdb c" in written
    assert "x\ufffd\ufffd" in written


def test_long_names_are_wrapped_and_shortened_in_their_middle():
    name = "begin " + "and so on " * 30 + "end"
    written = texts(svg_of(make_history(name, stages={name: 2})))
    pieces = [text for text in written if text.startswith("begin") or text.endswith("end")]
    # Each of two panels has a stage's name in one line and its own in two.
    assert len(pieces) == 6
    assert max(map(len, pieces)) < 70
    assert sum("…" in text for text in written) == 4


def test_the_same_history_gives_the_same_bytes():
    history = make_history("color", "category", best=3)
    first = plot_training(history, "a run")
    assert plot_training(history.copy(), "a run") == first
    assert list(first) == ["training.png", "training.svg"]
    assert plot_training(history, "another") != first
    assert b"atplotlib v" not in first["training.svg"] + first["training.png"]
    assert b"dc:date" not in first["training.svg"]


def test_somebodys_style_changes_nothing_and_is_kept():
    history = make_history("color", best=3)
    expected = plot_training(history, "a run")
    style = {"axes.facecolor": "black", "font.size": 20, "svg.fonttype": "path"}
    with matplotlib.rc_context(style):
        assert plot_training(history, "a run") == expected
        assert {name: matplotlib.rcParams[name] for name in style} == style


def test_threads_draw_side_by_side():
    history = make_history("color", best=3)
    expected, drawn = plot_training(history, "a run"), []
    threads = [
        threading.Thread(target=lambda: drawn.append(plot_training(history, "a run")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == [expected] * 3


@pytest.mark.parametrize(
    ("n_outputs", "width", "least", "most"), [(1, 990, 300, 450), (2, 990, 700, 900),
                                              (4, 990, 1100, 1400), (12, 1540, 1500, 1900)]
)  # fmt: skip
def test_pictures_have_a_size_that_can_be_read(n_outputs, width, least, most):
    history = make_history(*(f"attribute {number}" for number in range(n_outputs)))
    drawn = size_px(plot_training(history, "a run")["training.png"])
    assert drawn[0] == width
    assert least < drawn[1] < most


def test_a_single_epoch_is_drawn():
    svg = svg_of(make_history("color", stages={"all": 1}, best=1))
    assert len(lines(svg)) == 4
    assert len(ids(svg, "best-")) == 2
    assert not ids(svg, "stage-")
    assert "all" in texts(svg)
    (group,) = [each for each in svg.iter(f"{SVG}g") if each.get("id") == "train-loss-1"]
    assert len(list(group.iter(f"{SVG}use"))) == 1


def test_a_history_without_a_best_epoch_marks_none():
    svg = svg_of(make_history("color"))
    assert not ids(svg, "best-")
    assert not any("weights kept" in text for text in texts(svg))


def test_losses_that_become_nan_end_and_are_shaded():
    history = make_history("color", "category", best=4)
    losses = [name for name in history if "_loss" in name]
    history.loc[history["epoch"] >= 7, losses] = np.nan
    history.loc[history["epoch"] == 8, "train_loss"] = np.inf
    svg = svg_of(history)
    assert len(points_of(svg, "train-loss-total")) == 6
    assert len(points_of(svg, "validation-loss-2")) == 6
    assert len(points_of(svg, "train-accuracy-1")) == 9
    assert "a loss is not finite" in texts(svg)
    assert "a loss is not finite" not in texts(svg_of(make_history("color")))


def test_a_point_between_two_gaps_is_marked_in_a_long_history():
    history = make_history("color", stages={"all": 80})
    history.loc[[10, 12], "train_loss:color"] = np.nan
    svg = svg_of(history)
    marks = {}
    for part in ("train", "validation"):
        (group,) = [each for each in svg.iter(f"{SVG}g") if each.get("id") == f"{part}-loss-1"]
        marks[part] = len(list(group.iter(f"{SVG}use")))
    assert marks == {"train": 1, "validation": 0}


def test_what_has_no_values_at_all_says_so():
    history = make_history("color", "same", best=2)
    history[["train_accuracy:same", "validation_accuracy:same"]] = np.nan
    history["train_accuracy:color"] = np.nan
    svg = svg_of(history)
    assert texts(svg).count("no values") == 1
    assert not {"train-accuracy-2", "validation-accuracy-2", "train-accuracy-1"} & {*lines(svg)}
    assert "a loss is not finite" not in texts(svg)
    history[[name for name in history if "_loss" in name]] = np.nan
    svg = svg_of(history)
    assert lines(svg) == ["validation-accuracy-1"]
    assert texts(svg).count("no values") == 4
    assert "a loss is not finite" in texts(svg)


def test_losses_of_many_magnitudes_have_a_logarithmic_axis():
    history = make_history("color")
    assert "loss (nats)" in texts(svg_of(history))
    history.loc[0, "train_loss:color"] = 1e9
    written = texts(svg_of(history))
    assert "loss (nats, log scale)" in written
    assert "loss (nats)" not in written
    assert "1e+09" in written or "1e+08" in written


def test_a_history_read_from_its_file_looks_the_same(tmp_path):
    history = make_history("color", "a:b", best=2)
    history.loc[8, ["train_loss", "train_accuracy:a:b"]] = np.nan
    history.to_csv(tmp_path / "history.csv", index=False)
    read = pd.read_csv(tmp_path / "history.csv")
    assert plot_training(read, "a run") == plot_training(history, "a run")
