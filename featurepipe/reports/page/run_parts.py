"""The parts of the page that are about single runs: their sections, and two of them compared."""

from collections.abc import Sequence
from dataclasses import dataclass

from featurepipe.reports.page.comparison import Comparison, compare, rival_of
from featurepipe.reports.page.error_pictures import FindNearest
from featurepipe.reports.page.page_run import PageRun
from featurepipe.reports.page.run_section import RunSection, run_section
from featurepipe.reports.page.thumbnails import Thumbnails

MAX_SECTIONS = 10
"""Runs that have a section; the page would be too large with all of hundreds."""


@dataclass(frozen=True)
class RunParts:
    """What the page says about single runs.

    Attributes
    ----------
    sections : list of RunSection
        The run to take first.
    comparison : Comparison or None
        The run to take and its rival; None if there is none.
    n_left_out : int
        Runs without a section.
    """

    sections: list[RunSection]
    comparison: Comparison | None
    n_left_out: int


def run_parts(
    runs: Sequence[PageRun],
    shown: str | None,
    thumbnails: Thumbnails,
    find_nearest: FindNearest | None,
) -> RunParts:
    """Summarise and draw the runs.

    Parameters
    ----------
    runs : sequence of PageRun
        The most important first.
    shown : str or None
        Name of the run to take, whose section is open.
    thumbnails : Thumbnails
    find_nearest : FindNearest or None
        For the run to take.
    """
    main = next((run for run in runs if run.name == shown), None)
    rival = None if main is None else rival_of(main, runs)
    first = [run for run in (main, rival) if run is not None]
    ordered = [*first, *(run for run in runs if run.name not in {one.name for one in first})]
    return RunParts(
        sections=[
            run_section(
                run,
                thumbnails,
                anchor=f"run-{number}",
                is_open=run is main,
                find_nearest=find_nearest if run is main else None,
            )
            for number, run in enumerate(ordered[:MAX_SECTIONS], start=1)
        ],
        comparison=None if main is None or rival is None else compare(main, rival, thumbnails),
        n_left_out=max(0, len(ordered) - MAX_SECTIONS),
    )
