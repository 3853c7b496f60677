"""What an audit found, as short tables for a terminal."""

import pandas as pd

from featurepipe.reports.terminal_text import (
    GAP,
    MIN_WIDTH,
    Column,
    beginning,
    fitted,
    heading,
    paragraph,
    table_text,
)
from featurepipe.words import counted, visible

_N_SHOWN = 3
_COLUMNS = {
    "image": "image",
    "attribute": "attribute",
    "given_label": "labelled",
    "suggested_label": "suggested",
    "other_image": "other image",
}


def audit_text(findings: pd.DataFrame, width: int = 100, *, is_terminal: bool = False) -> str:
    """How many findings of each kind there are, and the most suspicious three.

    Parameters
    ----------
    findings : pandas.DataFrame
        What `featurepipe.audit` returns.
    width : int
        Characters a line, at least 60.
    is_terminal : bool
        Whether escape sequences may be used.
    """
    width = max(width, MIN_WIDTH)
    if findings.empty:
        return "No likely label errors, outliers or duplicates were found."
    sections = []
    for finding, rows in findings.groupby("finding", sort=False):
        title = counted(len(rows), visible(str(finding)))
        more = ", the most suspicious first" if len(rows) > 1 else ""
        columns = _columns(rows.head(_N_SHOWN), width)
        sections += [
            heading(f"{title}{more}", width, is_terminal=is_terminal),
            table_text(fitted(columns, width), is_terminal=is_terminal),
        ]
    advice = (
        "audit.csv lists all of them and why. Look at the images, correct the labels, and fit "
        "again."
    )
    return "\n\n".join([*sections, paragraph(advice, width)])


def _columns(rows: pd.DataFrame, width: int) -> list[Column]:
    """What is known of the images; where that says nothing of why, the reason."""
    columns = [
        Column(header, [visible(str(cell)) for cell in rows[name].fillna("")], is_name=True)
        for name, header in _COLUMNS.items()
        if rows[name].notna().any()
    ]
    if len(columns) == 1:
        room = max(width - columns[0].width - GAP, width // 2)
        reasons = [beginning(reason, room) for reason in rows["reason"]]
        columns.append(Column("why", reasons, is_name=True))
    return columns
