"""How things are printed: for a person, or for a program."""

import io
import json
import logging
import math
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

from featurepipe.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

LOGGER = logging.getLogger("featurepipe")

# Control characters but tab and newline, marks that turn the direction of writing, and
# bytes of a file's name that are no text.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Text whose control characters are shown as escapes, as JSON writes them.

    A file's name may hold any; as they are they would control the terminal.

    Examples
    --------
    >>> print(visible("a\x1b[2J.png"))
    a\u001b[2J.png
    """
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def write(text: str) -> None:
    """Write lines to standard output: every byte to a program, `visible` to a terminal."""
    if sys.stdout.isatty():
        text = visible(text)
    elif isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be text: their bytes leave as they came.
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def write_json(value: Any, indent: int | None = 2) -> None:
    """Write a value as JSON; without `indent` on one line."""
    write(visible(json.dumps(value, ensure_ascii=False, indent=indent)))


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of a table as JSON values."""
    return json.loads(table.to_json(orient="records", double_precision=15))


def write_runs(summary: "pd.DataFrame", as_json: bool) -> None:
    """Write what was fitted: one line a run or, as JSON, everything.

    Parameters
    ----------
    summary : pandas.DataFrame
        As `featurepipe.fit` returns it.
    as_json : bool
    """
    if as_json:
        write_json(records(summary))
        return
    runs = summary[summary["attribute"] == "all"]
    columns = {"run": runs["run"].tolist()}
    if runs["split"].nunique() > 1:
        columns["split"] = runs["split"].tolist()
    columns["selection accuracy"] = [
        "" if math.isnan(share) else f"{100 * share:.1f} %" for share in runs["selection_accuracy"]
    ]
    columns["fit time"] = [_duration(seconds) for seconds in runs["fit_s"]]
    write(_aligned(columns))


def write_board(board: "pd.DataFrame", *, attribute: str | None, full: bool, as_json: bool) -> None:
    """Write the board, as a table or as JSON.

    Parameters
    ----------
    board : pandas.DataFrame
        As `featurepipe.report` returns it.
    attribute : str or None
        The attribute to show. Default: all attributes together; in JSON, each of them.
    full : bool
        Show each attribute in the table, too.
    as_json : bool

    Raises
    ------
    UnknownNameError
        If no run has the attribute.
    """
    from featurepipe.reports.board import format_leaderboard

    attributes = set(board["attribute"])
    if attribute is not None and attribute not in attributes:
        raise UnknownNameError("attribute", attribute, attributes)
    if attribute is not None or not (full or as_json):
        board = board[board["attribute"] == (attribute or "all")]
    if as_json:
        write_json(records(board))
    else:
        write(format_leaderboard(board, _width()))


def write_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Write facts by name, one a line, or as JSON."""
    if as_json:
        write_json(facts)
    else:
        write("\n".join(f"{name + ':':<18} {value}" for name, value in facts.items()))


def show_log(level: int) -> None:
    """Show featurepipe's log from a level on, one message a line on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_VisibleFormatter("%(message)s"))
    LOGGER.handlers = [handler]
    LOGGER.setLevel(level)


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def _aligned(columns: dict[str, list[str]]) -> str:
    """Lines of a table: names on the left, figures on the right of their column."""
    padded = []
    for name, cells in columns.items():
        width = max(map(len, [name, *cells]))
        pad = str.ljust if name in ("run", "split") else str.rjust
        padded.append([pad(cell, width) for cell in (name, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))
