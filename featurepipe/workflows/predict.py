"""predict(): images -> classes, with the best run or a named one."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.errors import ExtractionError, UsageError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.extraction.embedding import Embedder, embed_images
from featurepipe.features.extraction.recipe import Recipe, repeat_recipe
from featurepipe.features.store import StoreKey
from featurepipe.manifest import find_images
from featurepipe.metrics import auroc
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.predictions import COVERAGE
from featurepipe.reports.annotation import annotate_image
from featurepipe.runs.choosing import find_run
from featurepipe.runs.run_folder import Run
from featurepipe.sources import LocalFolder
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

_SMALL_BATCH = 16

COLUMNS = [
    "image",
    "attribute",
    "rank",
    "class",
    "probability",
    "given",
    "unknown",
    "refused",
]


def predict(
    images: Sequence[Path | str],
    *,
    workspace: Path | str = ".",
    run: str | None = None,
    top: int = 1,
    coverage: float = COVERAGE,
    foreign: bool = False,
    weights: Sequence[str] = (),
    annotate: Path | str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Predict the attributes of images.

    Parameters
    ----------
    images : sequence of Path or str
        Files, folders and patterns.
    workspace : Path or str
    run : str, optional
        Default: the run with the best `selection_accuracy` over all attributes,
        the cheaper at a tie; never chosen by test figures.
    top : int
        Classes to name for each attribute; of a set of labels all that are given.
    coverage : float
        Share of images like those trained on that shall have an answer, in (0, 1].
    foreign : bool
        The images show nothing that the run knows: say how many are marked unknown,
        and how well they are told from test images.
    weights : sequence of str
        Where the run's weights are now, if they have moved: a path, or ``backbone=path``
        each if the run reads several backbones.
    annotate : Path or str, optional
        Folder for copies of the images with their classes written on.
    batch_size : int, optional
        Images embedded at once; default: what suits the engine and the memory.
    seed : int
        Taken for uniformity; nothing here is random.

    Returns
    -------
    pandas.DataFrame
        Rows in the images' order: ``image, attribute, rank`` (from 1), ``class,
        probability, given`` (whether it is the answer, or one of a set), ``unknown``
        (whether there is no answer, since the image is unlike those trained on or
        the head in doubt), ``refused`` (why an image cannot be read, else empty).

    Raises
    ------
    StoreMismatchError
        If the features would not be those that the run was trained on.
    FeaturepipeError
        If anything else given cannot be used; see `featurepipe.errors`.
    """
    found = find_images(images)
    place = Workspace(workspace)
    chosen = find_run(place, run)
    logger.info("Predicting with %s.", chosen.info["run"])
    features, refused = _embed(chosen, [path for _, path in found], weights, batch_size)
    scores = chosen.model.predict(features)
    p_values = chosen.model.p_values(features, scores)
    if foreign:
        _tell_of_foreign(chosen, p_values, coverage)
    answers = iter(_best_classes(chosen.model, scores, p_values, top, coverage))
    rows: list[dict[str, object]] = []
    for position, (image_id, path) in enumerate(found):
        if position in refused:
            rows.append({"image": image_id, "refused": refused[position]})
            continue
        answer = next(answers)
        rows += [{"image": image_id, **best, "refused": ""} for best in answer]
        if annotate is not None:
            # Numbered, since images of one name may come from several folders.
            copy = Path(annotate) / f"{position + 1:04}-{path.stem}.jpg"
            annotate_image(path, [_in_words(best) for best in answer], copy)
    return pd.DataFrame(rows, columns=COLUMNS)


def _embed(
    run: Run, paths: Sequence[Path], weights: Sequence[str], batch_size: int | None
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Features of the readable images, and why the others (by position) are none."""
    if len(paths) < (batch_size or _SMALL_BATCH):
        # The engine pads a batch to its full size.
        batch_size = len(paths)
    ids = [str(path) for path in paths]
    embedders = _embedders(run, weights)
    features, refused = embed_images(LocalFolder(Path()), ids, embedders, batch_size=batch_size)
    if not len(features):
        first = next(iter(refused.items()))
        raise ExtractionError(
            f"None of the {len(paths)} images can be read ({paths[first[0]]}: {first[1]}). "
            "Expected JPEG, PNG, WebP, BMP, GIF or TIFF files; look at the first of them."
        )
    return features, refused


def _embedders(run: Run, weights: Sequence[str]) -> Sequence[Embedder]:
    if run.network is None:
        return _recipes(run, weights)
    if weights:
        raise UsageError(
            f"Run {run.info['run']!r} is a trained network and keeps its own weights. Leave "
            "--weights out."
        )
    return [run.network]


def _recipes(run: Run, weights: Sequence[str]) -> list[Recipe]:
    """What made the features that the run reads, with weights where they are now."""
    blocks = run.info["blocks"]
    backbones = [block["recipe"]["backbone"] for block in blocks]
    moved = {}
    for given in weights:
        backbone, parts, path = given.rpartition("=")
        if not parts and len(set(backbones)) > 1:
            raise UsageError(
                f"--weights {given!r} does not say which backbone's weights these are, and the run "
                f"reads {', '.join(dict.fromkeys(backbones))}. Expected BACKBONE=PATH."
            )
        moved[find_backbone(backbone).name if parts else backbones[0]] = path
    return [
        repeat_recipe(
            StoreKey.from_dict(block["recipe"], f"Run {run.info['run']!r}"),
            moved.get(block["recipe"]["backbone"], block["weights_source"]),
        )
        for block in blocks
    ]


def _best_classes(
    model: HeadModel,
    scores: Mapping[str, NDArray[np.float64]],
    p_values: Mapping[str, NDArray[np.float64]],
    top: int,
    coverage: float,
) -> list[list[dict[str, object]]]:
    """For each image the `top` classes of each attribute, most probable first."""
    answers: list[list[dict[str, object]]] = [[] for _ in next(iter(scores.values()))]
    for attribute, (classes, probabilities) in model.in_words(scores).items():
        given = model.given(attribute, scores[attribute])
        order = np.argsort(-probabilities, axis=1, kind="stable")
        unknown = p_values[attribute] <= 1 - coverage
        for image, answer in enumerate(answers):
            n_named = max(top, int(given[image].sum()))
            answer += [
                {
                    "attribute": attribute,
                    "rank": rank,
                    "class": classes[column],
                    "probability": float(probabilities[image, column]),
                    "given": bool(given[image, column] and not unknown[image]),
                    "unknown": bool(unknown[image]),
                }
                for rank, column in enumerate(order[image, :n_named], start=1)
            ]
    return answers


def _tell_of_foreign(
    run: Run, p_values: Mapping[str, NDArray[np.float64]], coverage: float
) -> None:
    test = run.predictions.select("test")
    for attribute, of_foreign in p_values.items():
        of_test = test.p_values[attribute]
        logger.info(
            "%s: %.1f %% of %d foreign images are marked unknown, and %.1f %% of %d test images; "
            "AUROC of one against the other %.3f.",
            attribute,
            100 * np.mean(of_foreign <= 1 - coverage),
            len(of_foreign),
            100 * np.mean(of_test <= 1 - coverage),
            len(of_test),
            auroc(
                np.repeat([True, False], [len(of_foreign), len(of_test)]),
                -np.concatenate([of_foreign, of_test]),
            ),
        )


def _in_words(best: dict[str, object]) -> str:
    if best["unknown"]:
        return f"{best['attribute']}: unknown ({best['class']} {best['probability']:.0%})"
    return f"{best['attribute']}: {best['class']} {best['probability']:.0%}"
