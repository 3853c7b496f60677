"""The page of `featurepipe report`: which run to take, how sure that is, and why."""

from collections.abc import Sequence

import pandas as pd

import featurepipe
from featurepipe.predictions import ALL
from featurepipe.reports.board_advice import run_to_take
from featurepipe.reports.page.answer import answer, question
from featurepipe.reports.page.board_table import BoardTable, board_tables, ranked
from featurepipe.reports.page.charts import Chart
from featurepipe.reports.page.data_section import (
    class_tables,
    combination_grid,
    combination_list,
    data_facts,
    findings,
)
from featurepipe.reports.page.error_pictures import FindNearest
from featurepipe.reports.page.fine_tuning import fine_tuning_advice
from featurepipe.reports.page.page_data import PageData
from featurepipe.reports.page.page_run import PageRun
from featurepipe.reports.page.rendering import render
from featurepipe.reports.page.run_charts import cost_chart, unseen_chart
from featurepipe.reports.page.run_parts import run_parts
from featurepipe.reports.page.thumbnails import Thumbnails

_MAX_OPEN = 3


def report_page(
    board: pd.DataFrame,
    runs: Sequence[PageRun],
    data: PageData | None,
    *,
    title: str,
    split: str,
    taken: str | None = None,
    thumbnails: Thumbnails,
    maps: Sequence[Chart] = (),
    find_nearest: FindNearest | None = None,
) -> str:
    """The page that compares all runs.

    Parameters
    ----------
    board : pandas.DataFrame
        What `featurepipe.reports.board.leaderboard` returns.
    runs : sequence of PageRun
        The same runs.
    data : PageData or None
        None if images and labels are not known.
    title : str
        Name of the workspace.
    split : str
        The split that the answer is about.
    taken : str or None
        The run of it that `featurepipe.predict` takes; None if it takes none.
    thumbnails : Thumbnails
    maps : sequence of Chart
        What `featurepipe.reports.page.map_chart.map_chart` returns, for some attributes.
    find_nearest : FindNearest, optional
        Finds the training images nearest to errors of the run to take.

    Returns
    -------
    str
        HTML that needs no other file and makes no request.
    """
    tables = board_tables(board, split, taken)
    rows = ranked(board[board["split"] == split])
    of_split = None if data is None else data.splits.get(split)
    position = run_to_take(rows)
    shown = taken if position is None or taken is not None else str(rows.iloc[position]["run"])
    attributes = [name for name in board["attribute"].unique() if name != ALL]
    return render(
        "report.html.j2",
        title=title,
        question=question(attributes),
        answer=answer(rows, data, taken, ranked(board[board["interval"] == "splits"])),
        data=data,
        facts={} if data is None else data_facts(data, of_split),
        classes=[] if data is None else class_tables(data, of_split),
        grid=None if data is None else combination_grid(data),
        combinations=([], 0, 0) if data is None else combination_list(data),
        findings=[] if data is None else findings(data, of_split),
        tables=tables,
        n_open=_MAX_OPEN,
        n_runs=len(runs),
        predict_takes_it=taken is not None,
        shown=shown,
        prediction_chart=cost_chart(rows, "predict_ms_per_image", shown),
        fit_chart=cost_chart(rows, "fit_s", shown),
        unseen_chart=unseen_chart(rows, shown),
        fine_tuning=fine_tuning_advice(rows, runs),
        filters=_filters(tables),
        parts=run_parts(_by_accuracy(runs, rows), shown, thumbnails, find_nearest),
        maps=maps,
        version=featurepipe.__version__,
    )


def _by_accuracy(runs: Sequence[PageRun], rows: pd.DataFrame) -> list[PageRun]:
    """The runs of the rows, in their order, and then the others."""
    place = {name: position for position, name in enumerate(rows["run"])}
    return sorted(runs, key=lambda run: place.get(run.name, len(place)))


def _filters(tables: Sequence[BoardTable]) -> dict[str, list[str]]:
    """What the rows of the board can be filtered by; only where there is a choice."""
    rows = [row for table in tables for row in table.rows]
    choices = {
        "attribute": dict.fromkeys(row.attribute for row in rows),
        "head": dict.fromkeys(row.head for row in rows),
        "features": dict.fromkeys(row.features for row in rows),
        "split": dict.fromkeys(table.split for table in tables),
    }
    return {name: list(values) for name, values in choices.items() if len(values) > 1}
