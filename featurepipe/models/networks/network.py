"""Network: a trunk that sees pixels, and a layer of scores for each output on top of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.engines.keras_blocks import last_blocks
from featurepipe.features.engines.protocol import pad_batch
from featurepipe.features.engines.quiet_keras import keras, library_versions
from featurepipe.models.networks.outputs import Output
from featurepipe.models.networks.zoo import layers

SAME = "same"
PARTNER = "_partner"
# In units of the features' root mean square, images begin to differ at a distance of one.
_FIRST_SLOPE, _FIRST_INTERCEPT = -1.0, 1.0


@dataclass(frozen=True)
class Backbone:
    """The backbone within a trunk.

    Attributes
    ----------
    spec : BackboneSpec
    model : keras.Model
    """

    spec: BackboneSpec
    model: "keras.Model"


class Network:
    """A trunk that sees pixels, and a layer of scores for each output on top of it.

    Parameters
    ----------
    trunk : keras.Model
        float32 pixels in [0, 255] of shape (n, size, size, 3) to embeddings of shape (n, width):
        one that all outputs read, or one for each output in their order.
    outputs : sequence of Output
    backbone : Backbone, optional
        What of the trunk can be frozen.
    dropout : float
        Share of the embedding that is dropped at random before the scores, in training.
    pairs : bool
        Whether it also learns whether two images show the same.

    Attributes
    ----------
    model : keras.Model
        Pixels to a dict of probabilities, by the outputs' layers: what is saved.
    same : keras.layers.Dense or None
        Distance of two embeddings to the score that they show the same.
    """

    def __init__(
        self,
        trunk: "keras.Model",
        outputs: Sequence[Output],
        *,
        backbone: Backbone | None = None,
        dropout: float = 0.0,
        pairs: bool = False,
    ) -> None:
        self.trunk, self.outputs, self.backbone = trunk, tuple(outputs), backbone
        self._rates = {} if backbone is None else _drop_rates(backbone.model)
        _make_way(trunk, outputs)
        # Scores are sums of many terms: in half precision they would lose what decides.
        self._tops = [
            keras.layers.Dense(output.n_classes, name=f"{output.layer}_scores", dtype="float32")
            for output in outputs
        ]
        self._dropout = layers.dropout(dropout) if dropout else None
        self.same = keras.layers.Dense(1, name=SAME, dtype="float32") if pairs else None
        if self.same is not None:
            self.same.build((None, 1))
            self.same.set_weights(
                [np.array([[_FIRST_SLOPE]], np.float32), np.array([_FIRST_INTERCEPT], np.float32)]
            )
        scores = [top(x) for top, x in zip(self._tops, self._per_output(trunk.output), strict=True)]
        self.model = keras.Model(
            trunk.input,
            {
                output.layer: keras.layers.Activation(
                    "softmax" if output.softmax else "sigmoid", name=output.layer, dtype="float32"
                )(score)
                for output, score in zip(outputs, scores, strict=True)
            },
        )
        self._reader = build_reader(scores, _listed(trunk.output), trunk.input)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return tuple(self.trunk.input.shape[1:3])

    @property
    def n_parameters(self) -> int:
        """Numbers that make the network that predicts, frozen ones included."""
        return int(self.model.count_params())

    @property
    def embedding_widths(self) -> list[int]:
        """Widths of the embeddings."""
        return [int(each.shape[-1]) for each in _listed(self.trunk.output)]

    @property
    def library_versions(self) -> dict[str, str]:
        """Of Keras and what it computes with."""
        return library_versions()

    @property
    def variables(self) -> list[Any]:
        """Everything that training may move."""
        return [*self.model.weights, *(self.same.weights if self.same is not None else ())]

    def get_weights(self) -> list[NDArray[Any]]:
        """Values of all `variables`."""
        return [keras.ops.convert_to_numpy(variable.value).copy() for variable in self.variables]

    def set_weights(self, values: Sequence[NDArray[Any]]) -> None:
        """Give all `variables` their values."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def set_top(self, weights: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> None:
        """Begin from given scores: kernel and bias of each output."""
        for top, pair in zip(self._tops, weights, strict=True):
            top.set_weights(list(pair))

    def unfreeze(self, n_blocks: int | None) -> None:
        """Let the backbone's last blocks be trained, and no others; None: everything.

        A backbone's batch normalisation is never trained, and so computes as at inference:
        statistics of small batches would spoil those of ImageNet. Nor does a frozen block drop
        anything. To call the backbone with ``training=False`` would not do, since Keras overrides
        that inside another model.
        """
        if self.backbone is None or n_blocks is None:
            # What is True already is not told to the layers within.
            self.trunk.trainable = False
            self.trunk.trainable = True
            return
        blocks = last_blocks(self.backbone.model, self.backbone.spec, n_blocks)
        self.backbone.model.trainable = True
        moving = {id(layer) for layer in blocks}
        for layer in self.backbone.model.layers:
            is_normalised = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = id(layer) in moving and not is_normalised
            for name, rate in self._rates.get(id(layer), {}).items():
                setattr(layer, name, rate if id(layer) in moving else 0.0)

    def training_graph(self, augmentation: "keras.Layer | None") -> "keras.Model":
        """What is trained: uint8 pixels (and partners) to a dict of scores."""
        pixels = keras.Input(self.trunk.input.shape[1:], dtype="uint8", name="seen")
        shown = keras.ops.cast(pixels, "float32")
        if augmentation is not None:
            shown = augmentation(shown)
        return self._graph(pixels, self.trunk(shown))

    def top_graph(self) -> "keras.Model":
        """What is trained on frozen features: these (and partners) to a dict of scores."""
        features = keras.Input(_listed(self.trunk.output)[0].shape[1:], name="seen")
        return self._graph(features, features)

    def _graph(self, seen: Any, embeddings: Any) -> "keras.Model":
        own = self._per_output(embeddings)
        if self.same is None:
            return keras.Model(seen, self._scores(own))
        partners = keras.Input((), dtype="int32", name="partners")
        # Each image is computed once, and compared as another image of its batch as well.
        others = [keras.ops.take(each, partners, axis=0) for each in own]
        scores = self._scores(own)
        scores |= {f"{name}{PARTNER}": each for name, each in self._scores(others).items()}
        scores[SAME] = self.same(root_mean_square(own[0] - others[0]))
        return keras.Model({"seen": seen, "partners": partners}, scores)

    def _scores(self, embeddings: Sequence[Any]) -> dict[str, Any]:
        return {
            output.layer: top(each if self._dropout is None else self._dropout(each))
            for output, top, each in zip(self.outputs, self._tops, embeddings, strict=True)
        }

    def _per_output(self, embeddings: Any) -> list[Any]:
        listed = _listed(embeddings)
        return listed * len(self.outputs) if len(listed) == 1 else listed

    def read(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores of all outputs, and behind them the embeddings.

        Parameters
        ----------
        pixels : ndarray of shape (n_images, height, width, 3), uint8

        Returns
        -------
        ndarray of shape (n_images, n_scores + n_embedding), float32
        """
        return np.asarray(self._reader.predict_on_batch(pixels))

    def read_in_batches(self, read: Any, n_rows: int, batch_size: int) -> NDArray[np.float32]:
        """`read` of many images.

        Parameters
        ----------
        read : callable
            Rows to their pixels.
        n_rows : int
        batch_size : int
            So many at once; the last batch is padded, so that one graph serves.
        """
        batches = [
            self.read(
                pad_batch(read(np.arange(start, min(start + batch_size, n_rows))), batch_size)
            )
            for start in range(0, n_rows, batch_size)
        ]
        width = self._reader.output_shape[-1]
        return np.concatenate([np.empty((0, width), np.float32), *batches])[:n_rows]

    def scores_of(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of all outputs, side by side, of frozen features."""
        weights = [top.get_weights() for top in self._tops]
        return np.hstack([features @ kernel + bias for kernel, bias in weights])


def build_reader(scores: Sequence[Any], embeddings: Sequence[Any], pixels: Any) -> "keras.Model":
    """Pixels to the scores of all outputs and behind them the embeddings, in one row an image."""
    columns = [keras.ops.cast(each, "float32") for each in (*scores, *embeddings)]
    return keras.Model(pixels, keras.ops.concatenate(columns, axis=-1))


def root_mean_square(difference: Any) -> Any:
    """Distance over the square root of the width; shape (n, width) to (n, 1)."""
    squares = keras.ops.square(keras.ops.cast(difference, "float32"))
    # The slope of a root is infinite at 0, where an image is compared with its copy.
    return keras.ops.sqrt(keras.ops.mean(squares, axis=-1, keepdims=True) + 1e-12)


def _drop_rates(model: "keras.Model") -> dict[int, dict[str, float]]:
    """What the layers of a backbone drop in training, by what Keras calls it: also whole paths."""
    names = ("rate", "drop_path_rate")
    return {
        id(layer): {name: getattr(layer, name) for name in names if hasattr(layer, name)}
        for layer in model.layers
    }


def _make_way(trunk: "keras.Model", outputs: Sequence[Output]) -> None:
    """Rename layers that are called as an output's are: an attribute may be named ``dense``."""
    taken = {f"{output.layer}{end}" for output in outputs for end in ("", "_scores")}
    for layer in trunk.layers:
        if layer.name in taken:
            layer.name = f"trunk_{layer.name}"


def _listed(tensors: Any) -> list[Any]:
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]
