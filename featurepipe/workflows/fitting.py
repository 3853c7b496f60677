"""fit(): cached features -> fitted heads, one run for each backbone and split."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.errors import FitError, UnknownNameError, WorkspaceError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.store import PENDING, FeatureStore
from featurepipe.manifest import Manifest
from featurepipe.models.bundle import save_run
from featurepipe.models.heads import HeadModel, HeadSettings, fit_heads
from featurepipe.predictions import ALL, Predictions
from featurepipe.progress import Progress, tell
from featurepipe.provenance import library_versions, machine
from featurepipe.reports.evaluation import accuracies
from featurepipe.splits import Split, SplitSettings, divisible_ids, make_splits
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _CachedFeatures:
    """What fitting needs of a store."""

    path: Path
    key: dict[str, Any]
    weights_label: str
    weights_source: str
    images_per_s: float
    row_of: dict[str, int]
    digests: dict[str, bytes]

    def read(self, ids: NDArray[np.object_]) -> NDArray[np.float32]:
        with FeatureStore.open(self.path) as store:
            return store.features(np.array([self.row_of[image_id] for image_id in ids], np.intp))

    @property
    def title(self) -> str:
        view = "" if self.key["view"] == "rgb" else f"-{self.key['view']}"
        return f"{self.key['backbone']}{view}"


def fit(
    *,
    head: str = "bagged-sgd",
    solver: str | None = None,
    backbone: str | Sequence[str] = (),
    task: str = "per-attribute",
    calibrate: str = HeadSettings.calibrate,
    variance_threshold: str = HeadSettings.variance_threshold,
    test_size: float | None = None,
    hold_out: Sequence[str] = (),
    repeats: int | None = None,
    group: str | None = None,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    label_separator: str | None = None,
    workspace: Path | str = ".",
    n_jobs: int = -1,
    seed: int | None = None,
) -> pd.DataFrame:
    """Fit heads on cached features, and predict the test rows once.

    Parameters
    ----------
    head : str
        ``bagged-sgd`` or ``logistic``.
    solver : str, optional
        ``sklearn`` fits bagged SGD literally by scikit-learn, which takes some hundred
        times as long; default: ``minibatch``.
    backbone : str or sequence of str
        Backbones whose features to fit on; default: every store.
    task : {"per-attribute", "multi-label"}
        One head an attribute, or one OneVsRest head over all labels.
    calibrate : {"sigmoid", "isotonic", "temperature", "none"}
        How scores become probabilities; fitted out of fold on training rows.
    variance_threshold : str
        ``"1%"`` of the mean variance, or an absolute variance such as ``"0.01"``.
    test_size, hold_out, repeats, group, seed
        Make a split, or find the same one again; if none is given, the
        workspace's first split serves. See `featurepipe.splits.SplitSettings`.
        `seed` (default 0) is also that of the heads.
    attributes, labels, label_separator
        Relabel the images; see `featurepipe.manifest.read_manifest`.
    workspace : Path or str
    n_jobs : int
        Processor cores to use; -1: all.

    Returns
    -------
    pandas.DataFrame
        One row per new run and attribute, and ``all``: ``run, backbone, view,
        split, attribute, n_train, selection_accuracy, fit_s``. Test figures are
        for `report`.

    Raises
    ------
    FeaturepipeError
        If anything given cannot be used; see `featurepipe.errors`.
    """
    settings = HeadSettings(
        head=head,
        solver=solver,
        task=task,
        calibrate=calibrate,
        variance_threshold=variance_threshold,
        seed=seed or 0,
    )
    place = Workspace(workspace)
    with place.writing():
        manifest = _labelled_manifest(place, attributes, labels, group, label_separator)
        stores = _choose_stores(place, [backbone] if isinstance(backbone, str) else backbone)
        caches = [_open_cache(path, manifest) for path in stores]
        asked = _split_settings(test_size, hold_out, repeats, group, seed)
        splits = _find_splits(place, manifest, caches[0].digests, asked)
        infos = [
            _fit_run(place, manifest, cache, split, settings, n_jobs)
            for split in splits
            for cache in caches
        ]
    return _summary(infos)


def _labelled_manifest(
    place: Workspace,
    attributes: Sequence[str],
    labels: Path | str | None,
    group: str | None,
    label_separator: str | None,
) -> Manifest:
    if not place.manifest.exists():
        raise WorkspaceError(
            f"The workspace {place.root} holds no images yet. Begin with: "
            "featurepipe extract FOLDER"
        )
    manifest = Manifest.load(place.manifest)
    if attributes or labels or (group and group != manifest.group_column):
        manifest = manifest.relabelled(
            attributes=tuple(attributes),
            labels=labels,
            group=group,
            label_separator=label_separator,
        )
        tell(manifest.findings)
        manifest.save(place.manifest)
    if not manifest.attribute_names:
        raise FitError(
            f"The {len(manifest)} images below {manifest.root} have no labels. Put them in one "
            "folder a class, or give a table: featurepipe fit --labels TABLE.csv"
        )
    return manifest


def _choose_stores(place: Workspace, backbones: Sequence[str]) -> list[Path]:
    stores = place.stores()
    if not stores:
        raise WorkspaceError(
            f"The workspace {place.root} holds no features yet. Make some: featurepipe extract"
        )
    if not backbones:
        return stores
    wanted = {find_backbone(name).name for name in backbones}
    of_backbone: dict[str, list[Path]] = {}
    for path in stores:
        with FeatureStore.open(path) as store:
            of_backbone.setdefault(store.key["backbone"], []).append(path)
    for name in sorted(wanted - set(of_backbone)):
        raise UnknownNameError(
            "features of backbone",
            name,
            of_backbone,
            f"Make them: featurepipe extract --backbone {name}",
        )
    return [path for name in of_backbone if name in wanted for path in of_backbone[name]]


def _open_cache(path: Path, manifest: Manifest) -> _CachedFeatures:
    with FeatureStore.open(path) as store:
        ids, done = store.ids, store.rows("done")
        settled = set(ids[store.status != PENDING])
        n_pending = sum(image_id not in settled for image_id in manifest.ids)
        if n_pending:
            raise FitError(
                f"{path} has no features yet of {n_pending} of {len(manifest)} images. Finish it: "
                f"featurepipe extract --backbone {store.key['backbone']} (with the options it was "
                "begun with)"
            )
        digests = store.digests
        return _CachedFeatures(
            path=path,
            key=store.key,
            weights_label=store.made_by["weights_label"],
            weights_source=store.made_by["weights_source"],
            images_per_s=store.images_per_s,
            row_of={ids[row]: int(row) for row in done},
            digests={ids[row]: digests[row].tobytes() for row in done},
        )


def _split_settings(
    test_size: float | None,
    hold_out: Sequence[str],
    repeats: int | None,
    group: str | None,
    seed: int | None,
) -> SplitSettings | None:
    """What split is asked for; None if nothing about it was said."""
    usual = SplitSettings()
    if test_size is repeats is group is seed is None and not hold_out:
        return None
    return SplitSettings(
        test_size=usual.test_size if test_size is None else test_size,
        seed=usual.seed if seed is None else seed,
        hold_out=tuple(hold_out),
        group=group,
        repeats=usual.repeats if repeats is None else repeats,
    )


def _find_splits(
    place: Workspace,
    manifest: Manifest,
    digests: Mapping[str, bytes],
    asked: SplitSettings | None,
) -> list[Split]:
    """The splits that were asked for, or the first: as saved, or made and saved now."""
    saved = sorted(map(Split.load, place.splits()), key=lambda split: split.number)
    if asked is None and saved and saved[0].covers(divisible_ids(manifest, digests)):
        return saved[:1]
    settings = asked or (saved[0].settings if saved else SplitSettings())
    splits = []
    for made in make_splits(manifest, digests, settings):
        split = next((old for old in saved if old.divides_like(made)), None)
        if split is None:
            split = made.registered(len(saved), [old.name for old in saved])
            split.save(place.split(split.name))
            tell(split.findings)
            counts = (f"{count} {part}" for part, count in split.counts().items() if count)
            logger.info("Split %s: %s images.", split.name, ", ".join(counts))
            saved.append(split)
        splits.append(split)
    return splits


def _fit_run(
    place: Workspace,
    manifest: Manifest,
    cache: _CachedFeatures,
    split: Split,
    settings: HeadSettings,
    n_jobs: int,
) -> dict[str, Any]:
    """Fit, predict the test rows once, save; what the run is."""
    _require_rows(cache, split)
    train = split.rows("train")
    names = _run_names(cache, split, settings, manifest)
    name = names["run"]
    started = time.perf_counter()
    model, out_of_fold = _fit_heads(name, manifest, cache, split, settings, n_jobs)
    fit_s = time.perf_counter() - started
    tested = np.concatenate([split.rows("test"), split.rows("unseen")])
    X = cache.read(split.ids[tested])
    started = time.perf_counter()
    scores = model.predict(X)
    head_ms = 1000 * (time.perf_counter() - started) / len(X)
    selection = _predictions(manifest, split, train, settings.task, out_of_fold)
    info = {
        **names,
        **_provenance(cache, split, settings),
        "attributes": list(manifest.attribute_names),
        "n_train": _n_labelled(selection),
        "selection_accuracy": accuracies(selection),
        "extract_images_per_s": cache.images_per_s,
        "fit_s": fit_s,
        "predict_ms_per_image": head_ms + 1000 / cache.images_per_s,
    }
    predictions = _predictions(manifest, split, tested, settings.task, scores)
    save_run(place.run(name), info, model, predictions, selection)
    return info


def _fit_heads(
    title: str,
    manifest: Manifest,
    cache: _CachedFeatures,
    split: Split,
    settings: HeadSettings,
    n_jobs: int,
) -> tuple[HeadModel, dict[str, NDArray[np.float64]]]:
    train = split.rows("train")
    ids = split.ids[train]
    with ExitStack() as stack:
        bar: list[Progress] = []

        def advance(n_done: int, n_total: int) -> None:
            # How many fits there are is known once the first is done.
            if not bar:
                bar.append(stack.enter_context(Progress(n_total, title, "fit")))
            bar[0].advance()

        return fit_heads(
            cache.read(ids),
            manifest.labels(ids),
            split.groups[train],
            settings,
            n_jobs=n_jobs,
            progress=advance,
        )


def _predictions(
    manifest: Manifest,
    split: Split,
    rows: NDArray[np.intp],
    task: str,
    scores: dict[str, NDArray[np.float64]],
) -> Predictions:
    ids = split.ids[rows]
    return Predictions(
        ids=ids.astype(np.str_),
        parts=split.parts[rows].astype(np.str_),
        groups=split.groups[rows],
        task=task,
        labels=manifest.labels(ids),
        scores=scores,
    )


def _require_rows(cache: _CachedFeatures, split: Split) -> None:
    missing = [image_id for image_id in split.ids if image_id not in cache.row_of]
    if missing:
        raise FitError(
            f"{cache.path} has no features of {len(missing)} of the {len(split.ids)} images of "
            f"the split {split.name}, such as {missing[0]!r}, which another store has. Extract "
            "again with --retry-refused."
        )


def _run_names(
    cache: _CachedFeatures, split: Split, settings: HeadSettings, manifest: Manifest
) -> dict[str, str]:
    """Names of the run and of its family: the runs that differ in the repeat alone.

    The same for the same features, split, labels and settings; else others.
    """
    labels = manifest.table.loc[split.ids.tolist(), list(manifest.attribute_names)]
    decides = [
        json.dumps([cache.key, asdict(settings)], sort_keys=True),
        repr([labels.columns.tolist(), labels.to_numpy().tolist()]),
    ]
    divides = {
        "run": [split.name, split.ids.tolist(), split.parts.tolist()],
        "family": [split.series, split.ids.tolist(), split.groups.tolist()],
    }
    task = "" if settings.task == "per-attribute" else f"-{settings.task}"
    names = {}
    for kind, divided in divides.items():
        digest = hashlib.sha256("\n".join([decides[0], repr(divided), decides[1]]).encode())
        names[kind] = f"{cache.title}-{settings.head}{task}-{digest.hexdigest()[:6]}"
    return names


def _provenance(cache: _CachedFeatures, split: Split, settings: HeadSettings) -> dict[str, Any]:
    return {
        "backbone": cache.key["backbone"],
        "view": cache.key["view"],
        "weights": cache.weights_label,
        "weights_source": cache.weights_source,
        "recipe": cache.key,
        "head": settings.head,
        "task": settings.task,
        "settings": asdict(settings),
        "split": split.name,
        "split_number": split.number,
        "series": split.series,
        "versions": library_versions("numpy", "scipy", "scikit-learn", "skops"),
        "machine": machine(),
    }


def _n_labelled(selection: Predictions) -> dict[str, int]:
    labelled = {name: labels.labelled for name, labels in selection.labels.items()}
    counts = {name: int(rows.sum()) for name, rows in labelled.items()}
    n_all = int(np.all(list(labelled.values()), axis=0).sum())
    if selection.task == "multi-label":
        # One head reads all labels, and only images that have them all.
        return dict.fromkeys([*counts, ALL], n_all)
    return {**counts, ALL: n_all}


def _summary(infos: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "run": info["run"],
                "backbone": info["backbone"],
                "view": info["view"],
                "split": info["split"],
                "attribute": attribute,
                "n_train": info["n_train"][attribute],
                "selection_accuracy": info["selection_accuracy"][attribute],
                "fit_s": info["fit_s"],
            }
            for info in infos
            for attribute in [*info["attributes"], ALL]
        ]
    )
