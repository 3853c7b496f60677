"""Runs -> the board: `leaderboard.csv`, one row a run and attribute."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from featurepipe.predictions import ALL, Predictions
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.csv_text import write_csv
from featurepipe.reports.figures import FIGURES, evaluate
from featurepipe.reports.paired_tests import tied_in_accuracy, tied_in_log_loss
from featurepipe.reports.series import SPREADS, summarise_series

_SETTINGS = ("head", "solver", "calibrate", "task")
_OF_RUN = ("run", "backbone", "view", "weights", *_SETTINGS)
_BY_ATTRIBUTE = ("backbone", "view", "weights", "n_train", "selection_accuracy")
_COSTS = (
    "extract_images_per_s",
    "fit_s",
    "predict_ms_per_image",
    "model_bytes",
    "n_parameters",
    "epochs",
    "peak_memory_bytes",
    "predict_images_per_s",
)
_COUNTS = (
    "n_train",
    "n_test",
    "n_unseen",
    "model_bytes",
    "n_parameters",
    "epochs",
    "peak_memory_bytes",
)
_TIES: dict[str, Callable[[Sequence[AttributePredictions]], list[bool]]] = {
    "tied_with_best": tied_in_accuracy,
    "log_loss_tied_with_best": tied_in_log_loss,
}
_AFTER = {
    **{f"{name}_high": [f"{name}_sd"] for name in SPREADS},
    "accuracy_high": ["accuracy_sd", "tied_with_best"],
    "log_loss_high": ["log_loss_sd", "log_loss_tied_with_best"],
}

COLUMNS = (
    *_OF_RUN,
    "attribute",
    "split",
    "current",
    "n_train",
    "n_test",
    "interval",
    "selection_accuracy",
    *(column for figure in FIGURES for column in (figure, *_AFTER.get(figure, ()))),
    *_COSTS,
)
_WORDS = (*_OF_RUN, "attribute", "split", "interval")


@dataclass(frozen=True)
class Costs:
    """What a run costs; None where it was not measured or does not apply.

    Attributes
    ----------
    extract_images_per_s : float or None
        Images whose features are extracted per second; None for a network.
    fit_s : float
        Seconds of fitting or training.
    predict_ms_per_image : float or None
        Milliseconds from an image to its classes.
    model_bytes : int
        Size of the files of heads and network.
    n_parameters, epochs, peak_memory_bytes : int or None
        Size, epochs and memory of the training of a network; None for heads.
    """

    extract_images_per_s: float | None
    fit_s: float
    predict_ms_per_image: float | None
    model_bytes: int = 0
    n_parameters: int | None = None
    epochs: int | None = None
    peak_memory_bytes: int | None = None


class BoardSplit(Protocol):
    """What the board needs to know of the split of a run."""

    @property
    def name(self) -> str:
        """Name of the split."""

    @property
    def number(self) -> int:
        """Order of creation in the workspace."""

    @property
    def series(self) -> str:
        """Name of the splits that belong together."""


class BoardInfo(Protocol):
    """What the board needs to know of a run; `featurepipe.runs.run_info.RunInfo` has it."""

    @property
    def family(self) -> str:
        """What runs share that only differ in the split of one series."""

    @property
    def split(self) -> BoardSplit:
        """The split by which the run was fitted."""

    @property
    def head(self) -> str:
        """Name of the head or network."""

    @property
    def solver(self) -> str | None:
        """What fitted the head."""

    @property
    def calibrate(self) -> str:
        """How scores became probabilities."""

    @property
    def task(self) -> str:
        """What is answered."""

    @property
    def backbone(self) -> Mapping[str, str]:
        """Names of the backbones, by attribute and for ``"all"``; so the next four."""

    @property
    def view(self) -> Mapping[str, str]:
        """Names of the views."""

    @property
    def weights(self) -> Mapping[str, str]:
        """Names of the weights."""

    @property
    def n_train(self) -> Mapping[str, int]:
        """Labelled training images."""

    @property
    def selection_accuracy(self) -> Mapping[str, float | None]:
        """Accuracy on training rows that were predicted out of fold."""

    @property
    def costs(self) -> Costs:
        """Time, memory and size."""


class EvaluatedRun(Protocol):
    """What the board needs of a run."""

    @property
    def name(self) -> str:
        """Name of the run."""

    @property
    def info(self) -> BoardInfo:
        """What the run is."""

    @property
    def predictions(self) -> Predictions:
        """Test rows, and those of combinations that were held out."""


def leaderboard(runs: Iterable[EvaluatedRun], outdated: Collection[str] = ()) -> pd.DataFrame:
    """One row for each run and attribute, and one for all attributes of a run together.

    Parameters
    ----------
    runs : iterable of EvaluatedRun
    outdated : collection of str
        Names of runs that were fitted on other labels or images than the present ones.

    Returns
    -------
    pandas.DataFrame
        Its columns are `COLUMNS`; a figure that does not apply is missing. Runs of one
        split stand together, the most accurate over all attributes first. Runs of one
        family differ in the split of a series alone. They have further rows with their
        means: named by the family, with ``splits`` in the column ``interval``; see
        `featurepipe.reports.series`.

        ``tied_with_best`` and ``log_loss_tied_with_best`` compare the runs of one split
        that predicted the same images with the same labels; see
        `featurepipe.reports.paired_tests`. ``n_parameters``, ``epochs`` and
        ``peak_memory_bytes`` apply to trained networks only. ``predict_images_per_s``
        is ``1000 / predict_ms_per_image``.
    """
    runs = list(runs)
    by_run = [_rows(run, is_current=run.name not in outdated) for run in runs]
    by_family: dict[str, list[int]] = {}
    for position, run in enumerate(runs):
        by_family.setdefault(run.info.family, []).append(position)
    summaries = [
        _summary([runs[member] for member in members], [by_run[member] for member in members])
        for members in by_family.values()
        if len(members) > 1
    ]
    _add_ties(runs, by_run)
    rows = [row for rows in sorted(by_run + summaries, key=_sort_key) for row in rows]
    board = pd.DataFrame(rows, columns=list(COLUMNS))
    types = dict.fromkeys(COLUMNS, "float64") | dict.fromkeys(_COUNTS, "Int64")
    types |= dict.fromkeys((*_TIES, "current"), "boolean") | dict.fromkeys(_WORDS, "object")
    return board.astype(types)


def write_leaderboard(board: pd.DataFrame, path: Path, *, spreadsheet_safe: bool = False) -> None:
    """Write the board as CSV, atomically.

    Figures have six significant digits. A cell is empty where a figure does not apply.

    Parameters
    ----------
    board : pandas.DataFrame
    path : Path
    spreadsheet_safe : bool
        As in `featurepipe.reports.csv_text.csv_text`.

    Raises
    ------
    DiskFullError
        If the disk is full.
    """
    write_csv(board, path, "%.6g", spreadsheet_safe=spreadsheet_safe)


def _rows(run: EvaluatedRun, *, is_current: bool) -> list[dict[str, Any]]:
    info, ms_per_image = run.info, run.info.costs.predict_ms_per_image
    of_run = {
        "run": run.name,
        "split": info.split.name,
        "current": is_current,
        **{name: getattr(info, name) for name in _SETTINGS},
        **asdict(info.costs),
        "predict_images_per_s": 1000 / ms_per_image if ms_per_image else None,
    }
    by_attribute = {name: getattr(info, name) for name in _BY_ATTRIBUTE}
    return [
        {
            **of_run,
            **figures,
            **{name: of.get(figures["attribute"], np.nan) for name, of in by_attribute.items()},
        }
        for figures in evaluate(run.predictions)
    ]


def _summary(
    runs: Sequence[EvaluatedRun], of_runs: Sequence[Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    first = min(runs, key=lambda run: run.info.split.number)
    splits = f"({len(runs)} splits)"
    names = {"run": f"{first.name} {splits}", "split": f"{first.info.split.series} {splits}"}
    are_current = all(row["current"] for rows in of_runs for row in rows)
    return [
        summarise_series(rows) | names | {"current": are_current}
        for rows in zip(*of_runs, strict=True)
    ]


def _add_ties(runs: Sequence[EvaluatedRun], rows_by_run: Sequence[list[dict[str, Any]]]) -> None:
    """Add to the rows which of them are tied with the best."""
    comparable: dict[Hashable, list[tuple[dict[str, Any], AttributePredictions]]] = {}
    for run, rows in zip(runs, rows_by_run, strict=True):
        test = run.predictions.select("test")
        for row in rows:
            answers = AttributePredictions.of(test, row["attribute"])
            key = row["split"], row["attribute"], images_and_labels(answers.predictions)
            comparable.setdefault(key, []).append((row, answers))
    for compared in comparable.values():
        rows, answers_by_run = zip(*compared, strict=True)
        if len(rows) > 1 and len(answers_by_run[0]):
            for name, tied in _TIES.items():
                for row, is_tied in zip(rows, tied(answers_by_run), strict=True):
                    row[name] = is_tied


def images_and_labels(predictions: Predictions) -> Hashable:
    """What runs have in common if they predicted the same images with the same labels.

    Parameters
    ----------
    predictions : Predictions
    """
    truth = [
        (name, labels.classes, labels.indicator.tobytes())
        for name, labels in predictions.labels.items()
    ]
    return predictions.ids.tobytes(), tuple(truth)


def _sort_key(rows: Sequence[Mapping[str, Any]]) -> tuple[str, float, str]:
    accuracy = next(row["accuracy"] for row in rows if row["attribute"] == ALL)
    worst_last = np.inf if np.isnan(accuracy) else -accuracy
    return str(rows[0]["split"]), worst_last, str(rows[0]["run"])
