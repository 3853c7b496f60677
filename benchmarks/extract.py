"""Measure extraction: featurepipe, the loop a user would write, and the limit of the machine.

    python benchmarks/extract.py FOLDER… [--weights-folder DIR] [--only speed] [--n-images 1000]

Every measurement is a process of its own. Each part repeats its measurements in turn and
prints medians. The images are hard links to a sample of the JPEGs below the folders. int8
needs the extra of that name.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
from measuring import describe_machine, in_a_process, table_head, table_row

MISSION = ("resnet50", "inception_v3", "xception", "inception_resnet_v2")
BATCH_SIZE = 32
FEATUREPIPE = Path(sys.executable).with_name("featurepipe")


# Measurements, each in a process of its own --------------------------------------------


def user_loop(images: Path, backbone: str, weights: str | None) -> float:
    """Images per second of the loop that a user would write."""
    import keras

    from featurepipe.features.backbones import find_backbone

    spec = find_backbone(backbone)
    module = getattr(keras.applications, spec.module)
    network = getattr(keras.applications, spec.constructor)(
        weights=weights, include_top=False, pooling="avg", input_shape=(spec.size_px,) * 2 + (3,)
    )
    files = sorted(images.rglob("*.jpg"))
    network.predict_on_batch(np.zeros((BATCH_SIZE, spec.size_px, spec.size_px, 3), np.float32))
    started, features = time.perf_counter(), []
    for start in range(0, len(files), BATCH_SIZE):
        batch = [
            keras.utils.img_to_array(
                keras.utils.load_img(
                    file, target_size=(spec.size_px,) * 2, interpolation="bilinear"
                )
            )
            for file in files[start : start + BATCH_SIZE]
        ]
        features.append(network.predict_on_batch(module.preprocess_input(np.stack(batch))))
    np.save(images.parent / f"{backbone}.npy", np.concatenate(features))
    return len(files) / (time.perf_counter() - started)


def bare_inference(images: Path, backbone: str, weights: str | None, precision: str) -> float:
    """Images per second of OpenVINO's own asynchronous loop on tensors that are ready."""
    import openvino as ov

    from featurepipe.features.engines.openvino_graph import graph_file
    from featurepipe.features.extraction.recipe import make_recipe

    network, batch_size = make_recipe(backbone, weights or "random").network, 16
    shape = (batch_size, *network.input_size, 3)
    graph = ov.Core().read_model(graph_file(network))
    graph.reshape(shape)
    hints = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }
    queue = ov.AsyncInferQueue(ov.Core().compile_model(graph, "CPU", hints))
    batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def compute(n_batches: int) -> float:
        started = time.perf_counter()
        for _ in range(n_batches):
            queue.start_async({0: batch})
        queue.wait_all()
        return n_batches * batch_size / (time.perf_counter() - started)

    warm = compute(8)
    # About as long as the extraction beside it.
    return compute(max(16, round(warm * 8 / batch_size)))


def bare_decoding(images: Path, backbone: str) -> float:
    """Images per second of decoding and resizing with one thread per core, and nothing else."""
    from concurrent.futures import ThreadPoolExecutor

    from featurepipe.features.backbones import find_backbone
    from featurepipe.features.extraction.decoding import decode_image
    from featurepipe.features.extraction.memory_budget import count_cpus

    size = (find_backbone(backbone).size_px,) * 2
    data = [file.read_bytes() for file in sorted(images.rglob("*.jpg"))]
    with ThreadPoolExecutor(count_cpus()) as pool:
        started = time.perf_counter()
        for _ in pool.map(lambda one: decode_image(one, size).shape, data, chunksize=16):
            pass
        return len(data) / (time.perf_counter() - started)


# How they are run -----------------------------------------------------------------------


