"""Which run a command uses."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from featurepipe.errors import (
    FeaturepipeError,
    RunError,
    UnknownNameError,
    WorkspaceError,
)
from featurepipe.predictions import ALL
from featurepipe.runs.changes import Present
from featurepipe.runs.run_folder import Run, load_run
from featurepipe.words import counted
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def all_runs(workspace: Workspace, trusted: Sequence[str] = ()) -> list[Run]:
    """Every run of a workspace that can be read, by name; warnings say which cannot.

    Parameters
    ----------
    workspace : Workspace
    trusted : sequence of str
        See `Run`.

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
            runs.append(load_run(folder, trusted))
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


def find_run(
    workspace: Workspace,
    name: str | None,
    *,
    heads_only: bool = False,
    trusted: Sequence[str] = (),
) -> Run:
    """The run of a name, or the best one that was fitted on the present labels and images.

    Parameters
    ----------
    workspace : Workspace
    name : str or None
        None chooses among the runs whose labels and images are as they were when these were
        fitted; see `featurepipe.runs.changes.Present`. If some of them were fitted without
        images that were added since, it is among those that lack the fewest. Of these, the first
        split's runs are compared: the one with the best `selection_accuracy` over all attributes
        is taken, and the faster one if two are equal. Test images are never used for this.
    heads_only : bool
        Leave trained networks out of that choice.
    trusted : sequence of str
        See `Run`.

    Returns
    -------
    Run
        A warning says what has changed since a named run was fitted, and how many images were
        added since a chosen one was.

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
        return _with_changes_named(named_run(workspace, name, trusted), workspace)
    runs = all_runs(workspace, trusted)
    if heads_only:
        runs = [run for run in runs if run.network is None]
    if not runs:
        raise WorkspaceError(
            f"The workspace {workspace.root} has no run of heads yet. Make one: featurepipe fit"
        )
    return _best_run(runs, workspace)


def find_pair_run(workspace: Workspace, name: str | None) -> Run:
    """The run of a name that compares images, or the best such run.

    Parameters
    ----------
    workspace : Workspace
    name : str or None
        None chooses as `find_run` does.

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
        run = named_run(workspace, name)
        if not _compares(run):
            raise RunError(
                f"Run {name!r} cannot compare images. Name a run of featurepipe train pair."
            )
        return _with_changes_named(run, workspace)
    runs = all_runs(workspace) if workspace.runs() else []
    pairs = [run for run in runs if _compares(run)]
    if not pairs:
        raise WorkspaceError(
            f"No run of the workspace {workspace.root} can compare images. Train one: "
            "featurepipe train pair"
        )
    return _best_run(pairs, workspace)


def named_run(workspace: Workspace, name: str, trusted: Sequence[str] = ()) -> Run:
    """The run of a name, whatever has changed since it was fitted.

    Parameters
    ----------
    workspace : Workspace
    name : str
    trusted : sequence of str
        See `Run`.

    Raises
    ------
    UnknownNameError
        If there is no run of the name.
    RunError
        If it is damaged.
    """
    folder = workspace.run(Path(name).name)
    folders = workspace.runs()
    if folder not in folders:
        raise UnknownNameError("run", name, [path.name for path in folders])
    return load_run(folder, trusted)


def outdated_runs(runs: Sequence[Run], present: Present | None) -> dict[str, list[str]]:
    """What has changed since runs were fitted, by their names; runs without a change are absent.

    Parameters
    ----------
    runs : sequence of Run
    present : Present or None
        Without a manifest that can be read, nothing is known to have changed.
    """
    if present is None:
        return {}
    changes = {run.name: present.changes(run) for run in runs}
    return {name: changed for name, changed in changes.items() if changed}


def _with_changes_named(run: Run, workspace: Workspace) -> Run:
    for changed in outdated_runs([run], Present.if_known(workspace)).values():
        logger.warning(
            "Run %s was fitted on other labels or images than the present ones: %s.",
            run.name,
            "; ".join(changed),
        )
    return run


def _compares(run: Run) -> bool:
    return run.network is not None and run.network.same is not None


def _best_run(runs: Sequence[Run], workspace: Workspace) -> Run:
    """The best run by training rows, among those of the first split that has a present one.

    Runs of other splits were selected on other rows, perhaps with combinations held out, and
    cannot be compared with them.
    """
    present = Present.of(workspace)
    fitting = [run for run in runs if not present.changes(run)]
    if not fitting:
        raise _nothing_present(runs, workspace, present)
    best, fewest = best_of_present(fitting, present)
    if fewest:
        logger.warning(
            "Run %s was fitted without %s that %s labelled and extracted now, such as %r. To use "
            "%s, fit again: featurepipe fit",
            best.name,
            counted(fewest, "image"),
            *(("is", fewest[0], "it") if len(fewest) == 1 else ("are", fewest[0], "them")),
        )
    return best


def best_of_present(runs: Sequence[Run], present: Present) -> tuple[Run, list[str]]:
    """The run that `find_run` chooses among those that fit the present labels and images.

    Parameters
    ----------
    runs : sequence of Run
        At least one; none of them is outdated.
    present : Present

    Returns
    -------
    run : Run
    added : list of str
        Ids of the images that were added since it was fitted.
    """
    added = [present.added(run) for run in runs]
    fewest = min(added, key=len)
    latest = [run for run, images in zip(runs, added, strict=True) if len(images) == len(fewest)]
    first_split = min(run.info.split.number for run in latest)
    return min((run for run in latest if run.info.split.number == first_split), key=_cost), fewest


def _nothing_present(runs: Sequence[Run], workspace: Workspace, present: Present) -> WorkspaceError:
    last = max(run.info.split.number for run in runs)
    run = min((run for run in runs if run.info.split.number == last), key=_cost)
    return WorkspaceError(
        f"No run of the workspace {workspace.root} was fitted on the present labels and images. "
        f"Since {run.name} was: {'; '.join(present.changes(run))}. Fit or train again, or name an "
        f"old run: --run {run.name}"
    )


def _cost(run: Run) -> tuple[float, float]:
    accuracy, ms = run.info.selection_accuracy[ALL], run.info.costs.predict_ms_per_image
    return (
        math.inf if accuracy is None else -accuracy,
        math.inf if ms is None else ms,
    )
