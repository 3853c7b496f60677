"""train_on: from material to a trained network."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.models.networks.building import build_network
from featurepipe.models.networks.checkpoints import CheckpointFolder
from featurepipe.models.networks.logistic_top import fit_logistic_top
from featurepipe.models.networks.material import Material
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.training_loop import Training, train_network

logger = logging.getLogger(__name__)


def train_on(
    material: Material,
    features: NDArray[np.float32] | None,
    checkpoint_folder: Path,
    *,
    resume: bool,
) -> tuple[Network, Training]:
    """Build a network and train it.

    Parameters
    ----------
    material : Material
    features : ndarray of shape (n_train, n_features), float32, or None
        Cached features of the training images from the frozen backbone.
    checkpoint_folder : Path
        The folder stays when the training is complete.
    resume : bool
        Whether to resume from a checkpoint, if there is one; otherwise it is deleted.

    Returns
    -------
    network : Network
        With the weights of the best epoch.
    training : Training

    Raises
    ------
    FitError, RunError, KeyboardInterrupt
        As `featurepipe.models.networks.training_loop.train_network`.
    WeightsError
        If the weights do not fit the backbone.
    """
    settings = material.settings
    network = build_network(settings, material.outputs, material.pixels.size_px, material.headless)
    checkpoints = CheckpointFolder(checkpoint_folder, _identity(material, network))
    if not resume:
        checkpoints.remove()
    logger.info(
        "Training %s on %d images, validating on %d; %s parameters%s.",
        settings.network,
        len(material.fitted),
        len(material.validation),
        f"{network.n_parameters:,}",
        "; resuming from the last checkpoint" if checkpoints.exists else "",
    )
    if features is not None and not checkpoints.exists:
        _start_from_logistic(material, network, features)
    if features is None and material.headless is not None and not settings.augments:
        features = _compute_features(material, network)
    training = train_network(
        network,
        material.dataset(material.fitted, features),
        material.dataset(material.validation, features),
        settings,
        checkpoints,
        resume=resume,
    )
    return network, training


def _start_from_logistic(
    material: Material, network: Network, features: NDArray[np.float32]
) -> None:
    fitted = material.fitted
    try:
        weights = fit_logistic_top(
            features[fitted],
            {name: labels.take(fitted) for name, labels in material.labels.items()},
            material.groups[fitted],
            network.outputs,
            material.settings.seed,
        )
    except FitError as error:
        # Without the validation images, a class may have too few images for the regression.
        logger.info("The output layers start from random weights. %s", error)
        return
    logger.info("The output layers start from a logistic regression on cached features.")
    network.set_score_layers(weights)


def _compute_features(material: Material, network: Network) -> NDArray[np.float32]:
    """Embeddings of all training images, by the backbone as it is before training."""
    ids = material.train_ids
    vectors = network.score_and_embed_in_batches(
        lambda positions: material.pixels.read(ids[positions]),
        len(ids),
        material.settings.batch_size,
    )
    return vectors[:, network.n_scores :]


def _identity(material: Material, network: Network) -> dict[str, Any]:
    """What must be equal for a training to resume from a checkpoint."""
    shapes = [tuple(variable.shape) for variable in network.variables]
    return {
        "network": material.settings.network,
        "classes": {name: list(labels.classes) for name, labels in material.labels.items()},
        "weights": hashlib.sha256(repr(shapes).encode()).hexdigest(),
    }
