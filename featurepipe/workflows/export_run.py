"""A run -> one ONNX file that answers as `predict` does, and is compared with the run at once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurepipe.errors import ExportError, ImageError, SourceError
from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.files import replacing
from featurepipe.manifest import Manifest
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.networks.saved import SavedNetwork
from featurepipe.models.networks.verification import same_probability
from featurepipe.progress import Progress
from featurepipe.runs.choosing import find_run
from featurepipe.runs.run_folder import Run
from featurepipe.sources import ImageSource
from featurepipe.words import counted
from featurepipe.workflows.exported_model import (
    CONTINUOUS,
    DECIDED,
    PIXELS,
    SAME,
    TOLERANCE,
    Answer,
    ExportedModel,
    golden_file,
    onnxruntime_version,
    output_names,
)
from featurepipe.workflows.model_comparison import Comparison, Expected
from featurepipe.workflows.predictor import embedders_of
from featurepipe.workflows.run_graph import build_run_graph, require_exportable
from featurepipe.workflows.written_folders import require_outside_source
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

_N_GOLDEN = 16
_GOLDEN_SIDE_PX = 256
_N_PAIRS = 8


@dataclass(frozen=True)
class RunExport:
    """A run that was exported to ONNX.

    Attributes
    ----------
    run : str
    target : Path
    golden : Path
        Images and answers by which `featurepipe check` repeats the comparison.
    n_bytes : int
        Size of the model.
    n_images : int
        Test images that the model was compared on.
    largest_difference : float
        Of a probability from that of the run.
    n_undecided : int
        Answers that rounding decides, such as two classes of equal probability; they may differ.
    n_golden : int
        Images in `golden`.
    """

    run: str
    target: Path
    golden: Path
    n_bytes: int
    n_images: int
    largest_difference: float
    n_undecided: int
    n_golden: int

    def in_words(self) -> str:
        """A few lines for a person."""
        undecided = ""
        if self.n_undecided:
            undecided = f"; {counted(self.n_undecided, 'answer')} decided by rounding"
        return (
            f"{self.target}: run {self.run}, {self.n_bytes / 1e6:.1f} MB.\n"
            f"Compared on {counted(self.n_images, 'test image')}: same answers, largest difference "
            f"of a probability {self.largest_difference:.1e}{undecided}.\n"
            f"{self.golden}: {counted(self.n_golden, 'test image')} with their answers. To compare "
            f"again: featurepipe check {self.target}"
        )

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        paths = {"target": str(self.target), "golden": str(self.golden)}
        return self.__dict__ | paths


def export_run(
    name: str, target: Path, *, workspace: Workspace, weights: Sequence[str] = ()
) -> RunExport:
    """Write a run as an ONNX file; see `featurepipe.export`.

    Parameters
    ----------
    name : str
        Of the run.
    target : Path
    workspace : Workspace
    weights : sequence of str
        See `featurepipe.predict`.

    Raises
    ------
    UsageError
        If the run has parts that cannot be written, or the extra onnx is not installed.
    ExportError
        If the model does not answer as the run does. Nothing is written then.
    FeaturepipeError
        If the run or its images cannot be read.
    """
    onnxruntime_version()
    run = find_run(workspace, name)
    manifest = Manifest.load(workspace.manifest)
    if target.parent.resolve() != workspace.root.resolve():
        require_outside_source(target.parent, manifest, "The export")
    fitted_on = embedders_of(run, weights)
    embedders = [_in_single_precision(one) for one in fitted_on]
    require_exportable(run, embedders)
    logger.info("Writing %s as ONNX …", run.name)
    content = build_run_graph(run, embedders).SerializeToString()
    model, source = ExportedModel(content), manifest.images()
    comparison = Comparison(run.model)
    expected = _expected(run, fitted_on, embedders, source)
    candidates = _Candidates(run.model)
    with Progress(len(run.predictions), "Comparing", "image") as progress:
        for row, image_id in enumerate(run.predictions.ids):
            picture = _read(source, str(image_id))
            answer = model.answer(np.array(picture)[None])
            comparison.add(str(image_id), answer, expected.take(row))
            candidates.consider(picture, answer)
            progress.advance(1)
    if model.compares:
        _compare_pairs(run, model, source)
    comparison.require_equal(run.name)
    golden: dict[str, Any] = candidates.answers(model)
    with replacing(target) as beside:
        beside.write_bytes(content)
    with replacing(golden_file(target)) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **golden)
    return RunExport(
        run=run.name,
        target=target,
        golden=golden_file(target),
        n_bytes=len(content),
        n_images=len(run.predictions),
        largest_difference=comparison.largest_difference,
        n_undecided=comparison.n_undecided,
        n_golden=sum(key.startswith(PIXELS) for key in golden),
    )


def _in_single_precision(embedder: Any) -> Any:
    return replace(embedder, precision="float32") if isinstance(embedder, Recipe) else embedder


def _expected(
    run: Run, fitted_on: Sequence[Any], embedders: Sequence[Any], source: ImageSource
) -> Expected:
    """What the run answers for its test images.

    Features in reduced precision are computed again in float32, since the model computes so.
    """
    predictions = run.predictions
    used = {one.precision for one in fitted_on if isinstance(one, Recipe)}
    reduced = sorted(used - {"float32"})
    if not reduced:
        return Expected(predictions.scores, predictions.image_p_values)
    ids = [str(image_id) for image_id in predictions.ids]
    logger.warning(
        "Run %s reads features in %s; the model computes them in float32. Computing those of %s "
        "to compare with …",
        run.name,
        " and ".join(reduced),
        counted(ids, "test image"),
    )
    features, refused = embed_images(source, ids, embedders)
    if refused:
        position, reason = next(iter(refused.items()))
        raise SourceError(f"{ids[position]} {reason}. Bring the image back.")
    scores = run.model.predict(features)
    p_values = run.model.image_p_values(run.model.p_values(features, scores))
    return Expected(scores, p_values)


def _read(source: ImageSource, image_id: str) -> Image.Image:
    try:
        return open_rgb(source.read(image_id))
    except (OSError, ImageError) as error:
        raise SourceError(
            f"{image_id} cannot be read ({error}), and the export is compared with the run on its "
            "test images. Bring the image back."
        ) from error


def _compare_pairs(run: Run, model: ExportedModel, source: ImageSource) -> None:
    """Compare the probability that two test images show the same."""
    network = run.network
    assert isinstance(network, SavedNetwork)
    assert network.same is not None
    ids = [str(image_id) for image_id in run.predictions.ids[:_N_PAIRS]]
    rows, _ = embed_images(source, ids, [network])
    embeddings = rows[:, sum(network.outputs.values()) :]
    expected = same_probability(embeddings[:1], embeddings, *network.same)
    first = np.array(_read(source, ids[0]))[None]
    for image_id, probability in zip(ids, expected, strict=True):
        other = np.array(_read(source, image_id))[None]
        computed = float(model.answer(first, other)[SAME][0])
        if not abs(computed - probability) <= TOLERANCE:
            raise ExportError(
                f"The ONNX file of {run.name} answers otherwise than the run: the probability that "
                f"{ids[0]} and {image_id} show the same is {computed:.5f} instead of "
                f"{probability:.5f}. Nothing was written."
            )


class _Candidates:
    """Test images for the golden file: of as many different answers as possible."""

    def __init__(self, model: HeadModel) -> None:
        self._comparison = Comparison(model)
        self._attributes = list(model.classes)
        self._first: dict[tuple[Any, ...], Image.Image] = {}
        self._others: list[Image.Image] = []

    def consider(self, picture: Image.Image, answer: Answer) -> None:
        """Keep a picture, made smaller, if it is one of the first, or of a new kind of answer."""
        kind = tuple(
            (answer[f"{name}_probabilities"].argmax(), bool(answer[f"{name}_known"][0]))
            for name in self._attributes
        )
        is_new = kind not in self._first
        kept = self._first if is_new else self._others
        if len(kept) >= _N_GOLDEN:
            return
        small = picture.copy()
        small.thumbnail((_GOLDEN_SIDE_PX, _GOLDEN_SIDE_PX))
        if is_new:
            self._first[kind] = small
        else:
            self._others.append(small)

    def answers(self, model: ExportedModel) -> dict[str, NDArray[Any]]:
        """The arrays of the golden file: of each image its pixels and the outputs for them.

        Images whose answer rounding decides come last, and have probabilities alone: another
        machine may decide otherwise.
        """
        found: list[tuple[bool, NDArray[np.uint8], Answer]] = []
        for picture in [*self._first.values(), *self._others]:
            pixels = np.array(picture)
            answer = model.answer(pixels[None])
            found.append((self._comparison.is_undecided(answer), pixels, answer))
        found.sort(key=lambda one: one[0])
        arrays: dict[str, NDArray[Any]] = {}
        for number, (is_undecided, pixels, answer) in enumerate(found[:_N_GOLDEN]):
            arrays[f"{PIXELS}_{number}"] = pixels
            kinds = CONTINUOUS if is_undecided else (*CONTINUOUS, *DECIDED)
            for attribute in self._attributes:
                names = [output_names(attribute)[kind] for kind in kinds]
                arrays |= {f"{name}_{number}": answer[name][0] for name in names}
        return arrays
