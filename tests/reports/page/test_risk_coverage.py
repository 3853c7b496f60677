import numpy as np
import pytest

from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.risk_coverage import risk_chart, risk_curve
from page_predictions import answered


def judged(p_values):
    p_values = {"kind": np.array(p_values)}
    return AttributePredictions.of(
        answered(
            [0, 0, 0, 0], [0, 0, 1, 1], ["a", "b"], p_values=p_values, image_p_values=p_values
        ),
        "kind",
    )


def test_the_strangest_images_are_withheld_first():
    curve = risk_curve(judged([0.9, 0.5, 0.2, 0.01]))
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert curve.default == (0.75, pytest.approx(1 / 3))


def test_images_with_one_p_value_are_withheld_together():
    curve = risk_curve(judged([0.9, 0.2, 0.2, 0.9]))
    assert curve.coverage.tolist() == [0.5, 1]
    assert curve.risk.tolist() == [0.5, 0.5]


def test_without_p_values_there_is_no_curve():
    assert risk_curve(judged([1, 1, 1, 1])) is None


def test_the_caption_says_what_the_default_coverage_costs():
    caption = risk_chart(risk_curve(judged([0.9, 0.5, 0.2, 0.01]))).caption
    assert "75.0 % of the images are answered and 33.3 % of these answers are wrong" in caption
    nothing = risk_chart(risk_curve(judged([0.04, 0.03, 0.02, 0.01]))).caption
    assert "No image is answered at the default coverage." in nothing
