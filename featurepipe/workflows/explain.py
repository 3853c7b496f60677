"""Explainer: where in an image the evidence for each answer lies, for `predict --explain`."""

import logging
from collections.abc import Collection, Hashable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from featurepipe.errors import ImageError, NotLinearError
from featurepipe.features.engines.protocol import LocatesFeatures
from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.features.extraction.evidence import FeatureLocator, LocatedImage
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.manifest import GivenImage
from featurepipe.models.answers.arrays import widths_of
from featurepipe.models.answers.head import FeatureHead, Head
from featurepipe.models.heads.estimators.knn import CosineNeighbours
from featurepipe.models.heads.linear_form import LinearForm, calibrated_form
from featurepipe.predictions import Task
from featurepipe.reports.answer_lines import answer_line
from featurepipe.reports.contact_sheet import NAME_LENGTH
from featurepipe.reports.evidence_picture import EvidencePanel, draw_evidence, shown
from featurepipe.reports.lettering import spell
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.sources import LocalFolder
from featurepipe.workflows.answer_pictures import copy_name
from featurepipe.workflows.predictor import Answer, Predictor
from featurepipe.workflows.written_folders import prepare_pictures, require_folder_for_pictures
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

_OPTION = "--explain"
_N_NEAREST = 5
_OF_SHUFFLED = "Of shuffled patches: those that the network saw side by side share their evidence."


class Explainer:
    """Draws where in images the evidence for the answers of a run lies.

    Parameters
    ----------
    predictor : Predictor
    folder : Path
        For the pictures.
    workspace : Workspace

    Raises
    ------
    UsageError
        If the folder belongs to the source, or holds images that featurepipe did not write.
    FeaturepipeError
        If a network of the run cannot be loaded; see `featurepipe.errors`.
    """

    def __init__(self, predictor: Predictor, folder: Path, workspace: Workspace) -> None:
        require_folder_for_pictures(folder, workspace, _OPTION)
        self._folder, self._workspace = folder, workspace
        self._run, self._model = predictor.run, predictor.model
        self._forms: dict[str, LinearForm] = {}
        self._reasons: dict[str, str] = {}
        self._locators: dict[tuple[int, int], FeatureLocator] = {}
        opened: dict[Hashable, LocatesFeatures] = {}
        recipes, info = _recipes_by_columns(predictor), self._run.info
        title = info.settings.head if isinstance(info, HeadRunInfo) else info.head
        for name, head in self._model.heads.items():
            try:
                form = calibrated_form(head)
                for columns in head.columns:
                    if columns not in self._locators:
                        self._locators[columns] = FeatureLocator(recipes[columns], opened)
                self._forms[name] = form
            except NotLinearError as error:
                self._reasons[name] = f"No map of {title}: {error}."

    def prepare(self) -> None:
        """Create and mark the folder.

        Raises
        ------
        NotWritableError
            If nothing can be written there.
        """
        prepare_pictures(self._folder, self._workspace, _OPTION)

    def write(
        self,
        given: Sequence[GivenImage],
        refused: Collection[str],
        features: NDArray[np.float32],
        answers: Sequence[Answer],
    ) -> None:
        """Save a picture of each image and of the evidence for each class that is answered.

        Parameters
        ----------
        given : sequence of GivenImage
        refused : collection of str
            Ids of the images without an answer.
        features : ndarray of shape (n_answered, n_features), float32
            What the heads read of the other images.
        answers : sequence of list of dict
            Of these; see `Predictor.answer`. Of an exclusive attribute it is one class, of a set
            of labels all that are given.
        """
        answered = zip(features, answers, strict=True)
        for position, image in enumerate(given, start=1):
            if image.image_id in refused:
                continue
            of_image, answer = next(answered)
            copy = self._folder / f"{copy_name(position, image)}-evidence.jpg"
            try:
                self._draw(image, of_image, answer, copy)
            except (OSError, ImageError) as error:
                reason = getattr(error, "strerror", None) or error
                logger.warning("No evidence of %s: %s.", image.image_id, reason)

    def _draw(
        self, image: GivenImage, features: NDArray[np.float32], answer: Answer, copy: Path
    ) -> None:
        data = LocalFolder(Path()).read(image.image_id)
        original = open_rgb(data)
        picture = shown(original)
        sizes = ((original.height, original.width), (picture.height, picture.width))
        located = {columns: of.locate(data) for columns, of in self._locators.items()}
        panels = [self._panel(best, features[None], located, sizes) for best in answer]
        draw_evidence(picture, image.path.name, panels, copy)

    def _panel(
        self,
        best: Mapping[str, Any],
        X: NDArray[np.float32],
        located: Mapping[tuple[int, int], LocatedImage],
        sizes: tuple[tuple[int, int], tuple[int, int]],
    ) -> EvidencePanel:
        attribute, class_name = best["attribute"], best["class"]
        line = answer_line([best], NAME_LENGTH)
        head = self._model.head_for(attribute)
        name = next(key for key, value in self._model.heads.items() if value is head)
        if name in self._reasons:
            nearest = _nearest(self._run, attribute, head, X)
            return EvidencePanel(line, None, (self._reasons[name], *nearest))
        column, notes = self._column(attribute, class_name, X)
        form = self._forms[name]
        if column not in form.learnt:
            return EvidencePanel(
                line, None, (f"No map: training images do not differ in {spell(class_name)}.",)
            )
        position = int(np.flatnonzero(form.learnt == column)[0])
        evidence = np.zeros(sizes[1])
        ends = pairwise(accumulate(widths_of(head.columns), initial=0))
        for columns, (start, end) in zip(head.columns, ends, strict=True):
            weights = form.weights[position, start:end]
            evidence += located[columns].evidence(weights, *sizes)
        total, intercept = float(evidence.sum()), float(form.intercepts[position])
        score = f"Score {total + intercept:+.2f}: evidence {total:+.2f}"
        if intercept:
            score += f", intercept {intercept:+.2f}"
        if any(self._locators[columns].recipe.view == "shuffle" for columns in head.columns):
            notes += (_OF_SHUFFLED,)
        return EvidencePanel(line, evidence, (f"{score}.", *notes))

    def _column(
        self, attribute: str, class_name: str, X: NDArray[np.float32]
    ) -> tuple[int, tuple[str, ...]]:
        """The column of its head whose score is explained for a class, and what to say of it."""
        model = self._model
        column = model.classes[attribute].index(class_name)
        before = list(model.classes).index(attribute)
        if model.task == Task.MULTI_LABEL:
            return column + sum(len(names) for names in [*model.classes.values()][:before]), ()
        if model.task != Task.JOINT:
            return column, ()
        with_class = np.flatnonzero(model.combinations[:, before] == column)
        probabilities = model.head_for(attribute).predict_proba(X)[0, with_class]
        best = int(with_class[probabilities.argmax()])
        codes = zip(model.classes.values(), model.combinations[best], strict=True)
        combination = "_".join(names[code] for names, code in codes)
        return best, (f"Of {spell(combination)}, the most probable combination with it.",)


