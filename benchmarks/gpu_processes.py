"""What `benchmarks/gpu.py` measures, one function for each process.

Each has the GPU for itself, since JAX and TensorFlow reserve most of its memory. The first
argument of all is the folder of the images.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# Names in timm of the networks that Keras has.
TIMM = {
    "resnet50": "resnet50",
    "inception_v3": "inception_v3",
    "xception": "legacy_xception",
    "inception_resnet_v2": "inception_resnet_v2",
}
TORCHVISION = ("resnet50", "inception_v3")


def describe_keras(images: Path) -> dict[str, Any]:
    """What Keras computes with, and where."""
    from featurepipe.features.engines.engine_choice import import_keras_engine

    import_keras_engine()
    from featurepipe.features.engines.quiet_keras import backend, computes_on_gpu, keras

    device = str(keras.ops.ones(1).device)
    return {"backend": backend(), "device": device, "on_gpu": computes_on_gpu()}


def draw_weights(images: Path, backbone: str, size_px: int | None, target: str) -> None:
    """Save random weights: a backend may draw others on a GPU than on a CPU."""
    from featurepipe.features.engines.keras_engine import save_weights
    from featurepipe.features.extraction.recipe import make_recipe

    recipe = make_recipe(backbone, "random", size_px=size_px, engine="keras")
    save_weights(recipe.network, Path(target))


def save_features(
    images: Path,
    backbone: str,
    weights: str,
    size_px: int | None,
    precision: str,
    batch_size: int,
    n_images: int,
    target: str,
) -> None:
    """Save the features of the probes and of some images, in one array."""
    from featurepipe.features.engines import open_engine
    from featurepipe.features.engines.probes import probe_images
    from featurepipe.features.extraction.decoding import decode_image
    from featurepipe.features.extraction.recipe import make_recipe

    network = make_recipe(backbone, weights, size_px=size_px, engine="keras").network
    engine = open_engine(network, batch_size=batch_size, precision=precision, engine="keras")
    files = sorted(images.rglob("*.jpg"))[:n_images]
    decoded = [decode_image(file.read_bytes(), network.input_size) for file in files]
    np.save(target, engine.embed(np.concatenate([probe_images(network.input_size), decoded])))


def bare_forward(
    images: Path,
    backbone: str,
    weights: str,
    size_px: int | None,
    precision: str,
    batch_size: int,
    n_images: int,
    repeats: int,
) -> dict[str, Any]:
    """Images per second of the engine's own graph on a batch that is on the device already."""
    from featurepipe.features.engines.keras_engine import build_graph
    from featurepipe.features.engines.probes import probe_images
    from featurepipe.features.engines.quiet_keras import computing_in, keras
    from featurepipe.features.extraction.recipe import make_recipe

    network = make_recipe(backbone, weights, size_px=size_px, engine="keras").network
    with computing_in(precision):
        compute = _compile(build_graph(network, batch_size))
    pixels = np.resize(probe_images(network.input_size), (batch_size, *network.input_size, 3))
    batch, n_batches = keras.ops.convert_to_tensor(pixels), -(-n_images // batch_size)

    def measure() -> float:
        started = time.perf_counter()
        # Read only afterwards, so that no batch waits for the one before it to be read.
        for features in [compute(batch) for _ in range(n_batches)]:
            keras.ops.convert_to_numpy(features)
        return n_batches * batch_size / (time.perf_counter() - started)

    measure()
    return {"values": [measure() for _ in range(repeats)], "peak_gpu_bytes": _peak_gpu_bytes()}


def _compile(graph: Any) -> Callable[[Any], Any]:
    """The graph as its backend runs it at best in Keras; PyTorch runs it layer by layer."""
    from featurepipe.features.engines.quiet_keras import backend

    if backend() == "jax":
        import jax

        @jax.jit
        def forward(trained: Any, others: Any, batch: Any) -> Any:
            return graph.stateless_call(trained, others, batch, training=False)[0]

        trained = [variable.value for variable in graph.trainable_variables]
        return partial(forward, trained, [v.value for v in graph.non_trainable_variables])
    if backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(partial(graph, training=False), jit_compile=True)
    import torch

    return torch.no_grad()(partial(graph, training=False))


def _peak_gpu_bytes() -> int | None:
    """Most GPU memory that arrays of the backend took; None where it does not tell."""
    from featurepipe.features.engines.quiet_keras import backend, computes_on_gpu

    if not computes_on_gpu():
        return None
    if backend() == "jax":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if backend() == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    import torch

    return torch.cuda.max_memory_allocated()


class Pictures:
    """The images of a plain PyTorch loop; a map-style `torch.utils.data.Dataset`."""

    def __init__(self, files: list[Path], size_px: int) -> None:
        self.files, self.size = files, (size_px, size_px)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        from PIL import Image

        with Image.open(self.files[index]) as picture:
            return np.array(picture.convert("RGB").resize(self.size, Image.Resampling.BILINEAR))


def torch_loop(
    images: Path,
    backbone: str,
    size_px: int | None,
    precision: str,
    batch_size: int,
    repeats: int,
    on_gpu: bool,
) -> dict[str, Any]:
    """Images per second of the loop that a user of PyTorch would write, after a first pass."""
    if importlib.util.find_spec("torch") is None:
        return {"skipped": "PyTorch is not installed"}
    import torch

    from featurepipe.features.backbones import find_backbone
    from featurepipe.features.extraction.memory_budget import count_cpus

    if on_gpu and not torch.cuda.is_available():
        return {"skipped": "PyTorch does not compute on the GPU"}
    model, library = _torch_model(backbone)
    if model is None:
        return {"skipped": library}
    device = "cuda" if on_gpu else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    size_px = size_px or find_backbone(backbone).size_px
    model = model.eval().to(device, memory_format=torch.channels_last)
    reduced = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    files = sorted(images.rglob("*.jpg"))
    loader = torch.utils.data.DataLoader(
        Pictures(files, size_px),
        batch_size,
        num_workers=count_cpus(),
        persistent_workers=True,
        pin_memory=on_gpu,
    )

    def run(model: Any) -> float:
        started, features = time.perf_counter(), []
        with torch.inference_mode(), torch.autocast(device, reduced, enabled=reduced is not None):
            for batch in loader:
                # With the channels last in memory.
                pixels = batch.to(device, non_blocking=True).permute(0, 3, 1, 2)
                features.append(model(pixels.float() / 127.5 - 1).float())
        with tempfile.TemporaryFile() as file:
            np.save(file, torch.cat(features).cpu().numpy())
        return len(files) / (time.perf_counter() - started)

    compiled = torch.compile(model) if on_gpu else model
    try:
        run(compiled)
    except Exception:
        # Where there is no compiler, a user would go on without.
        compiled = model
        run(compiled)
    values = [run(compiled) for _ in range(repeats)]
    return {"values": values, "library": library, "compiled": compiled is not model}


def _torch_model(backbone: str) -> tuple[Any, str]:
    """A network with random weights, and its library; or None, and why there is none."""
    if importlib.util.find_spec("timm"):
        import timm

        return timm.create_model(TIMM[backbone], pretrained=False, num_classes=0), "timm"
    if importlib.util.find_spec("torchvision") is None:
        return None, "neither timm nor torchvision is installed"
    if backbone not in TORCHVISION:
        return None, f"torchvision has no {backbone}, and timm is not installed"
    import torch
    import torchvision

    model = torchvision.models.get_model(backbone, weights=None)
    model.fc = torch.nn.Identity()
    return model, "torchvision"


def training(
    images: Path, network: str, weights: str, size_px: int | None, epochs: int
) -> dict[str, Any]:
    """Images per second of each stage, validation included, without its first epoch."""
    import pandas as pd

    import featurepipe
    from featurepipe.features.engines import training_precision
    from featurepipe.runs.run_folder import load_run
    from featurepipe.splits import Split
    from featurepipe.workspace import Workspace

    backbone = {"backbone": "xception", "weights": weights} if network == "pair" else {}
    with tempfile.TemporaryDirectory(dir=images.parent) as folder:
        workspace = Workspace(folder)
        featurepipe.extract(images, backbone="hsv_histogram", workspace=folder)
        featurepipe.train(
            network, **backbone, size_px=size_px, epochs=epochs, workspace=folder, resume=False
        )
        (run,) = workspace.runs()
        history = pd.read_csv(run / "history.csv")
        split = Split.load(workspace.splits()[0])
        n_fitted = len(split.rows("train")) - len(load_run(run).selection.ids)
    stages = history.groupby("stage", sort=False)["seconds"]
    return {
        "stages": {stage: (n_fitted / seconds.iloc[1:]).tolist() for stage, seconds in stages},
        "n_images": n_fitted,
        "precision": training_precision("auto"),
        "peak_gpu_bytes": _peak_gpu_bytes(),
    }
