"""info(): what a workspace, or one file or folder of it, is."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from featurepipe.errors import FeaturepipeError, RunError, StoreError, WorkspaceError
from featurepipe.features.catalogue import changed_rows, how_to_heal, images_of, manifest_about
from featurepipe.features.store import SHARDS_SUFFIX, FeatureStore
from featurepipe.manifest import Manifest
from featurepipe.predictions import ALL, Predictions
from featurepipe.progress import tell
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.intervals import accuracy_interval
from featurepipe.reports.resampling import Resamples
from featurepipe.runs.changes import Present
from featurepipe.runs.run_check import run_problems
from featurepipe.runs.run_files import RUN_FILE
from featurepipe.runs.run_folder import Run, load_run
from featurepipe.splits import PARTS, Split
from featurepipe.words import counted, names_of
from featurepipe.workflows.data_summary import draw_manifest, manifest_to_draw
from featurepipe.workspace import Workspace

Facts = dict[str, Any]

logger = logging.getLogger(__name__)


def info(
    path: Path | str,
    *,
    verify: bool = False,
    plot: Path | str | None = None,
    workspace: Path | str = ".",
    trusted: Sequence[str] = (),
) -> Facts:
    """Describe a workspace, or one file or folder of it.

    Parameters
    ----------
    path : Path or str
        A workspace, manifest, feature store, pixel cache, split or run.
    verify : bool
        Check everything: rows and images of stores, digests of splits and of the files of
        runs, heads, and whether the splits of runs have changed.
    plot : Path or str, optional
        Picture (.jpg or .png) of the images of a workspace or manifest, outside of their folder:
        how many have each class and combination, the sizes of up to 1,000 images, and four
        examples of each of up to 24 combinations, drawn at random but always the same.
    workspace : Path or str
        Whose images a store is compared with that lies in no workspace of its own.
    trusted : sequence of str
        Types that heads of one's own are made of, and whose code you trust; `verify` reads heads.
        See `featurepipe.predict`.

    Returns
    -------
    dict of str to Any
        Facts by name, as JSON values. ``what`` is the kind. In a workspace, ``damaged``
        lists what cannot be read. Of a run, ``changed`` lists how the present labels and images
        differ from those that it was fitted on. `featurepipe.reports.info_text.info_text` makes
        a table of it.

    Raises
    ------
    WorkspaceError
        If nothing at the path was written by featurepipe; or, with `verify`, if something
        in the workspace is damaged: the error lists all of it.
    StoreError, SplitError, RunError, ManifestError
        If the file or folder is damaged.
    UsageError, ExtractionError
        If there is nothing to draw, or it cannot be written.
    """
    path = Path(path)
    if plot is None or not path.exists():
        return _describe(path, verify, Workspace(workspace), names_of(trusted))
    manifest = manifest_to_draw(path, Path(plot))
    facts = _describe(path, verify, Workspace(workspace), names_of(trusted))
    draw_manifest(manifest, Path(plot))
    return facts


def _describe(path: Path, verify: bool, workspace: Workspace, trusted: Sequence[str]) -> Facts:
    if path.name == RUN_FILE:
        path = path.parent
    if path.is_dir() and (path / RUN_FILE).is_file():
        home = _workspace_of(path, workspace)
        return _run_facts(path, home, Present.if_known(home), verify, trusted)
    if path.is_dir() and Workspace(path).manifest.is_file():
        return _workspace_facts(Workspace(path), verify, trusted)
    if path.suffix == SHARDS_SUFFIX and path.is_dir():
        return _store_facts(path, workspace, verify)
    describe: dict[str, Callable[[Path], Facts]] = {
        ".h5": lambda path: _store_facts(path, workspace, verify),
        ".json": _split_facts,
        ".parquet": _manifest_facts,
    }
    if path.suffix in describe and not path.is_dir():
        return describe[path.suffix](path)
    raise _nothing_to_describe(path)


def _workspace_of(run: Path, otherwise: Workspace) -> Workspace:
    """The workspace that a run lies in."""
    runs = run.absolute().parent
    return Workspace(runs.parent) if runs.name == "runs" else otherwise


def _nothing_to_describe(path: Path) -> WorkspaceError:
    if not path.exists():
        return WorkspaceError(f"There is no {path}. Give a file or folder of a workspace.")
    if path.is_dir():
        return WorkspaceError(
            f"The folder {path} is no workspace and no run. Make a workspace: "
            "featurepipe extract FOLDER"
        )
    if path.name == Workspace().leaderboard.name:
        return WorkspaceError(f"{path} is the leaderboard. Show it: featurepipe report")
    return WorkspaceError(
        f"{path} is not a file that `info` describes. Give a workspace, a run's folder, a "
        "feature store or pixel cache (.h5), a split (.json) or a manifest (.parquet)."
    )


def _workspace_facts(place: Workspace, verify: bool, trusted: Sequence[str]) -> Facts:
    # A manifest that cannot be read is met again at every store.
    damaged: dict[str, None] = {}

    def read_all(paths: Iterable[Path], describe: Callable[[Path], Facts]) -> list[Facts]:
        described = []
        for path in paths:
            try:
                described.append(describe(path))
            except FeaturepipeError as error:
                damaged.update(dict.fromkeys(str(error).splitlines()))
        return described

    def store(path: Path) -> Facts:
        return _store_facts(path, place, verify)

    present = Present.if_known(place)

    facts = {
        "what": "workspace",
        **{
            name: value
            for manifest in read_all([place.manifest], _manifest_facts)
            for name, value in manifest.items()
            if name != "what"
        },
        "path": str(place.root.absolute()),
        "stores": read_all(place.stores(), store),
        "pixel_caches": read_all(place.pixel_caches(), store),
        "splits": read_all(place.splits(), _split_facts),
        "runs": read_all(
            place.runs(), lambda path: _run_facts(path, place, present, verify, trusted)
        ),
    }
    damaged.update(dict.fromkeys(_folders_without_run(place)))
    facts["damaged"] = list(damaged)
    if not verify:
        for problem in damaged:
            logger.warning("Left out: %s", problem)
    elif damaged:
        n_problems = counted(len(damaged), "problem")
        tell(damaged)
        raise WorkspaceError(f"The workspace {place.root} has {n_problems} (see above).")
    return facts


def _folders_without_run(place: Workspace) -> list[str]:
    return [
        f"The folder {path} is no run: it has no run.json. Restore that from a copy, or delete the "
        "folder."
        for path in sorted(place.run("x").parent.glob("[!.]*"))
        if path.is_dir() and not (path / RUN_FILE).exists()
    ]


def _manifest_facts(path: Path) -> Facts:
    manifest = Manifest.load(path)
    return {
        "what": "manifest",
        "path": str(path),
        "images": len(manifest),
        "root": manifest.root,
        "source": manifest.source,
        "labels_source": manifest.labels_source,
        "attributes": {
            name: dict(zip(labels.classes, labels.indicator.sum(axis=0).tolist(), strict=True))
            for name, labels in manifest.labels().items()
        },
        "labelled": {
            name: int(labels.labelled.sum()) for name, labels in manifest.labels().items()
        },
        "group": manifest.group_column,
        "findings": list(manifest.findings),
    }


def _split_facts(path: Path) -> Facts:
    split = Split.load(path)
    return {
        "what": "split",
        "path": str(path),
        "name": split.name,
        **split.counts(),
        "groups": {part: len(np.unique(split.groups[split.rows(part)])) for part in PARTS},
        "left_out": len(split.left_out),
        "settings": asdict(split.settings) | {"hold_out": list(split.settings.hold_out)},
        "repeat": split.repeat,
        "findings": list(split.findings),
    }


def _store_facts(path: Path, place: Workspace, verify: bool) -> Facts:
    with FeatureStore.open(path) as store:
        speed = store.images_per_s
        facts = {
            "what": "pixel cache" if store.holds_pixels else "feature store",
            "path": str(path),
            "name": path.stem,
            "bytes": store.n_bytes,
            "images": len(store),
            **store.counts(),
            "n_features": store.n_features,
            "recipe": store.key.as_dict(),
            "made_by": store.made_by,
            "images_per_s": None if np.isnan(speed) else speed,
            "busy_s": asdict(store.stages),
            "bottleneck": store.stages.bottleneck,
            "refused_images": store.refused(),
        }
        return facts | ({"verified": _verify_rows(store, place)} if verify else {})


def _verify_rows(store: FeatureStore, place: Workspace) -> str:
    """Compare all rows with their checksums and images; what was checked."""
    ids = store.ids
    damaged = store.damaged_rows()
    changed, absent = changed_rows(store, images_of(manifest_about(store.path, place)))
    bad = [f"{ids[row]} (checksum)" for row in damaged]
    bad += [f"{ids[row]} (image changed)" for row in np.setdiff1d(changed, damaged)]
    if bad:
        raise StoreError(
            f"{store.path} has {counted(len(bad), 'bad row')}: {', '.join(bad[:5])}"
            f"{', …' if len(bad) > 5 else ''}. "
            f"{how_to_heal(store.holds_pixels, images_changed=len(bad) > len(damaged))}"
        )
    n_settled = len(store) - store.counts()["pending"]
    beside = f"; {counted(len(absent), 'image')} could not be read" if len(absent) else ""
    return f"{counted(n_settled, 'row')}: checksums and images match{beside}"


def _run_facts(
    path: Path, place: Workspace, present: Present | None, verify: bool, trusted: Sequence[str]
) -> Facts:
    run = load_run(path, trusted)
    problems = run_problems(run, place) if verify else []
    if problems:
        raise RunError("\n".join(problems))
    return facts_of_run(run, [] if present is None else present.changes(run))


def facts_of_run(run: Run, changed: Sequence[str]) -> Facts:
    """What `info` says of a run.

    Parameters
    ----------
    run : Run
    changed : sequence of str
        How the present labels and images differ from those that it was fitted on.
    """
    path = run.folder
    test, unseen = run.predictions.select("test"), run.predictions.select("unseen")
    return {
        "what": "run",
        "path": str(path),
        "name": path.name,
        **_about(run),
        "changed": list(changed),
        "n_test": len(test),
        "n_unseen": len(unseen),
        "test_accuracy": _accuracies(test),
        "unseen_accuracy": _accuracies(unseen),
        "files": sorted(file.name for file in path.glob("[!.]*") if file.is_file()),
    }


def _about(run: Run) -> Facts:
    """What `run.json` says, as JSON values."""
    facts = run.info.model_dump(mode="json")
    calibration = run.info.reliability
    features = facts.get("features", {})
    return {
        "head": run.info.head,
        "is_network": run.network is not None,
        "task": run.info.task,
        "split": run.info.split.name,
        "attributes": facts["attributes"],
        "n_train": run.info.n_train[ALL],
        "selection_accuracy": facts["selection_accuracy"],
        "reads": {
            name: features.get(name) or [run.info.backbone[name] or "pixels"]
            for name in run.info.attributes
        },
        "n_feature_trials": len(facts.get("feature_trials", ())),
        "n_head_trials": len(facts.get("head_trials", ())),
        "settings": facts["settings"],
        "ece": {
            name: [calibration.uncalibrated[name].ece, calibration.calibrated[name].ece]
            for name in run.info.attributes
        },
        "costs": facts["costs"],
        "versions": run.info.versions,
        "machine": run.info.machine,
        "run.json": facts,
    }


def _accuracies(predictions: Predictions) -> dict[str, dict[str, float | None]]:
    """Accuracy and its interval by attribute, where there are images."""
    accuracies = {}
    for attribute in [*predictions.labels, ALL]:
        answers = AttributePredictions.of(predictions, attribute)
        if len(answers):
            low, high = accuracy_interval(answers.right, Resamples(answers.predictions.groups))
            accuracy = float(answers.right.mean())
            ends = {
                name: None if np.isnan(end) else end for name, end in (("low", low), ("high", high))
            }
            accuracies[attribute] = {"accuracy": accuracy, **ends}
    return accuracies
