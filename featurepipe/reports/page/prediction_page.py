"""The page of `featurepipe predict`: images, answers, and bars of the most probable classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from featurepipe.reports.answer_lines import Answer, answer_line, by_attribute
from featurepipe.reports.page.rendering import render
from featurepipe.reports.page.thumbnails import Thumbnails

_SIDE_PX = 176
# In the line of the answer; the bars below have whole names.
_NAME_LENGTH = 60
_MOST_REFUSED = 100

# A page of both is less than 5 MB, which browsers open at once and mail still takes.
_PICTURE_BYTES = 2_400_000
_WORD_BYTES = 2_400_000


@dataclass(frozen=True)
class PageImage:
    """An image as the page shows it.

    Attributes
    ----------
    image_id : str
    answer : Answer
        Classes to show of each attribute; empty if there is no answer.
    refused : str
        Why there is no answer; otherwise empty.
    """

    image_id: str
    answer: Answer
    refused: str

    @property
    def is_unknown(self) -> bool:
        """Whether it is unknown for some attribute."""
        return any(best["unknown"] for best in self.answer)


def prediction_page(
    images: Sequence[PageImage],
    about: str,
    read: Callable[[str], bytes],
    *,
    picture_bytes: int = _PICTURE_BYTES,
    word_bytes: int = _WORD_BYTES,
) -> str:
    """The page of what is predicted of images.

    Parameters
    ----------
    images : sequence of PageImage
        In the order to show them. As many are shown as the bytes allow; the page says how many
        are not.
    about : str
        What predicted them, a sentence.
    read : callable
        The bytes of an image, by its id; raises OSError or FeaturepipeError if it is gone.
    picture_bytes, word_bytes : int
        For all pictures, and for all images without their pictures.

    Returns
    -------
    str
        HTML.
    """
    thumbnails = Thumbnails(read, picture_bytes, _SIDE_PX)
    answered = [image for image in images if not image.refused]
    refused = [image for image in images if image.refused]
    cards: list[Markup] = []
    n_bare = 0
    for image in answered:
        words = _card(image, None)
        word_bytes -= len(words.encode())
        if word_bytes < 0:
            break
        picture = thumbnails.of(image.image_id)
        n_bare += picture is None
        cards.append(_card(image, picture) if picture else words)
    return render(
        "predictions.html.j2",
        about=about,
        cards=cards,
        n_images=len(images),
        n_answered=len(answered),
        n_unknown=sum(image.is_unknown for image in answered),
        n_unknown_shown=sum(image.is_unknown for image in answered[: len(cards)]),
        n_bare=n_bare,
        refused=refused[:_MOST_REFUSED],
        n_refused=len(refused),
    )


def _card(image: PageImage, picture: str | None) -> Markup:
    attributes = [
        (answer_line(classes, _NAME_LENGTH), classes[0]["unknown"], classes)
        for classes in by_attribute(image.answer).values()
    ]
    return Markup(
        render("prediction_card.html.j2", image=image, picture=picture, attributes=attributes)
    )
