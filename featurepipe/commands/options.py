"""Options that several commands share, the types of their values, and how help shows them."""

import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cloup

from featurepipe.commands.terminal import show_log

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Option(cloup.Option):
    """An option whose help ends in its default: no ranges, no parentheses around words."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The names and the help text."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        names, text = record
        text = re.sub(r"\[default: \((.*)\)", r"[default: \1", text)
        return names, re.sub(r"; [^;\]]*\bx\b[^;\]]*\]$", "]", text)


option = functools.partial(cloup.option, cls=Option)


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
            values = {name.strip(): self._value(text.strip()) for name, _, text in pairs}
        except ValueError:
            values = {}
        if not values or not all(name and text for name, _, text in pairs):
            self.fail(f"Expected {param.metavar}, not {value!r}.", param, ctx)
        if len(values) < len(pairs):
            self.fail(f"{value!r} gives two values for one name.", param, ctx)
        return values


labels = option("--labels", metavar="TABLE", help="CSV, TSV or Parquet table of images and labels.")
attributes = option(
    "--attributes",
    type=Names(),
    help="Attributes in folder names, or columns of the table.",
)
label_separator = option(
    "--label-separator",
    metavar="TEXT",
    show_default="|",
    help="Separator between labels in a cell.",
)
min_per_class = option(
    "--min-per-class",
    type=click.IntRange(1),
    metavar="N",
    show_default="1",
    help="Leave out classes of fewer images.",
)
group = option(
    "--group",
    metavar="COLUMN",
    help="Keep images of one value in this column together.",
)
calibrate = option(
    "--calibrate",
    type=click.Choice(["auto", "sigmoid", "isotonic", "temperature", "none"]),
    default="auto",
    help="Calibration of the probabilities.",
)
thresholds = option(
    "--thresholds",
    metavar="f1|precision=SHARE|recall=SHARE",
    show_default="0.5 for each label",
    help="Criterion for label thresholds when images have several labels.",
)
seed = option(
    "--seed", type=click.IntRange(0), metavar="N", show_default="0", help="Seed of split and model."
)
jobs = option(
    "--jobs",
    "n_jobs",
    type=click.IntRange(1),
    metavar="N",
    show_default="all",
    help="Number of processor cores to use.",
)
memory = option(
    "--memory",
    metavar="SIZE",
    show_default="none",
    help="Memory limit, such as 4GB; more is read in chunks.",
)
executor = option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="This machine, or the nodes of a Ray cluster.",
)
ray_address = option(
    "--ray-address",
    metavar="HOST:PORT",
    show_default="RAY_ADDRESS, else this machine",
    help="Head of the Ray cluster.",
)
spreadsheet_safe = option(
    "--spreadsheet-safe",
    is_flag=True,
    help="Put an apostrophe before CSV cells that look like formulas.",
)
run = option("--run", metavar="RUN", show_default="the best", help="Name of the run to use.")
weights = option(
    "--weights",
    type=Names(),
    metavar="[BACKBONE=]PATH,…",
    help="Current files of the backbone weights, if they were moved.",
)


def data(*others: Decorator) -> Decorator:
    """The heading Data: what the labels are."""
    return cloup.option_group("Data", labels, attributes, label_separator, min_per_class, *others)


def answers(*others: Decorator) -> Decorator:
    """The heading Answers: what is said of an image."""
    return cloup.option_group(
        "Answers",
        option(
            "--top",
            type=click.IntRange(1),
            metavar="N",
            default=1,
            help="Number of classes to print for each attribute.",
        ),
        option(
            "--coverage",
            type=click.FloatRange(0, 1, min_open=True),
            default=0.95,
            metavar="SHARE",
            help="Target share of familiar images that get an answer.",
        ),
        option(
            "--coverage-per",
            type=click.Choice(["image", "attribute"]),
            default="image",
            help="Whether this share is answered for all attributes, or for each.",
        ),
        *others,
    )


def cluster(*others: Decorator) -> Decorator:
    """The heading Cluster: which machines compute."""
    return cloup.option_group("Cluster", executor, ray_address, *others)


split = cloup.option_group(
    "Split",
    option(
        "--test-size",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="SHARE",
        show_default="0.2",
        help="Share of the images to test on.",
    ),
    option(
        "--hold-out",
        multiple=True,
        metavar="COMBINATION",
        help="Keep a combination (black_dress) out of training; repeatable.",
    ),
    option(
        "--hold-out-each",
        is_flag=True,
        help="Hold out each combination in turn, one per split.",
    ),
    option(
        "--repeats",
        type=click.IntRange(1),
        metavar="N",
        show_default="1",
        help="Number of random splits.",
    ),
    group,
    option(
        "--group-duplicates",
        is_flag=True,
        help="Keep near-duplicates on the same side of the split.",
    ),
)
"""The heading Split: which images are trained on and tested."""


def output(*others: Decorator, workspace: bool = True) -> Decorator:
    """The heading Output, for the decorator next to the function.

    The function gets only options that have a value, so that the workflow's own
    defaults hold for the rest. A command that needs no workspace has no option for one.
    """
    place = option(
        "--workspace",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        show_default=".",
        help="Folder of features, splits, runs and reports.",
    )
    heading: Decorator = cloup.option_group(
        "Output",
        *([place] if workspace else []),
        *others,
        option("--json", "as_json", is_flag=True, help="Print JSON instead of text."),
        option("--quiet", is_flag=True, help="Show only warnings and errors."),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_log(*, quiet: bool, **given: Any) -> Any:
            show_log(logging.WARNING if quiet else logging.INFO)
            return command(**{name: value for name, value in given.items() if value is not None})

        return heading(with_log)

    return decorate


def examples(*lines: str) -> str:
    r"""The end of a help page: examples, each on a line of its own.

    Examples
    --------
    >>> examples("report", "report --json")
    '\x08\nExamples:\n  featurepipe report\n  featurepipe report --json'
    """
    # By \b click leaves the lines as they are.
    return "\n".join(["\b", "Examples:", *(f"  featurepipe {line}" for line in lines)])
