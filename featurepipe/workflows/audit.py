"""audit(): cached features and a run -> suspicious labels and images."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featurepipe.errors import WorkspaceError
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Manifest
from featurepipe.models.heads.fit_memory import parse_memory
from featurepipe.models.studies.label_errors import LabelError, find_label_errors
from featurepipe.models.studies.near_duplicates import DuplicateSearch, deciding_store
from featurepipe.models.studies.outliers import outliers
from featurepipe.reports.csv_text import write_csv
from featurepipe.runs.choosing import find_run
from featurepipe.runs.run_folder import Run
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

COLUMNS = [
    "image", "attribute", "finding", "given_label", "suggested_label", "score", "other_image",
    "reason",
]  # fmt: skip

Row = dict[str, Any]


def audit(
    *,
    workspace: Path | str = ".",
    run: str | None = None,
    memory: str | None = None,
    spreadsheet_safe: bool = False,
) -> pd.DataFrame:
    """Find suspicious labels, outliers and duplicates, and write them to audit.csv.

    Only the labels of the run's training images are judged, by their out-of-fold
    probabilities. Outliers and near-duplicates are searched among all images, by the first
    store of a network (`featurepipe.models.studies.near_duplicates.deciding_store`).

    Parameters
    ----------
    workspace : Path or str
    run : str, optional
        Default: the best run of heads; see `featurepipe.runs.choosing.find_run`.
    memory : str, optional
        Bound of the memory for comparing images, besides the libraries, the manifest and the run,
        such as ``4GB``; features that do not fit are read in chunks. Default: no bound.
    spreadsheet_safe : bool
        Whether to put an apostrophe before each text in audit.csv that a spreadsheet would take
        for a formula.

    Returns
    -------
    pandas.DataFrame
        One row for each finding: ``image, attribute, finding, given_label,
        suggested_label, score`` (in [0, 1]; 1 is the most suspicious),
        ``other_image, reason``. First ``contradiction`` (identical images with
        different labels), then ``label error``, ``outlier``, ``near-duplicate``; the most
        suspicious of each first.

    Raises
    ------
    FeaturepipeError
        If there is no run, or anything is damaged; see `featurepipe.errors`.
    """
    home = Workspace(workspace)
    memory_bytes = None if memory is None else parse_memory(memory)
    # A network has out-of-sample answers for its validation images only.
    chosen = find_run(home, run, heads_only=run is None)
    if not home.stores():
        raise WorkspaceError(
            f"The workspace {home.root} has no features any more. Make some: featurepipe extract"
        )
    with home.writing():
        manifest = Manifest.load(home.manifest)
        logger.info("Auditing with %s.", chosen.name)
        store = deciding_store(home.stores())
        by_features: list[Row] = []
        if store is not None:
            search = DuplicateSearch.among(home, store, manifest.ids)
            by_features += _outliers(search, memory_bytes)
            by_features += _near_duplicates(search, memory_bytes, manifest)
        labels = [*_contradictions(home.stores()[0], manifest), *_label_errors(chosen)]
        findings = labels + by_features
        table = pd.DataFrame(findings, columns=COLUMNS)
        write_csv(table, home.audit, "%.4f", spreadsheet_safe=spreadsheet_safe)
    logger.info("Wrote %s.", home.audit)
    return table


def _contradictions(path: Path, manifest: Manifest) -> Iterator[Row]:
    """Pairs of images with identical bytes and different labels."""
    known = set(manifest.ids)
    first_of: dict[bytes, str] = {}
    with FeatureStore.open(path) as store:
        rows = store.rows("done")
        images = zip(store.ids[rows], map(bytes, store.digests[rows]), strict=True)
    for image, digest in images:
        if image not in known:
            continue
        other = first_of.setdefault(digest, image)
        for attribute, (given, others) in _differing(manifest, image, other).items():
            yield {
                "image": image,
                "attribute": attribute,
                "finding": "contradiction",
                "given_label": given,
                "suggested_label": others,
                "score": 1.0,
                "other_image": other,
                "reason": f"identical bytes are labelled {given!r} here and {others!r} there",
            }


def _label_errors(run: Run) -> Iterator[Row]:
    for error in find_label_errors(run.selection):
        yield {
            "image": error.image,
            "attribute": error.attribute,
            "finding": "label error",
            "given_label": "|".join(error.given),
            "suggested_label": "|".join(error.suggested),
            "score": error.score,
            "reason": _why(error),
        }


def _why(error: LabelError) -> str:
    extra = [name for name in error.given if name not in error.suggested]
    missing = [name for name in error.suggested if name not in error.given]
    reasons = []
    if extra:
        reasons.append(f"{error.probability_given:.0%} for {'|'.join(extra)}, as labelled")
    if missing:
        reasons.append(f"{error.probability_suggested:.0%} for {'|'.join(missing)}")
    return f"heads fitted without this image give {', '.join(reasons)}"


def _outliers(search: DuplicateSearch, memory_bytes: int | None) -> Iterator[Row]:
    with search.features(memory_bytes) as rows:
        positions, distances = outliers(rows)
    for image, distance in zip(search.images[positions], distances, strict=True):
        yield {
            "image": image,
            "finding": "outlier",
            "score": 1 - 1 / distance,
            "reason": f"its fifth neighbour is {distance:.1f} times as far as usual "
            f"({search.store.stem})",
        }


def _near_duplicates(
    search: DuplicateSearch, memory_bytes: int | None, manifest: Manifest
) -> Iterator[Row]:
    pairs = search.find(memory_bytes)
    search.remember(pairs)
    for (image, other), distance in zip(pairs.ids, pairs.distances, strict=True):
        differing = [
            f"{attribute} {given!r} and {others!r}"
            for attribute, (given, others) in _differing(manifest, image, other).items()
        ]
        labels = f"; labelled {', '.join(differing)}" if differing else ""
        yield {
            "image": image,
            "finding": "near-duplicate",
            "score": max(0.0, 1 - distance),
            "other_image": other,
            "reason": f"{distance:.0%} of the median distance apart ({pairs.store}){labels}",
        }


def _differing(manifest: Manifest, image: str, other: str) -> dict[str, tuple[str, str]]:
    """The attributes whose labels differ between two images, with both labels."""
    rows = np.searchsorted(manifest.ids, [image, other])
    labels = {
        attribute: tuple(manifest.cells[attribute][row] for row in rows)
        for attribute in manifest.attribute_names
    }
    return {
        attribute: ("|".join(given), "|".join(others))
        for attribute, (given, others) in labels.items()
        if None not in (given, others) and given != others
    }
