import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from featurepipe.errors import DiskFullError, LockedError, NotReadableError
from featurepipe.files import (
    only_writer,
    read_file,
    remove_unfinished,
    replaced_folders,
    replacing,
    replacing_folder,
    restore_folders,
)
from featurepipe.manifest import Manifest
from featurepipe.runs.predictions_file import load_predictions
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
    "predictions.npz": load_predictions,
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


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from featurepipe.files import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_text("half")
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


def write_and_be_sent(path, name):
    return subprocess.Popen([sys.executable, "-c", KILLED_WHILE_WRITING, str(path), name])


def unfinished(folder):
    return sorted(folder.glob(".*.part"))


def test_what_a_killed_process_left_is_removed_by_the_next_one_that_writes_there(tmp_path):
    assert write_and_be_sent(tmp_path / "board.csv", "SIGKILL").wait() == -signal.SIGKILL
    assert len(unfinished(tmp_path)) == 1
    with replacing(tmp_path / "other.csv") as beside:
        assert unfinished(tmp_path) == []
        beside.write_text("whole")
        assert unfinished(tmp_path) == [beside]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.csv"]


def test_what_a_running_process_or_another_machine_writes_is_not_removed(tmp_path):
    process = write_and_be_sent(tmp_path / "board.csv", "SIGSTOP")
    os.waitpid(process.pid, os.WUNTRACED)
    elsewhere = tmp_path / ".board.csv.999999-00000000.part"
    elsewhere.touch()
    try:
        remove_unfinished(tmp_path)
        (own,) = set(unfinished(tmp_path)) - {elsewhere}
        assert own.read_text() == "half"
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    assert (tmp_path / "board.csv").read_text() == "half"


def replace(path, content, fails_at=None):
    """Replace a folder by one with a file; the process dies before the rename of a number."""
    names = iter(range(1, 9))
    rename = Path.rename

    def one_of(self, target):
        if next(names) == fails_at:
            raise SystemExit("killed")
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", one_of)
        with replacing_folder(path) as beside:
            (beside / "file").write_text(content)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_folder_that_cannot_be_replaced_is_moved_back_at_once(tmp_path, fails_at):
    replace(tmp_path / "run", "old")
    with pytest.raises(SystemExit):
        replace(tmp_path / "run", "new", fails_at)
    assert (tmp_path / "run" / "file").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def killed_between_renames(path):
    replace(path, "old")
    path.rename(path.with_name(".run.replaced"))
    (path.with_name(".run.part")).mkdir()


def test_a_kill_between_the_renames_loses_no_folder(tmp_path):
    killed_between_renames(tmp_path / "run")
    assert replaced_folders(tmp_path) == [tmp_path / ".run.replaced"]
    restore_folders(tmp_path)
    assert (tmp_path / "run" / "file").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_replacing_again_restores_first(tmp_path):
    killed_between_renames(tmp_path / "run")
    with pytest.raises(ValueError, match="broken"), replacing_folder(tmp_path / "run"):
        assert (tmp_path / "run" / "file").read_text() == "old"
        raise ValueError("broken")
    assert (tmp_path / "run" / "file").read_text() == "old"
    replace(tmp_path / "run", "new")
    assert (tmp_path / "run" / "file").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
