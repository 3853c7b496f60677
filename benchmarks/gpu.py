"""Measure on a GPU: parity with the CPU, the speed of extraction, and training.

    KERAS_BACKEND=jax python benchmarks/gpu.py [--images FOLDER] [--only speed] [--out gpu.json]

Every measurement is a process of its own. After each, the JSON file is complete: what is ended
early keeps its figures. `--toy` tries all parts within minutes, on a CPU as well.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import gpu_processes
import numpy as np
from extract import MISSION, bare_decoding, run_featurepipe, sample_images
from gpu_results import Results, write_tables
from measuring import describe_machine, in_a_process, installed_versions
from PIL import Image

from featurepipe.errors import FeaturepipeError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.engines import probes
from featurepipe.features.weights import weights_by_backbone

PARTS = ("parity", "speed", "training")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
LIBRARIES = (
    "featurepipe", "keras", "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "torch",
    "torchvision", "timm", "triton", "tensorflow", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
    "numpy", "pillow", "simplejpeg",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes
    ----------
    n_images : int
        Images of each extraction; some are the same file.
    n_drawn : int
        Images that are drawn, and images that networks are trained on.
    picture_size : (int, int)
        Width and height of a drawn image.
    size_px : int or None
        Side of the networks' input; None: their own.
    n_compared : int
        Images whose features are compared, beside the probes.
    backbones, precisions : tuple of str
    batch_sizes : tuple of int
    epochs : int
        Epochs of each stage of a training.
    repeats : int
    """

    n_images: int = 8192
    n_drawn: int = 1024
    picture_size: tuple[int, int] = (640, 480)
    size_px: int | None = None
    n_compared: int = 32
    backbones: tuple[str, ...] = MISSION
    precisions: tuple[str, ...] = PRECISIONS
    batch_sizes: tuple[int, ...] = (64, 256)
    epochs: int = 4
    repeats: int = 3


TOY = Plan(
    n_images=20, n_drawn=100, picture_size=(160, 120), size_px=75, n_compared=2,
    backbones=("resnet50",), precisions=("float32", "bfloat16"), batch_sizes=(4,), epochs=2,
    repeats=1,
)  # fmt: skip


def describe_gpus() -> list[dict[str, Any]]:
    """Name, memory, compute capability and driver of each NVIDIA GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    gpus = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
    return [
        {
            "name": pynvml.nvmlDeviceGetName(gpu),
            "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(gpu).total,
            "capability": pynvml.nvmlDeviceGetCudaComputeCapability(gpu),
            "driver": pynvml.nvmlSystemGetDriverVersion(),
        }
        for gpu in gpus
    ]


def draw_images(folder: Path, n_images: int, size: tuple[int, int]) -> None:
    """Draw JPEGs with the shapes and the grain of photographs."""
    folder.mkdir()
    for number in range(n_images):
        rng = np.random.default_rng(number)
        shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(shapes.resize(size, Image.Resampling.BICUBIC), np.float32)
        pixels = pixels + rng.normal(0, 6, pixels.shape)
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number:06}.jpg", quality=90)


def tf32(precision: str) -> dict[str, str]:
    """The environment in which NVIDIA's libraries may round float32 to TF32, or may not."""
    return {"NVIDIA_TF32_OVERRIDE": "1" if precision == "tf32" else "0"}


def keras_precision(precision: str) -> str:
    """The precision of layers: TF32 is a way to multiply float32."""
    return "float32" if precision == "tf32" else precision


def possible(precisions: Sequence[str], weights: str) -> list[str]:
    """All precisions; float16 only of trained weights, as `featurepipe extract` has it."""
    return [name for name in precisions if (name, weights) != ("float16", "random")]


# The parts ------------------------------------------------------------------------------


def measure_parity(images: Path, weights: dict[str, str], plan: Plan, results: Results) -> None:
    """Compare features of the GPU with those of float32 on the CPU."""
    for backbone, given in weights.items():
        with tempfile.TemporaryDirectory(dir=images.parent) as folder:
            of = {"what": "parity", "backbone": backbone}
            try:
                network = _save_reference(images, backbone, given, plan, folder)
            except click.ClickException as error:
                results.add(of, lambda why: {"failed": why}, error.message)
                continue
            for precision in possible(plan.precisions, given):
                results.add({**of, "precision": precision}, _compare, network, precision, plan)


