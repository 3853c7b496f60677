import io

from PIL import Image

from featurepipe.reports.page.thumbnails import Thumbnails


def read(image_id):
    if image_id == "gone.jpg":
        raise FileNotFoundError(image_id)
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(file, "JPEG")
    return file.getvalue()


def test_pictures_that_are_shown_again_count_again():
    size = len(Thumbnails(read, 10**6).of("a.jpg"))
    thumbnails = Thumbnails(read, 2 * size)
    assert thumbnails.of("a.jpg") == thumbnails.of("a.jpg") is not None
    assert thumbnails.of("a.jpg") is None
    assert thumbnails.of("b.jpg") is None


def test_an_image_that_is_gone_has_no_picture():
    assert Thumbnails(read, 10**6).of("gone.jpg") is None
