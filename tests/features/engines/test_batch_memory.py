import logging
from itertools import pairwise

import pytest

from featurepipe.errors import ExtractionError, WeightsError
from featurepipe.features.engines.batch_memory import is_out_of_memory, load_with_room


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


class XlaRuntimeError(RuntimeError):
    """Named as JAX's."""


EXHAUSTED = [
    MemoryError(),
    ResourceExhaustedError("OOM when allocating tensor with shape[256,64,147,147]"),
    OutOfMemoryError("CUDA error"),
    XlaRuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12884901888 bytes."
    ),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("Exception from src/inference/src/cpp/core.cpp:109: std::bad_alloc"),
    RuntimeError("Could not allocate memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]
OTHERS = [
    ValueError("out of memory"),
    RuntimeError("The input tensor has another shape"),
    XlaRuntimeError("INTERNAL: no kernel image"),
    OSError("No space left on device"),
]


@pytest.mark.parametrize("error", EXHAUSTED, ids=lambda error: type(error).__name__)
def test_memory_that_ran_out(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: type(error).__name__)
def test_other_errors(error):
    assert not is_out_of_memory(error)


def test_causes_count():
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise WeightsError("cannot be read as weights") from error
    except WeightsError as error:
        assert is_out_of_memory(error)
    assert not is_out_of_memory(WeightsError("cannot be read as weights"))


def needs(n_images, tried):
    """Loads where there is memory for some images only."""

    def load(batch_size):
        tried.append(batch_size)
        if batch_size > n_images:
            raise XlaRuntimeError("RESOURCE_EXHAUSTED: trying to allocate 12 GiB")
        return f"engine of {batch_size}"

    return load


@pytest.mark.parametrize(
    ("room", "expected"),
    [(999, [100]), (100, [100]), (99, [100, 50]), (3, [100, 50, 25, 12, 6, 3])],
)
def test_the_batch_is_halved_until_it_fits(caplog, room, expected):
    tried = []
    caplog.set_level(logging.INFO)
    engine = load_with_room(needs(room, tried), 100, "xception at 299 px in float32")
    assert engine == f"engine of {expected[-1]}"
    assert tried == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"xception at 299 px in float32: a batch of {larger} images does not fit into memory; "
        f"trying {n_images}."
        for larger, n_images in pairwise(expected)
    ]


def test_not_even_one_image():
    tried = []
    with pytest.raises(ExtractionError) as error:
        load_with_room(needs(0, tried), 4, "xception at 9000 px in float32")
    assert tried == [4, 2, 1]
    assert str(error.value) == (
        "xception at 9000 px in float32 does not fit into memory, even one image at a time "
        "(RESOURCE_EXHAUSTED: trying to allocate 12 GiB). Use a smaller --size or another "
        "--backbone, or compute on the CPU with --engine openvino."
    )


def test_other_errors_pass():
    def load(batch_size):
        raise WeightsError(f"does not fit {batch_size}")

    with pytest.raises(WeightsError, match=r"^does not fit 4$"):
        load_with_room(load, 4, "xception")
