"""How much memory fitting takes, and how much it may take."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import psutil

from featurepipe.errors import FitError, UsageError
from featurepipe.manifest import Labels

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

# Besides the features themselves, those that one fit makes of its rows: the rows, those of them
# that vary enough, and while variances or scales are learnt a float64 array, which counts twice.
_COPIES_OF_A_FIT = 4
# A chunk, its copies in the fit that is at work, and what ten members draw of it.
_COPIES_OF_A_CHUNK = 9
# Float64 arrays of one number a row and class: truth, scores, probabilities, and calibration's.
_ARRAYS_OF_ANSWERS = 8
# Weights of all members, before and after a step, and those of the features that they drew twice.
_ARRAYS_OF_WEIGHTS, _MEMBERS = 3, 10
_LEAST_CHUNK_ROWS = 256


@dataclass(frozen=True)
class FitMemory:
    """What fitting the heads of one run takes, besides the libraries and the manifest.

    With M bytes of training features (4 ``n_rows n_features``), of answers A = 64 ``n_rows
    n_outputs``, and of weights W = 120 ``n_heads n_outputs n_features``:

    * in memory ``M (1 + 4 j) + A + W`` with j fits side by side;
    * in chunks of c bytes ``9 c + A + W``.

    Attributes
    ----------
    n_rows, n_features : int
        Of training.
    n_outputs : int
        Classes, over all attributes; in the joint task combinations.
    n_heads : int
        Heads of a question: the final one, and one a fold.
    """

    n_rows: int
    n_features: int
    n_outputs: int
    n_heads: int

    @classmethod
    def of(
        cls, labels: Mapping[str, Labels], n_features: int, task: str, n_folds: int
    ) -> "FitMemory":
        """Of heads for these labels of training rows."""
        truth = np.hstack([each.indicator for each in labels.values()])
        n_outputs = len(np.unique(truth, axis=0)) if task == "joint" else truth.shape[1]
        return cls(len(truth), n_features, n_outputs, n_folds + 1)

    @property
    def features(self) -> int:
        """Bytes of the training features."""
        return 4 * self.n_rows * self.n_features

    @property
    def _besides(self) -> int:
        answers = 8 * _ARRAYS_OF_ANSWERS * self.n_rows * self.n_outputs
        weights = 4 * _ARRAYS_OF_WEIGHTS * _MEMBERS * self.n_features * self.n_outputs
        return answers + self.n_heads * weights

    def in_memory(self, n_fits: int = 1) -> int:
        """Bytes if all training features are read at once.

        Parameters
        ----------
        n_fits : int
            Fits side by side.
        """
        return self.features * (1 + _COPIES_OF_A_FIT * n_fits) + self._besides

    def fits_within(self, budget: int) -> int:
        """How many fits at a time a budget of so many bytes allows; 0: not a single one."""
        left = budget - self._besides - self.features
        return max(0, left // (_COPIES_OF_A_FIT * self.features))

    def chunk_rows(self, budget: int) -> int:
        """Rows of a chunk that a budget allows.

        Raises
        ------
        FitError
            If they are fewer than 256.
        """
        row = 4 * self.n_features * _COPIES_OF_A_CHUNK
        n_rows = (budget - self._besides) // row
        if n_rows < _LEAST_CHUNK_ROWS:
            least = self._besides + _LEAST_CHUNK_ROWS * row
            raise FitError(
                f"--memory {in_words(budget)} is too little for heads of {self.n_outputs} classes "
                f"on {self.n_rows} training images of {self.n_features} features, even chunk by "
                f"chunk. Expected at least {in_words(least)}."
            )
        return n_rows


def parse_memory(text: str) -> int:
    """Bytes that a text such as ``4GB`` says.

    Parameters
    ----------
    text : str
        A number and, of powers of 1,000, ``KB``, ``MB``, ``GB`` or ``TB``.

    Raises
    ------
    UsageError
        If it cannot be read.

    Examples
    --------
    >>> parse_memory("1.5 GB")
    1500000000
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"The memory {text!r} cannot be read. Expected a size such as 4GB.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def in_words(n_bytes: int) -> str:
    """A size as a person writes it, rounded up.

    Examples
    --------
    >>> in_words(1_234_000_000)
    '1.3GB'
    """
    unit = "GB" if n_bytes >= 10**9 else "MB"
    tenths = -(-n_bytes * 10 // _UNITS[unit[0]])
    return f"{tenths / 10:g}{unit}"


def available_memory() -> int:
    """Bytes that programs can have now without swapping."""
    return int(psutil.virtual_memory().available)
