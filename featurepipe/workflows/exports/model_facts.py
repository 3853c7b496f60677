"""What is said of an exported run: in its model, on its card and on its page."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from featurepipe import __version__
from featurepipe.features.backbones import BACKBONES
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.predictions import COVERAGE
from featurepipe.reports.figures import MEASURED, evaluate
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.workflows.exports.exported_model import AttributeFacts


@dataclass(frozen=True)
class ModelFacts:
    """What is said of an exported run.

    Attributes
    ----------
    run, digest, task, head : str
    attributes : mapping of str to AttributeFacts
    sizes : tuple of (int, int)
        Heights and widths to which images are resized.
    resize : tuple of str
        How; see `featurepipe.features.framing.Framing.method`.
    figures : tuple of dict
        For each attribute and ``"all"``: figures on test images with their 95 % intervals; those
        that do not apply are left out.
    licences : mapping of str to str
        Of the weights, by backbone.
    """

    run: str
    digest: str
    task: str
    head: str
    attributes: Mapping[str, AttributeFacts]
    sizes: tuple[tuple[int, int], ...]
    resize: tuple[str, ...]
    figures: tuple[dict[str, Any], ...]
    licences: Mapping[str, str]

    @classmethod
    def of(cls, run: Run, embedders: Sequence[Any]) -> "ModelFacts":
        """The facts of a run.

        Parameters
        ----------
        run : Run
        embedders : sequence of Embedder
            What computes its features.
        """
        model, info = run.model, run.info
        attributes = {
            name: AttributeFacts(
                classes=classes,
                exclusive=model.exclusive[name],
                thresholds=tuple(model.thresholds[name].tolist()),
            )
            for name, classes in model.classes.items()
        }
        framings = [one.framing for one in embedders]
        return cls(
            run=run.name,
            digest=info.digest,
            task=info.task,
            head=info.head,
            attributes=attributes,
            sizes=tuple(sorted({framing.size for framing in framings})),
            resize=tuple(sorted({framing.method for framing in framings})),
            figures=_figures(run),
            licences=_licences(run, embedders),
        )

    def metadata(self) -> dict[str, str]:
        """The facts as the metadata of a model: texts and JSON."""
        return {
            "featurepipe": __version__,
            "run": self.run,
            "run_digest": self.digest,
            "task": self.task,
            "head": self.head,
            "attributes": _as_json({k: v.model_dump() for k, v in self.attributes.items()}),
            "input": _as_json(
                {
                    "pixels": "uint8 RGB, (n_images, height, width, 3), of any height and width",
                    "resized_to": self.sizes,
                    "resize": self.resize,
                }
            ),
            "coverage": _as_json(COVERAGE),
            "figures": _as_json(self.figures),
            "licences": _as_json(self.licences),
            "versions": _as_json({name: version(name) for name in ("onnx", "numpy")}),
        }


def _figures(run: Run) -> tuple[dict[str, Any], ...]:
    names = [f"{name}{end}" for name in MEASURED for end in ("", "_low", "_high")]
    return tuple(
        {name: row[name] for name in ("attribute", "n_test", "n_unseen", "interval")}
        | {name: row[name] for name in names if math.isfinite(row[name])}
        for row in evaluate(run.predictions)
    )


def _licences(run: Run, embedders: Sequence[Any]) -> dict[str, str]:
    """By backbone, the licence of its weights; that of a file is not known."""
    if isinstance(run.info, HeadRunInfo):
        networks = [one.network for one in embedders if isinstance(one, Recipe)]
        made = [
            (one.backbone.name, str(one.weights.kind), one.backbone.licence) for one in networks
        ]
    elif run.info.begins_from is not None:
        start = run.info.begins_from
        kind = str(start.weights.get("kind"))
        made = [(start.backbone, kind, BACKBONES[start.backbone].licence)]
    else:
        made = []
    return {
        name: "unknown: weights from a file" if kind == "file" else licence
        for name, kind, licence in made
        if kind != "random"
    }


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
