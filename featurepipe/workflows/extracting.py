"""extract(): images -> cached features."""

import logging
from collections.abc import Sequence
from pathlib import Path

from featurepipe.errors import ExtractionError, WorkspaceError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.extraction import BATCH_SIZE, Extraction, extract_features
from featurepipe.features.recipe import Recipe, make_recipe
from featurepipe.features.store import FeatureStore
from featurepipe.features.views import find_view
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
    view: str = "rgb",
    size_px: int | None = None,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    group: str | None = None,
    label_separator: str | None = None,
    workspace: Path | str = ".",
    engine: str = "auto",
    precision: str = "auto",
    batch_size: int = BATCH_SIZE,
    retry_refused: bool = False,
    strict: bool = False,
    seed: int = 0,
) -> list[Extraction]:
    """Run backbones over images and cache their features in the workspace.

    Only images that are new, changed, or left from a killed run are embedded.

    Parameters
    ----------
    source : Path or str, optional
        Folder of images, or table of images and labels. Default: the one that
        the workspace remembers, else the current folder.
    backbone : str or sequence of str
        Names of backbones.
    weights : str
        ``imagenet``, ``random`` (seeded by `seed`) or a path.
    pooling : str
        ``avg``, ``max`` or the name of a layer.
    view : str
        What of the image the backbone is shown.
    size_px : int, optional
        Side of the picture it is shown; default: the backbone's own.
    attributes, labels, group, label_separator
        What the labels are; see `featurepipe.manifest.read_manifest`.
    workspace : Path or str
    engine : {"auto", "openvino", "keras"}
        What runs the backbone; ``"auto"``: Keras on a GPU, else OpenVINO.
    precision : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: that of the store there is; else what the hardware runs
        natively, where it keeps the features.
    batch_size : int
        Images embedded, and committed, at once.
    retry_refused : bool
        Whether to try again images that were refused and have not changed.
    strict : bool
        Whether any refused image is an error, raised once the rest is done.
    seed : int
        Of random weights.

    Returns
    -------
    list of Extraction
        What was done, one for each backbone.

    Raises
    ------
    FeaturepipeError
        If anything given cannot be used; see `featurepipe.errors`.
    """
    names = [backbone] if isinstance(backbone, str) else list(backbone)
    place = Workspace(workspace)
    for name in names:
        find_backbone(name)
    find_view(view)
    manifest = _read_source(
        place,
        Path(source) if source is not None else None,
        attributes=tuple(attributes),
        labels=Path(labels) if labels is not None else None,
        group=group,
        label_separator=label_separator,
    )
    recipes = [
        _settled(
            place,
            make_recipe(
                name,
                weights,
                size_px=size_px,
                pooling=pooling,
                view=view,
                engine=engine,
                seed=seed,
            ),
            precision,
        )
        for name in names
    ]
    images = {image_id: manifest.path(image_id) for image_id in manifest.ids}
    with place.writing():
        manifest.save(place.manifest)
        done = [
            extract_features(
                recipe,
                images,
                place.store(recipe.store_name),
                batch_size=batch_size,
                retry_refused=retry_refused,
            )
            for recipe in recipes
        ]
    _tell_refused(done[-1], strict)
    return done


def _settled(place: Workspace, recipe: Recipe, precision: str) -> Recipe:
    path, kept = place.store(recipe.store_name), None
    if path.exists():
        with FeatureStore.open(path) as store:
            kept = store.key["precision"]
    return recipe.settled(precision, kept)


def _read_source(
    place: Workspace,
    source: Path | None,
    *,
    attributes: tuple[str, ...],
    labels: Path | None,
    group: str | None,
    label_separator: str | None,
) -> Manifest:
    """The images of the source as it is now; what the workspace remembers fills in."""
    remembered = Manifest.load(place.manifest) if place.manifest.exists() else None
    if remembered is not None:
        source = source or Path(remembered.source)
        if labels is None:
            labels = Path(remembered.labels_source) if remembered.labels_source else None
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
    refused = extraction.refused
    if not refused:
        return
    shown = [f"  {image_id}: {reason}" for image_id, reason in list(refused.items())[:20]]
    if len(refused) > len(shown):
        shown.append(
            f"  … and {len(refused) - len(shown)} more: featurepipe info {extraction.store}"
        )
    logger.warning("%d images were refused:\n%s", len(refused), "\n".join(shown))
    if strict:
        raise ExtractionError(
            f"{len(refused)} of {extraction.n_images} images were refused (see above), and "
            "--strict allows none. Mend or remove them, and run the same command again."
        )
