"""How the learning rate falls, and when a stage ends: functions of what was measured so far.

A training that goes on after a kill computes them from the same measurements, and so goes on
as one that was never interrupted.

==========  ====================================================================
constant    the same in every step
decay       rate / (1 + rate / n_epochs * step): as in Keras' former `decay`
cosine      half a cosine over the stage's epochs, from the rate to nearly 0
plateau     halved after 10 epochs without a better validation loss, at least 1e-6
==========  ====================================================================
"""

from collections.abc import Sequence

import numpy as np

SCHEDULES = ("constant", "decay", "cosine", "plateau")

_FACTOR, _PLATEAU_PATIENCE, _LEAST_RATE = 0.5, 10, 1e-6


def rate_of_epoch(schedule: str, rate: float, losses: Sequence[float], n_epochs: int) -> float:
    """The learning rate at which the next epoch begins.

    Parameters
    ----------
    schedule : str
        ``decay`` goes by steps and is the optimiser's own: here it is the rate itself.
    rate : float
        Of the first.
    losses : sequence of float
        Validation losses of the epochs so far.
    n_epochs : int
        Of the stage.

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
    """The learning rate of the next epoch.

    Parameters
    ----------
    rate : float
        Of the first.
    losses : sequence of float
        Validation losses of the epochs so far.

    Returns
    -------
    float
        Halved whenever 10 epochs, counted anew after each halving, brought no better loss.

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
    """Whether a stage has no further epoch.

    Parameters
    ----------
    losses : sequence of float
        Validation losses of its epochs so far.
    n_epochs : int
        Its epochs at most.
    patience : int
        Epochs without a better loss after which it ends.
    best_before : float
        The best loss of the stages before; infinite if there were none.

    Examples
    --------
    >>> has_ended([0.5, 0.4, 0.6, 0.7], n_epochs=50, patience=2, best_before=np.inf)
    True
    """
    if len(losses) >= n_epochs:
        return True
    all_losses = [best_before, *(loss if np.isfinite(loss) else np.inf for loss in losses)]
    return len(losses) - int(np.argmin(all_losses)) >= patience
