"""Network: a trunk that maps pixels to embeddings, and the output layers on top of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.engines.keras_blocks import last_blocks
from featurepipe.features.engines.protocol import pad_batch
from featurepipe.features.engines.quiet_keras import keras, library_versions
from featurepipe.models.networks import layers
from featurepipe.models.networks.outputs import Output

SAME = "same"
"""Layer, and column of the history, that tells whether two images show the same."""
PARTNER = "_partner"
"""Ending of the names under which a training graph returns the scores of partners."""
# In units of the root mean square of the features: images start to differ at a distance of 1.
_FIRST_SLOPE, _FIRST_INTERCEPT = -1.0, 1.0


@dataclass(frozen=True)
class Backbone:
    """The pretrained part of a trunk.

    Attributes
    ----------
    spec : BackboneSpec
    model : keras.Model
    """

    spec: BackboneSpec
    model: "keras.Model"


class Network:
    """A trunk that maps pixels to embeddings, and the output layers on top of it.

    Parameters
    ----------
    trunk : keras.Model
        Maps float32 pixels in [0, 255] of shape (n, size, size, 3) to embeddings of shape
        (n, width): one for all outputs, or one for each output in their order.
    outputs : sequence of Output
    backbone : Backbone, optional
        The part of the trunk that can be frozen.
    dropout : float
        Dropout rate between embedding and output layers.
    pairs : bool
        Whether the network also learns whether two images show the same.

    Attributes
    ----------
    model : keras.Model
        Maps pixels to a dict of probabilities by the layers of the outputs. This model is saved.
    same : keras.layers.Dense or None
        Maps the distance of two embeddings to the score that they show the same.
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
        self._drop_rates = {} if backbone is None else _drop_rates(backbone.model)
        _free_layer_names(trunk, outputs)
        # Scores are sums of many terms; half precision would be too coarse.
        self._score_layers = [
            keras.layers.Dense(output.n_classes, name=f"{output.layer}_scores", dtype="float32")
            for output in outputs
        ]
        self._dropout = layers.dropout(dropout) if dropout else None
        self.same = _build_same() if pairs else None
        embeddings = self._by_output(trunk.output)
        scores = [layer(x) for layer, x in zip(self._score_layers, embeddings, strict=True)]
        self.model = keras.Model(
            trunk.input,
            {
                output.layer: keras.layers.Activation(
                    "softmax" if output.softmax else "sigmoid", name=output.layer, dtype="float32"
                )(score)
                for output, score in zip(outputs, scores, strict=True)
            },
        )
        self._inference = build_inference_graph(scores, _listed(trunk.output), trunk.input)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return tuple(self.trunk.input.shape[1:3])

    @property
    def n_parameters(self) -> int:
        """Number of parameters of `model`, including frozen ones."""
        return int(self.model.count_params())

    @property
    def n_scores(self) -> int:
        """Number of scores of all outputs."""
        return self.outputs[-1].columns.stop

    @property
    def embedding_widths(self) -> list[int]:
        """Widths of the embeddings."""
        return [int(embedding.shape[-1]) for embedding in _listed(self.trunk.output)]

    @property
    def library_versions(self) -> dict[str, str]:
        """Versions of Keras and its backend."""
        return library_versions()

    @property
    def variables(self) -> list[Any]:
        """All variables that training may change."""
        return [*self.model.weights, *(self.same.weights if self.same is not None else ())]

    def get_weights(self) -> list[NDArray[Any]]:
        """Copies of the values of all `variables`."""
        return [keras.ops.convert_to_numpy(variable.value).copy() for variable in self.variables]

    def set_weights(self, values: Sequence[NDArray[Any]]) -> None:
        """Set the values of all `variables`."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def set_score_layers(
        self, weights: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]
    ) -> None:
        """Set kernel and bias of the score layer of each output."""
        for layer, kernel_and_bias in zip(self._score_layers, weights, strict=True):
            layer.set_weights(list(kernel_and_bias))

    def unfreeze(self, n_blocks: int | None) -> None:
        """Train the last blocks of the backbone and freeze the others; None trains everything.

        Batch normalisation of a backbone is never trained and always computes as at inference,
        since statistics of small batches would spoil those of ImageNet. Frozen blocks drop
        nothing. Calling the backbone with ``training=False`` would not suffice: Keras overrides it
        inside another model.

        Raises
        ------
        UsageError
            If the backbone has fewer blocks.
        """
        if self.backbone is None or n_blocks is None:
            # Keras only tells the inner layers when the value changes.
            self.trunk.trainable = False
            self.trunk.trainable = True
            return
        blocks = last_blocks(self.backbone.model, self.backbone.spec, n_blocks)
        self.backbone.model.trainable = True
        trained = {id(layer) for layer in blocks}
        for layer in self.backbone.model.layers:
            is_normalisation = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = id(layer) in trained and not is_normalisation
            for name, rate in self._drop_rates.get(id(layer), {}).items():
                setattr(layer, name, rate if id(layer) in trained else 0.0)

    def training_graph(self, augmentation: "keras.Layer | None") -> "keras.Model":
        """Graph for training on images: uint8 pixels (and partners) to a dict of scores."""
        pixels = keras.Input(self.trunk.input.shape[1:], dtype="uint8", name="seen")
        shown = keras.ops.cast(pixels, "float32")
        if augmentation is not None:
            shown = augmentation(shown)
        return self._graph(pixels, self.trunk(shown))

    def features_graph(self) -> "keras.Model":
        """Graph for training on cached features: features (and partners) to a dict of scores."""
        features = keras.Input(_listed(self.trunk.output)[0].shape[1:], name="seen")
        return self._graph(features, features)

    def _graph(self, inputs: Any, embeddings: Any) -> "keras.Model":
        first = self._by_output(embeddings)
        if self.same is None:
            return keras.Model(inputs, self._scores(first))
        partners = keras.Input((), dtype="int32", name="partners")
        # Each image is computed once, and its embedding is also gathered as a partner.
        second = [keras.ops.take(embedding, partners, axis=0) for embedding in first]
        scores = self._scores(first)
        scores |= {f"{layer}{PARTNER}": score for layer, score in self._scores(second).items()}
        scores[SAME] = self.same(root_mean_square(first[0] - second[0]))
        return keras.Model({"seen": inputs, "partners": partners}, scores)

    def _scores(self, embeddings: Sequence[Any]) -> dict[str, Any]:
        return {
            output.layer: layer(x if self._dropout is None else self._dropout(x))
            for output, layer, x in zip(self.outputs, self._score_layers, embeddings, strict=True)
        }

    def _by_output(self, embeddings: Any) -> list[Any]:
        listed = _listed(embeddings)
        return listed * len(self.outputs) if len(listed) == 1 else listed

    def score_and_embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the scores of all outputs, followed by the embeddings.

        Parameters
        ----------
        pixels : ndarray of shape (n_images, height, width, 3), uint8

        Returns
        -------
        ndarray of shape (n_images, n_scores + n_embedding), float32
        """
        return np.asarray(self._inference.predict_on_batch(pixels))

    def score_and_embed_in_batches(
        self,
        load: Callable[[NDArray[np.intp]], NDArray[np.uint8]],
        n_images: int,
        batch_size: int,
    ) -> NDArray[np.float32]:
        """Do the same for many images, a batch at a time.

        Parameters
        ----------
        load : callable
            Maps positions of images to their pixels.
        n_images : int
        batch_size : int
            The last batch is padded to this size, so that one compiled graph serves all.

        Returns
        -------
        ndarray of shape (n_images, n_scores + n_embedding), float32
        """
        starts = range(0, n_images, batch_size)
        batches = [
            self.score_and_embed(
                pad_batch(load(np.arange(start, min(start + batch_size, n_images))), batch_size)
            )
            for start in starts
        ]
        width = self._inference.output_shape[-1]
        return np.concatenate([np.empty((0, width), np.float32), *batches])[:n_images]

    def score_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the scores of all outputs from features of the frozen backbone.

        Parameters
        ----------
        features : ndarray of shape (n_images, n_features), float32

        Returns
        -------
        ndarray of shape (n_images, n_scores), float32
        """
        weights = [layer.get_weights() for layer in self._score_layers]
        return np.hstack([features @ kernel + bias for kernel, bias in weights])


def build_inference_graph(
    scores: Sequence[Any], embeddings: Sequence[Any], pixels: Any
) -> "keras.Model":
    """Graph from pixels to the scores of all outputs, followed by the embeddings."""
    columns = [keras.ops.cast(tensor, "float32") for tensor in (*scores, *embeddings)]
    return keras.Model(pixels, keras.ops.concatenate(columns, axis=-1))


def root_mean_square(difference: Any) -> Any:
    """Root mean square over the last axis; shape (n, width) to (n, 1)."""
    squares = keras.ops.square(keras.ops.cast(difference, "float32"))
    # The gradient of a root is infinite at 0, where an image is compared with its copy.
    return keras.ops.sqrt(keras.ops.mean(squares, axis=-1, keepdims=True) + 1e-12)


def _build_same() -> "keras.layers.Dense":
    layer = keras.layers.Dense(1, name=SAME, dtype="float32")
    layer.build((None, 1))
    layer.set_weights(
        [np.array([[_FIRST_SLOPE]], np.float32), np.array([_FIRST_INTERCEPT], np.float32)]
    )
    return layer


def _drop_rates(model: "keras.Model") -> dict[int, dict[str, float]]:
    """Dropout rates of a backbone's layers by attribute; some layers drop whole paths."""
    names = ("rate", "drop_path_rate")
    return {
        id(layer): {name: getattr(layer, name) for name in names if hasattr(layer, name)}
        for layer in model.layers
    }


def _free_layer_names(trunk: "keras.Model", outputs: Sequence[Output]) -> None:
    """Rename layers of the trunk whose names the outputs need: an attribute may be ``dense``."""
    needed = {f"{output.layer}{end}" for output in outputs for end in ("", "_scores")}
    for layer in trunk.layers:
        if layer.name in needed:
            layer.name = f"trunk_{layer.name}"


def _listed(tensors: Any) -> list[Any]:
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]
