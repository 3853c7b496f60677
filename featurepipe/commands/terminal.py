"""How things are printed: for a person, or for a program."""

import io
import json
import logging
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featurepipe.errors import UnknownNameError
from featurepipe.words import visible

if TYPE_CHECKING:
    import pandas as pd

LOGGER = logging.getLogger("featurepipe")


def write(text: str) -> None:
    """Write lines to standard output: every byte to a program, `visible` ones to a terminal."""
    if sys.stdout.isatty():
        text = _visible_lines(text)
    elif isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be text: their bytes leave as they came.
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def write_json(value: Any, indent: int | None = 2) -> None:
    """Write a value as JSON; without `indent` on one line."""
    write(_visible_lines(json.dumps(value, ensure_ascii=False, indent=indent)))


def write_event(values: Mapping[str, object]) -> None:
    """Write what happens meanwhile to stderr, as JSON on one line."""
    sys.stderr.write(_visible_lines(json.dumps(values, ensure_ascii=False)) + "\n")
    sys.stderr.flush()


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
    from featurepipe.reports.terminal_board import runs_table

    if as_json:
        write_json(records(summary))
    else:
        write_styled(runs_table(summary, _width(), is_terminal=sys.stdout.isatty()))


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
    from featurepipe.reports.terminal_board import board_text

    if as_json:
        write_json(records(_rows_of(board, attribute)))
        return
    is_terminal = sys.stdout.isatty()
    write_styled(
        board_text(board, _width(), attribute=attribute, full=full, is_terminal=is_terminal)
    )


def write_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Write facts as a table a person reads, or as JSON."""
    from featurepipe.reports.info_text import info_text

    if as_json:
        write_json(facts)
    else:
        write_styled(info_text(facts, _width()))


def write_findings(findings: "pd.DataFrame", as_json: bool) -> None:
    """Write the findings of an audit as short tables, or as JSON.

    Parameters
    ----------
    findings : pandas.DataFrame
        As `featurepipe.audit` returns it.
    as_json : bool
    """
    from featurepipe.reports.audit_text import audit_text

    if as_json:
        write_json(records(findings))
    else:
        write_styled(audit_text(findings, _width(), is_terminal=sys.stdout.isatty()))


def write_next(chosen: "pd.DataFrame", as_json: bool) -> None:
    """Write which images to label next, as a short table or as JSON.

    Parameters
    ----------
    chosen : pandas.DataFrame
        As `featurepipe.next_labels` returns it.
    as_json : bool
    """
    from featurepipe.reports.next_text import next_text

    if as_json:
        write_json(records(chosen))
    else:
        write_styled(next_text(chosen, _width(), is_terminal=sys.stdout.isatty()))


def write_similar(found: "pd.DataFrame", as_json: bool) -> None:
    """Write the nearest images as short tables, or as JSON.

    Parameters
    ----------
    found : pandas.DataFrame
        As `featurepipe.similar` returns it.
    as_json : bool
    """
    from featurepipe.reports.similar_text import similar_text

    if as_json:
        shares = found["of_median"].astype(object)
        table = found.assign(of_median=shares.where(found["of_median"].notna(), None))
        write_json(table.to_dict("records"))
    else:
        write_styled(similar_text(found, _width(), is_terminal=sys.stdout.isatty()))


def _rows_of(board: "pd.DataFrame", attribute: str | None) -> "pd.DataFrame":
    if attribute is None:
        return board
    attributes = set(board["attribute"])
    if attribute not in attributes:
        raise UnknownNameError("attribute", attribute, attributes)
    return board[board["attribute"] == attribute]


def write_styled(text: str) -> None:
    """Write text whose names are `visible` already; it may hold the terminal's own styles."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _visible_lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def show_log(level: int) -> None:
    """Show featurepipe's log from a level on, one message a line on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_VisibleFormatter("%(message)s"))
    LOGGER.handlers = [handler]
    LOGGER.setLevel(level)


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
