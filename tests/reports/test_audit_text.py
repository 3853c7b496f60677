import pandas as pd
import pytest
from rich.cells import cell_len

from featurepipe.reports.audit_text import audit_text

COLUMNS = [
    "finding", "image", "attribute", "given_label", "suggested_label", "other_image", "reason",
]  # fmt: skip


def findings(*rows):
    return pd.DataFrame(list(rows), columns=COLUMNS)


def label_error(image):
    return ("label error", image, "color", "red", "blue", None, "99% for blue")


def test_each_kind_is_counted_and_the_first_three_are_shown():
    errors = [label_error(f"{n}.jpg") for n in range(5)]
    outlier = ("outlier", "z.jpg", None, None, None, None, "far from the others")
    twins = ("near-duplicate", "a.jpg", None, None, None, "b.jpg", "1% of the distance")
    assert audit_text(findings(*errors, outlier, twins)) == (
        "5 label errors, the most suspicious first\n"
        "\n"
        "image  attribute  labelled  suggested\n"
        "0.jpg  color      red       blue\n"
        "1.jpg  color      red       blue\n"
        "2.jpg  color      red       blue\n"
        "\n"
        "1 outlier\n"
        "\n"
        "image  why\n"
        "z.jpg  far from the others\n"
        "\n"
        "1 near-duplicate\n"
        "\n"
        "image  other image\n"
        "a.jpg  b.jpg\n"
        "\n"
        "audit.csv lists all of them and why. Look at the images, correct the labels, and fit "
        "again."
    )


def test_nothing_found_is_said():
    assert audit_text(findings()).startswith("No likely label errors")


@pytest.mark.parametrize("width", [60, 100])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_lines_fit_and_hold_no_control_characters(width, is_terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    image = "x" * 90 + "\x1b[2J.jpg"
    rows = [
        ("outlier", image, None, None, None, None, "why\n" * 40),
        ("label error", image, "attribute" * 9, "red\x1b[2J" * 20, image, image, ""),
    ]
    for line in audit_text(findings(*rows), width, is_terminal=is_terminal).split("\n"):
        assert cell_len(line) <= width
        assert "\x1b[2J" not in line