def _save_reference(
    images: Path, backbone: str, weights: str, plan: Plan, folder: str
) -> tuple[Any, ...]:
    """Compute the features on the CPU; the network, with random weights in a file."""
    if weights == "random":
        weights = f"{folder}/random.weights.h5"
        drawn = (images, backbone, plan.size_px, weights)
        in_a_process(gpu_processes.draw_weights, *drawn, **ON_CPU)
    network = (images, backbone, weights, plan.size_px)
    target = f"{folder}/cpu.npy"
    computed = (*network, "float32", probes.N_PROBES, plan.n_compared, target)
    in_a_process(gpu_processes.save_features, *computed, **ON_CPU)
    return (*network, target)


def _compare(network: Sequence[Any], precision: str, plan: Plan) -> dict[str, Any]:
    *network, reference = network
    target = f"{reference}.{precision}.npy"
    computed = (keras_precision(precision), plan.batch_sizes[-1], plan.n_compared, target)
    in_a_process(gpu_processes.save_features, *network, *computed, **tf32(precision))
    features, expected, n = np.load(target), np.load(reference), probes.N_PROBES
    return {
        "probes": probes.distance(features[:n], expected[:n], precision),
        "images": probes.distance(features[n:], expected[n:], precision),
        "allowed": probes.tolerance(precision),
    }


def measure_speed(images: Path, weights: dict[str, str], plan: Plan, results: Results) -> None:
    """Measure decoding, the bare forward, extraction and the PyTorch loop."""
    for backbone, given in weights.items():
        results.add({"what": "decoding", "backbone": backbone}, _decoding, images, backbone, plan)
        for precision, batch_size in product(possible(plan.precisions, given), plan.batch_sizes):
            of = {"backbone": backbone, "precision": precision, "batch_size": batch_size}
            network = (images, backbone, given, plan.size_px)
            for what, measure in _SPEEDS.items():
                results.add(
                    {"what": what, **of}, measure, network, precision, batch_size, plan, results
                )


def _decoding(images: Path, backbone: str, plan: Plan) -> dict[str, Any]:
    return {"values": [in_a_process(bare_decoding, images, backbone) for _ in range(plan.repeats)]}


def _forward(
    network: Sequence[Any], precision: str, batch_size: int, plan: Plan, _: Results
) -> dict[str, Any]:
    return in_a_process(
        gpu_processes.bare_forward, *network, keras_precision(precision), batch_size,
        plan.n_images, plan.repeats, **tf32(precision),
    )  # fmt: skip


def _extraction(
    network: Sequence[Any], precision: str, batch_size: int, plan: Plan, _: Results
) -> dict[str, Any]:
    """`featurepipe extract`: images per second without loading, stages, and the whole command."""
    images, backbone, weights, size_px = network
    size = ("--size", size_px) if size_px else ()
    runs = []
    for _ in range(plan.repeats):
        with tempfile.TemporaryDirectory(dir=images.parent) as workspace:
            (done,), command_s, peak_bytes = run_featurepipe(
                "extract", images, "--backbone", backbone, "--weights", weights, *size,
                "--engine", "keras", "--precision", keras_precision(precision),
                "--batch-size", batch_size, "--workspace", workspace, **tf32(precision),
            )  # fmt: skip
        kept = {name: done[name] for name in ("images_per_s", "n_embedded", "stages", "bottleneck")}
        runs.append({**kept, "command_s": command_s, "peak_bytes": peak_bytes})
    return {"values": [run["images_per_s"] for run in runs], "runs": runs}


def _torch_loop(
    network: Sequence[Any], precision: str, batch_size: int, plan: Plan, results: Results
) -> dict[str, Any]:
    images, backbone, _, size_px = network
    return in_a_process(
        gpu_processes.torch_loop, images, backbone, size_px, precision, batch_size, plan.repeats,
        results.about["keras"]["on_gpu"],
    )  # fmt: skip


_SPEEDS = {"forward": _forward, "extract": _extraction, "torch": _torch_loop}


