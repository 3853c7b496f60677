"""Blocks of layers in a network: fine-tuning trains the last few.

The names of some layers say which block they belong to (`BackboneSpec.blocks`), but
many names are made up by Keras: ``conv2d_93`` is a different layer if other networks
were built before. The blocks of such layers are derived from the graph.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from featurepipe.errors import UsageError
from featurepipe.features.backbones import BackboneSpec

if TYPE_CHECKING:
    import keras

_STEM = ""


def last_blocks(model: "keras.Model", backbone: BackboneSpec, n_blocks: int) -> list["keras.Layer"]:
    """The layers of a network's last blocks, in the order of the network.

    Parameters
    ----------
    model : keras.Model
        Headless, as `keras.applications` builds it.
    backbone : BackboneSpec
        Backbone of the network.
    n_blocks : int
        Number of blocks, at least 0.

    Raises
    ------
    UsageError
        If there are fewer blocks.
    """
    blocks = layer_blocks(model, backbone)
    if n_blocks > len(blocks):
        raise UsageError(
            f"{backbone.name} has {len(blocks)} blocks, so that the last {n_blocks} cannot be "
            f"unfrozen. Use at most {len(blocks)}."
        )
    return [layer for block in blocks[len(blocks) - n_blocks :] for layer in block]


def layer_blocks(model: "keras.Model", backbone: BackboneSpec) -> list[list["keras.Layer"]]:
    """The blocks of a network, from the first to the last; each layer is in one.

    No layer depends on a later block, so that the blocks before any block can be
    frozen as a whole. The stem, which is all layers before the first named block, is a
    separate block if it has weights, else a part of the first block. Layers that follow
    the last named block belong to it.

    Parameters
    ----------
    model : keras.Model
        Headless, as `keras.applications` builds it.
    backbone : BackboneSpec
        Backbone of the network.
    """
    layers = {id(layer) for layer in model.layers}
    blocks: dict[str, list[keras.Layer]] = {_STEM: []}
    # Sums of tensors are operations of the graph, but no layers.
    operations = model.operations
    for operation, name in zip(operations, _block_names(operations, backbone.blocks), strict=True):
        if id(operation) in layers:
            blocks.setdefault(name, []).append(operation)
    stem, *others = blocks.values()
    if others and not any(layer.weights for layer in stem):
        return [stem + others[0], *others[1:]]
    return [stem, *others]


def _block_names(operations: Sequence[Any], pattern: str) -> list[str]:
    """The block of each operation; operations come after those they depend on."""
    matches = [re.match(pattern, operation.name) for operation in operations]
    names = [match[1] if match else "" for match in matches]
    order = {name: rank for rank, name in enumerate(dict.fromkeys([_STEM, *names]))}
    consumers = _consumers(operations)
    reached = _STEM
    for segment in _segments(consumers):
        named = {names[position] for position in segment} - {""}
        reached = max(named, key=order.__getitem__, default=reached)
        for position in reversed(segment):
            # Consumers beyond the segment are ignored: they may begin the next block.
            used_by = {names[consumer] for consumer in consumers[position] if consumer in segment}
            names[position] = names[position] or min(
                used_by, key=order.__getitem__, default=reached
            )
    return names


def _consumers(operations: Sequence[Any]) -> list[list[int]]:
    """For each operation, the positions of those that take its output."""
    made_by: dict[int, int] = {}
    consumers: list[list[int]] = [[] for _ in operations]
    for position, operation in enumerate(operations):
        for tensor in _listed(operation.input):
            consumers[made_by[id(tensor)]].append(position)
        made_by.update((id(tensor), position) for tensor in _listed(operation.output))
    return consumers


def _segments(consumers: Sequence[Sequence[int]]) -> Iterator[range]:
    """Runs of operations, each up to the next one on every path through the network.

    The branches and the shortcut of a block lie between two such points and belong
    together. Where blocks are linked to more than the previous one, as in NASNet, a run
    spans several of them.
    """
    start = furthest = 0
    for position, used_at in enumerate(consumers):
        if furthest <= position:
            yield range(start, position + 1)
            start = position + 1
        furthest = max(furthest, *used_at, position)


def _listed(tensors: Any) -> list[Any]:
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]
