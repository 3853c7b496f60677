"""SavedNetwork: a trained network of a run, to be loaded when images are to be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from featurepipe.errors import RunError
from featurepipe.features.engines import Engine, load_with_room
from featurepipe.features.extraction.views import PLAIN_VIEW

NETWORK_FILE = "network.keras"

_BATCH_SIZE = 32


@dataclass(frozen=True)
class SavedNetwork:
    """A trained network of a run, to be loaded when images are to be read.

    An `featurepipe.features.extraction.embedding.Embedder`.

    Attributes
    ----------
    path : Path
        The `.keras` file.
    name : str
        A key of `featurepipe.models.networks.recipes.NETWORKS`.
    size_px : int
        Side of its pictures.
    outputs : dict of str to int
        Names of its outputs' layers, in the attributes' order, and how many classes each has.
    same : tuple of (float, float) or None
        Of `pair`: slope and intercept of the score that two images show the same.
    """

    path: Path
    name: str
    size_px: int
    outputs: dict[str, int]
    same: tuple[float, float] | None = None

    view = PLAIN_VIEW
    fast_decode = False

    @classmethod
    def of_run(cls, folder: Path, info: Mapping[str, Any]) -> Self:
        """The network of a run.

        Raises
        ------
        RunError
            If `run.json` does not say of it what there is to know.
        """
        try:
            about = info["network"]
            same = about["same"]
            return cls(
                folder / NETWORK_FILE,
                str(info["head"]),
                int(about["size_px"]),
                {str(name): int(n) for name, n in about["outputs"].items()},
                None if same is None else (float(same[0]), float(same[1])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise RunError(
                f"Run {folder.name!r} is damaged: its run.json says nothing sound of its network "
                f"({error!r}). Train it again."
            ) from error

    @property
    def title(self) -> str:
        """What a bar shows."""
        return self.name

    @property
    def beginning(self) -> str:
        """What a person is told before it is loaded."""
        return f"Loading {self.name} …"

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of its pictures."""
        return self.size_px, self.size_px

    def open_engine(self, batch_size: int | None = None) -> Engine:
        """Load it, for batches of at most that many pictures.

        Raises
        ------
        RunError
            As `featurepipe.models.networks.trained.TrainedNetwork`.
        """
        from featurepipe.models.networks.trained import TrainedNetwork

        def load(batch_size: int) -> Engine:
            return TrainedNetwork(self.path, self.outputs, batch_size)

        return load_with_room(load, batch_size or _BATCH_SIZE, self.name)
