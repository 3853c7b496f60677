"""A logistic regression on the frozen backbone's features, from which the output layers start."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featurepipe.manifest import Labels
from featurepipe.models.answers.head import Head
from featurepipe.models.answers.questions import make_questions
from featurepipe.models.heads.fitting import fit_one_head
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.networks.outputs import Output
from featurepipe.predictions import Task

# Score of a class that all training images have; negative for a class that none has.
_ALWAYS = 10.0

KernelAndBias = tuple[NDArray[np.float32], NDArray[np.float32]]


@threadpool_limits.wrap(limits=1)
def fit_logistic_top(
    features: NDArray[np.float32],
    labels: Mapping[str, Labels],
    groups: NDArray[np.intp],
    outputs: Sequence[Output],
    seed: int,
) -> list[KernelAndBias]:
    """Fit the head `logistic` for each output, as kernel and bias of its score layer.

    A saved head would not do: it was also fitted on the validation images, on which the network
    would then look better than it is.

    Parameters
    ----------
    features : ndarray of shape (n_train, n_features), float32
    labels : mapping of str to Labels
        Labels of the same images.
    groups : ndarray of shape (n_train,), intp
    outputs : sequence of Output
    seed : int

    Returns
    -------
    list of (ndarray of shape (n_features, n_classes), ndarray of shape (n_classes,)), float32

    Raises
    ------
    FitError
        If an attribute cannot be learnt from these images.
    """
    columns = dict.fromkeys(labels, ((0, features.shape[1]),))
    questions = make_questions(dict(labels), Task.PER_ATTRIBUTE, columns, groups).questions
    settings = HeadSettings.of("logistic", seed=seed)
    weights = []
    for question, output in zip(questions, outputs, strict=True):
        question = replace(question, exclusive=output.softmax)
        head = fit_one_head(features, question, np.arange(len(question.rows)), settings)
        weights.append(_as_layer(head, features.shape[1]))
    return weights


def _as_layer(head: Head, n_features: int) -> KernelAndBias:
    # The steps before the regression are affine, and so is the whole.
    bias = head.decision_scores(np.zeros((1, n_features)))
    kernel = head.decision_scores(np.eye(n_features)) - bias
    if head.known.exclusive and len(head.known.learnt) == 2:
        # The two scores differ only in sign, so their difference is twice the score.
        kernel, bias = kernel / 2, bias / 2
    is_constant = np.isnan(bias[0])
    kernel[:, is_constant] = 0
    bias[0, is_constant] = np.where(head.known.constant[is_constant] > 0, _ALWAYS, -_ALWAYS)
    return kernel.astype(np.float32), bias[0].astype(np.float32)
