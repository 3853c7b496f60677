"""A run that is opened once and asked about images in every form."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurepipe
from featurepipe.errors import FeaturepipeError, ImageError, UsageError
from featurepipe.workflows.answering import answer_json
from pictures import draw_data_set


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictor")
    draw_data_set(folder / "images", n_each=6)
    featurepipe.extract(folder / "images", backbone="hsv_histogram", workspace=folder)
    featurepipe.fit(head="knn", workspace=folder)
    return folder


@pytest.fixture(scope="module")
def files(place):
    return sorted((place / "images").glob("*/*.png"))


@pytest.fixture(scope="module")
def predictor(place):
    return featurepipe.Predictor(workspace=place)


def test_paths_bytes_and_pixels_get_the_same_answer(predictor, files):
    file = files[0]
    pixels = np.asarray(Image.open(file).convert("RGB"))
    images = [file, str(file), file.read_bytes(), pixels]
    by_path, by_text, by_bytes, by_pixels = predictor.predict(images)
    assert by_path["image"] == by_text["image"] == str(file)
    assert (by_bytes["image"], by_pixels["image"]) == (2, 3)
    assert by_path["attributes"] == by_bytes["attributes"] == by_pixels["attributes"]
    (best,) = by_path["attributes"]["label"]
    assert best["class"] == file.parent.name


def test_it_answers_as_the_function_does(predictor, files, place):
    table = featurepipe.predict(files[:5], workspace=place, top=2)
    answers = predictor.predict(files[:5], top=2)
    for answer in answers:
        rows = table[table["image"] == answer["image"]]
        best = answer["attributes"]["label"]
        assert [one["class"] for one in best] == rows["class"].tolist()
        assert [one["probability"] for one in best] == rows["probability"].tolist()
        assert [one["unknown"] for one in best] == rows["unknown"].tolist()


def test_images_that_cannot_be_read_have_a_reason_and_the_others_an_answer(predictor, files):
    missing, broken, good = predictor.predict(["absent.png", b"no image", files[0]])
    assert missing == {
        "image": "absent.png",
        "refused": "cannot be read: No such file or directory",
    }
    assert set(broken) == {"image", "refused"}
    assert broken["image"] == 1
    assert set(good["attributes"]) == {"label"}
    (alone,) = predictor.predict([b"no image"])
    assert "refused" in alone
    assert predictor.predict([]) == []


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\) and type uint8"),
        (np.zeros((4, 4, 3)), r"shape \(4, 4, 3\) and type float64"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (3, "of type int"),
    ],
)
def test_other_things_are_refused(predictor, image, said):
    with pytest.raises(UsageError, match=f"Image 0 is .*{said}.*Give paths, bytes, or uint8"):
        predictor.predict([image])
    with pytest.raises(UsageError, match="--top is 0"):
        predictor.predict([], top=0)


def test_the_same_image_twice_has_two_answers(predictor, files):
    first, second = predictor.predict([files[0], files[0]])
    assert first == second


def test_threads_get_the_answers_to_their_own_images(predictor, files):
    alone = [predictor.predict([file]) for file in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda file: predictor.predict([file]), files * 3))
    assert together == alone * 3


def test_decoded_images_get_the_answers_of_predict(predictor, files):
    decoded = [predictor.decode(file.read_bytes()) for file in files[:5]]
    answers = predictor.answer_decoded(decoded, top=2, coverage=0.9, coverage_per="attribute")
    expected = predictor.predict(files[:5], top=2, coverage=0.9, coverage_per="attribute")
    for answer, one in zip(answers, expected, strict=True):
        assert answer_json(one["image"], answer) == with_near_probabilities(one)
    (alone,) = predictor.answer_decoded(decoded[:1], top=1, coverage=0.9, coverage_per="image")
    assert [best["class"] for best in alone] == [files[0].parent.name]
    with pytest.raises(ImageError, match="not an image"):
        predictor.decode(b"no image")


def with_near_probabilities(answer):
    # Sums in another order differ in the last digits.
    return answer | {
        "attributes": {
            name: [
                best | {"probability": pytest.approx(best["probability"], rel=1e-5)}
                for best in named
            ]
            for name, named in answer["attributes"].items()
        }
    }


def test_several_decoded_images_are_computed_together_by_openvino_in_twos(
    place, files, monkeypatch
):
    opened = []
    from featurepipe.features.extraction import recipe

    really = recipe.open_engine

    def open_engine(*arguments, **options):
        opened.append(options["batch_size"])
        return really(*arguments, **options)

    monkeypatch.setattr(recipe, "open_engine", open_engine)
    predictor = featurepipe.Predictor(workspace=place)
    decoded = [predictor.decode(file.read_bytes()) for file in files[:3]]
    options = {"top": 1, "coverage": 0.9, "coverage_per": "image"}
    predictor.answer_decoded(decoded[:1], **options)
    assert opened == [1]
    predictor.answer_decoded(decoded, **options)
    assert opened == [1, 16]
    monkeypatch.setattr("featurepipe.features.engines.descriptors.HsvHistogram.name", "openvino")
    predictor.answer_decoded(decoded, **options)
    assert opened == [1, 16, 2]


def test_the_engine_is_opened_once(place, files, monkeypatch):
    opened = []
    from featurepipe.features.extraction import recipe

    really = recipe.open_engine
    monkeypatch.setattr(
        recipe, "open_engine", lambda *a, **k: opened.append(k["batch_size"]) or really(*a, **k)
    )
    predictor = featurepipe.Predictor(workspace=place)
    assert opened == []
    for _ in range(3):
        predictor.predict(files[:2])
    assert opened == [1]
    predictor.predict(files)
    predictor.predict(files)
    assert opened == [1, None]


def test_a_run_and_a_batch_size_are_checked_at_once(place):
    with pytest.raises(FeaturepipeError, match="nosuch"):
        featurepipe.Predictor("nosuch", workspace=place)
    with pytest.raises(UsageError, match="batch size is 0"):
        featurepipe.Predictor(workspace=place, batch_size=0)


def test_paths_are_taken_as_they_are(predictor, place, monkeypatch):
    monkeypatch.chdir(place / "images")
    inside = sorted(Path().glob("*/*.png"))[0]
    (answer,) = predictor.predict([inside])
    assert answer["image"] == str(inside)
    assert "attributes" in answer
