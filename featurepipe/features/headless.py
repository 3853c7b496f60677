"""HeadlessNetwork: what an engine computes."""

from dataclasses import dataclass
from typing import Any

from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.weights import Weights


@dataclass(frozen=True)
class HeadlessNetwork:
    """A backbone with its weights, as it is shown pictures and read out.

    Attributes
    ----------
    backbone : BackboneSpec
    weights : Weights
    size_px : int
        Side of the square picture that it is shown.
    pooling : str
        ``avg``, ``max`` or the name of a layer: a map is averaged over its
        places, a vector is taken as it is.
    """

    backbone: BackboneSpec
    weights: Weights
    size_px: int
    pooling: str = "avg"

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.size_px, self.size_px

    def identity(self) -> dict[str, Any]:
        """What tells it from every other, as plain values."""
        return {
            "backbone": self.backbone.name,
            "weights": self.weights.identity(),
            "size_px": self.size_px,
            "pooling": self.pooling,
        }
