"""The top begins from a logistic regression on the frozen backbone's features."""

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

# A score of classes that all images show, and minus that of those that none does.
_ALWAYS = 10.0

Top = tuple[NDArray[np.float32], NDArray[np.float32]]


@threadpool_limits.wrap(limits=1)
def logistic_top(
    features: NDArray[np.float32],
    labels: Mapping[str, Labels],
    groups: NDArray[np.intp],
    outputs: Sequence[Output],
    seed: int,
) -> list[Top]:
    """Kernel and bias of each output, as the head `logistic` has them.

    It is fitted here on the images that the network is trained on: a head that was saved has
    seen the validation images too, on which the network would look better than it is.

    Parameters
    ----------
    features : ndarray of shape (n_train, n_features), float32
    labels : mapping of str to Labels
        Of the same images.
    groups : ndarray of shape (n_train,), intp
    outputs : sequence of Output
    seed : int

    Returns
    -------
    list of (ndarray of shape (n_features, n_classes), ndarray of shape (n_classes,)), float32
    """
    columns = dict.fromkeys(labels, ((0, features.shape[1]),))
    questions = make_questions(dict(labels), Task.PER_ATTRIBUTE, columns, groups).questions
    settings = HeadSettings.of("logistic", seed=seed)
    tops = []
    for question, output in zip(questions, outputs, strict=True):
        asked = replace(question, exclusive=output.softmax)
        head = fit_one_head(features, asked, np.arange(len(asked.rows)), settings)
        tops.append(_as_layer(head, features.shape[1]))
    return tops


def _as_layer(head: Head, n_features: int) -> Top:
    # The steps before the regression are affine as well: so is the whole.
    bias = head.decision_scores(np.zeros((1, n_features)))
    kernel = head.decision_scores(np.eye(n_features)) - bias
    if head.known.exclusive and len(head.known.learnt) == 2:
        # Two scores of opposite sign are twice as far apart as one score is from 0.
        kernel, bias = kernel / 2, bias / 2
    unknown = np.isnan(bias[0])
    kernel[:, unknown] = 0
    bias[0, unknown] = np.where(head.known.constant[unknown] > 0, _ALWAYS, -_ALWAYS)
    return kernel.astype(np.float32), bias[0].astype(np.float32)
