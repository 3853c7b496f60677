"""The card of a model: a header that others read, and Markdown that no name can break."""

import re
from dataclasses import replace

import pytest
import yaml

from featurepipe.reports.model_card import CardAttribute, ModelCard, card_text

ODD = "a|b](http://x) <script>`*_\u202e: \"q\" 'r'\n---"


def figures(attribute, **more):
    ends = {"accuracy_low": 0.85, "accuracy_high": 0.95}
    row = {"attribute": attribute, "n_test": 50, "n_unseen": 0, "interval": "images"}
    return row | {"accuracy": 0.9, **ends, "ece": 0.02, "log_loss": 0.3} | more


def card(**changes):
    made = ModelCard(
        run="auto", digest="0123", version="0.1.0", model_file="model.onnx",
        program_file="model_predict.py", golden_file="model.golden.npz", program="pass\n",
        runtime_package="onnxruntime",
        attributes={"kind": CardAttribute({"cat": 20, "dog": 7}, True, 0.5, 0.4)},
        figures=[figures("kind"), figures("all")], parts={"train": 27, "test": 50, "unseen": 0},
        data="pets", split="test20-seed0", test_size=0.2, seed=0, held_out=(), grouped=False,
        calibration="auto", head="logistic", task="per-attribute", coverage=0.95,
        networks=[("xception", "rgb", "imagenet")], licences={"xception": "MIT"},
        versions={"numpy": "2"},
    )  # fmt: skip
    return replace(made, **changes)


def header_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_header_has_each_figure_once():
    (model,) = header_of(card_text(card()))["model-index"]

    # With one attribute, those of all attributes are the same.
    (result,) = model["results"]
    assert result["dataset"] == {"type": "imagefolder", "name": "pets", "split": "test"}
    metrics = {one["type"]: one for one in result["metrics"]}
    assert set(metrics) == {"accuracy", "ece", "log_loss"}
    assert metrics["accuracy"]["value"] == 0.9
    assert metrics["accuracy"]["args"] == {"confidence_interval_95": [0.85, 0.95]}
    assert "args" not in metrics["ece"]


def test_the_rarest_class_is_named_where_classes_differ():
    text = card_text(card())
    even = card(attributes={"kind": CardAttribute({"cat": 7, "dog": 7}, True, None, None)})

    assert "Much of *dog* (kind): of its classes it has the fewest training images, 7." in text
    assert "Much of" not in card_text(even)
    assert "| kind | one class | cat (20), dog (7) |" in text


def test_licences_are_those_of_the_weights():
    text = card_text(
        card(networks=[("xception", "rgb", "imagenet"), ("resnet50", "grey", "random0")])
    )

    assert "| xception | rgb | imagenet | MIT |" in text
    assert "| resnet50 | grey | random0 | none: random weights |" in text


def test_unseen_combinations_are_told():
    several = {name: CardAttribute({"a": 3, "b": 4}, True, 0.1, 0.1) for name in ("kind", "color")}
    unseen = {
        "n_unseen": 9, "unseen_accuracy": 0.5, "unseen_accuracy_low": 0.2,
        "unseen_accuracy_high": 0.8, "unseen_harmonic_mean": 0.643,
    }  # fmt: skip
    rows = [figures(name, **unseen) for name in ("kind", "color", "all")]
    parts = {"train": 7, "test": 50, "unseen": 9}

    text = card_text(card(attributes=several, figures=rows, parts=parts, held_out=["red_cat"]))
    without = card_text(card(attributes=several, figures=[figures("kind"), figures("color")]))

    assert "Training saw no image of red\\_cat. On these 9 images:" in text
    assert "| all | 90.0 % (85.0–95.0) | 50.0 % (20.0–80.0) | 64.3 % |" in text
    assert "No combination of classes was held out." in without


@pytest.mark.parametrize("field", ["run", "data", "model_file", "golden_file", "program_file"])
def test_names_do_not_break_the_card(field):
    text = card_text(card(**{field: ODD}))

    _, header, body = text.split("---\n", 2)
    assert "\u202e" not in body
    # What is in backticks is no markup.
    assert "<script>" not in re.sub("`[^`\n]*`", "", body)
    assert [line for line in body.splitlines() if line.startswith("---")] == []
    if field in ("run", "data"):
        (model,) = yaml.safe_load(header)["model-index"]
        assert ODD in (model["name"], model["results"][0]["dataset"]["name"])


def test_names_of_classes_stay_in_their_cell():
    text = card_text(card(attributes={ODD: CardAttribute({ODD: 3, "b": 5}, True, 0.1, 0.1)}))

    (row,) = [line for line in text.splitlines() if "one class" in line]
    assert row.replace("\\|", "").count("|") == 4
    assert "\\<script\\>" in row
