"""same(): two images -> the probability that they show the same."""

import logging
from pathlib import Path

from featurepipe.errors import ExtractionError
from featurepipe.features.extraction.embedders import share_engines
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.image_types import READ
from featurepipe.models.networks.saved import NETWORK_FILE
from featurepipe.models.networks.verification import same_probability
from featurepipe.runs.choosing import find_pair_run
from featurepipe.sources import LocalFolder
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def same(
    image: Path | str, other: Path | str, *, workspace: Path | str = ".", run: str | None = None
) -> float:
    """Estimate the probability that two images have the same labels of all attributes.

    Parameters
    ----------
    image, other : Path or str
        Image files.
    workspace : Path or str
    run : str, optional
        A run of ``featurepipe train pair``; default: the one with the best
        `selection_accuracy` that was trained on the present labels and images.

    Returns
    -------
    float
        In [0, 1], calibrated on pairs half of which show the same.

    Raises
    ------
    RunError
        If the run cannot compare images, or is damaged.
    WorkspaceError
        If no run can.
    ExtractionError
        If an image is missing or cannot be read.
    """
    ids = list(dict.fromkeys([str(image), str(other)]))
    for path in ids:
        if not Path(path).is_file():
            raise _unreadable(path, "no such file")
    chosen = find_pair_run(Workspace(workspace), run)
    network = chosen.network
    assert network is not None
    assert network.same is not None
    chosen.file(NETWORK_FILE)
    logger.info("Comparing with %s.", chosen.name)
    engines = share_engines([network], len(ids))
    rows, refused = embed_images(LocalFolder(Path()), ids, [network], engines=engines)
    for position, reason in refused.items():
        raise _unreadable(ids[position], reason)
    embeddings = rows[:, sum(network.outputs.values()) :]
    return float(same_probability(embeddings[:1], embeddings[-1:], *network.same)[0])


def _unreadable(path: str, reason: str) -> ExtractionError:
    return ExtractionError(f"{path} cannot be read ({reason}). Give a {READ} file.")
