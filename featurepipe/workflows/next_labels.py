"""next_labels(): a run and unlabelled images -> a table of those to label next."""

import logging
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from featurepipe.errors import ImageError, RunError, UsageError
from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.manifest import Manifest
from featurepipe.manifest.tables import Columns
from featurepipe.models.answers.arrays import Rows
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.studies.label_choice import choose_images
from featurepipe.reports.contact_sheet import (
    NAME_LENGTH,
    require_possible_sheet,
    write_contact_sheet,
)
from featurepipe.reports.csv_text import write_csv
from featurepipe.reports.lettering import spell
from featurepipe.runs.choosing import find_run
from featurepipe.runs.run_folder import Run
from featurepipe.words import counted, names_of
from featurepipe.workflows.label_table import label_table
from featurepipe.workflows.suggestions import Suggestions, suggest
from featurepipe.workflows.unlabelled import Unlabelled, new_images, unlabelled_images
from featurepipe.workflows.written_folders import require_no_image
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def next_labels(
    pool: Sequence[Path | str] = (),
    *,
    n: int = 50,
    contact_sheet: Path | str | None = None,
    workspace: Path | str = ".",
    run: str | None = None,
    weights: Sequence[str] = (),
    trusted: Sequence[str] = (),
) -> pd.DataFrame:
    """Choose the unlabelled images to label next, and write them to next.csv.

    Images are chosen so that each image that the run is unsure of has a chosen one near; see
    `featurepipe.models.studies.label_choice`. The table begins with them and lists the images
    that have labels below, so that `fit` takes it as it is once the suggested classes are
    corrected. Test images stay test images, by a column ``split``, unless the run's split has
    groups or held-out combinations. A table that exists is never replaced: the next one is
    next-2.csv.

    Parameters
    ----------
    pool : sequence of Path or str, optional
        Files, folders and patterns. Default: the images of the workspace that lack a label.
    n : int
        Number of images to choose.
    contact_sheet : Path or str, optional
        Picture (.jpg or .png) of the images chosen, outside of the folder of the images.
    workspace : Path or str
    run : str, optional
        Default: the run that `predict` uses.
    weights : sequence of str
        Current files of the run's weights, if they were moved; see `predict`. Needed for images
        of `pool` only.
    trusted : sequence of str
        Types that a head of one's own is made of, and whose code you trust; see `predict`.

    Returns
    -------
    pandas.DataFrame
        The rows of the images chosen, the most useful first: ``path, why``, and for each
        attribute the suggested class; for sets of labels, a column ``attribute=label`` of 0 and
        1 for each label. Then the group, if there are groups, and ``split``.

    Raises
    ------
    StoreMismatchError
        If the features of `pool` would differ from those that the run was trained on.
    FeaturepipeError
        If anything else given cannot be used; see `featurepipe.errors`.
    """
    if n < 1:
        raise UsageError(f"--n is {n}. Set the number of images to choose, at least 1.")
    home = Workspace(workspace)
    used = find_run(home, run, trusted=names_of(trusted))
    manifest = Manifest.load(home.manifest)
    _require_attributes(used, manifest)
    sheet = None if contact_sheet is None else Path(contact_sheet)
    if sheet is not None:
        require_no_image(sheet, manifest, "The contact sheet")
        require_possible_sheet(sheet, n)
    with home.writing():
        logger.info("Choosing with %s.", used.name)
        images = (
            new_images(pool, manifest, used, weights)
            if pool
            else unlabelled_images(home, manifest, used)
        )
        suggested = suggest(used.model, images, manifest)
        chosen, n_nearest = _choose(used.model, images, suggested, n)
        reasons = [suggested.reason(*row) for row in zip(chosen, n_nearest, strict=True)]
        cells = {name: [of[image] for image in chosen] for name, of in suggested.cells.items()}
        table = label_table(used, manifest, images.ids[chosen], cells, reasons)
        path = home.next_labels()
        write_csv(table, path, "%.6g")
    if sheet is not None:
        write_contact_sheet(_pictures(images, chosen, cells, reasons), sheet)
        logger.info("Wrote %s.", sheet)
    _tell(path, len(chosen), len(table), _relabel(path, manifest, images, chosen))
    return table.head(len(chosen))


def _require_attributes(run: Run, manifest: Manifest) -> None:
    now, then = manifest.attribute_names, run.info.attributes
    if now != then:
        raise RunError(
            f"Run {run.name!r} answers {', '.join(then)}, but the images are now labelled for "
            f"{', '.join(now) or 'nothing'}. Fit again, or name another run with --run."
        )


def _choose(
    model: HeadModel, images: Unlabelled, suggested: Suggestions, n: int
) -> tuple[Rows, Rows]:
    blocks = [block for name in model.classes for block in model.head_for(name).columns]
    return choose_images(images.features, suggested.weights, n, tuple(dict.fromkeys(blocks)))


def _pictures(
    images: Unlabelled, chosen: Rows, cells: Columns, reasons: Sequence[str]
) -> Iterator[tuple[Image.Image | None, list[str]]]:
    answers = zip(*cells.values(), strict=True)
    for number, (image, answer, reason) in enumerate(
        zip(chosen, answers, reasons, strict=True), start=1
    ):
        classes = " ".join(" ".join(cell or ()) for cell in answer)
        lines = [f"{number}  {spell(images.ids[image], NAME_LENGTH)}", classes, reason]
        try:
            yield open_rgb(images.read(image)), lines
        except (OSError, ImageError) as error:
            yield None, [*lines, f"cannot be shown: {error}"]


def _relabel(path: Path, manifest: Manifest, images: Unlabelled, chosen: Rows) -> str:
    """The command that takes the corrected table."""
    options = ["--labels", str(path)]
    if path.parent != Path():
        options += ["--workspace", str(path.parent)]
    if manifest.group_column is not None:
        options += ["--group", manifest.group_column]
    if any("|" in name for truth in manifest.labels().values() for name in truth.classes):
        options += ["--label-separator", ""]
    if set(images.ids[chosen]) <= set(manifest.ids):
        return f"featurepipe fit {shlex.join(options)}"
    if manifest.all_images:
        options.append("--all-images")
    return (
        f"move the images into {manifest.root} so that their paths are right from there; "
        f"featurepipe extract {shlex.join(options)}; featurepipe fit"
    )


def _tell(path: Path, n_chosen: int, n_rows: int, relabel: str) -> None:
    logger.info(
        "Wrote %s: %s to label, then %d that have labels. Correct the suggested classes, empty "
        "those that you cannot tell, then: %s",
        path,
        counted(n_chosen, "image"),
        n_rows - n_chosen,
        relabel,
    )
