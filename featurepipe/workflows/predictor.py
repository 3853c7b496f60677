"""Predictor: a run that is opened once, and then asked about images."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from featurepipe.errors import ExtractionError, RunError, UsageError
from featurepipe.features.extraction.embedders import SharedEngine, share_engines
from featurepipe.features.extraction.embedding import (
    DecodedImage,
    decode_for,
    embed_decoded,
    embed_images,
)
from featurepipe.image_types import READ
from featurepipe.manifest import GivenImage
from featurepipe.predictions import COVERAGE
from featurepipe.runs.choosing import find_run
from featurepipe.runs.run_folder import Run
from featurepipe.sources import ImageSource, LocalFolder
from featurepipe.sources.given_images import GivenImages
from featurepipe.words import names_of
from featurepipe.workflows.answering import COVERAGE_PER, Answer, answer_json, check_answering
from featurepipe.workflows.moved_weights import embedders_of
from featurepipe.workspace import Workspace

# Fewer images are computed one by one, so that no batch is padded to its full size.
_FEW = 16

# Decoded images that are computed at once, where there are several. Measured: on a CPU, batches
# of 2 cost no more than larger ones, and hardly any padding is computed.
_TOGETHER = 16
_TOGETHER_ON_CPU = 2

Features = NDArray[np.float32]
Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Judgement:
    """What the heads of a run say of images.

    Attributes
    ----------
    scores : dict of str to ndarray of shape (n_images, n_classes), float64
        For each attribute; see `featurepipe.models.answers.head_model.HeadModel.predict`.
    p_values : dict of str to ndarray of shape (n_images,), float64
        How similar the images are to the training images, for each attribute.
    """

    scores: Scores
    p_values: dict[str, NDArray[np.float64]]


class Predictor:
    """A run that is opened once, and then asked about images; several threads may ask.

    Parameters
    ----------
    run : str or Run, optional
        Its name. Default: the best run that was fitted on the present labels and images; see
        `featurepipe.runs.choosing.find_run`. Test images are never used for this.
    workspace : Path or str
    weights : sequence of str
        See `featurepipe.predict`.
    batch_size : int, optional
        Images embedded at once; default: chosen by engine, memory and number of images.
    trusted : sequence of str
        See `featurepipe.predict`.

    Attributes
    ----------
    run : Run
    model : HeadModel
    embedders : sequence of Embedder
        What computes the blocks of features that the heads read, in their order.

    Raises
    ------
    StoreMismatchError
        If the features would differ from those that the run was trained on.
    FeaturepipeError
        If anything else given cannot be used; see `featurepipe.errors`.

    Examples
    --------
    >>> predictor = Predictor(workspace="garments")  # doctest: +SKIP
    >>> predictor.predict(["new/shirt.jpg"])  # doctest: +SKIP
    [{'image': 'new/shirt.jpg', 'attributes': {'color': [{'class': 'red', …
    """

    def __init__(
        self,
        run: str | Run | None = None,
        *,
        workspace: Path | str = ".",
        weights: Sequence[str] = (),
        batch_size: int | None = None,
        trusted: Sequence[str] = (),
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"The batch size is {batch_size}. Set at least 1.")
        if not isinstance(run, Run):
            run = find_run(Workspace(workspace), run, trusted=names_of(trusted))
        self.run = run
        self.embedders = embedders_of(self.run, weights)
        self.model = self.run.model
        self._libraries = ThreadpoolController()
        self._batch_size = batch_size
        self._opening = threading.Lock()
        self._engines: dict[int | None, list[SharedEngine]] = {}

    def predict(
        self,
        images: Sequence[Path | str | bytes | NDArray[np.uint8]],
        *,
        top: int = 1,
        coverage: float = COVERAGE,
        coverage_per: str = COVERAGE_PER[0],
    ) -> list[dict[str, Any]]:
        """Predict the attributes of images.

        Parameters
        ----------
        images : sequence of Path, str, bytes or ndarray of shape (height, width, 3), uint8
            Paths of image files, their bytes, or RGB in [0, 255].
        top, coverage, coverage_per
            See `featurepipe.predict`.

        Returns
        -------
        list of dict
            One for each image, in their order: ``image`` (the path, or the position) and
            ``attributes``, which has for each attribute the best classes, the most probable
            first, each with ``class, probability, given, unknown``; see `featurepipe.predict`.
            Instead of ``attributes``, ``refused`` says why an image cannot be read.

        Raises
        ------
        UsageError
            If an image is of another type, or an option is impossible.
        """
        check_answering(top, coverage, coverage_per)
        for position, image in enumerate(images):
            _require_image(position, image)
        ids = [str(position) for position in range(len(images))]
        features, refused = self.embed(GivenImages(images), ids)
        judged = self.judge(features, coverage_per) if len(features) else None
        rows = iter([] if judged is None else self.answer(judged, top, coverage))
        return [
            answer_json(
                _name(image, position),
                *([[], refused[position]] if position in refused else [next(rows)]),
            )
            for position, image in enumerate(images)
        ]

    def decode(self, data: bytes) -> DecodedImage:
        """Decode an image file for `answer_decoded`; several threads may.

        Parameters
        ----------
        data : bytes

        Raises
        ------
        ImageError
            If it cannot be decoded.
        """
        return decode_for(self.embedders, data)

    def answer_decoded(
        self, images: Sequence[DecodedImage], *, top: int, coverage: float, coverage_per: str
    ) -> list[Answer]:
        """For each decoded image, the best classes of each attribute.

        Parameters
        ----------
        images : sequence of DecodedImage
            At least one, by `decode`.
        top, coverage, coverage_per
            See `featurepipe.predict`.

        Raises
        ------
        RunError
            If the heads read another number of features.
        """
        engines = self._open(1)
        if len(images) > 1:
            names = {engine.open().name for engine in engines}
            engines = self._open(_TOGETHER_ON_CPU if "openvino" in names else _TOGETHER)
        features = embed_decoded(images, self.embedders, engines)
        self._require_features(features)
        # For so few rows, threads of BLAS would only wait for each other and for the engine's.
        with self._libraries.limit(limits=1):
            return self.answer(self.judge(features, coverage_per), top, coverage)

    def embed(
        self, source: ImageSource, ids: Sequence[str]
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """What the heads read of images.

        Parameters
        ----------
        source : ImageSource
        ids : sequence of str

        Returns
        -------
        features : ndarray of shape (n_readable, n_features), float32
        refused : dict of int to str
            Positions of the other images, each with the reason.

        Raises
        ------
        RunError
            If the heads read another number of features.
        """
        engines = self._open(1 if len(ids) < _FEW else None)
        features, refused = embed_images(source, ids, self.embedders, engines=engines)
        if len(features):
            self._require_features(features)
        return features, refused

    def _open(self, batch_size: int | None) -> list[SharedEngine]:
        """The engine of each embedder, for batches of this size unless the caller chose one."""
        batch_size = self._batch_size or batch_size
        with self._opening:
            if batch_size not in self._engines:
                self._engines[batch_size] = share_engines(self.embedders, batch_size)
            return self._engines[batch_size]

    def _require_features(self, features: Features) -> None:
        if features.shape[1] != self.run.n_features:
            raise RunError(
                f"Run {self.run.name!r} is damaged: its heads read {self.run.n_features:,} "
                f"features of an image, but there are {features.shape[1]:,}. Fit or train it again."
            )

    def judge(self, features: Features, coverage_per: str) -> Judgement:
        """What the heads say of images.

        Parameters
        ----------
        features : ndarray of shape (n_images, n_features), float32
        coverage_per : {"image", "attribute"}
        """
        scores = self.model.predict(features)
        p_values = self.model.p_values(features, scores)
        if coverage_per == "image":
            p_values = self.model.image_p_values(p_values)
        return Judgement(scores, p_values)

    def answer(self, judged: Judgement, top: int, coverage: float) -> list[Answer]:
        """For each image, the `top` classes of each attribute, the most probable first.

        Parameters
        ----------
        judged : Judgement
        top, coverage
            See `featurepipe.predict`.
        """
        scores, p_values = judged.scores, judged.p_values
        n_images = len(next(iter(scores.values())))
        answers: list[Answer] = [[] for _ in range(n_images)]
        for attribute, (classes, probabilities) in self.model.in_words(scores).items():
            given = self.model.given(attribute, scores[attribute])
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


def embed_files(
    predictor: Predictor, given: Sequence[GivenImage]
) -> tuple[NDArray[np.float32], dict[str, str]]:
    """What the heads of a run read of image files.

    Parameters
    ----------
    predictor : Predictor
    given : sequence of GivenImage

    Returns
    -------
    features : ndarray of shape (n_readable, n_features), float32
    refused : dict of str to str
        The reason for each image that cannot be read, by its id.

    Raises
    ------
    ExtractionError
        If none can be read.
    RunError
        If the run is damaged.
    """
    ids = [image.image_id for image in given if not image.reason]
    features, unreadable = predictor.embed(LocalFolder(Path()), ids)
    refused = {ids[position]: reason for position, reason in unreadable.items()}
    if not len(features):
        image_id, reason = next(iter(refused.items()))
        raise ExtractionError(
            f"None of the {len(ids)} images can be read ({image_id}: {reason}). Give {READ} files."
        )
    return features, {image.image_id: image.reason for image in given if image.reason} | refused


def _require_image(position: int, image: object) -> None:
    if isinstance(image, Path | str | bytes):
        return
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] == 3 and image.size and image.dtype == np.uint8:
            return
        what = f"an array of shape {image.shape} and type {image.dtype}"
    else:
        what = f"of type {type(image).__name__}"
    raise UsageError(
        f"Image {position} is {what}. Give paths, bytes, or uint8 arrays of shape "
        "(height, width, 3)."
    )


def _name(image: object, position: int) -> str | int:
    return str(image) if isinstance(image, Path | str) else position
