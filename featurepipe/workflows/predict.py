"""predict(): images -> classes, with the best run or a named one."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.manifest import find_images
from featurepipe.metrics import auroc
from featurepipe.predictions import COVERAGE
from featurepipe.runs.run_folder import Run
from featurepipe.workflows.answer_pictures import AnswerPictures
from featurepipe.workflows.answering import COVERAGE_PER, check_answering
from featurepipe.workflows.explain import Explainer
from featurepipe.workflows.predictor import Predictor, embed_files
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

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
    contact_sheet: Path | str | None = None,
    html: Path | str | None = None,
    explain: Path | str | None = None,
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
        Folder for copies of the images with the answers below, a line for each attribute. It is
        marked, so that `extract` never reads them. Copies are 320 to 4,096 px long.
    contact_sheet : Path or str, optional
        One picture (.jpg or .png) of at most 400 images with the same lines. Images without an
        answer are named.
    html : Path or str, optional
        One page (.html) that needs no other file: for each image a small picture, the answers, and
        bars of the 5 most probable classes. It stays below about 5 MB: the first of very many
        images are shown.
    explain : Path or str, optional
        Folder for pictures of where in each image the evidence for each answer lies, or of why
        that is unknown. It is marked likewise.
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
    check_answering(top, coverage, coverage_per)
    pictures = AnswerPictures(*map(_path, (annotate, contact_sheet, html)))
    given = find_images(images)
    home = Workspace(workspace)
    pictures.require_possible(images, given, home)
    predictor = Predictor(
        run, workspace=workspace, weights=weights, batch_size=batch_size, trusted=trusted
    )
    explainer = None if explain is None else Explainer(predictor, Path(explain), home)
    pictures.prepare(home)
    if explainer is not None:
        explainer.prepare()
    logger.info("Predicting with %s.", predictor.run.name)
    features, refused = embed_files(predictor, given)
    judged = predictor.judge(features, coverage_per)
    if unrelated:
        _tell_of_unrelated(predictor.run, judged.p_values, coverage, coverage_per)
    answers = iter(predictor.answer(judged, top, coverage))
    rows: list[dict[str, object]] = []
    for image in given:
        if image.image_id in refused:
            rows.append({"image": image.image_id, "refused": refused[image.image_id]})
            continue
        answer = next(answers)
        rows += [{"image": image.image_id, **best, "refused": ""} for best in answer]
    table = pd.DataFrame(rows, columns=COLUMNS[1:])
    # As objects, names need not be UTF-8.
    table.insert(0, "image", pd.Series([row["image"] for row in rows], dtype=object))
    if not pictures.is_empty:
        readable = [image.image_id for image in given if image.image_id not in refused]
        best = predictor.answer(judged, pictures.n_best, coverage)
        about = _about(predictor.run, coverage, coverage_per)
        pictures.write(given, dict(zip(readable, best, strict=True)), refused, about)
    if explainer is not None:
        best = predictor.answer(judged, 1, coverage)
        explainer.write(given, refused, features, best)
    return table


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


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _about(run: Run, coverage: float, coverage_per: str) -> str:
    every = "every attribute" if coverage_per == "image" else "an attribute"
    return (
        f"Run {run.name}. An image is unknown for an attribute if it is unlike the training images "
        f"or its prediction is unusually uncertain. The target is that {100 * coverage:g} % of "
        f"familiar images get an answer to {every}."
    )
