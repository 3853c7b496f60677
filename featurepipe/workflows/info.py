"""What a store, split, run, manifest or workspace is, in words."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from featurepipe.errors import StoreError, WorkspaceError
from featurepipe.features.catalogue import changed_rows, how_to_heal, images_of, manifest_about
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Manifest
from featurepipe.runs.run_folder import load_run
from featurepipe.splits import Split
from featurepipe.workspace import Workspace


def describe(
    path: Path | str, *, verify: bool = False, workspace: Path | str = "."
) -> dict[str, Any]:
    """Describe one file or folder of a workspace.

    Parameters
    ----------
    path : Path or str
        A store, split, run, manifest or workspace.
    verify : bool
        Whether to check a store's rows: checksums, and images that changed.
    workspace : Path or str
        Whose images a store is checked against that lies in no workspace of its own.

    Returns
    -------
    dict of str to Any
        Facts by name, in the order in which to read them.

    Raises
    ------
    StoreError
        If `verify` finds rows that are damaged or no longer fit their image.
    WorkspaceError
        If there is nothing there that featurepipe makes.
    """
    path = Path(path)
    if path.suffix == ".h5":
        return _describe_store(path, Workspace(workspace), verify)
    if path.is_dir() and (path / "run.json").is_file():
        return _describe_run(path)
    if path.is_dir() and Workspace(path).manifest.is_file():
        return _describe_workspace(Workspace(path))
    by_suffix: dict[str, Callable[[Path], dict[str, Any]]] = {
        ".json": _describe_split,
        ".parquet": _describe_manifest,
    }
    if path.is_file() and path.suffix in by_suffix:
        return by_suffix[path.suffix](path)
    raise WorkspaceError(
        f"{path} is nothing that featurepipe makes. Expected a store (.h5), a split (.json), a "
        "manifest (.parquet), a folder of a run, or a workspace."
    )


def _describe_store(path: Path, place: Workspace, verify: bool) -> dict[str, Any]:
    with FeatureStore.open(path) as store:
        key, counts = store.key.as_dict(), store.counts()
        facts = {
            "what": "pixel cache" if store.holds_pixels else "feature store",
            "path": str(path),
            "images": len(store),
            **counts,
            "features": store.n_features,
            **{name: value for name, value in key.items() if name != "weights"},
            "weights": key["weights"],
            "made by": store.made_by,
            "images per s": round(store.images_per_s, 2),
            "busy s": {name: round(value, 2) for name, value in asdict(store.stages).items()},
            "bottleneck": store.stages.bottleneck,
            "size MB": round(path.stat().st_size / 1e6, 1),
            "refused images": store.refused(),
        }
        if verify:
            facts["verified"] = _verify(store, place)
        return facts


def _verify(store: FeatureStore, place: Workspace) -> str:
    ids = store.ids
    damaged = store.damaged_rows()
    changed, unseen = changed_rows(store, images_of(manifest_about(store.path, place)))
    found = [f"{ids[row]} (checksum)" for row in damaged]
    found += [f"{ids[row]} (image changed)" for row in np.setdiff1d(changed, damaged)]
    if found:
        raise StoreError(
            f"{store.path}: {len(found)} rows are not sound: {', '.join(found[:5])}"
            f"{', …' if len(found) > 5 else ''}. "
            f"{how_to_heal(store.holds_pixels, images_changed=len(found) > len(damaged))}"
        )
    beside = f"; {len(unseen)} images are not at hand" if len(unseen) else ""
    n_settled = len(store) - store.counts()["pending"]
    return f"{n_settled} rows: checksums and image digests fit{beside}"


def _describe_run(path: Path) -> dict[str, Any]:
    return {"what": "run", "path": str(path), **load_run(path).info}


def _describe_split(path: Path) -> dict[str, Any]:
    split = Split.load(path)
    return {
        "what": "split",
        "path": str(path),
        "name": split.name,
        **split.counts(),
        "settings": split.settings,
    }


def _describe_manifest(path: Path) -> dict[str, Any]:
    manifest = Manifest.load(path)
    classes = {name: list(labels.classes) for name, labels in manifest.labels().items()}
    return {
        "what": "manifest",
        "path": str(path),
        "images": len(manifest),
        "below": manifest.root,
        "attributes": classes,
        "group": manifest.group_column,
    }


def _describe_workspace(place: Workspace) -> dict[str, Any]:
    return {
        **_describe_manifest(place.manifest),
        "what": "workspace",
        "path": str(place.root),
        "stores": [path.stem for path in place.stores()],
        "splits": [path.stem for path in place.splits()],
        "runs": [path.name for path in place.runs()],
    }
