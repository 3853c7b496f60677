"""The nearest images as a person reads them."""

import pandas as pd

from featurepipe.reports.similar_text import similar_text


def table(*rows):
    columns = ["query", "rank", "image", "distance", "of_median", "same_bytes", "labels"]
    found = pd.DataFrame(rows, columns=columns)
    found.attrs["features"] = "colours"
    return found


def test_each_query_has_a_table_and_the_distance_is_explained():
    text = similar_text(
        table(
            ["a.jpg", 1, "red/1.jpg", 0.0, 0.0, True, {"color": ["red"], "kind": None}],
            ["a.jpg", 2, "red/2.jpg", 0.41234, 0.5049, False, {"color": ["red"], "kind": []}],
            ["b.jpg", 1, "red/2.jpg", 1.2, float("nan"), False, {"color": ["red"], "kind": []}],
        ),
        80,
    )
    assert text.splitlines() == [
        "a.jpg",
        "",
        "#  image      distance   of median  labels",
        "1  red/1.jpg     0      same bytes  red, –",
        "2  red/2.jpg     0.412        50 %  red, none",
        "",
        "b.jpg",
        "",
        "#  image      distance  of median  labels",
        "1  red/2.jpg      1.20          –  red, none",
        "",
        "Distance of the features of colours, scaled to length 1. 100 % is the median",
        "distance between images.",
    ]


def test_names_cannot_act_on_the_terminal_and_long_ones_are_shortened():
    text = similar_text(
        table(
            [
                "a\x1b[2J.jpg",
                1,
                "r\u202e/" + "1" * 500 + ".jpg",
                0.5,
                0.5,
                False,
                {"c": ["x" * 500]},
            ]
        ),
        80,
    )
    assert "\x1b" not in text and "\u202e" not in text and "\\u202e" in text
    assert max(map(len, text.splitlines())) <= 80


def test_without_labels_there_is_no_column_and_without_neighbours_a_sentence():
    assert "labels" not in similar_text(table(["a.jpg", 1, "1.jpg", 0.5, 0.5, False, {}]))
    assert similar_text(table()) == "No other image has features."
