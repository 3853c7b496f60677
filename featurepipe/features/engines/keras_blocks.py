"""Blocks of a network's layers: the last few are what fine-tuning trains.

A backbone says by names which block a layer belongs to
(`BackboneSpec.blocks`), but many layers have names that Keras made up:
``conv2d_93`` is another layer wherever other networks were built before. Where
those belong is read off the graph.
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
        What the network is.
    n_blocks : int
        How many blocks, at least 0.

    Raises
    ------
    UsageError
        If there are fewer blocks.
    """
    blocks = layer_blocks(model, backbone)
    if n_blocks > len(blocks):
        raise UsageError(
            f"{backbone.name} has {len(blocks)} blocks, and the last {n_blocks} cannot be "
            f"unfrozen. Expected at most {len(blocks)}."
        )
    return [layer for block in blocks[len(blocks) - n_blocks :] for layer in block]


def layer_blocks(model: "keras.Model", backbone: BackboneSpec) -> list[list["keras.Layer"]]:
    """The blocks of a network, from the first to the last; each layer is in one.

    No layer depends on one of a later block, so that the blocks before any one
    of them can be frozen as a whole. The stem, which is all before the first
    named block, is a block of its own if it has weights, else a part of the
    first one. What follows the last named block belongs to it.

    Parameters
    ----------
    model : keras.Model
        Headless, as `keras.applications` builds it.
    backbone : BackboneSpec
        What the network is.
    """
    layers = {id(layer) for layer in model.layers}
    blocks: dict[str, list[keras.Layer]] = {_STEM: []}
    # Sums of tensors are operations of the graph without being layers.
    operations = model.operations
    for operation, name in zip(operations, _block_names(operations, backbone.blocks), strict=True):
        if id(operation) in layers:
            blocks.setdefault(name, []).append(operation)
    stem, *others = blocks.values()
    if others and not any(layer.weights for layer in stem):
        return [stem + others[0], *others[1:]]
    return [stem, *others]


def _block_names(operations: Sequence[Any], pattern: str) -> list[str]:
    """The block of each operation; operations come after what they depend on."""
    matches = [re.match(pattern, operation.name) for operation in operations]
    names = [match[1] if match else "" for match in matches]
    order = {name: rank for rank, name in enumerate(dict.fromkeys([_STEM, *names]))}
    consumers = _consumers(operations)
    reached = _STEM
    for segment in _segments(consumers):
        named = {names[position] for position in segment} - {""}
        reached = max(named, key=order.__getitem__, default=reached)
        for position in reversed(segment):
            # Consumers beyond the segment do not tell: they may begin the next block.
            used_by = {names[consumer] for consumer in consumers[position] if consumer in segment}
            names[position] = names[position] or min(
                used_by, key=order.__getitem__, default=reached
            )
    return names


def _consumers(operations: Sequence[Any]) -> list[list[int]]:
    """Of each operation, the positions of those that it is an input of."""
    made_by: dict[int, int] = {}
    consumers: list[list[int]] = [[] for _ in operations]
    for position, operation in enumerate(operations):
        for tensor in _listed(operation.input):
            consumers[made_by[id(tensor)]].append(position)
        made_by.update((id(tensor), position) for tensor in _listed(operation.output))
    return consumers


def _segments(consumers: Sequence[Sequence[int]]) -> Iterator[range]:
    """Runs of operations, each up to the next that every path through the network passes.

    What lies between two such points, a block's branches and its shortcut, is
    one computation and belongs together. Where blocks are linked to more than
    the one before, as NASNet's are, a run spans several of them.
    """
    start = furthest = 0
    for position, used_at in enumerate(consumers):
        if furthest <= position:
            yield range(start, position + 1)
            start = position + 1
        furthest = max(furthest, *used_at, position)


def _listed(tensors: Any) -> list[Any]:
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]
