"""The card of an exported model: what it is, how good, and how to run it, in Markdown.

The header is that of Hugging Face's model cards, with the figures as a ``model-index``
(https://huggingface.co/docs/hub/model-cards).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from featurepipe.reports.terminal_text import figure, percent, percent_with_interval
from featurepipe.words import visible

_METRICS = {
    "accuracy": "Accuracy",
    "unseen_accuracy": "Accuracy on combinations without training images",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "map": "Mean average precision",
    "log_loss": "Log loss",
    "ece": "Expected calibration error",
    "answered": "Share that gets an answer",
}
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


@dataclass(frozen=True)
class CardAttribute:
    """An attribute as the card shows it.

    Attributes
    ----------
    classes : mapping of str to int
        Training images of each class.
    exclusive : bool
        Whether an image has exactly one class.
    log_loss_before, log_loss_after : float
        On training images that were predicted out of fold, before and after calibration.
    """

    classes: Mapping[str, int]
    exclusive: bool
    log_loss_before: float | None
    log_loss_after: float | None


@dataclass(frozen=True)
class ModelCard:
    """What the card of a model says.

    Attributes
    ----------
    run, digest, version : str
        Name and digest of the run, and the version of featurepipe that exports it.
    model_file, program_file, golden_file : str
        Names of the model, of the program that runs it and of its golden images.
    program : str
        The program.
    runtime_package : str
        What the program needs, besides Pillow and NumPy.
    attributes : mapping of str to CardAttribute
    figures : sequence of mapping
        For each attribute and ``"all"``; see `featurepipe.reports.figures.evaluate`.
    parts : mapping of str to int
        Images of each part of the split: ``"train"``, ``"test"`` and ``"unseen"``.
    data, split : str
        Names of the source of the images, and of the split.
    test_size : float
    seed : int
    held_out : sequence of str
        Combinations that training never saw.
    grouped : bool
        Whether copies, or images of one group, are on one side of the split.
    calibration, head, task : str
    coverage : float
    networks : sequence of (str, str, str)
        Name, view and weights of what computes the features.
    licences : mapping of str to str
        Of the weights, by backbone.
    versions : mapping of str to str
        Of the libraries that fitted the run.
    """

    run: str
    digest: str
    version: str
    model_file: str
    program_file: str
    golden_file: str
    program: str
    runtime_package: str
    attributes: Mapping[str, CardAttribute]
    figures: Sequence[Mapping[str, Any]]
    parts: Mapping[str, int]
    data: str
    split: str
    test_size: float
    seed: int
    held_out: Sequence[str]
    grouped: bool
    calibration: str
    head: str
    task: str
    coverage: float
    networks: Sequence[tuple[str, str, str]]
    licences: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """The figures to show: those of all attributes together only if there are several."""
        return [row for row in self.figures if row["attribute"] in self.attributes or self.several]

    @property
    def several(self) -> bool:
        """Whether there are several attributes."""
        return len(self.attributes) > 1

    @property
    def rarest(self) -> dict[str, tuple[str, int]]:
        """For each attribute, the class with the fewest training images, and how many.

        Without attributes whose classes all have the same number.
        """
        return {
            name: min(attribute.classes.items(), key=lambda one: one[1])
            for name, attribute in self.attributes.items()
            if len(set(attribute.classes.values())) > 1
        }

    @property
    def resampled(self) -> str:
        """What was resampled for the confidence intervals."""
        return str(self.figures[0]["interval"])


def card_text(card: ModelCard) -> str:
    """The card as Markdown with a YAML header; names are escaped.

    Parameters
    ----------
    card : ModelCard
    """
    template = _environment().get_template("model_card.md.j2")
    return template.render(card=card, header=_header(card))


def _header(card: ModelCard) -> list[str]:
    """The lines of the header; JSON is YAML, whatever the names hold."""
    facts = {
        "library_name": "onnx" if card.runtime_package == "onnxruntime" else "openvino",
        "pipeline_tag": "image-classification",
        "license": "other",
        "license_name": "see-licences-below",
        "tags": ["featurepipe", card.runtime_package, "image-classification"],
        "model-index": [{"name": card.run, "results": _results(card)}],
    }
    # Lines that go on are indented, as YAML wants.
    return [
        f"{name}: {json.dumps(value, indent=2)}".replace("\n", "\n  ")
        for name, value in facts.items()
    ]


def _results(card: ModelCard) -> list[dict[str, Any]]:
    return [
        {
            "task": {"type": "image-classification", "name": f"Answer to {row['attribute']}"},
            "dataset": {"type": "imagefolder", "name": card.data, "split": "test"},
            "metrics": [
                {"type": name, "name": text, "value": row[name]}
                | ({"args": {"confidence_interval_95": ends}} if ends else {})
                for name, text in _METRICS.items()
                if name in row
                for ends in [
                    [row[f"{name}{end}"] for end in ("_low", "_high") if name + end in row]
                ]
            ],
        }
        for row in card.rows
    ]


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return ""
    return percent_with_interval(row[name], row.get(f"{name}_low"), row.get(f"{name}_high"))


def escaped(text: str) -> str:
    r"""A name as Markdown shows it, on one line.

    Examples
    --------
    >>> print(escaped("a_b|<c>"))
    a\_b\|\<c\>
    """
    return _MARKUP.sub(r"\\\1", visible(text))


def _in_code(text: str) -> str:
    """A name within backticks, which cannot be escaped there."""
    return visible(text).replace("`", "'")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("featurepipe.reports.page"),
        # Markdown: names are escaped by a filter of their own.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"name": escaped, "percent": percent, "figure": figure, "code": _in_code}
    environment.globals["interval"] = _with_interval
    return environment
