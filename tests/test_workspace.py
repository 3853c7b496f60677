import subprocess
import sys

import pytest

from featurepipe.errors import NotWritableError, WorkspaceError
from featurepipe.files import _MACHINE
from featurepipe.workspace import Workspace


def test_it_knows_where_things_lie_and_lists_what_is_complete(tmp_path):
    place = Workspace(tmp_path)
    assert (place.stores(), place.splits(), place.runs()) == ([], [], [])
    for path in (place.store("b"), place.store("a"), place.split("s"), place.run("r") / "run.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    place.run("half").mkdir()
    place.store(".part").touch()
    assert place.stores() == [tmp_path / "features" / "a.h5", tmp_path / "features" / "b.h5"]
    assert place.splits() == [tmp_path / "splits" / "s.json"]
    assert place.runs() == [tmp_path / "runs" / "r"]


def test_a_workspace_whose_name_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(WorkspaceError, match=r"is not UTF-8\. Rename it"):
        Workspace(tmp_path / "w\udce9")


def test_a_writer_removes_what_killed_processes_left(tmp_path):
    place = Workspace(tmp_path)
    # A process whose number is free: it has ended.
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left = [
        path.with_name(f".{path.name}.{process.pid}-{_MACHINE}.part")
        for path in (place.manifest, place.leaderboard, place.audit, place.split("s"))
    ]
    replaced = tmp_path / "runs" / ".r.replaced"
    (tmp_path / "runs" / ".r.part").mkdir(parents=True)
    (tmp_path / "splits").mkdir()
    replaced.mkdir()
    for path in (*left, replaced / "run.json"):
        path.touch()
    with place.writing():
        assert place.runs() == [tmp_path / "runs" / "r"]
        assert not list(tmp_path.rglob(".*.part"))


def test_a_file_is_no_workspace(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match=r"is a file\. Name a folder"):
        Workspace(tmp_path / "file")
    below = Workspace(tmp_path / "file" / "below")
    with pytest.raises(NotWritableError, match="cannot be created"), below.writing():
        pass
