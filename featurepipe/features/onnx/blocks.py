"""Blocks of features as ONNX nodes: from pixels of any size to what the heads of a run read."""

from collections.abc import Hashable, Sequence

import numpy as np

from featurepipe.errors import UsageError
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.features.framing import Framing
from featurepipe.features.onnx.networks import convert_network, require_convertible
from featurepipe.features.onnx.nodes import Nodes
from featurepipe.features.onnx.pictures import write_histogram, write_view
from featurepipe.features.onnx.resizing import Picture, require_repeatable, write_resizing


def require_writable(recipes: Sequence[Recipe]) -> None:
    """Stop if features of some recipe cannot be written as nodes; nothing is loaded.

    Raises
    ------
    UsageError
    """
    for recipe in recipes:
        if recipe.fast_decode:
            raise UsageError(
                f"{recipe.store_name} has features of JPEGs decoded at a reduced size, which an "
                "ONNX file cannot repeat. Extract features without --fast-decode."
            )
        require_repeatable(recipe.framing)
        require_convertible(recipe.network)


def write_features(nodes: Nodes, recipes: Sequence[Recipe], pixels: str) -> str:
    """The features of images, those of all recipes side by side.

    Networks compute in float32, whatever the precision of the recipe. Views of one network are
    computed in one batch, so that its weights are in the graph once.

    Parameters
    ----------
    nodes : Nodes
    recipes : sequence of Recipe
        See `require_writable`.
    pixels : str
        (n_images, height, width, 3), uint8.

    Returns
    -------
    str
        (n_images, n_features), float32.

    Raises
    ------
    FeaturepipeError
        As `convert_network`.
    """
    picture = Picture(nodes, pixels)
    resized: dict[Framing, str] = {}
    for recipe in recipes:
        if recipe.framing not in resized:
            resized[recipe.framing] = write_resizing(nodes, picture, recipe.framing)
    sharing: dict[Hashable, list[Recipe]] = {}
    for recipe in recipes:
        sharing.setdefault(recipe.network, []).append(recipe)
    blocks: dict[Recipe, str] = {}
    for number, group in enumerate(sharing.values()):
        if group[0].network.backbone.kind == "descriptor":
            for recipe in group:
                blocks[recipe] = _descriptor(nodes, recipe, resized[recipe.framing])
            continue
        blocks |= _of_network(nodes, group, resized[group[0].framing], f"network{number}_")
    features = [blocks[recipe] for recipe in recipes]
    return features[0] if len(features) == 1 else nodes.op("Concat", *features, axis=1)


def _descriptor(nodes: Nodes, recipe: Recipe, pixels: str) -> str:
    size = recipe.network.input_size
    pictures = write_view(nodes, pixels, recipe.view, size)
    return _mean(nodes, [write_histogram(nodes, one, size[0]) for one in pictures])


def _of_network(
    nodes: Nodes, recipes: Sequence[Recipe], pixels: str, prefix: str
) -> dict[Recipe, str]:
    network = recipes[0].network
    pictures = [write_view(nodes, pixels, recipe.view, network.input_size) for recipe in recipes]
    everything = list(dict.fromkeys(picture for shown in pictures for picture in shown))
    together = everything[0]
    if len(everything) > 1:
        together = nodes.op("Concat", *everything, axis=0)
    model = convert_network(network)
    (given,) = (one.name for one in model.graph.input)
    (features,) = nodes.merge(model, prefix, {given: together})
    of_picture = {everything[0]: features}
    if len(everything) > 1:
        # (n_pictures * n_images, n_features): the first picture of all images comes first.
        shape = nodes.op(
            "Concat",
            np.array([len(everything), -1], np.int64),
            nodes.op("Slice", nodes.op("Shape", features), *_slice(1, 2)),
            axis=0,
        )
        by_picture = nodes.op("Reshape", features, shape)
        of_picture = {
            picture: nodes.op("Gather", by_picture, np.int64(number), axis=0)
            for number, picture in enumerate(everything)
        }
    return {
        recipe: _mean(nodes, [of_picture[picture] for picture in shown])
        for recipe, shown in zip(recipes, pictures, strict=True)
    }


def _mean(nodes: Nodes, features: Sequence[str]) -> str:
    """The mean of the features of an image's pictures, as `View.merge`."""
    total = features[0]
    for other in features[1:]:
        total = nodes.op("Add", total, other)
    return total if len(features) == 1 else nodes.op("Div", total, np.float32(len(features)))


def _slice(start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([start], np.int64), np.array([end], np.int64)
