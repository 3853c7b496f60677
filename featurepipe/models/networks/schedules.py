"""Learning rate schedules and early stopping, as functions of the validation losses so far.

A resumed training computes the same values from the same losses as one that was never interrupted.

==========  ====================================================================
constant    the same in every step
decay       rate / (1 + rate / n_epochs * step), as the former `decay` option of Keras
cosine      half a cosine over the epochs of the stage, from the rate down to nearly 0
plateau     halved after 10 epochs without a lower validation loss, but at least 1e-6
==========  ====================================================================
"""

from collections.abc import Sequence

import numpy as np

SCHEDULES = ("constant", "decay", "cosine", "plateau")

_FACTOR, _PLATEAU_PATIENCE, _LEAST_RATE = 0.5, 10, 1e-6


def rate_of_epoch(schedule: str, rate: float, losses: Sequence[float], n_epochs: int) -> float:
    """Learning rate at the start of the next epoch.

    Parameters
    ----------
    schedule : {"constant", "decay", "cosine", "plateau"}
        The optimiser itself applies ``"decay"`` at every step; here it is constant.
    rate : float
        Learning rate of the first epoch.
    losses : sequence of float
        Validation losses of the epochs of the stage so far.
    n_epochs : int
        Maximum number of epochs of the stage.

    Examples
    --------
    >>> rate_of_epoch("cosine", 0.1, [1.0, 1.0], n_epochs=4)
    0.05
    """
    if schedule == "plateau":
        return rate_on_plateau(rate, losses)
    if schedule == "cosine":
        return float(rate * (1 + np.cos(np.pi * len(losses) / n_epochs)) / 2)
    return rate


def rate_on_plateau(rate: float, losses: Sequence[float]) -> float:
    """Learning rate of the next epoch with the schedule ``"plateau"``.

    Parameters
    ----------
    rate : float
        Learning rate of the first epoch.
    losses : sequence of float
        Validation losses of the epochs so far.

    Returns
    -------
    float
        Halved whenever 10 epochs brought no lower loss, counted anew after each halving.

    Examples
    --------
    >>> rate_on_plateau(0.1, [1.0] + 10 * [2.0])
    0.05
    """
    best, waited = np.inf, 0
    for loss in losses:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss) if np.isfinite(loss) else best
        if waited == _PLATEAU_PATIENCE:
            rate, waited = min(rate, max(rate * _FACTOR, _LEAST_RATE)), 0
    return rate


def has_ended(losses: Sequence[float], n_epochs: int, patience: int, best_before: float) -> bool:
    """Whether a stage is complete.

    Parameters
    ----------
    losses : sequence of float
        Validation losses of its epochs so far.
    n_epochs : int
        Maximum number of epochs.
    patience : int
        The stage ends after this many epochs without a lower loss.
    best_before : float
        Lowest loss of the earlier stages; infinite if there are none.

    Examples
    --------
    >>> has_ended([0.5, 0.4, 0.6, 0.7], n_epochs=50, patience=2, best_before=np.inf)
    True
    """
    if len(losses) >= n_epochs:
        return True
    all_losses = [best_before, *(loss if np.isfinite(loss) else np.inf for loss in losses)]
    return len(losses) - int(np.argmin(all_losses)) >= patience
