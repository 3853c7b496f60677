"""The figures of `benchmarks/gpu.py`: kept in a JSON file, printed as Markdown tables."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from measuring import table_head, table_row

from featurepipe.files import replacing

MISSING = "–"


class Results:
    """All figures so far, in a file that is complete after each.

    Parameters
    ----------
    path : Path
    about : dict
        The machine, and what is measured.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about = path, about
        self.figures: list[dict[str, Any]] = []
        self._write()

    def add(self, of: dict[str, Any], measure: Callable[..., Any], *arguments: Any) -> None:
        """Measure, and keep the figures with their median, or why there are none."""
        try:
            found = measure(*arguments)
        except click.ClickException as error:
            found = {"failed": error.message}
        if values := found.get("values"):
            found["median"] = statistics.median(values)
        self.figures.append({**of, **found})
        self._write()
        click.echo(json.dumps(self.figures[-1]), err=True)

    def _write(self) -> None:
        with replacing(self.path) as beside:
            beside.write_text(json.dumps({**self.about, "figures": self.figures}, indent=1))

    def of(self, what: str) -> list[dict[str, Any]]:
        """The figures of one kind."""
        return [figure for figure in self.figures if figure["what"] == what]

    def find(self, **of: Any) -> dict[str, Any]:
        """The first figure of a description; an empty one if there is none."""
        found = (one for one in self.figures if all(one.get(k) == v for k, v in of.items()))
        return next(found, {})


def write_tables(results: Results) -> None:
    """Print a table of each part, and why figures are missing."""
    if parity := results.of("parity"):
        click.echo("\n## parity\n")
        click.echo(table_head(("backbone", "precision", "generated pictures", "allowed", "images")))
        for one in parity:
            distances = (_cell(one, name, ".1e") for name in ("probes", "allowed", "images"))
            click.echo(table_row((one["backbone"], one.get("precision", MISSING), *distances)))
    if results.of("extract"):
        click.echo("\n## speed, images/s\n")
        _write_speed(results)
    if trainings := results.of("training"):
        click.echo("\n## training\n")
        click.echo(table_head(("network", "stage", "precision", "images/s", "GPU memory, GB")))
        for one in trainings:
            memory = f"{one['peak_gpu_bytes'] / 1e9:.1f}" if one.get("peak_gpu_bytes") else MISSING
            for stage, rates in one.get("stages", {MISSING: []}).items():
                rate = f"{statistics.median(rates):.1f}" if rates else MISSING
                precision = one.get("precision", MISSING)
                click.echo(table_row((one["network"], stage, precision, rate, memory)))
    click.echo()
    for one in results.figures:
        if why := one.get("failed") or one.get("skipped"):
            of = [one[k] for k in ("backbone", "network", "precision", "batch_size") if k in one]
            click.echo(f"* {one['what']} of {', '.join(map(str, of))}: {why}")


def _write_speed(results: Results) -> None:
    names = (
        "backbone", "precision", "batch", "bare forward", "featurepipe", "share of the forward",
        "PyTorch loop", "ratio", "decoding alone", "decode busy", "infer busy", "bottleneck",
    )  # fmt: skip
    click.echo(table_head(names))
    for one in results.of("extract"):
        of = {name: one[name] for name in ("backbone", "precision", "batch_size")}
        forward, loop = results.find(what="forward", **of), results.find(what="torch", **of)
        decoding = results.find(what="decoding", backbone=one["backbone"])
        runs = sorted(one.get("runs", ()), key=lambda run: run["images_per_s"])
        busy = (MISSING, MISSING, MISSING)
        if runs:
            middle = runs[len(runs) // 2]
            wall_s = middle["n_embedded"] / middle["images_per_s"]
            shares = (f"{middle['stages'][stage] / wall_s:.0%}" for stage in ("decode", "infer"))
            busy = (*shares, middle["bottleneck"])
        click.echo(
            table_row(
                (
                    *of.values(),
                    _cell(forward, "median", ".1f"),
                    _cell(one, "median", ".1f"),
                    _ratio(one, forward, ".0%"),
                    _cell(loop, "median", ".1f"),
                    _ratio(one, loop, ".2f"),
                    _cell(decoding, "median", ".0f"),
                    *busy,
                )
            )
        )


def _cell(figure: dict[str, Any], name: str, form: str) -> str:
    return f"{figure[name]:{form}}" if name in figure else MISSING


def _ratio(one: dict[str, Any], other: dict[str, Any], form: str) -> str:
    both = "median" in one and "median" in other
    return f"{one['median'] / other['median']:{form}}" if both else MISSING
