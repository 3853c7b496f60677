"""Recipe: everything that decides the features of an image."""

from dataclasses import dataclass, replace
from typing import Any

from featurepipe.errors import StoreMismatchError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.engines import Engine, choose_engine, choose_precision, open_engine
from featurepipe.features.extraction.views import find_view
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import resolve_weights
from featurepipe.provenance import differences


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the features of an image; it keys a store.

    Attributes
    ----------
    network : HeadlessNetwork
    view : str
        What of the image the network is shown.
    precision : str
        ``float32``, ``bfloat16`` or ``float16``; of pixels ``uint8``.
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
    def key(self) -> dict[str, Any]:
        """The recipe as plain values, as stores and runs keep it."""
        return self.network.identity() | {
            "decoding": "reduced" if self.fast_decode else "full",
            "resize": "pillow-bilinear",
            "preprocessing": self.network.backbone.preprocessing,
            "view": self.view,
            "precision": self.precision,
        }

    @property
    def store_name(self) -> str:
        """Name of its store, such as ``xception-imagenet-299-avg-rgb``."""
        network = self.network
        names = [network.backbone.name, network.weights.file_label]
        parts = [*names, network.size_px, network.pooling, self.view]
        parts += ["fast"] if self.fast_decode else []
        return "-".join(map(str, parts)).replace("/", "_")

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the pictures that it embeds."""
        return self.network.input_size

    @property
    def title(self) -> str:
        """What a bar shows: ``xception rgb``."""
        return f"{self.network.backbone.name} {self.view}"

    @property
    def beginning(self) -> str:
        """What a person is told before the engine is opened."""
        network = self.network
        return f"Loading {network.backbone.name} ({network.weights.label} weights) …"

    def open_engine(self, batch_size: int | None = None) -> Engine:
        """Load the network, for batches of at most that many pictures."""
        return open_engine(
            self.network, batch_size=batch_size, precision=self.precision, engine=self.engine
        )

    def settled(self, precision: str, kept: str | None = None) -> "Recipe":
        """The same recipe in the precision that is asked for.

        Parameters
        ----------
        precision : {"auto", "float32", "bfloat16", "float16"}
        kept : str, optional
            Precision of the store that there is; ``"auto"`` goes on in it.
        """
        if precision == "auto" and kept is not None:
            return replace(self, precision=kept)
        return replace(self, precision=choose_precision(precision, self.engine, self.network))


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
) -> Recipe:
    """Find what the names of a recipe stand for; ImageNet weights are downloaded.

    Parameters
    ----------
    backbone, weights, pooling, view : str
        As on the command line.
    size_px : int, optional
        Default: the backbone's own.
    engine : {"auto", "openvino", "keras"}
    fast_decode : bool
        Whether large JPEGs may be decoded at a reduced size, which moves features.
    seed : int
        Of random weights.

    Raises
    ------
    UnknownNameError
        If there is no such backbone, view or engine.
    WeightsError
        If the weights are missing or cannot be downloaded.
    """
    spec = find_backbone(backbone)
    find_view(view)
    found = resolve_weights(weights, spec, seed)
    return Recipe(
        HeadlessNetwork(spec, found, spec.size_px if size_px is None else size_px, pooling),
        view,
        engine=choose_engine(engine),
        fast_decode=fast_decode,
    )


def repeat_recipe(key: dict[str, Any], weights: str) -> Recipe:
    """The recipe that a store or run was made with, or the difference.

    Parameters
    ----------
    key : dict
        `Recipe.key` of then.
    weights : str
        Where its weights are now.

    Raises
    ------
    StoreMismatchError
        If the weights, or what this version makes of the key, differ.
    """
    recipe = make_recipe(
        key["backbone"],
        weights,
        size_px=key["size_px"],
        pooling=key["pooling"],
        view=key["view"],
        fast_decode=key["decoding"] == "reduced",
        seed=key["weights"].get("seed", 0),
    ).settled(key["precision"])
    found = differences(key, recipe.key)
    if found:
        raise StoreMismatchError(
            f"These would not be the features that the run was trained on: {'; '.join(found)}. "
            "Name the run's own weights with --weights PATH."
        )
    return recipe
