"""What the page of an exported model says of it."""

import re

from featurepipe.reports.page.model_page import HTML, page_files


def table_of(names, **unseen):
    attributes = {name: {"classes": ["one", "other"], "exclusive": True} for name in names}
    facts = {"run": "run", "coverage": 0.95, "attributes": attributes}
    figures = [
        {"attribute": name, "n_test": 1200, "accuracy": 0.9, "accuracy_low": 0.88,
         "accuracy_high": 0.92, **unseen}
        for name in [*names, "all"]
    ]  # fmt: skip
    page = page_files(facts, figures, {}, "1.0")[HTML]
    assert "so that 95.0 % of pictures like these get an answer" in page
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    cells = [re.findall(r"<(?:th|td).*?>(.*?)</(?:th|td)>", row) for row in rows]
    return [[re.sub("<.*?>", "", cell) for cell in of_row] for of_row in cells]


def test_of_one_attribute_there_is_one_row_and_no_empty_column():
    assert table_of(["color"]) == [
        ["attribute", "test images", "right"],
        ["color", "1,200", "90.0 % (88.0–92.0)"],
    ]


def test_of_several_attributes_there_is_a_row_for_all_together():
    said = {"unseen_accuracy": 0.5, "unseen_accuracy_low": 0.4, "unseen_accuracy_high": 0.6}
    head, *rows = table_of(["color", "kind"], **said)
    assert head == ["attribute", "test images", "right", "unseen combinations"]
    assert [row[0] for row in rows] == ["color", "kind", "all"]
    assert {row[3] for row in rows} == {"50.0 % (40.0–60.0)"}
