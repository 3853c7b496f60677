"""Trials of `--features auto`: what each attribute could read, and what was chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from featurepipe.reports.page.charts import (
    HEIGHT,
    SERIES,
    WIDTH,
    Chart,
    Values,
    brief,
    name_cell,
    named,
    percent_form,
    share_cell,
    share_scale,
)
from featurepipe.reports.page.svg import (
    Scale,
    drawing,
    horizontal_axis,
    line,
    mark,
    text,
    vertical_axis,
)
from featurepipe.reports.terminal_text import percent
from featurepipe.words import counted, visible

MOST_LISTED = 12
_MOST_POINTS = 300


@dataclass(frozen=True)
class FeatureTrials:
    """The trials of one attribute, the best first.

    Attributes
    ----------
    attribute : str
    names : tuple of str
        Blocks of each trial, joined by ``+``.
    seen, unseen : tuple of float
        Accuracies; `unseen` is NaN where no combination can be held out.
    chosen : int
        Position of the chosen trial.
    """

    attribute: str
    names: tuple[str, ...]
    seen: tuple[float, ...]
    unseen: tuple[float, ...]
    chosen: int

    @property
    def has_unseen(self) -> bool:
        """Whether any combination could be held out."""
        return bool(np.isfinite(self.unseen).any())


def trials_of(trials: Sequence[Mapping[str, Any]], attribute: str) -> FeatureTrials | None:
    """The trials of an attribute.

    Parameters
    ----------
    trials : sequence of mapping
        See `featurepipe.reports.page.page_run.PageRun`.
    attribute : str

    Returns
    -------
    FeatureTrials or None
        None without a chosen trial.
    """
    mine = [trial for trial in trials if trial["attribute"] == attribute]
    chosen = [number for number, trial in enumerate(mine) if trial["chosen"]]
    if not chosen:
        return None
    return FeatureTrials(
        attribute,
        tuple(" + ".join(trial["blocks"]) for trial in mine),
        tuple(float(trial["seen_accuracy"]) for trial in mine),
        tuple(
            np.nan if trial["unseen_accuracy"] is None else float(trial["unseen_accuracy"])
            for trial in mine
        ),
        chosen[0],
    )


def in_words(trials: FeatureTrials) -> str:
    """Why the attribute reads what it reads.

    Parameters
    ----------
    trials : FeatureTrials
    """
    at = trials.chosen
    said = (
        f"Reads {visible(trials.names[at])}, chosen from {counted(trials.names, 'trial')} on "
        f"training images: {percent(trials.seen[at])} right on seen combinations"
    )
    if np.isfinite(trials.unseen[at]):
        said += f", {percent(trials.unseen[at])} on held-out combinations"
    return said


def trial_chart(trials: FeatureTrials) -> Chart:
    """Draw seen against unseen accuracy, or the seen accuracy by rank without the other.

    Parameters
    ----------
    trials : FeatureTrials
    """
    draw = _against_unseen if trials.has_unseen else _by_rank
    said = in_words(trials)
    return Chart(
        "Features tried",
        drawing(WIDTH, HEIGHT, f"Accuracy of each trial of features. {said}.", draw(trials)),
        "The large point is chosen: among trials that are about as good as the best, the one with "
        "the fewest blocks.",
        _values(trials),
    )


def _against_unseen(trials: FeatureTrials) -> list[Markup]:
    across = share_scale(trials.seen, 54, WIDTH - 22)
    up = share_scale(trials.unseen, HEIGHT - 42, 40)
    parts = [
        horizontal_axis(
            across, up.start_px, "Right on seen combinations", form=percent_form(across)
        ),
        vertical_axis(
            up,
            across.start_px,
            "Right on held-out combinations",
            form=percent_form(up),
            grid_to=across.end_px,
        ),
    ]
    points = [
        (at, across(seen), up(unseen))
        for at, (seen, unseen) in enumerate(zip(trials.seen, trials.unseen, strict=True))
        if np.isfinite([seen, unseen]).all()
    ]
    return parts + _marks(trials, points, across)


def _by_rank(trials: FeatureTrials) -> list[Markup]:
    across = share_scale(trials.seen, 54, WIDTH - 22)
    rank = Scale(0, len(trials.names) + 1, 40, HEIGHT - 42)
    parts = [
        horizontal_axis(
            across, rank.end_px, "Right on training images", form=percent_form(across),
            grid_to=rank.start_px,
        ),
        text(2, 26, "Best trial first"),
    ]  # fmt: skip
    points = [(at, across(seen), rank(at + 1)) for at, seen in enumerate(trials.seen)]
    return parts + _marks(trials, points, across)


def _marks(
    trials: FeatureTrials, points: Sequence[tuple[int, float, float]], across: Scale
) -> list[Markup]:
    parts: list[Markup] = []
    for at, x, y in points[:_MOST_POINTS]:
        if at != trials.chosen:
            parts.append(mark(x, y, _tip(trials, at), radius=3, colour="var(--quiet)"))
    for at, x, y in points:
        if at == trials.chosen:
            parts.append(mark(x, y, _tip(trials, at), radius=6, colour=SERIES[1]))
            parts.append(_name(trials, x, y, across))
    return parts


def _name(trials: FeatureTrials, x: float, y: float, across: Scale) -> Markup:
    """The chosen trial's name, above all points, with a line to its own."""
    room = across.end_px - across.start_px
    name = named(across.end_px, 14, trials.names[trials.chosen], room, anchor="end")
    return name + line([(x, 18), (x, y - 6)], css="axis dotted")


def _tip(trials: FeatureTrials, at: int) -> str:
    unseen = trials.unseen[at]
    said = f"{brief(trials.names[at])}: {percent(trials.seen[at])} seen"
    return said + (f", {percent(unseen)} held out" if np.isfinite(unseen) else "")


def _values(trials: FeatureTrials) -> Values:
    shown = list(dict.fromkeys([trials.chosen, *range(len(trials.names))]))[:MOST_LISTED]
    rows = tuple(
        (
            name_cell(f"{trials.names[at]} (chosen)" if at == trials.chosen else trials.names[at]),
            share_cell(trials.seen[at]),
            *([share_cell(trials.unseen[at])] if trials.has_unseen else []),
        )
        for at in shown
    )
    more = len(trials.names) - len(shown)
    columns = ("Features", "Seen", *(["Held out"] if trials.has_unseen else []))
    caption = f"{counted(more, 'more trial')} not listed." if more else ""
    return Values(columns, rows, caption, sortable=True)
