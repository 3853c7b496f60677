"""What commands print: tables and JSON."""

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd


def print_table(table: "pd.DataFrame", as_json: bool) -> None:
    """A table, for a person or as JSON."""
    if as_json:
        print_json(records(table))
    else:
        click.echo(table.to_string(index=False, na_rep="", float_format="{:.4g}".format))


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of a table as JSON values."""
    return json.loads(table.to_json(orient="records", double_precision=15))


def print_json(value: Any) -> None:
    """A value as JSON."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
