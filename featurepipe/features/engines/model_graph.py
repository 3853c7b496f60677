"""A network in a file or preset -> the graph of an engine: uint8 RGB pixels to float32 features.

Imported by the processes of `conversion_tasks` only.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino.preprocess import ColorFormat, PrePostProcessor

from featurepipe.errors import ModelFileError
from featurepipe.features.engines.model_reading import name_of, read_model, sides_of
from featurepipe.features.engines.probes import probe_images
from featurepipe.features.model_files.normalisation import Normalisation

MAP_POOLINGS = ("avg", "max")
TOKEN_POOLINGS = ("cls", "mean", "cls+mean")

_SAME = 1e-3
_REASON_LENGTH = 200


def export(
    path: Path,
    exported: Path,
    *,
    size_px: int,
    pooling: str,
    normalisation: str,
    output: str | None,
    prefix_tokens: int | None,
) -> None:
    """Save the graph of a network, with a variable batch size where the network allows it.

    Parameters
    ----------
    path : Path
    exported : Path
        The `.xml` file; weights are written beside it as `.bin`.
    size_px : int
    pooling : str
        One of `MAP_POOLINGS` for a feature map, of `TOKEN_POOLINGS` for tokens; a vector is
        taken as it is.
    normalisation : str
        `Normalisation.text`.
    output : str or None
        Name of an output or layer; None: the only output.
    prefix_tokens : int or None
        Tokens before those of the patches.

    Raises
    ------
    ModelFileError
        If the network cannot be read, has no such input or output, cannot be pooled so, or
        computes no finite vector for each image.
    """
    is_keras = path.suffix.lower() == ".keras"
    model = read_model(path, output if is_keras else None)
    _choose_output(model, path.name, None if is_keras else output)
    save_graph(
        model,
        path.name,
        exported,
        size_px=size_px,
        pooling=pooling,
        normalisation=normalisation,
        prefix_tokens=prefix_tokens,
    )


def save_graph(
    model: ov.Model,
    name: str,
    exported: Path,
    *,
    size_px: int,
    pooling: str,
    normalisation: str,
    prefix_tokens: int | None,
) -> None:
    """Save the graph of a network that has one output; see `export`.

    Parameters
    ----------
    model : openvino.Model
    name : str
        Of the network, in messages.
    exported, size_px, pooling, normalisation, prefix_tokens
        See `export`.

    Raises
    ------
    ModelFileError
        If the network has no such input, cannot be pooled so, or computes no finite vector for
        each image.
    """
    layout = _reshape(model, name, size_px)
    _pool(model, name, layout, pooling, prefix_tokens)
    model = _prepend(model, layout, Normalisation.from_text(normalisation))
    _settle_batch(model, name, size_px)
    ov.save_model(model, exported, compress_to_fp16=False)


def _choose_output(model: ov.Model, file: str, name: str | None) -> None:
    """Leave one output: the only one, the named one, or that of a named layer."""
    outputs = {name_of(port): port for port in model.outputs}
    if name is None:
        if len(outputs) != 1:
            raise ModelFileError(
                f"{file} has {len(outputs)} outputs: {', '.join(outputs)}. Choose one with "
                "--output NAME."
            )
        return
    if name in outputs:
        keep = outputs[name].get_node()
    else:
        try:
            keep = model.add_outputs(name)[0].get_node()
        except RuntimeError:
            raise ModelFileError(
                f"{file} has no output or layer {name!r}. Its outputs are "
                f"{', '.join(outputs)}. Choose one of them, or a layer, with --output."
            ) from None
    for result in model.get_results():
        if result.get_friendly_name() != keep.get_friendly_name():
            model.remove_result(result)


def _reshape(model: ov.Model, name: str, size_px: int) -> str:
    """Fix the size of the input; returns its layout.

    The axis of the channels is the one of three. Where any axis may have any length, the
    network itself tells: its first convolution has three input channels. It is never guessed.
    """
    (port,) = model.inputs
    sides = sides_of(port) or [None] * 4
    shapes = {
        "NCHW": [sides[0] or -1, 3, size_px, size_px],
        "NHWC": [sides[0] or -1, size_px, size_px, 3],
    }
    possible = {
        layout: shape
        for layout, shape in shapes.items()
        if all(side in (None, wanted) for side, wanted in zip(sides[1:], shape[1:], strict=True))
    }
    reasons, found = [], []
    for layout, shape in possible.items():
        try:
            model.reshape({port: ov.PartialShape(shape)})
        except RuntimeError as error:
            reasons.append(_last_line(error))
        else:
            found.append(layout)
    if len(found) == 1:
        model.reshape({port: ov.PartialShape(shapes[found[0]])})
        return found[0]
    if found:
        raise ModelFileError(
            f"{name} does not say which axis has the channels, and could compute either. "
            "Export it with three channels fixed."
        )
    if not possible:
        shown = " x ".join("?" if side is None else str(side) for side in sides)
        raise ModelFileError(
            f"{name} takes images of the shape {shown}, which cannot be {size_px} x {size_px} "
            "px in RGB. Set --size to the side of its input; if it says otherwise, correct the "
            "sidecar."
        )
    raise _impossible_size(name, size_px, reasons[-1])


def _impossible_size(name: str, size_px: int, reason: str) -> ModelFileError:
    return ModelFileError(
        f"{name} cannot compute images of {size_px} x {size_px} px ({reason}). Set --size to "
        "the side that it was exported for, or choose another output with --output."
    )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:_REASON_LENGTH]


def _pool(model: ov.Model, name: str, layout: str, pooling: str, prefix_tokens: int | None) -> None:
    """Make one vector an image of the output."""
    (result,) = model.get_results()
    value = result.input_value(0)
    sides = sides_of(value)
    shown = "?" if sides is None else " x ".join("?" if s is None else str(s) for s in sides)
    where = f"The output {name_of(model.outputs[0])!r} of {name} ({shown})"
    rank = None if sides is None else len(sides)
    if rank == 4 and pooling in MAP_POOLINGS:
        axes = [2, 3] if _channels_first(sides, layout) else [1, 2]
        reduce = ops.reduce_mean if pooling == "avg" else ops.reduce_max
        pooled = reduce(value, np.array(axes, np.int64), keep_dims=False)
    elif rank == 3 and pooling in TOKEN_POOLINGS:
        pooled = _pool_tokens(value, where, sides, pooling, prefix_tokens)
    elif rank == 2 and pooling == "avg":
        pooled = value
    else:
        choices = {2: ("avg",), 3: TOKEN_POOLINGS, 4: MAP_POOLINGS}.get(rank or 0)
        if choices is None:
            raise ModelFileError(
                f"{where} is no vector, tokens or map of features. Choose another with --output."
            )
        kind = {2: "a vector", 3: "tokens", 4: "a feature map"}[rank or 0]
        raise ModelFileError(
            f"{where} is {kind}: --pooling {pooling} does not apply. Use --pooling "
            f"{' or '.join(choices)}."
        )
    if pooled is not value:
        _replace_result(model, pooled.output(0))


def _channels_first(sides: Any, layout: str) -> bool:
    # Maps of square images are square.
    if sides[2] == sides[3] != sides[1]:
        return True
    if sides[1] == sides[2] != sides[3]:
        return False
    return layout == "NCHW"


def _pool_tokens(
    value: Any, where: str, sides: Any, pooling: str, prefix_tokens: int | None
) -> Any:
    n_tokens = sides[1]
    axis = ops.constant(1, ov.Type.i64)
    first = ops.gather(value, ops.constant(0, ov.Type.i64), axis)
    if "cls" in pooling and prefix_tokens == 0:
        raise ModelFileError(f"{where} has no class token. Use --pooling mean.")
    if pooling == "cls":
        return first
    if prefix_tokens is None:
        raise ModelFileError(
            f"{where} has tokens, and nothing says how many of them come before those of the "
            "patches (1 in a plain ViT; more with registers). Add --prefix-tokens N."
        )
    n_patches = None if n_tokens is None else n_tokens - prefix_tokens
    if n_patches is not None and (n_patches < 1 or round(n_patches**0.5) ** 2 != n_patches):
        raise ModelFileError(
            f"{where} has {n_tokens} tokens; without {prefix_tokens} before the patches, that is "
            f"{n_patches}, which is no square of patches. Correct --prefix-tokens, or the sidecar."
        )
    patches = ops.slice(value, [prefix_tokens], [np.iinfo(np.int64).max], [1], [1])
    mean = ops.reduce_mean(patches, axis, keep_dims=False)
    return mean if pooling == "mean" else ops.concat([first, mean], axis=1)


def _replace_result(model: ov.Model, output: Any) -> None:
    (old,) = model.get_results()
    new = ops.result(output)
    model.add_results([new])
    model.remove_result(old)
    model.validate_nodes_and_infer_types()


def _prepend(model: ov.Model, layout: str, normalisation: Normalisation) -> ov.Model:
    """Put conversion, channels and normalisation before the network, in float32."""
    prepost = PrePostProcessor(model)
    given = prepost.input()
    given.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    given.model().set_layout(ov.Layout(layout))
    if normalisation != Normalisation():
        steps = given.preprocess()
        if normalisation.channels == "bgr":
            given.tensor().set_color_format(ColorFormat.RGB)
            steps.convert_color(ColorFormat.BGR)
        steps.convert_element_type(ov.Type.f32)
        # (x * scale - mean) / std, with one multiplication less.
        steps.mean([mean / normalisation.scale for mean in normalisation.mean])
        steps.scale([std / normalisation.scale for std in normalisation.std])
    prepost.output().tensor().set_element_type(ov.Type.f32)
    return prepost.build()


def _settle_batch(model: ov.Model, name: str, size_px: int) -> None:
    """Let the batch have any size, if images then still have features of their own."""
    (port,) = model.inputs
    own = port.get_partial_shape()[0]
    pictures = probe_images((size_px, size_px))[:2]
    for n_images in (-1, own.get_length() if own.is_static else 1):
        try:
            model.reshape({port: ov.PartialShape([n_images, size_px, size_px, 3])})
            if _has_own_features(model, pictures, n_images, name):
                return
        except (RuntimeError, ValueError) as error:
            reason = _last_line(error)
        else:
            reason = ""
    if reason:
        raise _impossible_size(name, size_px, reason)
    raise ModelFileError(
        f"{name} computes no vector for each image: images of one batch change each other's "
        "features. Choose another output with --output, or export the network for batches of one "
        "image."
    )


def _has_own_features(
    model: ov.Model, pictures: NDArray[np.uint8], n_images: int, name: str
) -> bool:
    """Whether each image has a vector that does not depend on the others of its batch."""
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    n_together, n_alone = (2, 1) if n_images == -1 else (n_images, n_images)
    together = compiled(np.resize(pictures, (n_together, *pictures.shape[1:])))[0]
    alone = [compiled(np.repeat(pictures[[k]], n_alone, axis=0))[0][:1] for k in range(2)]
    if together.ndim != 2 or len(together) != n_together or together.shape[1] == 0:
        return False
    if not np.isfinite(together).all():
        raise ModelFileError(
            f"{name} computes features of generated pictures that are not finite numbers. "
            "Correct the preprocessing, or export the network again."
        )
    return _is_close(np.concatenate(alone)[:n_together], together[:2])


def _is_close(alone: NDArray[np.float32], together: NDArray[np.float32]) -> bool:
    if alone.shape != together.shape:
        return False
    return bool(np.linalg.norm(alone - together) <= _SAME * np.linalg.norm(alone))
