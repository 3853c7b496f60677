import errno
import os

import pytest

from featurepipe.errors import DiskFullError, LockedError, NotReadableError
from featurepipe.files import only_writer, read_file, replacing
from featurepipe.manifest import Manifest
from featurepipe.predictions import Predictions
from featurepipe.runs.run_info import read_run_info
from featurepipe.splits import Split


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    with replacing(path) as beside:
        beside.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_after_an_error_the_old_file_stands(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as beside:
        beside.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(DiskFullError, match=r"The disk is full: .*a\.txt"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    # This is as h5py reports it when HDF5 makes a dataset.
    with pytest.raises(DiskFullError), replacing(path):
        raise ValueError("Unable to create dataset (errno = 28, 'No space left on device')")
    with pytest.raises(DiskFullError, match=r"The file is too large: .*a\.txt"), replacing(path):
        raise OSError(errno.EFBIG, "File too large")
    with pytest.raises(PermissionError), replacing(path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_there_is_one_writer(tmp_path):
    with only_writer(tmp_path), pytest.raises(LockedError), only_writer(tmp_path):
        pass
    with only_writer(tmp_path):
        pass


LOADERS = {
    "manifest.parquet": Manifest.load,
    "split.json": Split.load,
    "predictions.npz": Predictions.load,
    "run.json": lambda path: read_run_info(path.parent),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, name):
    (tmp_path / name).touch()
    monkeypatch.setattr("featurepipe.files.os.access", lambda path, mode: False)
    with pytest.raises(NotReadableError, match=rf"Permission to read .*{name} is denied"):
        LOADERS[name](tmp_path / name)


def test_a_file_of_reasonable_size_is_read(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(NotReadableError, match=r"run\.json is larger than 0 MB"):
        read_file(path, 4)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent", 5)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null"])
def test_devices_are_not_read(tmp_path, target):
    path = tmp_path / "run.json"
    path.symlink_to(target)
    with pytest.raises(NotReadableError, match="is not a regular file"):
        read_file(path, 10**9)


def test_pipes_and_folders_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(NotReadableError, match="is not a regular file"):
            read_file(path, 10**9)


def test_content_beyond_the_size_of_a_file_is_not_read(tmp_path):
    path = tmp_path / "run.json"
    # Its size is 0, as of everything there, and its content is longer.
    path.symlink_to("/proc/self/maps")
    with pytest.raises(NotReadableError, match="is larger than"):
        read_file(path, 100)
