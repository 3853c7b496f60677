"""Which run a command uses."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from featurepipe.errors import FeaturepipeError, RunError, UnknownNameError, WorkspaceError
from featurepipe.manifest import Manifest
from featurepipe.predictions import ALL
from featurepipe.runs.run_folder import Run, load_run
from featurepipe.words import counted
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def all_runs(workspace: Workspace) -> list[Run]:
    """Every run of a workspace that can be read, by name; warnings say which cannot.

    Parameters
    ----------
    workspace : Workspace

    Raises
    ------
    WorkspaceError
        If there is no run yet, or none can be read.
    """
    folders = workspace.runs()
    if not folders:
        raise WorkspaceError(
            f"The workspace {workspace.root} has no run yet. Make one: featurepipe fit"
        )
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(load_run(folder))
        except FeaturepipeError as error:
            problems.append(str(error))
    if not runs:
        raise WorkspaceError(
            f"No run of the workspace {workspace.root} can be read. The first of "
            f"{counted(folders, 'problem')}: {problems[0]}"
        )
    for problem in problems:
        logger.warning("Left out: %s", problem)
    return runs


def find_run(workspace: Workspace, name: str | None, *, heads_only: bool = False) -> Run:
    """The run of a name, or the best one.

    Parameters
    ----------
    workspace : Workspace
    name : str or None
        None chooses the run with the best `selection_accuracy` over all attributes, and the
        faster one if two are equal. Test images are never used for this.
    heads_only : bool
        Leave trained networks out of that choice.

    Raises
    ------
    UnknownNameError
        If there is no run of the name.
    WorkspaceError
        If there is no run to choose from.
    RunError
        If the named run is damaged.
    """
    if name is not None:
        return _named_run(workspace, name)
    runs = all_runs(workspace)
    if heads_only:
        runs = [run for run in runs if run.network is None]
    if not runs:
        raise WorkspaceError(
            f"The workspace {workspace.root} has no run of heads yet. Make one: featurepipe fit"
        )
    return _best_run(runs, Manifest.load(workspace.manifest).attribute_names)


def find_pair_run(workspace: Workspace, name: str | None) -> Run:
    """The run of a name that compares images, or the best such run.

    Parameters
    ----------
    workspace : Workspace
    name : str or None
        None chooses the run with the best `selection_accuracy` over all attributes.

    Raises
    ------
    UnknownNameError
        If there is no run of the name.
    RunError
        If the named run was not trained to compare images, or is damaged.
    WorkspaceError
        If no run was.
    """
    if name is not None:
        run = _named_run(workspace, name)
        if not _compares(run):
            raise RunError(
                f"Run {name!r} cannot compare images. Name a run of featurepipe train pair."
            )
        return run
    runs = all_runs(workspace) if workspace.runs() else []
    pairs = [run for run in runs if _compares(run)]
    if not pairs:
        raise WorkspaceError(
            f"No run of the workspace {workspace.root} can compare images. Train one: "
            "featurepipe train pair"
        )
    return min(pairs, key=_cost)


def _named_run(workspace: Workspace, name: str) -> Run:
    folder = workspace.run(Path(name).name)
    folders = workspace.runs()
    if folder not in folders:
        raise UnknownNameError("run", name, [path.name for path in folders])
    return load_run(folder)


def _compares(run: Run) -> bool:
    return run.network is not None and run.network.same is not None


def _best_run(runs: Sequence[Run], attributes: tuple[str, ...]) -> Run:
    """The best run by training rows, among those of the first split that has any.

    Runs of other splits were selected on other rows, perhaps with combinations held out, and
    cannot be compared with them.
    """
    first_split = min(run.info.split.number for run in runs)
    candidates = [
        run
        for run in runs
        if run.info.split.number == first_split and run.info.attributes == attributes
    ]
    return min(candidates or runs, key=_cost)


def _cost(run: Run) -> tuple[float, float]:
    accuracy, ms = run.info.selection_accuracy[ALL], run.info.costs.predict_ms_per_image
    return (
        math.inf if accuracy is None else -accuracy,
        math.inf if ms is None else ms,
    )