def _recipes_by_columns(predictor: Predictor) -> dict[tuple[int, int], Recipe]:
    """The recipe of each block of features, by its columns; empty for a trained network."""
    info = predictor.run.info
    if not isinstance(info, HeadRunInfo):
        return {}
    ends = pairwise(accumulate((block.n_features for block in info.blocks), initial=0))
    recipes = (embedder for embedder in predictor.embedders if isinstance(embedder, Recipe))
    return dict(zip(ends, recipes, strict=True))


def _nearest(run: Run, attribute: str, head: Head, X: NDArray[np.float32]) -> tuple[str, ...]:
    """The nearest training images of a head that compares with them, in words."""
    if not isinstance(head, FeatureHead) or not isinstance(head.estimator, Pipeline):
        return ()
    *_, (_, classifier) = head.estimator.steps
    if not isinstance(classifier, CosineNeighbours):
        return ()
    labels = run.selection.labels
    asked = labels if run.info.task != Task.PER_ATTRIBUTE else {attribute: labels[attribute]}
    is_labelled = np.all([of.labelled for of in asked.values()], axis=0)
    ids = run.selection.ids[is_labelled]
    if len(ids) != len(classifier.directions_):
        # A run from elsewhere may hold other rows.
        return ()
    prepared = head.estimator[:-1].transform(head.select(X))
    rows, cosines = classifier.nearest(prepared, _N_NEAREST)
    near = zip(ids[rows[0]], cosines[0], strict=True)
    shown = (f"{cosine:.3f} {spell(image_id)}" for image_id, cosine in near)
    return "Nearest training images, by cosine:", *shown