def measure_training(images: Path, weights: dict[str, str], plan: Plan, results: Results) -> None:
    """Train ResNet50 from scratch, and Xception on pairs."""
    for network in ("resnet50", "pair"):
        given = (network, weights.get("xception", "random"), plan.size_px, plan.epochs)
        of = {"what": "training", "network": network}
        results.add(of, in_a_process, gpu_processes.training, images, *given)


# The command ----------------------------------------------------------------------------


def describe(plan: Plan, weights: dict[str, str], images: Path) -> dict[str, Any]:
    """The machine, and what is measured, as JSON values."""
    return {
        "machine": describe_machine(),
        "gpus": describe_gpus(),
        "versions": {"python": sys.version.split()[0], **installed_versions(LIBRARIES)},
        "keras": in_a_process(gpu_processes.describe_keras, images),
        "plan": asdict(plan),
        "weights": weights,
    }


@click.command(help=__doc__.splitlines()[0])
@click.option(
    "--images",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of JPEGs.  [default: drawn, 640 x 480 px]",
)
@click.option(
    "--weights",
    default="random",
    show_default=True,
    help="random, imagenet, or NAME=PATH,… as in `featurepipe extract`.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="gpu.json",
    show_default=True,
    help="JSON file for all figures.",
)
@click.option("--toy", is_flag=True, help="Measure little, at 75 px; runs on a CPU, too.")
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    type=click.Choice(MISSION),
    help="Backbone; repeatable.  [default: all four; resnet50 with --toy]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(PRECISIONS),
    help="Precision; repeatable; float16 needs trained weights.  [default: all]",
)
@click.option(
    "--batch-size",
    "batch_sizes",
    multiple=True,
    type=click.IntRange(1),
    help="Batch size; repeatable.  [default: 64 and 256]",
)
@click.option(
    "--repeats", type=click.IntRange(1), help="Measurements of each figure.  [default: 3]"
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(PARTS),
    default=PARTS,
    help="Measure this only; repeatable.",
)
def main(
    folder: Path | None,
    weights: str,
    out: Path,
    toy: bool,
    backbones: tuple[str, ...],
    precisions: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    repeats: int | None,
    only: tuple[str, ...],
) -> None:
    """Measure, write the JSON file, and print the tables."""
    wanted = {
        "backbones": backbones, "precisions": precisions, "batch_sizes": batch_sizes,
        "repeats": repeats,
    }  # fmt: skip
    plan = replace(
        TOY if toy else Plan(), **{name: given for name, given in wanted.items() if given}
    )
    try:
        given = weights_by_backbone(weights, [find_backbone(name) for name in plan.backbones])
    except FeaturepipeError as error:
        raise click.ClickException(str(error)) from error
    with tempfile.TemporaryDirectory() as scratch:
        # What XLA compiled for one repeat serves the others.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{scratch}/xla"
        about = describe(plan, given, Path(scratch))
        if not (about["keras"]["on_gpu"] or toy):
            raise click.ClickException(
                f"Keras computes on {about['keras']['device']} with {about['keras']['backend']}. "
                "Install its backend for the GPU, choose one with KERAS_BACKEND, or try --toy."
            )
        if folder is None:
            folder = Path(scratch, "drawn")
            draw_images(folder, plan.n_drawn, plan.picture_size)
        n_files = sum(1 for ending in ("jpg", "JPEG") for _ in folder.rglob(f"*.{ending}"))
        if not n_files:
            raise click.ClickException(f"{folder} has no JPEGs. Give another folder to --images.")
        many, distinct = Path(scratch, "many", "images"), Path(scratch, "distinct", "images")
        sample_images([folder], plan.n_images, many)
        results = Results(out, about)
        if "parity" in only:
            measure_parity(many, given, plan, results)
        if "speed" in only:
            measure_speed(many, given, plan, results)
        if "training" in only:
            sample_images([folder], min(plan.n_drawn, n_files), distinct)
            measure_training(distinct, given, plan, results)
    click.echo(json.dumps({name: about[name] for name in ("machine", "gpus", "keras")}))
    write_tables(results)


if __name__ == "__main__":
    main()
