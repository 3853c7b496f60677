"""verify(): two images -> how probable it is that they show the same."""

import logging
from pathlib import Path

from featurepipe.errors import ExtractionError, RunError, WorkspaceError
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.models.networks.saved import SavedNetwork
from featurepipe.models.networks.verification import same_probability
from featurepipe.predictions import ALL
from featurepipe.runs.choosing import find_run
from featurepipe.runs.run_folder import Run, load_run
from featurepipe.sources import LocalFolder
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def verify(
    image: Path | str, other: Path | str, *, workspace: Path | str = ".", run: str | None = None
) -> float:
    """How probable it is that two images have the same labels of all attributes.

    Parameters
    ----------
    image, other : Path or str
        Image files.
    workspace : Path or str
    run : str, optional
        A run of ``--network pair``; default: the one with the best `selection_accuracy`.

    Returns
    -------
    float
        In [0, 1], as of pairs of which half show the same.

    Raises
    ------
    RunError
        If the run has not learnt to compare images, or is damaged.
    WorkspaceError
        If no run has.
    ExtractionError
        If an image cannot be read.
    """
    chosen, network = _pair_run(Workspace(workspace), run)
    logger.info("Comparing with %s.", chosen.info["run"])
    ids = list(dict.fromkeys([str(image), str(other)]))
    rows, refused = embed_images(LocalFolder(Path()), ids, [network], batch_size=len(ids))
    for place, reason in refused.items():
        raise ExtractionError(
            f"{ids[place]} cannot be read ({reason}). Expected a JPEG, PNG, WebP, BMP, GIF or TIFF "
            "file."
        )
    embeddings = rows[:, sum(network.outputs.values()) :]
    assert network.same is not None
    return float(same_probability(embeddings[:1], embeddings[-1:], *network.same)[0])


def _pair_run(place: Workspace, name: str | None) -> tuple[Run, SavedNetwork]:
    if name is not None:
        run = find_run(place, name)
        if run.network is None or run.network.same is None:
            raise RunError(
                f"Run {name!r} has not learnt to compare images. Expected one of --network pair."
            )
        return run, run.network
    pairs = []
    for folder in place.runs():
        run = load_run(folder)
        if run.network is not None and run.network.same is not None:
            pairs.append((run, run.network))
    if not pairs:
        raise WorkspaceError(
            f"No run of the workspace {place.root} has learnt to compare images. Train one: "
            "featurepipe fit --network pair"
        )
    return max(pairs, key=lambda pair: pair[0].info["selection_accuracy"][ALL])
