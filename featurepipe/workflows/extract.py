"""extract(): images -> cached features."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from featurepipe.errors import ExtractionError, UsageError
from featurepipe.features.extraction.file_recipe import FileOptions
from featurepipe.features.extraction.ready_stores import open_stores
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.features.extraction.store_update import Extraction, require_readable_images
from featurepipe.features.extraction.updating import update_stores
from featurepipe.features.store import SHARDS_SUFFIX
from featurepipe.manifest import ManifestRows, Relabelling, lost_classes
from featurepipe.progress import tell
from featurepipe.words import counted
from featurepipe.workflows.cluster_options import (
    N_PER_SHARD,
    ClusterOptions,
    EmbeddingOptions,
    Event,
)
from featurepipe.workflows.requested_features import FeatureOptions, recipes_of_stores
from featurepipe.workflows.sharded_extract import sharded_extraction
from featurepipe.workflows.source_images import read_source
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def extract(
    source: Path | str | None = None,
    *,
    backbone: str | Sequence[str] | None = None,
    weights: str | Mapping[str, str] = "imagenet",
    pooling: str = "avg",
    view: str | Sequence[str] = "rgb",
    size_px: int | None = None,
    preprocess: str | Mapping[str, Any] | None = None,
    output: str | None = None,
    prefix_tokens: int | None = None,
    fast_decode: bool = False,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    group: str | None = None,
    label_separator: str | None = None,
    min_per_class: int | None = None,
    all_images: bool = False,
    workspace: Path | str = ".",
    engine: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    retry_refused: bool = False,
    rehash: bool = False,
    strict: bool = False,
    seed: int = 0,
    executor: str = "local",
    ray_address: str | None = None,
    gpus_per_worker: float = 1.0,
    shard_size: int = N_PER_SHARD,
    price_per_hour: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> list[Extraction]:
    """Run backbones over images and cache their features in the workspace.

    Each image is read and decoded once, whatever the number of backbones and views. Only
    images that are new, changed, or left pending by a killed run are embedded. Damaged stores
    are healed: their sound rows are kept and the others computed again.

    Parameters
    ----------
    source : Path or str, optional
        Folder, tar file or table of images, or a URL of one. Default: the one that the
        workspace remembers, else the current folder, which is logged. Refused if the workspace
        has stores, and none of the images is in them.
    backbone : str or sequence of str, optional
        Names of backbones; paths of networks: `.onnx`, `.xml` (OpenVINO), `.tflite`, `.keras`; or
        presets: ``timm:NAME``, ``keras-hub:PRESET``. Default: every store of the workspace is
        brought up to date; if it has none, ``"xception"``.
    weights : str or mapping of str to str
        ``"imagenet"``, ``"random"`` (seeded by `seed`), or the path of a weights file. Applies
        to all backbones that have weights. Where several need files: a mapping of backbones to
        weights, or ``"NAME=WEIGHTS,NAME=WEIGHTS"``.
    pooling : str
        ``"avg"``, ``"max"`` or the name of a layer. Of a network in a file or preset: ``"avg"``
        or ``"max"`` for maps, ``"cls"``, ``"mean"`` or ``"cls+mean"`` for tokens; a vector is
        taken as it is. ``"avg"`` of a preset is the library's own pooling, where it has one.
    view : str or sequence of str
        What each backbone is shown of the image; each view gives a store.
    size_px : int, optional
        Side of the square input; default: that of the backbone.
    preprocess : str or mapping of str to object, optional
        What a network in a file expects, or a preset instead of what its library says:
        ``"none"`` if it takes pixels in [0, 255] as they are; or some of ``scale``, ``mean``,
        ``std`` (``(pixel * scale - mean) / std``; the scale is 1/255 unless given, mean and std
        are one number or three), ``channels`` (``"rgb"`` or ``"bgr"``), ``resize`` (``"squash"``
        or ``"shorter-side+crop"``), ``crop_pct`` and ``interpolation``. What is
        not given is that of a `preprocessor_config.json` or `config.json` beside the file; it is
        never guessed.
    output : str, optional
        Output or layer of a network in a file; default: its only output.
    prefix_tokens : int, optional
        Class and register tokens of a network in a file; default: what a sidecar says.
    fast_decode : bool
        Whether to decode large JPEGs at a reduced size. This changes features slightly, so they
        get a store of their own.
    attributes, labels, group, label_separator, min_per_class
        What the labels are; see `featurepipe.manifest.read_manifest`. Default: what the
        workspace remembers.
    all_images : bool
        Whether to embed images that the table of `labels` does not name, too. Remembered with
        the table.
    workspace : Path or str
    engine : {"auto", "openvino", "keras"}
        What runs the backbone; ``"auto"``: Keras on a GPU, else OpenVINO.
    precision : {"auto", "float32", "bfloat16", "float16", "int8"}
        ``"auto"``: that of the existing store; else bfloat16 where the hardware computes it
        natively and it keeps the features, and float32 elsewhere. ``"int8"`` is faster on any
        processor and moves the features further; it needs the extra `int8`.
    batch_size : int, optional
        Images embedded, and committed, at once; default: what suits the engine and the memory.
    retry_refused : bool
        Whether to try again images that were refused and have not changed.
    rehash : bool
        Whether to read every image again and compare its digest, and not trust its size and
        modification time.
    strict : bool
        Whether a refused image is an error, raised after the others are done.
    seed : int
        Seed of random weights.
    executor : {"local", "ray"}
        ``"ray"``: the nodes of a Ray cluster compute the features, each into shards of its own;
        workspace and images must be on storage that all of them see.
    ray_address : str, optional
        ``HOST:PORT`` of the cluster's head. Default: that in ``RAY_ADDRESS``, else the cluster
        that was started on this machine, else a new one of this machine alone.
    gpus_per_worker : float
        Share of a GPU that each worker on a node with GPUs has.
    shard_size : int
        Images of a new shard, at most.
    price_per_hour : float, optional
        Of one worker; the log then says what a million images cost.
    on_event : callable, optional
        Called with what happens on the cluster: a dict with ``event`` and its values.

    Returns
    -------
    list of Extraction
        What was done, one for each backbone and view.

    Raises
    ------
    FeaturepipeError
        If anything given cannot be used; see `featurepipe.errors`. Nothing is written then. If
        every image of a class was refused, it is raised after the others are done.
    """
    space = Workspace(workspace)
    options = FeatureOptions(
        weights=weights,
        pooling=pooling,
        view=tuple(dict.fromkeys(_listed(view))),
        size_px=size_px,
        of_file=FileOptions(preprocess, output, prefix_tokens),
        fast_decode=fast_decode,
        engine=engine,
        precision=precision,
        seed=seed,
    )
    cluster = ClusterOptions(
        executor, ray_address, gpus_per_worker, shard_size, price_per_hour, on_event
    )
    cluster.require_possible()
    names = list(dict.fromkeys(_listed(backbone or ())))
    if not names and not space.stores():
        names = ["xception"]
    options.require_possible(names)
    asked = Relabelling(tuple(attributes), labels, group, label_separator, min_per_class)
    with read_source(space, source, asked, all_images=all_images) as (listed, is_new):
        single, sharded = _stores(space, names, options, cluster)
        embedding = EmbeddingOptions(engine, precision, batch_size, retry_refused, rehash)
        # A cluster's workers read them from the manifest, few at a time.
        ids = listed.rows.ids().to_pylist() if single else []
        with ExitStack() as opened:
            opened.enter_context(space.writing())
            ready = opened.enter_context(
                open_stores(single, ids, precision=precision, batch_size=batch_size)
            )
            make_shards = opened.enter_context(
                sharded_extraction(space, listed.rows.root, sharded, embedding, cluster)
                if sharded
                else nullcontext(list)
            )
            if is_new:
                listed.rows.save(space.manifest)
            done = make_shards()
            if ready:
                done += update_stores(
                    ready, listed.images, ids, retry_refused=retry_refused, rehash=rehash
                )
            require_readable_images(done)
        _tell_refused(done[-1], strict)
        _require_readable_classes(listed.rows, done[-1].refused)
    return done


def _stores(
    space: Workspace, names: Sequence[str], options: FeatureOptions, cluster: ClusterOptions
) -> tuple[dict[Path, Recipe], dict[Path, Recipe]]:
    """The recipes of the stores to bring up to date: of those of one file, and of shards."""
    stores = (
        {_place(space, recipe.store_name, cluster): recipe for recipe in options.recipes(names)}
        if names
        else recipes_of_stores(space.stores(), options)
    )
    sharded = {path: recipe for path, recipe in stores.items() if path.suffix == SHARDS_SUFFIX}
    single = {path: recipe for path, recipe in stores.items() if path not in sharded}
    if cluster.executor == "ray" and single:
        raise UsageError(
            f"{next(iter(single))} is a store of one file, which a cluster cannot share. Omit "
            "--executor ray, or give another --workspace."
        )
    return single, sharded


def _place(space: Workspace, name: str, cluster: ClusterOptions) -> Path:
    """Where the store of a name is, or will be: a cluster makes shards."""
    single, sharded = space.store(name), space.sharded_store(name)
    is_sharded = sharded.exists() or (cluster.executor == "ray" and not single.exists())
    return sharded if is_sharded else single


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _tell_refused(extraction: Extraction, strict: bool) -> None:
    refused, unread = extraction.refused, extraction.unread
    if refused:
        _warn("were refused", refused, extraction.store)
    if unread:
        _warn("could not be read now and keep their features", unread, extraction.store)
    if strict and (refused or unread):
        raise ExtractionError(
            f"{len(refused) + len(unread)} of {extraction.n_images} images were refused or could "
            "not be read (see above), and --strict allows none. Replace or remove them, and run "
            "the same command again."
        )


def _require_readable_classes(rows: ManifestRows, refused: Mapping[str, str]) -> None:
    """Stop if all images of a class were refused."""
    if not refused:
        return
    for name, lost in lost_classes(rows, refused.keys()).items():
        classes = (
            f"{label!r} ({counted(ids, 'image')}, such as {ids[0]}: {refused[ids[0]]})"
            for label, ids in lost.items()
        )
        raise ExtractionError(
            f"No image of {counted(lost, 'label')} of {name!r} can be read: "
            f"{'; '.join(classes)}. Replace or remove them, and run the same command again."
        )


def _warn(what: str, reasons: Mapping[str, str], store: Path) -> None:
    shown = [f"  {image_id}: {reason}" for image_id, reason in list(reasons.items())[:20]]
    if len(reasons) > len(shown):
        shown.append(f"  … and {len(reasons) - len(shown)} more: featurepipe info {store}")
    tell([f"{len(reasons)} images {what}:", *shown])
