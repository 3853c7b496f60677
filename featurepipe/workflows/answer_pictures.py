"""Pictures of what is predicted: annotated copies, a contact sheet and a page."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from featurepipe.errors import ImageError, UsageError
from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.manifest import GivenImage
from featurepipe.output_folders import is_marked, require_possible_file
from featurepipe.reports.annotation import annotate_image
from featurepipe.reports.answer_lines import Answer, answer_lines
from featurepipe.reports.contact_sheet import (
    NAME_LENGTH,
    require_possible_sheet,
    write_contact_sheet,
)
from featurepipe.reports.lettering import spell
from featurepipe.reports.page.prediction_page import PageImage, prediction_page
from featurepipe.reports.page.rendering import write_page
from featurepipe.sources import LocalFolder
from featurepipe.workflows.written_folders import (
    manifest_if_known,
    prepare_pictures,
    require_no_image,
)
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

_N_BARS = 5

# A file name has at most 255 bytes on most systems, and an unfinished file a longer name.
_MOST_STEM_BYTES = 150


@dataclass(frozen=True)
class AnswerPictures:
    """What is to be drawn of predictions; each is optional.

    Attributes
    ----------
    annotate : Path or None
        Folder for annotated copies of the images.
    contact_sheet : Path or None
    html : Path or None
    """

    annotate: Path | None
    contact_sheet: Path | None
    html: Path | None

    def require_possible(
        self, images: Sequence[Path | str], given: Sequence[GivenImage], workspace: Workspace
    ) -> None:
        """Stop if a file cannot be written, or would be an image to predict or to train on.

        Parameters
        ----------
        images : sequence of Path or str
            Files, folders and patterns, as they were given.
        given : sequence of GivenImage
            What these lead to.
        workspace : Workspace

        Raises
        ------
        UsageError
        NotWritableError
            If permission is denied.
        """
        if self.contact_sheet is not None:
            require_possible_sheet(self.contact_sheet, len(given), self.annotate)
            manifest = manifest_if_known(workspace)
            require_no_image(self.contact_sheet, manifest, "The contact sheet")
            _require_outside_folders(self.contact_sheet, images)
        if self.html is not None:
            require_possible_file(self.html, (".html", ".htm"), "a page", self.annotate)
        for file in (self.contact_sheet, self.html):
            if file is not None:
                _require_other_file(file, given)

    def prepare(self, workspace: Workspace) -> None:
        """Create the folder for annotated copies.

        Parameters
        ----------
        workspace : Workspace

        Raises
        ------
        UsageError
            If it belongs to the source, or holds images that featurepipe did not write.
        NotWritableError
            If nothing can be written there.
        """
        if self.annotate is not None:
            prepare_pictures(self.annotate, workspace, "--annotate")

    @property
    def n_best(self) -> int:
        """Number of classes that are shown of each attribute."""
        return 1 if self.html is None else _N_BARS

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be drawn."""
        return self == AnswerPictures(None, None, None)

    def write(
        self,
        given: Sequence[GivenImage],
        answers: Mapping[str, Answer],
        refused: Mapping[str, str],
        about: str,
    ) -> None:
        """Draw what was asked for.

        Parameters
        ----------
        given : sequence of GivenImage
        answers : mapping of str to Answer
            By image: the `n_best` classes of each attribute, and all labels that are given.
        refused : mapping of str to str
            Why there is no answer, by the ids of all other images.
        about : str
            What predicted them, a sentence.
        """
        if self.annotate is not None:
            _annotate(self.annotate, given, answers)
        if self.contact_sheet is not None:
            write_contact_sheet(_cells(given, answers, refused), self.contact_sheet)
            logger.info("Wrote %s.", self.contact_sheet)
        if self.html is not None:
            images = [
                PageImage(image.image_id, answers.get(image.image_id, ()), reason)
                for image in given
                for reason in [refused.get(image.image_id, "")]
            ]
            page = prediction_page(images, about, LocalFolder(Path()).read)
            write_page(page, self.html)
            logger.info("Wrote %s.", self.html)


def copy_name(position: int, image: GivenImage) -> str:
    """Name for a picture of an image, without its suffix.

    Parameters
    ----------
    position : int
        From 1, because images of one name may come from several folders.
    image : GivenImage
    """
    stem = os.fsencode(image.path.stem)[:_MOST_STEM_BYTES].decode(errors="ignore")
    return f"{position:04}-{stem}"


def _annotate(folder: Path, given: Sequence[GivenImage], answers: Mapping[str, Answer]) -> None:
    for position, image in enumerate(given, start=1):
        if image.image_id not in answers:
            continue
        picture, lines = _open(image), answer_lines(answers[image.image_id], NAME_LENGTH)
        if isinstance(picture, str):
            logger.warning("No annotated copy of %s: %s.", image.image_id, picture)
        else:
            annotate_image(picture, lines, folder / f"{copy_name(position, image)}.jpg")


def _cells(
    given: Sequence[GivenImage], answers: Mapping[str, Answer], refused: Mapping[str, str]
) -> Iterator[tuple[Image.Image | None, list[str]]]:
    for image in given:
        name = spell(image.image_id, NAME_LENGTH)
        if image.image_id in refused:
            yield None, [name, f"no answer: {refused[image.image_id]}"]
            continue
        picture = _open(image)
        lines = [name, *answer_lines(answers[image.image_id], NAME_LENGTH)]
        if isinstance(picture, str):
            yield None, [*lines, f"cannot be shown: {picture}"]
        else:
            yield picture, lines


def _open(image: GivenImage) -> Image.Image | str:
    """The picture, or why it can no longer be shown."""
    try:
        return open_rgb(LocalFolder(Path()).read(image.image_id))
    except (OSError, ImageError) as error:
        return getattr(error, "strerror", None) or str(error)


def _require_outside_folders(sheet: Path, images: Sequence[Path | str]) -> None:
    if is_marked(sheet.parent):
        return
    place = Path(os.path.realpath(sheet))
    for folder in images:
        # Unlike `Path.is_dir`, it takes names that no file can have.
        if os.path.isdir(folder) and place.is_relative_to(os.path.realpath(folder)):  # noqa: PTH112
            raise UsageError(
                f"The contact sheet {sheet} would be one of the images of {folder}. Write it to "
                "another folder."
            )


def _require_other_file(file: Path, given: Sequence[GivenImage]) -> None:
    if os.path.realpath(file) in {os.path.realpath(i.path) for i in given if not i.reason}:
        raise UsageError(f"{file} is one of the images to predict. Name another file.")
