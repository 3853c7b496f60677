"""Recipe: everything that decides the features of an image."""

import re
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Self

from featurepipe.errors import StoreMismatchError, UsageError
from featurepipe.features.backbones import BACKBONES, find_backbone
from featurepipe.features.engines import Engine, choose_engine, feature_precision, open_engine
from featurepipe.features.extraction.file_recipe import (
    FileOptions,
    is_file_or_preset,
    network_of_file,
    repeat_network_of_file,
)
from featurepipe.features.extraction.views import find_view
from featurepipe.features.framing import Framing
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.store import StoreKey, WeightsKey
from featurepipe.features.weights import resolve_weights
from featurepipe.provenance import differences


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the features of an image; its key is that of a store.

    A `featurepipe.features.extraction.ready_stores.RowMaker`.

    Attributes
    ----------
    network : HeadlessNetwork
    view : str
        What the network is shown of the image.
    precision : str
        ``float32``, ``bfloat16``, ``float16`` or ``int8``.
    engine : str
        What runs the network; decides no feature and is no part of the key.
    fast_decode : bool
        Whether large JPEGs are decoded at a reduced size.
    """

    network: HeadlessNetwork
    view: str
    precision: str = "float32"
    engine: str = "keras"
    fast_decode: bool = False

    @property
    def key(self) -> StoreKey:
        """The key of its store."""
        network = self.network
        key = StoreKey(
            backbone=network.backbone.name,
            weights=WeightsKey(**network.weights.identity()),
            size_px=network.size_px,
            pooling=network.pooling,
            view=self.view,
            decoding="reduced" if self.fast_decode else "full",
            resize=network.framing.method,
            preprocessing=network.backbone.preprocessing,
            precision=self.precision,
        )
        if network.graph is None:
            return key
        graph = network.graph
        return replace(key, output=graph.output, prefix_tokens=graph.prefix_tokens)

    @property
    def origin(self) -> dict[str, str]:
        """What its store records beside the key: name of the weights, and where they were."""
        weights = self.network.weights
        return {"weights_label": weights.label, "weights_source": weights.source}

    @property
    def n_features(self) -> int | None:
        """Number of features of an image; None if that shows only when the network is loaded."""
        network = self.network
        return network.backbone.n_features if network.pooling in ("avg", "max") else None

    @property
    def store_name(self) -> str:
        """Name of its store, such as ``xception-imagenet-299-avg-rgb``."""
        network = self.network
        weights = network.weights
        # Files of one name are told apart by what they hold.
        label = weights.file_label if network.graph is None else weights.sha256[:8]
        parts = [network.backbone.name, label, network.size_px, network.pooling, self.view]
        parts += [network.graph.output] if network.graph and network.graph.output else []
        parts += ["fast"] if self.fast_decode else []
        return re.sub(r"[^\w.+-]", "_", "-".join(map(str, parts)))

    @property
    def framing(self) -> Framing:
        """How images become the network's input."""
        return self.network.framing

    @property
    def title(self) -> str:
        """Title of a progress bar, such as ``xception rgb``."""
        return f"{self.network.backbone.name} {self.view}"

    @property
    def beginning(self) -> str:
        """Log line before the engine is opened."""
        network = self.network
        return f"Loading {network.backbone.name} ({network.weights.label} weights) …"

    @property
    def engine_key(self) -> Hashable:
        """Equal for all views of one network."""
        return self.network, self.precision, self.engine

    def open_engine(self, batch_size: int | None = None) -> Engine:
        """Load the network, for batches of at most so many pictures."""
        return open_engine(
            self.network, batch_size=batch_size, precision=self.precision, engine=self.engine
        )

    def settled(self, precision: str, kept: str | None = None) -> Self:
        """The same recipe in the requested precision.

        Parameters
        ----------
        precision : {"auto", "float32", "bfloat16", "float16", "int8"}
        kept : str, optional
            Precision of the existing store; ``"auto"`` keeps it.

        Raises
        ------
        UnknownNameError, UsageError
            If there is no such precision, or the engine or the network cannot have it.
        """
        wanted = kept if precision == "auto" and kept is not None else precision
        return replace(self, precision=feature_precision(wanted, self.engine, self.network))


def make_recipe(
    backbone: str,
    weights: str = "imagenet",
    *,
    size_px: int | None = None,
    pooling: str = "avg",
    view: str = "rgb",
    engine: str = "auto",
    fast_decode: bool = False,
    seed: int = 0,
    of_file: FileOptions = FileOptions(),  # noqa: B008 (it is frozen)
) -> Recipe:
    """Look up the names of a recipe; ImageNet weights are downloaded if needed.

    Parameters
    ----------
    backbone, weights, pooling, view : str
        As on the command line. The backbone may be the path of a network or a preset, whose
        weights are its own.
    size_px : int, optional
        Default: that of the backbone.
    engine : {"auto", "openvino", "keras"}
    fast_decode : bool
        Whether large JPEGs may be decoded at a reduced size, which changes features slightly.
    seed : int
        Seed of random weights.
    of_file : FileOptions
        Of a network in a file or preset.

    Raises
    ------
    UnknownNameError
        If there is no such backbone, view or engine.
    UsageError
        If the backbone cannot have this size, pooling or preprocessing.
    ModelFileError
        If a file is no network that takes square images.
    WeightsError
        If the weights are missing or cannot be downloaded.
    """
    find_view(view)
    if is_file_or_preset(backbone):
        network = network_of_file(backbone, of_file, pooling=pooling, size_px=size_px)
        return Recipe(network, view, engine=_engine_of_files(engine), fast_decode=fast_decode)
    spec = find_backbone(backbone)
    chosen_engine = choose_engine(engine)
    network = HeadlessNetwork(
        spec,
        resolve_weights(weights, spec, seed),
        spec.size_px if size_px is None else size_px,
        pooling,
    )
    network.require_possible()
    return Recipe(network, view, engine=chosen_engine, fast_decode=fast_decode)


def _engine_of_files(name: str) -> str:
    if name == "keras":
        raise UsageError(
            "Networks in files and presets are computed by OpenVINO. Omit --engine keras."
        )
    return choose_engine("openvino")


def repeat_recipe(key: StoreKey, weights: str, engine: str = "auto") -> Recipe:
    """The recipe that a store or run was made with.

    Parameters
    ----------
    key : StoreKey
        `Recipe.key` at that time.
    weights : str
        Where its weights are now.
    engine : {"auto", "openvino", "keras"}
        What runs it on this machine.

    Raises
    ------
    StoreMismatchError
        If the weights, or what this version makes of the key, differ.
    """
    fast_decode = key.decoding == "reduced"
    engine = "openvino" if key.precision == "int8" else engine
    if key.backbone in BACKBONES:
        recipe = make_recipe(
            key.backbone,
            weights,
            size_px=key.size_px,
            pooling=key.pooling,
            view=key.view,
            engine=engine,
            fast_decode=fast_decode,
            seed=key.weights.seed or 0,
        )
    else:
        network = repeat_network_of_file(key, weights)
        recipe = Recipe(network, key.view, engine=_engine_of_files(engine), fast_decode=fast_decode)
    recipe = recipe.settled(key.precision)
    differing = differences(key.as_dict(), recipe.key.as_dict())
    if differing:
        raise StoreMismatchError(
            f"These would not be the features of before: {'; '.join(differing)}. Give the same "
            "weights with --weights PATH."
        )
    return recipe
