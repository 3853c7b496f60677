import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from featurepipe.reports.page.prediction_page import PageImage, prediction_page

ODD = "<script>alert(\"1\")</script> & 'x'"


def best(attribute, name, probability, *, given=False, unknown=False):
    return {
        "attribute": attribute,
        "class": name,
        "probability": probability,
        "given": given,
        "unknown": unknown,
    }


RED = PageImage(
    "new/red.jpg",
    [
        best("color", "red", 0.9514, given=True),
        best("color", "blue", 0.0486),
        best("tags", "warm", 0.8, given=True),
        best("tags", "dark", 0.71, given=True),
        best("tags", "big", 0.0004),
    ],
    "",
)
SHOE = PageImage(
    "new/shoe.jpg",
    [best("color", "black", 0.4, unknown=True), best("tags", "dark", 0.3)],
    "",
)
GONE = PageImage("new/gone.jpg", (), "no such file")


def read(image_id):
    """A picture of 400 x 100 px, of one colour for each image."""
    if "missing" in image_id:
        raise FileNotFoundError(image_id)
    file = io.BytesIO()
    Image.new("RGB", (400, 100), (len(image_id) % 250, 9, 9)).save(file, "PNG")
    return file.getvalue()


def cards_of(page):
    return page.split('<li class="card')[1:]


def bars_of(card):
    """Name, number, width and whether it is the answer, of each bar."""
    bars = re.findall(
        r'<li( class="[a-z ]*")?><bdi>(.*)</bdi> <b>(.*)</b> <i style="width:(.*)"></i>', card
    )
    return [(html.unescape(name), b, width, "given" in css) for css, name, b, width in bars]


def test_each_image_has_its_answers_bars_and_picture():
    page = prediction_page([RED, SHOE], "Run best.", read)
    red, shoe = cards_of(page)
    assert "<bdi>new/red.jpg</bdi>" in red and "<bdi>new/shoe.jpg</bdi>" in shoe
    assert re.findall("<h4.*</h4>", red) == [
        "<h4>color: red 95\u00a0%</h4>",
        "<h4>tags: warm 80\u00a0%, dark 71\u00a0%</h4>",
    ]
    assert bars_of(red) == [
        ("red", "95.1 %", "95.1%", True),
        ("blue", "4.9 %", "4.9%", False),
        ("warm", "80.0 %", "80.0%", True),
        ("dark", "71.0 %", "71.0%", True),
        ("big", "0.0 %", "0.0%", False),
    ]
    assert re.findall("<h4.*</h4>", shoe) == [
        '<h4 class="unknown">color: unknown (black 40\u00a0%)</h4>',
        "<h4>tags: none (dark 30\u00a0%)</h4>",
    ]
    assert shoe.startswith(' unknown">') and red.startswith('">')
    for card, image in ((red, RED), (shoe, SHOE)):
        (data,) = re.findall('<img src="data:image/jpeg;base64,(.*)" alt="">', card)
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.size == (176, 44)
        assert abs(np.asarray(picture)[20, 20, 0] - len(image.image_id)) < 4
    assert "Run best." in page
    assert "1 of 2 images have an answer to every attribute." in page
    assert "1 is unknown for at least one attribute." in page
    assert "Show only the 1 unknown" in page and "Without an answer" not in page


def test_images_without_an_answer_are_listed_with_their_reason():
    page = prediction_page([RED, GONE, PageImage(ODD, (), "<b>bad</b>")], "", read)
    assert len(cards_of(page)) == 1
    listed = page[page.index('<h2 id="refused">') :]
    assert "<bdi>new/gone.jpg</bdi>: no such file" in listed
    assert (
        f"<bdi>{html.escape(ODD).replace('&quot;', '&#34;').replace('&#x27;', '&#39;')}" in listed
    )
    assert "&lt;b&gt;bad" in listed
    assert '2 could not be read: <a href="#refused">' in page
    # Nothing to filter.
    assert "Show only" not in page


def test_of_very_many_without_an_answer_the_first_are_listed():
    page = prediction_page(
        [RED, *(PageImage(f"{n}.jpg", (), "bad") for n in range(1234))], "", read
    )
    assert "99.jpg" in page and "100.jpg" not in page
    assert "And 1,134 more" in page


@pytest.mark.parametrize("name", [ODD, "L" * 500, "שחור", "👗", "a\x1b[2J\u202e\n", "</style><b>"])
def test_names_are_text_whatever_they_hold(name):
    image = PageImage(name, [best(name, name, 0.5, given=True)], "")
    page = prediction_page([image], name, lambda _: read("x"))
    assert page.count("<script>") == 1 and page.count("</style>") == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", page)
    shown = name.replace("\x1b", r"\u001b").replace("\u202e", r"\u202e").replace("\n", r"\n")
    (card,) = cards_of(page)
    assert bars_of(card) == [(shown, "50.0 %", "50.0%", True)]
    assert shown in html.unescape(card[: card.index("</h3>")])


def test_the_page_needs_nothing_else():
    page = prediction_page([RED, SHOE, GONE], "", read)
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page and "@import" not in page


def test_pictures_and_words_keep_to_their_bytes():
    images = [PageImage(f"{n:04}.jpg", RED.answer, "") for n in range(1000)]
    page = prediction_page(images, "", read, picture_bytes=50_000, word_bytes=200_000)
    n_cards, n_pictures = len(cards_of(page)), page.count("<img")
    assert 100 < n_cards < 400 and 10 < n_pictures < n_cards
    assert f"first {n_cards} of 1,000 images" in page
    assert f"{n_cards - n_pictures} images are shown without their picture" in page
    assert len(page) - len(prediction_page([], "", read)) < 251_000
    # The first ones have their pictures.
    assert all("<img" in card for card in cards_of(page)[:n_pictures])


def test_an_image_that_is_gone_meanwhile_leaves_its_words():
    page = prediction_page([PageImage("missing.jpg", RED.answer, "")], "", read)
    (card,) = cards_of(page)
    assert "<img" not in card and "No picture" in card and len(bars_of(card)) == 5
    assert "1 image is shown without its picture" in page
