"""The picture of a set of images: what is drawn of their labels, sizes and kinds."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from featurepipe.errors import ExtractionError, ImageError, UsageError
from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.features.extraction.image_sizes import image_size
from featurepipe.manifest import Labels, Manifest
from featurepipe.models.answers.arrays import Rows
from featurepipe.output_folders import require_possible_file
from featurepipe.progress import Progress
from featurepipe.reports.picture_files import FORMATS, save_picture
from featurepipe.reports.terminal_text import shortened
from featurepipe.sources import ImageSource
from featurepipe.words import counted, visible
from featurepipe.workflows.written_folders import require_no_image
from featurepipe.workspace import Workspace

if TYPE_CHECKING:
    from featurepipe.reports.data_picture import Examples, ImageSizes, LabelCounts

logger = logging.getLogger(__name__)

# Of so many images the sizes are read.
_MAX_SIZES = 1000
_MAX_ATTRIBUTES = 8
_MAX_KINDS = 24
_MAX_NAME = 20
_SEED = 0

Kinds = dict[str, Rows]
"""Rows of the images of each kind, by its name."""


def manifest_to_draw(path: Path, plot: Path) -> Manifest:
    """The manifest whose images are drawn, if a picture of them can be saved.

    Parameters
    ----------
    path : Path
        A workspace or a manifest.
    plot : Path
        The picture to save.

    Raises
    ------
    UsageError
        If `path` is neither, or the picture cannot be saved there, or would be one of the images.
    ManifestError
        If the manifest is damaged.
    """
    file = Workspace(path).manifest if path.is_dir() else path
    if file.suffix != ".parquet" or not file.is_file():
        raise UsageError(
            f"--plot draws the images of a workspace or manifest, and {path} is neither. Name one, "
            "or omit --plot."
        )
    require_possible_file(plot, FORMATS, "a plot")
    manifest = Manifest.load(file)
    require_no_image(plot, manifest, "The plot")
    return manifest


def draw_manifest(manifest: Manifest, path: Path) -> None:
    """Draw the labels, sizes and examples of images, and save the picture.

    Parameters
    ----------
    manifest : Manifest
    path : Path
        The picture; see `manifest_to_draw`.

    Raises
    ------
    ExtractionError
        If none of the images that were drawn can be read.
    ManifestError, SourceError
        If their source is gone.
    """
    # Imported late: Matplotlib is slow to import.
    from featurepipe.reports.data_picture import draw_data

    source = manifest.images()
    sizes = _sizes(manifest, source)
    labels, what, kinds = _labels(manifest)
    examples = _examples(manifest, source, kinds)
    n_not_drawn = len(manifest.attribute_names) - _MAX_ATTRIBUTES
    more = f" ({counted(n_not_drawn, 'attribute')} not drawn)" if n_not_drawn > 0 else ""
    # The whole path would tell whoever sees the picture about this machine.
    title = f"{counted(manifest, 'image')} in {PurePosixPath(manifest.root).name}{more}"
    some = f"{len(examples):,} of {len(kinds):,} {what}" if len(examples) < len(kinds) else what
    picture = draw_data(title, labels, sizes, f"examples of {some}, drawn at random", examples)
    save_picture(picture, path)
    logger.info("Wrote %s.", path)


def _labels(manifest: Manifest) -> tuple[list["LabelCounts"], str, Kinds]:
    """What is counted, and the kinds of images that examples are drawn of, with their name.

    Kinds are the combinations of several exclusive attributes, or the classes of one attribute.
    """
    from featurepipe.reports.data_picture import LabelCounts

    labels = manifest.labels()
    panels = [_class_counts(truth) for truth in list(labels.values())[:_MAX_ATTRIBUTES]]
    exclusive = [truth for truth in labels.values() if truth.exclusive]
    if len(exclusive) > 1:
        combinations: dict[str, list[int]] = {}
        for row, name in enumerate(manifest.combinations().tolist()):
            if name is not None:
                combinations.setdefault(name, []).append(row)
        kinds = {name: np.array(rows, np.intp) for name, rows in combinations.items()}
        counts = {name: len(rows) for name, rows in kinds.items()}
        return [*panels, LabelCounts(counted(kinds, "combination"), counts)], "combinations", kinds
    for truth in [*exclusive, *labels.values()][:1]:
        kinds = dict(zip(truth.classes, map(np.flatnonzero, truth.indicator.T), strict=True))
        return panels, f"the classes of {truth.attribute}", kinds
    return [], "the images", {"no labels": np.arange(len(manifest))}


def _class_counts(truth: Labels) -> "LabelCounts":
    from featurepipe.reports.data_picture import LabelCounts

    n_classes = (
        counted(truth.classes, "class", "classes")
        if truth.exclusive
        else counted(truth.classes, "label")
    )
    n_missing = int((~truth.labelled).sum())
    missing = f", {n_missing:,} unlabelled" if n_missing else ""
    counts = dict(zip(truth.classes, truth.indicator.sum(axis=0).tolist(), strict=True))
    name = shortened(visible(truth.attribute), _MAX_NAME)
    return LabelCounts(f"{name}: {n_classes}{missing}", counts)


def _sizes(manifest: Manifest, source: ImageSource) -> "ImageSizes":
    from featurepipe.reports.data_picture import ImageSizes

    n = min(len(manifest), _MAX_SIZES)
    rows = np.random.default_rng(_SEED).choice(len(manifest), n, replace=False)
    sizes, reasons = [], {}
    with (
        Progress(n, "Reading sizes", "image") as progress,
        ThreadPoolExecutor(source.n_readers) as readers,
    ):
        ids = manifest.ids[np.sort(rows)].tolist()
        for image_id, size in zip(
            ids, readers.map(lambda name: _size(source, name), ids), strict=True
        ):
            if isinstance(size, str):
                reasons[image_id] = size
            else:
                sizes.append(size)
            progress.advance()
    if not sizes:
        image_id, reason = next(iter(reasons.items()))
        raise ExtractionError(
            f"None of the images in {manifest.root} can be read ({image_id}: {reason}). Check that "
            "they are still there."
        )
    return ImageSizes(np.array(sizes, np.intp), len(reasons), len(manifest))


def _size(source: ImageSource, image_id: str) -> tuple[int, int] | str:
    """Width and height, or why they cannot be read."""
    try:
        return image_size(source.read(image_id))
    except (OSError, ImageError) as error:
        return str(error)


def _examples(manifest: Manifest, source: ImageSource, kinds: Kinds) -> list["Examples"]:
    """Some images of each kind, the most frequent kinds first; of many kinds some are drawn."""
    from featurepipe.reports.data_picture import EXAMPLES_OF_EACH, Examples

    rng = np.random.default_rng(_SEED)
    names = sorted(kinds)
    drawn = [names[k] for k in rng.permutation(len(names))[:_MAX_KINDS]]
    examples = []
    for kind in sorted(drawn, key=lambda name: (-len(kinds[name]), name)):
        rows = np.sort(rng.permutation(kinds[kind])[:EXAMPLES_OF_EACH])
        pictures = [_thumbnail(source, manifest.ids[row]) for row in rows]
        examples.append(Examples(kind, len(kinds[kind]), pictures))
    return examples


def _thumbnail(source: ImageSource, image_id: str) -> Image.Image | None:
    from featurepipe.reports.data_picture import EXAMPLE_PX

    try:
        picture = open_rgb(source.read(image_id))
    except (OSError, ImageError):
        return None
    picture.thumbnail((EXAMPLE_PX, EXAMPLE_PX))
    return picture