def run_featurepipe(*arguments: object, **environment: str) -> tuple[Any, float, int]:
    """Run a command; its JSON output, its seconds, and its peak memory in bytes."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [FEATUREPIPE, *map(str, arguments), "--json", "--quiet"],
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise click.ClickException(f"featurepipe {' '.join(map(str, arguments))} failed")
    return json.loads(output), time.perf_counter() - started, usage.ru_maxrss * 1024


def extraction_speed(images: Path, backbone: str, weights: str | None, precision: str) -> float:
    """Images per second of `featurepipe extract`, with a graph that was converted before."""
    with tempfile.TemporaryDirectory(dir=images.parent) as workspace:
        done, _, _ = run_featurepipe(
            "extract", images, "--backbone", backbone, "--weights", weights or "random",
            "--engine", "openvino", "--precision", precision, "--workspace", workspace,
        )  # fmt: skip
    return done[0]["images_per_s"]


def sample_images(folders: Iterable[Path], n_images: int, target: Path) -> None:
    """Link a sample of the JPEGs below some folders, about as many from each."""
    pools = [sorted(folder.rglob("*.jpg")) + sorted(folder.rglob("*.JPEG")) for folder in folders]
    chosen: list[Path] = []
    for left, pool in zip(range(len(pools), 0, -1), sorted(pools, key=len), strict=True):
        share = min(len(pool), (n_images - len(chosen)) // left)
        chosen += random.Random(0).sample(pool, share)
    target.mkdir(parents=True)
    for number in range(n_images):
        link_or_copy(chosen[number % len(chosen)], target / f"{number % 10}" / f"{number:06}.jpg")


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where links are impossible."""
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


# The parts ------------------------------------------------------------------------------


def measure_speed(
    images: Path, weights: dict[str, str], backbones: Iterable[str], repeats: int
) -> None:
    """Print the speed beside that of the user's loop and beside the limit."""
    names = [
        "backbone", "a user's loop", "featurepipe, float32", "ratio", "featurepipe, bfloat16",
        "ratio", "featurepipe, int8", "ratio", "int8 / bfloat16", "inference alone",
        "decoding alone", "limit", "share of the limit",
    ]  # fmt: skip
    click.echo(table_head(names))
    for backbone in backbones:
        repeated = []
        for _ in range(repeats):
            repeated.append(_speeds(images, backbone, weights.get(backbone)))
            click.echo(f"{backbone}: {repeated[-1]}", err=True)
        middle = {key: statistics.median(one[key] for one in repeated) for key in repeated[0]}
        cells = (
            f"{middle[key]:{form}}"
            for key, form in {
                "loop": ".1f", "float32": ".1f", "float32_ratio": ".2f", "bfloat16": ".1f",
                "bfloat16_ratio": ".2f", "int8": ".1f", "int8_ratio": ".2f",
                "int8_of_bfloat16": ".2f", "bare": ".1f", "decoding": ".0f", "limit": ".1f",
                "share": ".0%",
            }.items()
        )  # fmt: skip
        click.echo(table_row((backbone, *cells)))


def _speeds(images: Path, backbone: str, weights: str | None) -> dict[str, float]:
    """Images per second, and ratios of figures that were measured one after another."""
    loop = in_a_process(user_loop, images, backbone, weights)
    float32 = extraction_speed(images, backbone, weights, "float32")
    bare = in_a_process(bare_inference, images, backbone, weights, "bfloat16")
    bfloat16 = extraction_speed(images, backbone, weights, "bfloat16")
    int8 = extraction_speed(images, backbone, weights, "int8")
    decoding = in_a_process(bare_decoding, images, backbone)
    limit = 1 / (1 / bare + 1 / decoding)
    return {
        "loop": loop,
        "float32": float32,
        "float32_ratio": float32 / loop,
        "bfloat16": bfloat16,
        "bfloat16_ratio": bfloat16 / loop,
        "int8": int8,
        "int8_ratio": int8 / loop,
        "int8_of_bfloat16": int8 / bfloat16,
        "bare": bare,
        "decoding": decoding,
        "limit": limit,
        "share": bfloat16 / limit,
    }


def measure_unchanged(images: Path, repeats: int) -> None:
    """Print the time for a folder in which nothing has changed."""
    options = ("--backbone", "hsv-histogram", "--workspace", images.parent / "unchanged")
    run_featurepipe("extract", images, *options)
    n_images = len(list(images.rglob("*.jpg")))
    click.echo(table_head(("images", "what", "seconds", "images/s")))
    for what, more in (("sizes and times", ()), ("--rehash", ("--rehash",))):
        seconds = [run_featurepipe("extract", *options, *more)[1] for _ in range(repeats)]
        middle = statistics.median(seconds)
        click.echo(table_row((n_images, what, f"{middle:.2f}", f"{n_images / middle:,.0f}")))


