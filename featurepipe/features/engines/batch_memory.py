"""Batches and memory: detecting that memory ran out, and finding a batch that fits."""

import gc
import logging
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from featurepipe.errors import ExtractionError

logger = logging.getLogger(__name__)

# By name, so that their libraries need not be imported: TensorFlow's and PyTorch's.
_TYPES = frozenset({"ResourceExhaustedError", "OutOfMemoryError"})
# JAX, OpenVINO, cuDNN and cuBLAS raise a RuntimeError with one of these texts.
_WORDS = re.compile(
    r"resource_?exhausted|out of memory|std::bad_alloc|bad allocation|alloc_failed"
    r"|(cannot|could not|can't|failed to|unable to) (make )?allocat",
    re.IGNORECASE,
)

_Loaded = TypeVar("_Loaded")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that caused it, means that memory ran out.

    Parameters
    ----------
    error : BaseException
        An error of any library.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: trying to allocate 12 GiB"))
    True
    >>> is_out_of_memory(ValueError("negative dimensions"))
    False
    """
    return any(_says_so(cause) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ in _TYPES:
        return True
    return isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None


def load_with_room(load: Callable[[int], _Loaded], batch_size: int, what: str) -> _Loaded:
    """Load for the largest batch that fits into memory, halving it until it does.

    Parameters
    ----------
    load : callable
        Called with a batch size; loads, and tries what it loaded.
    batch_size : int
        Largest batch size to try.
    what : str
        Name of what is loaded, for messages.

    Raises
    ------
    ExtractionError
        If a single image does not fit into memory.
    """
    while True:
        try:
            return load(batch_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise ExtractionError(_advise(what, error)) from error
        smaller = batch_size // 2
        logger.warning(
            "%s: a batch of %d images does not fit into memory; trying %d.",
            what, batch_size, smaller,
        )  # fmt: skip
        batch_size = smaller
        # What failed is in reference cycles with its error, and still holds its memory.
        gc.collect()


def _advise(what: str, error: Exception) -> str:
    cause = next(cause for cause in _causes(error) if _says_so(cause))
    reason = " ".join(str(cause).split())[:200] or type(cause).__name__
    return (
        f"{what} does not fit into memory, even one image at a time ({reason}). Use a smaller "
        "--size or another --backbone, or compute on the CPU with --engine openvino."
    )
