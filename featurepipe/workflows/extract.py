"""extract(): images -> cached features."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from featurepipe.errors import ExtractionError, WorkspaceError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.extraction.recipe import Recipe, make_recipe
from featurepipe.features.extraction.updating import Extraction, extract_features
from featurepipe.features.extraction.views import find_view
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Manifest, read_manifest
from featurepipe.progress import tell
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def extract(
    source: Path | str | None = None,
    *,
    backbone: str | Sequence[str] = "xception",
    weights: str = "imagenet",
    pooling: str = "avg",
    view: str | Sequence[str] = "rgb",
    size_px: int | None = None,
    fast_decode: bool = False,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    group: str | None = None,
    label_separator: str | None = None,
    workspace: Path | str = ".",
    engine: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    retry_refused: bool = False,
    rehash: bool = False,
    strict: bool = False,
    seed: int = 0,
) -> list[Extraction]:
    """Run backbones over images and cache their features in the workspace.

    Each image is read and decoded once, whatever the number of backbones and
    views. Only images that are new, changed, or left from a killed run are embedded.

    Parameters
    ----------
    source : Path or str, optional
        Folder, tar file or table of images, or a URL of one. Default: the one
        that the workspace remembers, else the current folder.
    backbone : str or sequence of str
        Names of backbones.
    weights : str
        ``imagenet``, ``random`` (seeded by `seed`) or a path.
    pooling : str
        ``avg``, ``max`` or the name of a layer.
    view : str or sequence of str
        What of the image each backbone is shown; one store for each.
    size_px : int, optional
        Side of the picture it is shown; default: the backbone's own.
    fast_decode : bool
        Whether large JPEGs are decoded at a reduced size, which moves features:
        such stores are others.
    attributes, labels, group, label_separator
        What the labels are; see `featurepipe.manifest.read_manifest`.
    workspace : Path or str
    engine : {"auto", "openvino", "keras"}
        What runs the backbone; ``"auto"``: Keras on a GPU, else OpenVINO.
    precision : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: that of the store there is; else what the hardware runs
        natively, where it keeps the features.
    batch_size : int, optional
        Images embedded, and committed, at once; default: what suits the engine
        and the memory.
    retry_refused : bool
        Whether to try again images that were refused and have not changed.
    rehash : bool
        Whether to read every image again and compare its digest, and not to go by
        size and modification time.
    strict : bool
        Whether any refused image is an error, raised once the rest is done.
    seed : int
        Of random weights.

    Returns
    -------
    list of Extraction
        What was done, one for each backbone and view.

    Raises
    ------
    FeaturepipeError
        If anything given cannot be used; see `featurepipe.errors`.
    """
    place = Workspace(workspace)
    pairs = list(itertools.product(dict.fromkeys(_listed(backbone)), dict.fromkeys(_listed(view))))
    for name, shown in pairs:
        find_backbone(name)
        find_view(shown)
    remembered = Manifest.load(place.manifest) if place.manifest.exists() else None
    manifest = _read_source(
        place,
        remembered,
        source,
        attributes=tuple(attributes),
        labels=labels,
        group=group,
        label_separator=label_separator,
    )
    recipes = [
        make_recipe(
            name,
            weights,
            size_px=size_px,
            pooling=pooling,
            view=shown,
            engine=engine,
            fast_decode=fast_decode,
            seed=seed,
        )
        for name, shown in pairs
    ]
    stores = {
        place.store(recipe.store_name): _settled(place, recipe, precision) for recipe in recipes
    }
    with place.writing():
        if remembered is None or remembered.checksum != manifest.checksum:
            manifest.save(place.manifest)
        done = extract_features(
            stores,
            manifest.images(),
            manifest.ids.tolist(),
            batch_size=batch_size,
            retry_refused=retry_refused,
            rehash=rehash,
        )
    _tell_refused(done[-1], strict)
    return done


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _settled(place: Workspace, recipe: Recipe, precision: str) -> Recipe:
    path, kept = place.store(recipe.store_name), None
    if path.exists():
        with FeatureStore.open(path) as store:
            kept = store.key["precision"]
    return recipe.settled(precision, kept)


def _read_source(
    place: Workspace,
    remembered: Manifest | None,
    source: Path | str | None,
    *,
    attributes: tuple[str, ...],
    labels: Path | str | None,
    group: str | None,
    label_separator: str | None,
) -> Manifest:
    """The images of the source as it is now; what the workspace remembers fills in."""
    if remembered is not None:
        source = source or remembered.source
        if labels is None:
            labels = remembered.labels_source
            attributes = attributes or remembered.labelling.attributes
            group = group or remembered.labelling.group
            label_separator = label_separator or remembered.labelling.label_separator
    manifest = read_manifest(
        source or Path(),
        attributes=attributes,
        labels=labels,
        group=group,
        label_separator=label_separator or "|",
    )
    if remembered is not None and not set(remembered.ids) & set(manifest.ids):
        raise WorkspaceError(
            f"The workspace {place.root} is about other images: none of the {len(manifest)} of "
            f"{manifest.source} is among the {len(remembered)} of {remembered.source}. Give "
            "another --workspace."
        )
    tell(manifest.findings)
    return manifest


def _tell_refused(extraction: Extraction, strict: bool) -> None:
    refused, unread = extraction.refused, extraction.unread
    if refused:
        _warn("were refused", refused, extraction.store)
    if unread:
        _warn("could not be read now; the features of before are kept", unread, extraction.store)
    if strict and (refused or unread):
        raise ExtractionError(
            f"{len(refused) + len(unread)} of {extraction.n_images} images were refused or could "
            "not be read (see above), and --strict allows none. Mend or remove them, and run the "
            "same command again."
        )


def _warn(what: str, reasons: Mapping[str, str], store: Path) -> None:
    shown = [f"  {image_id}: {reason}" for image_id, reason in list(reasons.items())[:20]]
    if len(reasons) > len(shown):
        shown.append(f"  … and {len(reasons) - len(shown)} more: featurepipe info {store}")
    logger.warning("%d images %s:\n%s", len(reasons), what, "\n".join(shown))
