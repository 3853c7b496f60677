"""`featurepipe extract`."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import Names, cluster, data, examples, group, option, output
from featurepipe.commands.terminal import write, write_event, write_json
from featurepipe.errors import UsageError

_PREPROCESSING = ("scale", "mean", "std", "channels", "resize", "crop_pct", "interpolation")


@cloup.command(
    epilog=examples(
        "extract dataset/ --attributes color,category",
        "extract images/ --labels labels.csv --group patient",
        "extract s3://bucket/images --backbone resnet50,mobilenet_v2 --view rgb,grey",
        "extract --backbone mobilenet_v2 --weights mine.weights.h5",
        "extract --backbone timm:convnext_tiny.fb_in22k",
        "extract s3://bucket/images --executor ray --ray-address head:6379",
        "extract --backbone mine.onnx --size 224 --mean 0.5 --std 0.5",
    )
)
@cloup.argument("source", required=False, help="Folder, table, tar file or URL of the images.")
@data(
    group,
    option(
        "--all-images",
        is_flag=True,
        help="Also use images of the folder that the table does not list.",
    ),
)
@cloup.option_group(
    "Backbone",
    option(
        "--backbone",
        type=Names(),
        show_default="all in the workspace, else xception",
        metavar="NAME|FILE|timm:NAME|keras-hub:PRESET,…",
        help="Names, .onnx, .xml, .tflite or .keras files, or presets.",
    ),
    option(
        "--weights",
        default="imagenet",
        metavar="WEIGHTS",
        help="imagenet|random|PATH, or NAME=PATH,… for several backbones.",
    ),
    option(
        "--pooling",
        default="avg",
        metavar="avg|max|LAYER|cls|mean|cls+mean",
        help="Pooling of the last feature map, another layer, or tokens.",
    ),
    option(
        "--view",
        type=Names(),
        default="rgb",
        metavar="rgb|grey|shuffle|flip,…",
        help="Full image, no colour, no shape, or with its mirror image.",
    ),
    option(
        "--size",
        "size_px",
        type=click.IntRange(1),
        metavar="PX",
        show_default="the backbone's own",
        help="Side of the backbone's input.",
    ),
    option(
        "--seed", type=click.IntRange(0), default=0, metavar="N", help="Seed of random weights."
    ),
    option("--list-backbones", is_flag=True, help="List all backbones and exit."),
)
@cloup.option_group(
    "Backbone from a file or preset",
    option(
        "--preprocess",
        "raw",
        type=click.Choice(["none"]),
        help="Pixels from 0 to 255 as they are.",
    ),
    option("--scale", metavar="NUMBER", show_default="1/255", help="Factor of pixels, first."),
    option("--mean", metavar="R,G,B", help="Subtracted from scaled pixels, one number or three."),
    option("--std", metavar="R,G,B", help="Divisor after that, one number or three."),
    option(
        "--channels",
        type=click.Choice(["rgb", "bgr"]),
        show_default="rgb",
        help="Order of the channels.",
    ),
    option(
        "--resize",
        type=click.Choice(["squash", "shorter-side+crop"]),
        show_default="squash",
        help="Squash the image, or crop its centre.",
    ),
    option("--crop-pct", type=float, metavar="SHARE", help="Share of the side that a crop keeps."),
    option(
        "--interpolation",
        type=click.Choice(["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]),
        show_default="bilinear",
        help="Filter that resizes.",
    ),
    option(
        "--output", metavar="NAME", show_default="the only output", help="Output or inner layer."
    ),
    option(
        "--prefix-tokens",
        type=click.IntRange(0),
        metavar="N",
        show_default="from the sidecar",
        help="Class and register tokens before the patches.",
    ),
)
@cloup.option_group(
    "Computation",
    option(
        "--engine",
        type=click.Choice(["auto", "openvino", "keras"]),
        default="auto",
        help="Engine; auto uses Keras on a GPU, else OpenVINO.",
    ),
    option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16", "float16", "int8"]),
        default="auto",
        help="Precision; auto keeps features close to float32 and is never int8.",
    ),
    option(
        "--batch-size",
        type=click.IntRange(1),
        metavar="N",
        show_default="chosen by memory",
        help="Images per batch.",
    ),
    option(
        "--fast-decode",
        is_flag=True,
        help="Decode large JPEGs at reduced size; the features change slightly.",
    ),
)
@cluster(
    option(
        "--gpus-per-worker",
        type=click.FloatRange(0, min_open=True),
        default=1.0,
        metavar="SHARE",
        help="Share of a GPU for each worker.",
    ),
    option(
        "--shard-size",
        type=click.IntRange(1),
        default=10_000,
        metavar="N",
        help="Images per shard of a new store.",
    ),
    option(
        "--price-per-hour",
        type=click.FloatRange(0),
        metavar="PRICE",
        help="Price of a worker; the log states the cost per million images.",
    ),
)
@cloup.option_group(
    "Cached features",
    option(
        "--rehash",
        is_flag=True,
        help="Detect changed images by content, not by size and date.",
    ),
    option("--retry-refused", is_flag=True, help="Try unreadable images again."),
    option("--strict", is_flag=True, help="Fail if an image is unreadable."),
)
@output()
def extract(list_backbones: bool, as_json: bool, raw: str | None = None, **options: Any) -> None:
    """Compute features of images and cache them.

    SOURCE is a folder whose sub-folders are the labels, a CSV or Parquet table, tar files in
    WebDataset layout, or a URL of one of these; the default is the current folder. The workspace
    remembers it and its backbones: later calls need neither, and compute only what is new, changed
    or damaged.
    """
    if list_backbones:
        _list_backbones(as_json)
        return
    values = {name: options.pop(name) for name in _PREPROCESSING if name in options}
    if raw is not None and values:
        raise UsageError(f"--preprocess none cannot be combined with {_flags(values)}. Omit one.")
    on_event = write_event if as_json and options.get("executor") == "ray" else None
    extractions = featurepipe.extract(
        **options, preprocess=raw or values or None, on_event=on_event
    )
    if as_json:
        write_json([extraction.as_dict() for extraction in extractions])
    else:
        write("\n".join(extraction.in_words() for extraction in extractions))


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _list_backbones(as_json: bool) -> None:
    from featurepipe.features.backbones import BACKBONES

    if as_json:
        write_json([asdict(spec) for spec in BACKBONES.values()])
        return
    lines = [f"{'backbone':<24}{'size px':>8}{'features':>10}  {'preprocessing':<15}licence"]
    lines += [
        f"{spec.name:<24}{spec.size_px:>8}{spec.n_features:>10}  "
        f"{spec.preprocessing:<15}{spec.licence}"
        for spec in BACKBONES.values()
    ]
    lines += ["", "Also timm:NAME, keras-hub:PRESET, and networks in files."]
    write("\n".join(lines))
