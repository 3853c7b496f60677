"""Which run a command works with."""

from pathlib import Path

from featurepipe.errors import UnknownNameError, WorkspaceError
from featurepipe.manifest import Manifest
from featurepipe.predictions import ALL
from featurepipe.runs.run_folder import Run, load_run
from featurepipe.workspace import Workspace


def find_run(place: Workspace, name: str | None, *, heads_only: bool = False) -> Run:
    """The run of a name, or the best one.

    Parameters
    ----------
    place : Workspace
    name : str or None
        None: the run with the best `selection_accuracy` over all attributes, the
        cheaper at a tie; never chosen by test figures.
    heads_only : bool
        Whether trained networks are not among those to choose from.

    Raises
    ------
    UnknownNameError
        If there is no run of the name.
    WorkspaceError
        If there is no run at all.
    RunError
        If a run is damaged.
    """
    return _best_run(place, heads_only) if name is None else _named_run(place, name)


def _named_run(place: Workspace, name: str) -> Run:
    folder = place.run(Path(name).name)
    if folder not in place.runs():
        raise UnknownNameError("run", name, [path.name for path in place.runs()])
    return load_run(folder)


def _best_run(place: Workspace, heads_only: bool) -> Run:
    """The run that training rows favour, among those of the first split that has any.

    Runs of other splits were selected on other rows, perhaps with combinations
    held out, and cannot be compared with them.
    """
    runs = [load_run(folder) for folder in place.runs()]
    kind = "run of heads" if runs and heads_only else "run"
    if heads_only:
        runs = [run for run in runs if run.network is None]
    if not runs:
        raise WorkspaceError(
            f"The workspace {place.root} holds no {kind} yet. Make one: featurepipe fit"
        )
    first_split = min(run.info["split_number"] for run in runs)
    attributes = Manifest.load(place.manifest).attribute_names
    candidates = [
        run
        for run in runs
        if run.info["split_number"] == first_split and run.info["attributes"] == list(attributes)
    ]
    return min(
        candidates or runs,
        key=lambda run: (-run.info["selection_accuracy"][ALL], run.info["predict_ms_per_image"]),
    )
