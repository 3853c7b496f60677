"""SavedNetwork: the trained network of a run, loaded when images are to be embedded."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from featurepipe.features.engines import Engine, load_with_room
from featurepipe.features.extraction.views import PLAIN_VIEW
from featurepipe.features.framing import Framing

NETWORK_FILE = "network.keras"

_BATCH_SIZE = 32


@dataclass(frozen=True)
class SavedNetwork:
    """The trained network of a run, loaded when images are to be embedded.

    It is a `featurepipe.features.extraction.embedding.Embedder`.

    Attributes
    ----------
    path : Path
        The `.keras` file.
    name : str
        A key of `featurepipe.models.networks.recipes.NETWORKS`.
    size_px : int
        Height and width of the images.
    outputs : dict of str to int
        Number of classes by layer of the outputs, in the order of the attributes.
    same : tuple of (float, float) or None
        For `pair`: slope and intercept of the score that two images show the same.
    """

    path: Path
    name: str
    size_px: int
    outputs: dict[str, int]
    same: tuple[float, float] | None = None

    view = PLAIN_VIEW
    fast_decode = False

    @property
    def title(self) -> str:
        """Text of a progress bar."""
        return self.name

    @property
    def beginning(self) -> str:
        """Log line before the network is loaded."""
        return f"Loading {self.name} …"

    @property
    def framing(self) -> Framing:
        """How images become its input."""
        return Framing(self.size_px, self.size_px)

    @property
    def engine_key(self) -> Hashable:
        """Equal for what one engine can serve."""
        return self.path

    def open_engine(self, batch_size: int | None = None) -> Engine:
        """Load the network, for batches of at most `batch_size` images.

        Raises
        ------
        RunError
            As `featurepipe.models.networks.trained.TrainedNetwork`.
        """
        from featurepipe.models.networks.trained import TrainedNetwork

        def load(batch_size: int) -> Engine:
            return TrainedNetwork(self.path, self.outputs, batch_size)

        return load_with_room(load, batch_size or _BATCH_SIZE, self.name)
