"""The web page of an exported model: it runs the model on pictures that somebody drops."""

from collections.abc import Mapping, Sequence
from typing import Any

from featurepipe.reports.page.rendering import render
from featurepipe.reports.terminal_text import percent, percent_with_interval

HTML, SCRIPT, STYLE = "index.html", "page.js", "page.css"
"""Names of the files."""

_MOST_CLASSES = 200


def page_files(
    facts: Mapping[str, Any],
    figures: Sequence[Mapping[str, Any]],
    licences: Mapping[str, str],
    version: str,
) -> dict[str, str]:
    """The text of each file of the page, but the model and what runs it.

    Parameters
    ----------
    facts : mapping
        ``run``, ``coverage``, and ``attributes`` with ``classes`` and ``exclusive`` of each.
    figures : sequence of mapping
        For each attribute and ``"all"``; see `featurepipe.reports.figures.evaluate`.
    licences : mapping of str to str
        Of the weights, by backbone.
    version : str
        Of featurepipe.

    Returns
    -------
    dict of str to str
        By the name of the file.
    """
    attributes = facts["attributes"]
    rows = [row for row in figures if row["attribute"] in attributes or len(attributes) > 1]
    html = render(
        "model.html.j2",
        facts=facts,
        coverage=percent(facts["coverage"]),
        figures=[
            {
                "attribute": row["attribute"],
                "n_test": row["n_test"],
                "right": _with_interval(row, "accuracy"),
                "unseen": _with_interval(row, "unseen_accuracy"),
            }
            for row in rows
        ],
        has_unseen=any("unseen_accuracy" in row for row in rows),
        licences=licences,
        most_classes=_MOST_CLASSES,
        version=version,
    )
    style = "\n".join(render(name) for name in ("base.css", "predictions.css", "model.css"))
    return {STYLE: style, SCRIPT: render("model.js"), HTML: html}


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return ""
    return percent_with_interval(row[name], row.get(f"{name}_low"), row.get(f"{name}_high"))
