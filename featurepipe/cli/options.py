"""Options that commands share, and what contradicts what."""

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from featurepipe.errors import UsageError

LOGGER = logging.getLogger("featurepipe")


class Names(click.ParamType):
    """Comma-separated names."""

    name = "NAME,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """The names, without space around them."""
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())


class Pairs(click.ParamType):
    """Comma-separated values by name."""

    name = "NAME=VALUE,…"

    def __init__(self, value: type) -> None:
        self._value = value

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, Any]:
        """The values by name; a usage error if one cannot be read."""
        if isinstance(value, dict):
            return value
        pairs = [part.partition("=") for part in value.split(",")]
        try:
            return {name.strip(): self._value(text.strip()) for name, _, text in pairs}
        except ValueError:
            self.fail(f"{value!r} cannot be read. Expected {param.metavar}.", param, ctx)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command."""
    for option in reversed(
        (
            click.option(
                "--workspace",
                type=click.Path(file_okay=False, path_type=Path),
                default=Path(),
                show_default="the current folder",
                help="Folder of the manifest, stores, splits, runs and reports.",
            ),
            click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
                         help="Seed of everything random."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
            click.option("--quiet", is_flag=True, help="Say nothing but warnings and errors."),
        )
    ):  # fmt: skip
        command = option(command)

    @functools.wraps(command)
    def with_talk(*, quiet: bool, **options: Any) -> Any:
        talk_to_stderr(logging.WARNING if quiet else logging.INFO)
        return command(**options)

    return with_talk


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what the labels are."""
    for option in reversed(
        (
            click.option("--attributes", type=Names(), default=(),
                         help="What the parts of the folder names, or which columns of the table, "
                         "say of an image: color,category for folders like black_dress/."),
            click.option("--labels", metavar="TABLE",
                         help="CSV or Parquet table with a path column and one column an "
                         "attribute (or columns attribute=class of 0 and 1)."),
            click.option("--group", metavar="COLUMN",
                         help="Column of the table whose rows of one value never part between "
                         "train and test."),
            click.option("--label-separator", show_default="|",
                         help="What parts several labels in one cell of the table."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def talk_to_stderr(level: int) -> None:
    """Show featurepipe's log from a level on, one message a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.handlers = [handler]
    LOGGER.setLevel(level)


def is_given(name: str) -> bool:
    """Whether the command that runs was given a parameter, even if with its default value."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def refuse_given(names: Sequence[str], why: str) -> None:
    """Stop at the first of some parameters that was given.

    Raises
    ------
    UsageError
        Of the option and `why`.
    """
    for param in click.get_current_context().command.params:
        if param.name in names and is_given(param.name):
            raise UsageError(f"{param.opts[0]} {why}")


def refuse_options_beside(option: str, allowed: Sequence[str], why: str = "") -> None:
    """Stop at any other option that was given beside one.

    Raises
    ------
    UsageError
        That they contradict each other.
    """
    context = click.get_current_context()
    for param in context.command.params:
        if is_given(param.name or "") and param.name not in allowed and option not in param.opts:
            raise UsageError(
                f"{option} and {param.opts[0]} contradict each other{why}. Leave {param.opts[0]} "
                f"out, or {option}."
            )
