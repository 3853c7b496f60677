"""predict(): images -> classes, with the best run or a named one."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.errors import ExtractionError, RunError, UnknownNameError, UsageError
from featurepipe.features.backbones import BACKBONES, bare_name
from featurepipe.features.extraction.embedding import Embedder, embed_images
from featurepipe.features.extraction.recipe import Recipe, repeat_recipe
from featurepipe.image_types import READ
from featurepipe.manifest import GivenImage, find_images
from featurepipe.metrics import auroc
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.networks.saved import NETWORK_FILE
from featurepipe.predictions import COVERAGE
from featurepipe.reports.annotation import annotate_image
from featurepipe.runs.choosing import find_run
from featurepipe.runs.run_facts import Block
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.sources import LocalFolder
from featurepipe.words import names_of
from featurepipe.workflows.written_folders import prepare_pictures
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

COVERAGE_PER = ("image", "attribute")
"""What gets an answer at the target coverage: images to all attributes, or to each attribute."""

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
    coverage_per: str = COVERAGE_PER[0],
    unrelated: bool = False,
    weights: Sequence[str] = (),
    annotate: Path | str | None = None,
    batch_size: int | None = None,
    trusted: Sequence[str] = (),
) -> pd.DataFrame:
    """Predict the attributes of images.

    Parameters
    ----------
    images : sequence of Path or str
        Files, folders and patterns. Below folders, everything that looks like an image counts,
        except in folders that featurepipe wrote.
    workspace : Path or str
    run : str, optional
        Default: the best run that was fitted on the present labels and images; see
        `featurepipe.runs.choosing.find_run`. Test images are never used for this.
    top : int
        Classes to name for each attribute; of a set of labels, all that are given.
    coverage : float
        Target share of familiar images that get an answer, in (0, 1].
    coverage_per : {"image", "attribute"}
        Whether this share gets an answer to all attributes, or to each.
    unrelated : bool
        Treat the images as unrelated to the classes: log how many are marked unknown, and
        how well they are distinguished from test images.
    weights : sequence of str
        Current files of the run's weights, if they were moved: a path, or ``backbone=path``
        for each if the run reads several backbones.
    annotate : Path or str, optional
        Folder for copies of the images with their classes written on. It is marked, so that
        `extract` never reads them.
    batch_size : int, optional
        Images embedded at once; default: chosen by engine and memory.
    trusted : sequence of str
        Types such as ``"mypackage.MyClassifier"`` that a head of one's own is made of, and whose
        code you trust; see `fit`. No type is trusted because a run names it.

    Returns
    -------
    pandas.DataFrame
        Rows in the images' order: ``image, attribute, rank`` (from 1), ``class,
        probability, given`` (whether it is the answer, or one of a set), ``unknown``
        (whether there is no answer, because the image is unlike the training images or the
        prediction is unusually uncertain), ``refused`` (why there is no answer, because a path
        leads to no image or an image cannot be read, else empty).

    Raises
    ------
    StoreMismatchError
        If the features would differ from those that the run was trained on.
    FeaturepipeError
        If anything else given cannot be used; see `featurepipe.errors`.
    """
    _check_options(top, coverage, coverage_per, batch_size)
    given = find_images(images)
    home = Workspace(workspace)
    chosen = find_run(home, run, trusted=names_of(trusted))
    embedders, model = _embedders(chosen, weights), chosen.model
    if annotate is not None:
        prepare_pictures(Path(annotate), home, "--annotate")
    logger.info("Predicting with %s.", chosen.name)
    features, refused = _embed(embedders, given, batch_size)
    _require_width(chosen, features.shape[1])
    scores = model.predict(features)
    p_values = model.p_values(features, scores)
    if coverage_per == "image":
        p_values = model.image_p_values(p_values)
    if unrelated:
        _tell_of_unrelated(chosen, p_values, coverage, coverage_per)
    answers = iter(_best_classes(model, scores, p_values, top, coverage))
    rows: list[dict[str, object]] = []
    for position, image in enumerate(given):
        if image.image_id in refused:
            rows.append({"image": image.image_id, "refused": refused[image.image_id]})
            continue
        answer = next(answers)
        rows += [{"image": image.image_id, **best, "refused": ""} for best in answer]
        if annotate is not None:
            # Numbered, because images of one name may come from several folders.
            copy = Path(annotate) / f"{position + 1:04}-{image.path.stem}.jpg"
            annotate_image(image.path, [_in_words(best) for best in answer], copy)
    table = pd.DataFrame(rows, columns=COLUMNS[1:])
    # As objects, names need not be UTF-8.
    table.insert(0, "image", pd.Series([row["image"] for row in rows], dtype=object))
    return table


def embed_files(
    run: Run, given: Sequence[GivenImage], weights: Sequence[str] = ()
) -> tuple[NDArray[np.float32], dict[str, str]]:
    """What the heads of a run read of new images.

    Parameters
    ----------
    run : Run
    given : sequence of GivenImage
    weights : sequence of str
        See `predict`.

    Returns
    -------
    features : ndarray of shape (n_readable, n_features), float32
    refused : dict of str to str
        The reason for each image that cannot be read, by its id.

    Raises
    ------
    ExtractionError
        If none can be read.
    StoreMismatchError
        If the features would differ from those that the run was trained on.
    RunError, UsageError
        If the run is damaged, or `weights` do not apply to it.
    """
    features, refused = _embed(_embedders(run, weights), given, None)
    _require_width(run, features.shape[1])
    return features, refused


def _check_options(top: int, coverage: float, coverage_per: str, batch_size: int | None) -> None:
    if top < 1:
        raise UsageError(f"--top is {top}. Set the number of classes to name, at least 1.")
    if not 0 < coverage <= 1:
        raise UsageError(f"--coverage is {coverage}. Set a share above 0 and up to 1.")
    if coverage_per not in COVERAGE_PER:
        raise UnknownNameError("--coverage-per", coverage_per, COVERAGE_PER)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"The batch size is {batch_size}. Set at least 1.")


def _embed(
    embedders: Sequence[Embedder], given: Sequence[GivenImage], batch_size: int | None
) -> tuple[NDArray[np.float32], dict[str, str]]:
    """Features of the readable images; reasons for the others, by image id."""
    ids = [image.image_id for image in given if not image.reason]
    if len(ids) < (batch_size or _SMALL_BATCH):
        # The engine pads a batch to its full size.
        batch_size = len(ids)
    features, unreadable = embed_images(LocalFolder(Path()), ids, embedders, batch_size=batch_size)
    refused = {ids[position]: reason for position, reason in unreadable.items()}
    if not len(features):
        image_id, reason = next(iter(refused.items()))
        raise ExtractionError(
            f"None of the {len(ids)} images can be read ({image_id}: {reason}). Give {READ} files."
        )
    return features, {image.image_id: image.reason for image in given if image.reason} | refused


def _embedders(run: Run, weights: Sequence[str]) -> Sequence[Embedder]:
    if isinstance(run.info, HeadRunInfo):
        return _recipes(run.info.blocks, weights)
    if weights:
        raise UsageError(
            f"Run {run.name!r} is a trained network and keeps its own weights. Omit --weights."
        )
    assert run.network is not None
    run.file(NETWORK_FILE)
    return [run.network]


def _require_width(run: Run, n_features: int) -> None:
    if n_features != run.n_features:
        raise RunError(
            f"Run {run.name!r} is damaged: its heads read {run.n_features:,} features of an image, "
            f"but there are {n_features:,}. Fit or train it again."
        )


def _recipes(blocks: Sequence[Block], weights: Sequence[str]) -> list[Recipe]:
    """The recipes of the features that a run reads, with the weights where they are now."""
    moved = _moved_weights([block.recipe.backbone for block in blocks], weights)
    return [
        repeat_recipe(block.recipe, moved.get(block.recipe.backbone, block.weights_source))
        for block in blocks
    ]


def _moved_weights(backbones: Sequence[str], weights: Sequence[str]) -> dict[str, str]:
    """The files of ``--weights`` by backbone."""
    names = ", ".join(dict.fromkeys(backbones))
    by_bare_name = {bare_name(backbone): backbone for backbone in backbones}
    moved = {}
    for text in weights:
        name, separator, path = text.rpartition("=")
        if not separator and len(set(backbones)) > 1:
            raise UsageError(
                f"--weights {text!r} does not name a backbone, but the run reads {names}. "
                "Expected BACKBONE=PATH."
            )
        backbone = by_bare_name.get(bare_name(name)) if separator else backbones[0]
        if backbone is None:
            raise UsageError(
                f"--weights {text!r} is for {name}, but the run only reads {names}. Omit it."
            )
        if backbone in BACKBONES and BACKBONES[backbone].kind != "network":
            raise UsageError(
                f"--weights {text!r} does not apply to {backbone}, which has no weights. Omit it."
            )
        moved[backbone] = path
    return moved


def _best_classes(
    model: HeadModel,
    scores: Mapping[str, NDArray[np.float64]],
    p_values: Mapping[str, NDArray[np.float64]],
    top: int,
    coverage: float,
) -> list[list[dict[str, object]]]:
    """For each image, the `top` classes of each attribute, the most probable first."""
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


def _tell_of_unrelated(
    run: Run, p_values: Mapping[str, NDArray[np.float64]], coverage: float, coverage_per: str
) -> None:
    test = run.predictions.select("test")
    of_test = test.image_p_values if coverage_per == "image" else test.p_values
    pairs = {name: (unrelated, of_test[name]) for name, unrelated in p_values.items()}
    if len(pairs) > 1:
        pairs["any attribute"] = tuple(
            np.min([*of_images.values()], axis=0) for of_images in (p_values, of_test)
        )
    for name, (unrelated, related) in pairs.items():
        logger.info(
            "%s: %.1f %% of %d unrelated images are marked unknown, and %.1f %% of %d test "
            "images; AUROC of unrelated against test images %.3f.",
            name,
            100 * np.mean(unrelated <= 1 - coverage),
            len(unrelated),
            100 * np.mean(related <= 1 - coverage),
            len(related),
            auroc(
                np.repeat([True, False], [len(unrelated), len(related)]),
                -np.concatenate([unrelated, related]),
            ),
        )


def _in_words(best: dict[str, object]) -> str:
    if best["unknown"]:
        return f"{best['attribute']}: unknown ({best['class']} {best['probability']:.0%})"
    return f"{best['attribute']}: {best['class']} {best['probability']:.0%}"
