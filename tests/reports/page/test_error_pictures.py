import numpy as np

from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.error_pictures import (
    pictures_of,
    surest_errors,
    true_names,
    unsure_answers,
)
from featurepipe.reports.page.thumbnails import Thumbnails
from page_predictions import answered, labels_of, predictions_of


def gone(image_id):
    raise OSError(image_id)


def judged():
    return AttributePredictions.of(
        answered(
            [0, 0, 0, 1, 1], [1, 1, 0, 1, 0], ["a", "b"], confidence=[0.7, 0.9, 0.6, 0.55, 0.8]
        ),
        "kind",
    )


def test_the_surest_errors_and_the_least_sure_right_answers():
    assert surest_errors(judged(), 2).tolist() == [1, 4]
    assert unsure_answers(judged(), 5).tolist() == [3, 2]


def test_a_picture_says_truth_prediction_and_confidence_even_if_the_image_is_gone():
    (picture,) = pictures_of(judged(), np.array([1]), "kind", Thumbnails(gone, 10**6))
    assert picture.image_id == "1.jpg"
    assert picture.uri is None
    assert dict(picture.lines) == {"Truth": "a", "Prediction": "b", "Confidence": "90.0 %"}


def test_sets_of_labels_and_missing_ones_in_words():
    labels = labels_of("tags", ["new", "old"], [[1, 1], [0, 0], [0, 0]], exclusive=False,
                       labelled=[True, True, False])  # fmt: skip
    predictions = predictions_of([labels], [np.zeros((3, 2))])
    assert true_names(predictions, "tags") == ["new, old", "no label", "unknown"]
