"""FitMemory: the memory that fitting takes, and what a budget allows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import psutil

from featurepipe.errors import FitError, UsageError
from featurepipe.manifest import Labels
from featurepipe.predictions import Task

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

# Copies that one fit makes beside the features: its rows, the features of these that vary enough,
# and, while variances or scales are learnt, a float64 array, which counts twice. A logistic fit
# makes one more.
_COPIES_OF_A_FIT = 4
# A chunk and the next one, copies of it in the fits side by side, and the rows of it that members
# draw.
_COPIES_OF_A_CHUNK = 9
# A kernel in float64, and while it is computed its float32 copies.
_BYTES_A_PAIR = 16
# Bytes for each row and class: float64 truth, scores, probabilities, calibration.
_BYTES_OF_ANSWERS = 64
# In chunks, float32 scores and probabilities, and the truth of rows, question and attribute.
_BYTES_OF_STREAMED_ANSWERS = 12
# Weights of all members before and after a step, and for all features.
_ARRAYS_OF_WEIGHTS, _MEMBERS = 3, 10
# Weights, gradients and steps that a path of logistic regressions remembers, and sums of a pass.
_ARRAYS_OF_A_PATH = 50
# The covariance of a sample, a copy, and what finding its principal axes takes.
_ARRAYS_OF_COVARIANCE = 4
_LEAST_CHUNK_ROWS = 256
# Numbers of a chunk: a larger one is no faster. Answers are float64, and several are made side by
# side.
_MOST_OF_A_CHUNK = 2**23
_OF_AN_ANSWER = 4


@dataclass(frozen=True)
class FitMemory:
    """Memory for fitting the heads of one run, besides the libraries and the manifest.

    With M = 4 ``n_rows n_features`` bytes of training features, N = ``n_rows n_outputs`` answers,
    W = 120 ``n_heads n_outputs n_features`` bytes of weights, and K = 16 ``n_rows^2`` bytes for a
    head that compares all pairs of rows (else 0), fitting takes

    * in memory ``M + (4 M + K) j + 64 N + W`` bytes with j fits side by side;
    * in chunks of c bytes ``9 c + 12 N + W`` bytes, with c of at most 2^25.

    For logistic heads 4 M is 5 M, and W is 200 ``n_heads n_outputs n_features`` bytes and
    4 ``(n_axes + 4) n_features^2`` bytes for principal axes.

    Attributes
    ----------
    n_rows, n_features : int
        Training rows, and features of each.
    n_outputs : int
        Classes of all attributes; combinations in the joint task.
    n_heads : int
        Heads for a question: the final one, and one for each fold.
    pairs : bool
        Whether a fit compares all pairs of rows.
    n_axes : int
        Questions whose logistic heads share principal axes; 0 for other heads.
    """

    n_rows: int
    n_features: int
    n_outputs: int
    n_heads: int
    pairs: bool = False
    n_axes: int = 0

    @classmethod
    def of(
        cls,
        labels: Mapping[str, Labels],
        n_features: int,
        task: Task,
        n_folds: int,
        *,
        pairs: bool = False,
        axes: bool = False,
    ) -> "FitMemory":
        """Memory for heads with these labels of training rows.

        Parameters
        ----------
        labels : mapping of str to Labels
        n_features : int
        task : Task
        n_folds : int
        pairs : bool
        axes : bool
            Whether heads are logistic.
        """
        truth = np.hstack([of_attribute.indicator for of_attribute in labels.values()])
        n_outputs = len(np.unique(truth, axis=0)) if task == Task.JOINT else truth.shape[1]
        n_axes = axes * (len(labels) if task == Task.PER_ATTRIBUTE else 1)
        return cls(len(truth), n_features, n_outputs, n_folds + 1, pairs, n_axes)

    @property
    def features(self) -> int:
        """Bytes of the training features."""
        return 4 * self.n_rows * self.n_features

    @property
    def _of_a_fit(self) -> int:
        n_copies = _COPIES_OF_A_FIT + (self.n_axes > 0)
        return n_copies * self.features + _BYTES_A_PAIR * self.pairs * self.n_rows**2

    @property
    def _besides(self) -> int:
        return _BYTES_OF_ANSWERS * self.n_rows * self.n_outputs + self._weights

    @property
    def _weights(self) -> int:
        n_arrays, axes = _ARRAYS_OF_WEIGHTS * _MEMBERS, 0
        if self.n_axes:
            n_arrays = _ARRAYS_OF_A_PATH
            axes = 4 * (self.n_axes + _ARRAYS_OF_COVARIANCE) * self.n_features**2
        weights = 4 * n_arrays * self.n_features * self.n_outputs
        return self.n_heads * weights + axes

    def in_memory(self, n_fits: int = 1) -> int:
        """Bytes that fitting takes if all training features are read at once.

        Parameters
        ----------
        n_fits : int
            Fits side by side.
        """
        return self.features + self._of_a_fit * n_fits + self._besides

    def fits_within(self, budget: int) -> int:
        """Number of fits side by side that a budget of bytes allows; 0 if not even one."""
        left = budget - self._besides - self.features
        return max(0, left // self._of_a_fit)

    def chunk_rows(self, budget: int) -> int:
        """Rows of a chunk that a budget of bytes allows.

        Raises
        ------
        FitError
            If they are fewer than 256.
        """
        row = 4 * self.n_features * _COPIES_OF_A_CHUNK
        answers = _BYTES_OF_STREAMED_ANSWERS * self.n_rows * self.n_outputs
        besides = answers + self._weights
        n_rows = (budget - besides) // row
        if n_rows < _LEAST_CHUNK_ROWS:
            least = besides + _LEAST_CHUNK_ROWS * row
            raise FitError(
                f"--memory {in_words(budget)} is too little for heads with {self.n_outputs} "
                f"classes on {self.n_rows} training images with {self.n_features} features, even "
                f"chunk by chunk. Set at least {in_words(least)}."
            )
        width = max(self.n_features, _OF_AN_ANSWER * self.n_outputs)
        return min(n_rows, max(_LEAST_CHUNK_ROWS, _MOST_OF_A_CHUNK // width))


def parse_memory(text: str) -> int:
    """Read a size such as ``4GB``, in bytes.

    Parameters
    ----------
    text : str
        A number, and optionally ``KB``, ``MB``, ``GB`` or ``TB`` (powers of 1,000).

    Raises
    ------
    UsageError
        If it cannot be read.

    Examples
    --------
    >>> parse_memory("1.5 GB")
    1500000000
    """
    size = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if size is None or float(size[1]) == 0:
        raise UsageError(f"{text!r} cannot be read. Expected a size such as 4GB.")
    return int(float(size[1]) * _UNITS[size[2].upper()])


def in_words(n_bytes: int) -> str:
    """A size for a person, rounded up.

    Examples
    --------
    >>> in_words(1_234_000_000)
    '1.3GB'
    """
    unit = "GB" if n_bytes >= 10**9 else "MB"
    tenths = -(-n_bytes * 10 // _UNITS[unit[0]])
    return f"{tenths / 10:g}{unit}"


def available_memory() -> int:
    """Bytes that are available now without swapping."""
    return int(psutil.virtual_memory().available)
