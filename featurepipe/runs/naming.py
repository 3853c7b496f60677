"""Digests of what decides a run, and the names of runs."""

import hashlib
import itertools
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

from featurepipe.manifest import Manifest
from featurepipe.runs.fitted_on import split_sha256
from featurepipe.runs.run_info import NetworkRunInfo, read_digest
from featurepipe.splits import Split
from featurepipe.workspace import Workspace

_DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Digests:
    """Digests that identify a run.

    Attributes
    ----------
    run : str
        The same for the same inputs, split, labels and settings.
    family : str
        The same also for the other splits of the series.
    """

    run: str
    family: str


def digests_of(inputs: Any, family_inputs: Any, split: Split, manifest: Manifest) -> Digests:
    """Digests of everything that decides a run.

    Parameters
    ----------
    inputs : JSON value
        What is read, and the settings.
    family_inputs : JSON value
        What runs on the other splits of the series have in common of it.
    split : Split
        Its name does not matter, only what it divides and how.
    manifest : Manifest
        The labels of the split's images matter.
    """
    names = list(manifest.attribute_names)
    columns = [manifest.cells[name] for name in names]
    rows = manifest.rows_of(split.ids)
    truth = [names, [[cells[row] for cells in columns] for row in rows.tolist()]]
    settings_of_split = asdict(replace(split.settings, repeats=1))
    division = [settings_of_split, split.repeat, split_sha256(split)]
    series = split.series_settings
    family = division if series is None else [asdict(series), sorted(split.ids_divided)]
    return Digests(
        run=_digest([inputs, *truth, division]),
        family=_digest([family_inputs, *truth, family]),
    )


def network_digests(info: NetworkRunInfo, split: Split, manifest: Manifest) -> Digests:
    """Digests of a network, were it trained by some split on the labels of some manifest.

    Parameters
    ----------
    info : NetworkRunInfo
        Its digest and family are not read.
    split : Split
    manifest : Manifest
    """
    begins_from = info.begins_from and info.begins_from.model_dump(exclude={"weights_source"})
    shared = [begins_from, info.pixels.recipe.as_dict()]
    settings = asdict(info.settings)
    return digests_of([*shared, info.pixels.sha256, settings], [*shared, settings], split, manifest)


def reserve_name(
    workspace: Workspace, title: str, digest: str, reserved: Collection[str] = ()
) -> str:
    """The name of a run that is about to be fitted or trained.

    Parameters
    ----------
    workspace : Workspace
        Its lock must be held until the run is saved.
    title : str
    digest : str
        See `Digests.run`.
    reserved : collection of str
        Names of other runs that are not saved yet.

    Returns
    -------
    str
        The name of the run that has this digest, which will be replaced; else the title, or if
        another run has that name, the title and the first free number from 2.
    """
    for folder in workspace.runs():
        if read_digest(folder) == digest:
            return folder.name
    # Some file systems do not tell upper from lower case.
    taken = {path.name.lower() for path in workspace.run(title).parent.glob("*")}
    taken |= {name.lower() for name in reserved}
    names = itertools.chain([title], (f"{title}-{count}" for count in itertools.count(2)))
    return next(name for name in names if name.lower() not in taken)


def _digest(decides: Any) -> str:
    text = json.dumps(decides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]