def measure_memory(few: Path, many: Path, weights: dict[str, str]) -> None:
    """Print the peak memory for few images and for many."""
    click.echo(table_head(("images", "peak memory, MB")))
    peaks = []
    for images in (few, many):
        with tempfile.TemporaryDirectory(dir=images.parent) as workspace:
            done, _, peak = run_featurepipe(
                "extract", images, "--backbone", "resnet50", "--weights",
                weights.get("resnet50", "random"), "--engine", "openvino", "--workspace", workspace,
            )  # fmt: skip
        peaks.append(peak)
        click.echo(table_row((done[0]["n_images"], f"{peak / 1e6:.0f}")))
    click.echo(f"Ratio {peaks[1] / peaks[0]:.3f}")


def measure_start(images: Path, weights: dict[str, str], repeats: int) -> None:
    """Print the time to the first stored batch, without a converted graph and with one."""
    click.echo(table_head(("backbone", "cold, s", "warm, s")))
    for backbone in MISSION:
        given, seconds = weights.get(backbone, "random"), {"cold": [], "warm": []}
        for _ in range(repeats):
            with tempfile.TemporaryDirectory(dir=images.parent) as cache:
                for state in ("cold", "warm"):
                    seconds[state].append(first_batch_s(images, backbone, given, cache))
        medians = (f"{statistics.median(values):.1f}" for values in seconds.values())
        click.echo(table_row((backbone, *medians)))


def first_batch_s(images: Path, backbone: str, weights: str, cache: str) -> float:
    """Seconds until a store holds its first features."""
    import h5py

    with tempfile.TemporaryDirectory(dir=images.parent) as workspace:
        started = time.perf_counter()
        process = subprocess.Popen(
            [FEATUREPIPE, "extract", images, "--backbone", backbone, "--weights", weights,
             "--engine", "openvino", "--workspace", workspace, "--quiet"],
            env={**os.environ, "FEATUREPIPE_CACHE": cache},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while True:
                for path in Path(workspace).glob("features/[!.]*.h5"):
                    with h5py.File(path, "r", locking=False) as store:
                        if (store["status"][:] == 1).any():
                            return time.perf_counter() - started
                if process.poll() is not None:
                    raise click.ClickException("featurepipe extract ended before it stored a batch")
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--weights-folder",
    type=click.Path(exists=True, path_type=Path),
    help="Folder of BACKBONE_notop.h5; backbones without a file get random weights.",
)
@click.option("--n-images", default=1000, show_default=True, help="Number of images.")
@click.option("--n-many", default=20_000, show_default=True, help="Number for memory, unchanged.")
@click.option("--repeats", default=3, show_default=True, help="Measurements of each figure.")
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=MISSION,
    help="Backbone for speed; repeatable.  [default: all four]",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["speed", "unchanged", "memory", "start"]),
    help="Measure this only; repeatable.",
)
def main(
    folders: tuple[Path, ...],
    weights_folder: Path | None,
    n_images: int,
    n_many: int,
    repeats: int,
    backbones: tuple[str, ...],
    only: tuple[str, ...],
) -> None:
    """Measure extraction on a sample of the JPEGs below FOLDERS."""
    click.echo(describe_machine())
    weights = {
        name: str(path.resolve())
        for name in MISSION
        if weights_folder and (path := weights_folder / f"{name}_notop.h5").exists()
    }
    with tempfile.TemporaryDirectory() as root:
        few, many = Path(root) / "few" / "images", Path(root) / "many" / "images"
        sample_images(folders, n_images, few)
        parts: dict[str, Callable[[], None]] = {
            "start": lambda: measure_start(few, weights, repeats),
            "speed": lambda: measure_speed(few, weights, backbones, repeats),
            "memory": lambda: measure_memory(few, many, weights),
            "unchanged": lambda: measure_unchanged(many, repeats),
        }
        wanted = only or tuple(parts)
        if {"memory", "unchanged"} & set(wanted):
            sample_images(folders, n_many, many)
        for name in wanted:
            click.echo(f"\n## {name}\n")
            parts[name]()


if __name__ == "__main__":
    main()
