"""Whether all files of a run, and its split, are what they were."""

from collections.abc import Callable, Sequence

from featurepipe.errors import FeaturepipeError, RunError
from featurepipe.models.networks.saved import NETWORK_FILE
from featurepipe.provenance import checksum_digest
from featurepipe.runs.fitted_on import INPUTS, kept_checksums, kept_split, split_sha256
from featurepipe.runs.run_files import HEADS_FILE
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.splits import Split
from featurepipe.words import counted, examples
from featurepipe.workspace import Workspace


def split_problems(runs: Sequence[Run], workspace: Workspace) -> list[str]:
    """What is wrong with the saved splits of runs, in words; each split is read once.

    Parameters
    ----------
    runs : sequence of Run
    workspace : Workspace
        Splits that are gone from it play no role: a run keeps its own.

    Returns
    -------
    list of str
        Empty if every split is as it was.
    """
    by_split: dict[str, list[Run]] = {}
    for run in runs:
        by_split.setdefault(run.info.split.name, []).append(run)
    problems = []
    for name, members in sorted(by_split.items()):
        path = workspace.split(name)
        if not path.exists():
            continue
        try:
            digest = split_sha256(Split.load(path))
        except FeaturepipeError as error:
            problems.append(str(error))
            continue
        if others := [run.name for run in members if run.info.split.sha256 != digest]:
            problems.append(
                f"The split {path} has changed since it was used for {counted(others, 'run')} "
                f"({examples(others)}). Their figures are those of the old split; fit them again."
            )
    return problems


def run_problems(run: Run, workspace: Workspace) -> list[str]:
    """Everything that is wrong with the files of a run and its split, one line each.

    Parameters
    ----------
    run : Run
    workspace : Workspace
    """
    is_network = run.network is not None
    names = {*run.info.files, HEADS_FILE, NETWORK_FILE if is_network else INPUTS}
    problems = [problem for name in sorted(names) for problem in _problems_of(run.file, name)]
    if not problems:
        problems += _problems_of(lambda: run.model)
        if not is_network:
            problems += _problems_of(_require_inputs, run)
    return [*problems, *split_problems([run], workspace)]


def _problems_of(check: Callable[..., object], *arguments: object) -> list[str]:
    try:
        check(*arguments)
    except FeaturepipeError as error:
        return [str(error)]
    return []


def _require_inputs(run: Run) -> None:
    """Stop if the run's split or the checksums of its features are not those in its run.json."""
    assert isinstance(run.info, HeadRunInfo)
    kept = kept_checksums(run, kept_split(run))
    for store in run.info.stores:
        if checksum_digest(kept[store.name].to_numpy()) != store.features_sha256:
            raise RunError(
                f"Run {run.name!r} is damaged: the checksums of {store.name} in "
                f"{run.folder / INPUTS} do not belong to its run.json. Fit it again."
            )
