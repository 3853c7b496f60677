"""HeadlessNetwork: what an engine computes."""

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featurepipe.errors import UsageError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.framing import Framing
from featurepipe.features.model_files.normalisation import Normalisation
from featurepipe.features.weights import Weights
from featurepipe.files import user_cache


@dataclass(frozen=True)
class FileGraph:
    """What of a network in a file is computed, and what becomes of images before it.

    Attributes
    ----------
    framing : Framing
    normalisation : Normalisation
    output : str or None
        Name of an output or layer; None: the only output.
    prefix_tokens : int or None
        Tokens before those of the patches; None where that is unknown.
    """

    framing: Framing
    normalisation: Normalisation
    output: str | None = None
    prefix_tokens: int | None = None


@dataclass(frozen=True)
class HeadlessNetwork:
    """A backbone with its weights, input size and pooling.

    Attributes
    ----------
    backbone : BackboneSpec
    weights : Weights
    size_px : int
        Side of the square input.
    pooling : str
        ``avg``, ``max`` or the name of a layer: a feature map is averaged over its
        positions, a vector is taken as it is. Of tokens: ``cls``, ``mean`` or ``cls+mean``.
    graph : FileGraph or None
        None unless the backbone is a network in a file.
    """

    backbone: BackboneSpec
    weights: Weights
    size_px: int
    pooling: str = "avg"
    graph: FileGraph | None = None

    @property
    def framing(self) -> Framing:
        """How images become the input."""
        return Framing(*self.input_size) if self.graph is None else self.graph.framing

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.size_px, self.size_px

    def identity(self) -> dict[str, Any]:
        """What distinguishes it from every other network, as JSON values."""
        identity = {
            "backbone": self.backbone.name,
            "weights": self.weights.identity(),
            "size_px": self.size_px,
            "pooling": self.pooling,
        }
        if self.graph is not None:
            graph = self.graph
            identity |= {
                "resize": graph.framing.method,
                "normalisation": graph.normalisation.text,
                "output": graph.output,
                "prefix_tokens": graph.prefix_tokens,
            }
        return identity

    def require_possible(self) -> None:
        """Stop if its size or pooling is impossible, as far as that shows without loading it.

        Raises
        ------
        UsageError
            If the size is below the backbone's minimum, or a descriptor is to be pooled.
        """
        backbone = self.backbone
        if self.size_px < backbone.min_size_px:
            raise UsageError(
                f"Images of {self.size_px} px are too small for {backbone.name} (minimum "
                f"{backbone.min_size_px}). Use a larger --size; its default is {backbone.size_px}."
            )
        if backbone.kind == "descriptor" and self.pooling != "avg":
            raise UsageError(
                f"{backbone.name} cannot be pooled by {self.pooling!r}: it is no network and has "
                "no layers. Omit --pooling."
            )

    def cache_file(self, folder: str, suffix: str, **others: Any) -> Path:
        """The file in the user's cache for something that is worked out once about the network.

        Parameters
        ----------
        folder : str
            Folder in the user's cache.
        suffix : str
        **others
            What else decides the content, as JSON values.

        Returns
        -------
        Path
            Named by the backbone and a digest of all that decides the content.
        """
        decides = self.identity() | {"keras": version("keras")} | others
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        # The name of a network in a file may come from another person's run.
        name = re.sub(r"[^\w.+-]", "_", self.backbone.name)
        return user_cache() / folder / f"{name}-{digest}{suffix}"
