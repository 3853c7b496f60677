"""What the card of an exported run says, from the run."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from featurepipe import __version__
from featurepipe.manifest import Manifest
from featurepipe.predictions import COVERAGE, PARTS
from featurepipe.reports.model_card import CardAttribute, ModelCard
from featurepipe.reports.model_program import program_text
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.workflows.exports.exported_files import ExportedFiles
from featurepipe.workflows.exports.model_facts import ModelFacts


def card_of(run: Run, facts: ModelFacts, manifest: Manifest, target: Path) -> ModelCard:
    """The card of a run that is exported.

    Parameters
    ----------
    run : Run
    facts : ModelFacts
    manifest : Manifest
    target : Path
        Of the model.
    """
    info, settings = run.info, run.info.split.settings
    files = ExportedFiles(target)
    parts = [str(part) for part in (*run.predictions.parts, *run.selection.parts)]
    return ModelCard(
        run=facts.run,
        digest=facts.digest,
        version=__version__,
        model_file=target.name,
        program_file=files.program.name,
        golden_file=files.golden.name,
        program=program_text(target.name, files.program.name, is_openvino=files.is_openvino),
        runtime_package="openvino" if files.is_openvino else "onnxruntime",
        attributes={name: _attribute(run, name) for name in facts.attributes},
        figures=facts.figures,
        parts={part: parts.count(part) for part in PARTS},
        # Without its folders, which are nobody's business.
        data=PurePosixPath(str(manifest.source).replace("\\", "/")).name or "images",
        split=info.split.name,
        test_size=settings.test_size,
        seed=settings.seed,
        held_out=settings.hold_out,
        grouped=settings.group_duplicates or settings.group is not None,
        calibration=info.calibrate,
        head=facts.head,
        task=facts.task,
        coverage=COVERAGE,
        networks=_networks(run),
        licences=facts.licences,
        versions=info.versions,
    )


def _attribute(run: Run, name: str) -> CardAttribute:
    truth, reliability = run.selection.labels[name], run.info.reliability
    counts = truth.indicator[truth.labelled].sum(axis=0)
    return CardAttribute(
        classes=dict(zip(truth.classes, map(int, counts), strict=True)),
        exclusive=truth.exclusive,
        log_loss_before=reliability.uncalibrated[name].log_loss,
        log_loss_after=reliability.calibrated[name].log_loss,
    )


def _networks(run: Run) -> Sequence[tuple[str, str, str]]:
    """Name, view and weights of what computes the features."""
    info = run.info
    if isinstance(info, HeadRunInfo):
        return [(block.recipe.backbone, block.recipe.view, block.weights) for block in info.blocks]
    if info.begins_from is None:
        return [(info.head, "rgb", "trained from random weights")]
    start = info.begins_from
    return [(start.backbone, "rgb", f"fine-tuned from {Path(start.weights_source).name}")]
