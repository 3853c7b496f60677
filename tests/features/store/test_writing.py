"""Stores on a disk that is full, or that holds no larger files: HDF5 itself survives neither."""

import errno

import h5py
import pytest

from featurepipe.features.store.writing import WritableHDF5

resource = pytest.importorskip("resource")

N_ROWS, N_FEATURES = 200, 100


@pytest.fixture
def limit():
    """Sets the size in bytes that a file may have; Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def lay_out(file):
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    file.create_dataset("first", (N_ROWS,), "f4", dcpl=early)
    file.create_dataset("last", (N_ROWS, N_FEATURES), "f4", dcpl=early)
    file.flush()


@pytest.fixture
def path(tmp_path):
    with WritableHDF5(tmp_path / "a.h5", "w") as file:
        lay_out(file)
    return tmp_path / "a.h5"


def test_a_file_is_read_back_by_plain_hdf5(path):
    with WritableHDF5(path, "r+") as file:
        file["last"][5] = 1.5
        file.flush()
        with h5py.File(path, locking=False) as reader:
            assert reader["last"][5].tolist() == [1.5] * N_FEATURES
        file["last"][6] = 2.5
        assert file["last"][4:7, 0].tolist() == [0, 1.5, 2.5]
    with h5py.File(path) as reader:
        assert reader["last"][4:7, 0].tolist() == [0, 1.5, 2.5]


@pytest.mark.parametrize("n_bytes", [0, 100, 1000, 3000, 10_000, 80_000])
def test_a_file_that_grows_too_large_is_an_error_of_its_first_flush(tmp_path, limit, n_bytes):
    limit(n_bytes)
    with (
        WritableHDF5(tmp_path / "a.h5", "w") as file,
        pytest.raises(OSError, match=r"a\.h5") as error,
    ):
        lay_out(file)
    assert error.value.errno == errno.EFBIG
    assert (tmp_path / "a.h5").stat().st_size <= n_bytes


def test_nothing_is_written_after_an_error(path, limit):
    limit(50_000)
    with WritableHDF5(path, "r+") as file:
        file["last"][0] = 1
        file.flush()
        file["last"][N_ROWS - 1] = 2
        with pytest.raises(OSError, match="File too large"):
            file.flush()
        file["first"][0] = 3
        file.flush()
    with h5py.File(path) as reader:
        assert reader["last"][[0, N_ROWS - 1], 0].tolist() == [1, 0]
        assert reader["first"][0] == 0


def test_an_error_that_shows_on_closing_is_raised_then(path, limit):
    file = WritableHDF5(path, "r+")
    limit(100)
    file["first"][0] = 2
    with pytest.raises(OSError, match="File too large"):
        file.close()
    assert not file


def test_a_first_error_is_not_hidden_by_a_close_that_fails(tmp_path, limit):
    limit(1000)
    with pytest.raises(KeyboardInterrupt), WritableHDF5(tmp_path / "a.h5", "w") as file:
        with pytest.raises(OSError, match="File too large"):
            lay_out(file)
        raise KeyboardInterrupt
