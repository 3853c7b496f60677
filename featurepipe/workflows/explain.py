"""Explainer: where in an image the evidence for each answer lies, for `predict --explain`."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from featurepipe.errors import NotLinearError
from featurepipe.features.engines.protocol import LocatesFeatures
from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.features.extraction.evidence import FeatureLocator, LocatedImage
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.models.answers.arrays import widths_of
from featurepipe.models.answers.head import FeatureHead, Head
from featurepipe.models.heads.estimators.knn import CosineNeighbours
from featurepipe.models.heads.linear_form import LinearForm, calibrated_form
from featurepipe.predictions import Task
from featurepipe.reports.evidence_picture import EvidencePanel, draw_evidence, shown
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.workflows.predictor import Answer, Predictor

_N_NEAREST = 5
_OF_SHUFFLED = "Of shuffled patches: those that the network saw side by side share their evidence."


class Explainer:
    """Draws where in images the evidence for the answers of a run lies.

    Parameters
    ----------
    predictor : Predictor

    Raises
    ------
    FeaturepipeError
        If a network of the run cannot be loaded; see `featurepipe.errors`.
    """

    def __init__(self, predictor: Predictor) -> None:
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

    def draw(
        self,
        image: Path,
        features: NDArray[np.float32],
        answer: Answer,
        lines: Sequence[str],
        copy: Path,
    ) -> None:
        """Save a picture of an image and of the evidence for each class that is answered.

        Parameters
        ----------
        image : Path
            A readable image.
        features : ndarray of shape (n_features,), float32
            What the heads read of it.
        answer : list of dict
            See `Predictor.answer`.
        lines : sequence of str
            The same in words.
        copy : Path
            Where to save, as JPEG.
        """
        data = image.read_bytes()
        original = open_rgb(data)
        picture = shown(original)
        sizes = ((original.height, original.width), (picture.height, picture.width))
        located = {columns: of.locate(data) for columns, of in self._locators.items()}
        panels = [
            self._panel(best, line, features[None], located, sizes)
            for best, line in zip(answer, lines, strict=True)
            # Of an exclusive attribute the answer alone; of a set all labels that are given.
            if best["rank"] == 1 or best["given"]
        ]
        draw_evidence(picture, image.name, panels, copy)

    def _panel(
        self,
        best: Mapping[str, object],
        line: str,
        X: NDArray[np.float32],
        located: Mapping[tuple[int, int], LocatedImage],
        sizes: tuple[tuple[int, int], tuple[int, int]],
    ) -> EvidencePanel:
        attribute, class_name = str(best["attribute"]), str(best["class"])
        head = self._model.head_for(attribute)
        name = next(key for key, value in self._model.heads.items() if value is head)
        if name in self._reasons:
            nearest = _nearest(self._run, attribute, head, X)
            return EvidencePanel(line, None, (self._reasons[name], *nearest))
        column, notes = self._column(attribute, class_name, X)
        form = self._forms[name]
        if column not in form.learnt:
            return EvidencePanel(
                line, None, (f"No map: training images do not differ in {class_name}.",)
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
        return best, (f"Of {combination}, the most probable combination with it.",)


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
    prepared = head.estimator[:-1].transform(head.select(X))
    rows, cosines = classifier.nearest(prepared, _N_NEAREST)
    near = zip(ids[rows[0]], cosines[0], strict=True)
    shown = (f"{cosine:.3f} {image_id}" for image_id, cosine in near)
    return "Nearest training images, by cosine:", *shown
