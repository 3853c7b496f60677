"""A run -> a model that answers as `predict` does, and is compared with the run at once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import EncodeError
from PIL import Image

from featurepipe.errors import ExportError, ImageError, SourceError, UsageError
from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.manifest import Manifest
from featurepipe.models.networks.saved import SavedNetwork
from featurepipe.models.networks.verification import same_probability
from featurepipe.progress import Progress
from featurepipe.reports.model_card import card_text
from featurepipe.runs.choosing import find_run
from featurepipe.runs.run_folder import Run
from featurepipe.sources import ImageSource
from featurepipe.words import counted
from featurepipe.workflows.exports.browser_page import BrowserPage
from featurepipe.workflows.exports.card_facts import card_of
from featurepipe.workflows.exports.exported_files import ExportedFiles, Graph
from featurepipe.workflows.exports.exported_model import PIXELS, SAME, TOLERANCE, ExportedModel
from featurepipe.workflows.exports.golden_images import GoldenImages
from featurepipe.workflows.exports.model_comparison import Comparison, Expected
from featurepipe.workflows.exports.model_facts import ModelFacts
from featurepipe.workflows.exports.model_runtimes import (
    OnnxModel,
    OpenVinoModel,
    convert_to_openvino,
    require_onnxruntime,
)
from featurepipe.workflows.exports.run_graph import build_run_graph, require_exportable
from featurepipe.workflows.moved_weights import embedders_of
from featurepipe.workflows.written_folders import require_outside_source
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

_N_PAIRS = 8


@dataclass(frozen=True)
class RunExport:
    """A run that was exported.

    Attributes
    ----------
    run : str
    target : Path
    golden : Path
        Images and answers by which `featurepipe check` repeats the comparison.
    card, program : Path
        The model card, and a program that runs the model.
    page : Path or None
        The folder of a web page that runs the model.
    n_bytes : int
        Size of the model.
    runtime : str
        Name and version of what computed the model.
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
    card: Path
    program: Path
    page: Path | None
    n_bytes: int
    runtime: str
    n_images: int
    largest_difference: float
    n_undecided: int
    n_golden: int

    def in_words(self) -> str:
        """A few lines for a person."""
        undecided = ""
        if self.n_undecided:
            undecided = f"; {counted(self.n_undecided, 'answer')} decided by rounding"
        lines = [
            f"{self.target}: run {self.run}, {self.n_bytes / 1e6:.1f} MB.",
            f"Compared on {counted(self.n_images, 'test image')} by {self.runtime}: same answers, "
            f"largest difference of a probability {self.largest_difference:.1e}{undecided}.",
            f"{self.golden}: {counted(self.n_golden, 'test image')} with their answers. To compare "
            f"again: featurepipe check {self.target}",
            f"{self.card}: model card. To run the model: python {self.program} PICTURE",
        ]
        if self.page is not None:
            lines.append(
                f"{self.page}: web page. To open it: python -m http.server --directory {self.page}"
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        paths = {
            name: None if path is None else str(path)
            for name, path in self.__dict__.items()
            if name in ("target", "golden", "card", "program", "page")
        }
        return self.__dict__ | paths


def export_run(
    name: str,
    target: Path,
    *,
    workspace: Workspace,
    weights: Sequence[str] = (),
    page: Path | None = None,
) -> RunExport:
    """Write a run as a model; see `featurepipe.export`.

    Parameters
    ----------
    name : str
        Of the run.
    target : Path
    workspace : Workspace
    weights : sequence of str
        See `featurepipe.predict`.
    page : Path, optional
        Folder of a web page.

    Raises
    ------
    UsageError
        If the run has parts that cannot be written or is too large, or the extra onnx is not
        installed.
    ExportError
        If the model does not answer as the run does. Nothing is written then.
    FeaturepipeError
        If the run or its images cannot be read.
    """
    require_onnxruntime()
    files = ExportedFiles(target)
    files.require_writable()
    run = find_run(workspace, name)
    manifest = Manifest.load(workspace.manifest)
    if target.parent.resolve() != workspace.root.resolve():
        require_outside_source(target.parent, manifest, "The export")
    fitted_on = embedders_of(run, weights)
    embedders = [_in_single_precision(one) for one in fitted_on]
    require_exportable(run, embedders)
    browser_page = None if page is None else BrowserPage.prepare(page, target, manifest)
    facts = ModelFacts.of(run, embedders)
    logger.info("Writing %s as %s …", run.name, files.format)
    # The graphs of OpenVINO have no optional inputs.
    built = build_run_graph(run, embedders, facts.metadata(), compares=not files.is_openvino)
    try:
        content = built.SerializeToString()
    except EncodeError as error:
        raise UsageError(
            f"Run {run.name} does not fit into an ONNX file, which holds at most 2 GB. Use a run "
            "of fewer features, or of a head that keeps no training images, such as logistic."
        ) from error
    graph: Graph = convert_to_openvino(content) if files.is_openvino else content
    model: ExportedModel = OpenVinoModel(graph) if files.is_openvino else OnnxModel(content)
    expected = _expected(run, fitted_on, embedders, manifest.images())
    comparison, golden = _compare(run, model, expected, manifest.images(), files.format)
    arrays = golden.answers(model)
    card = card_of(run, facts, manifest, target)
    n_bytes = files.write(graph, arrays, card.program, card_text(card))
    if browser_page is not None:
        browser_page.write(facts, content)
    return RunExport(
        run=run.name,
        target=target,
        golden=files.golden,
        card=files.card,
        program=files.program,
        page=page,
        n_bytes=n_bytes,
        runtime=model.runtime,
        n_images=len(run.predictions),
        largest_difference=comparison.largest_difference,
        n_undecided=comparison.n_undecided,
        n_golden=sum(key.startswith(PIXELS) for key in arrays),
    )


def _compare(
    run: Run, model: ExportedModel, expected: Expected, source: ImageSource, kind: str
) -> tuple[Comparison, GoldenImages]:
    """Compare the model with the run on its test images, and choose golden images among them."""
    comparison, golden = Comparison(run.model), GoldenImages(run.model)
    with Progress(len(run.predictions), "Comparing", "image") as progress:
        for row, image_id in enumerate(run.predictions.ids):
            picture = _read(source, str(image_id))
            answer = model.answer(np.array(picture)[None])
            comparison.add(str(image_id), answer, expected.take(row))
            golden.consider(picture, answer)
            progress.advance(1)
    if model.compares:
        _compare_pairs(run, model, source)
    comparison.require_equal(run.name, kind)
    return comparison, golden


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
