"""The folder that mutations are tried in: restored after each, and checked for foreign changes."""

import os
import shutil
import stat
from pathlib import Path

WRITABLE = ("workspace", "archives", "cache", "temporary", "written")
"""Folders of a place that commands may write to; all others are outside."""

_Marks = dict[str, tuple[int, ...]]


class Place:
    """A folder and a pristine copy of it beside.

    Parameters
    ----------
    root : Path
        Holds ``place``, ``pristine`` and ``logs``. The paths in a workspace are absolute, so that
        the place is always the same folder.
    """

    def __init__(self, root: Path) -> None:
        self.folder, self._pristine, self.logs = root / "place", root / "pristine", root / "logs"
        for folder in (self.folder, self.logs):
            folder.mkdir(parents=True)
        for name in (*WRITABLE, "outside"):
            (self.folder / name).mkdir()
        self.canary = root / "canary"
        """A file that exists once something in a mutated file was executed."""
        self._clean: _Marks = {}

    def freeze(self) -> None:
        """Take the present content for the pristine one."""
        shutil.copytree(self.folder, self._pristine, symlinks=True)
        self._clean = self._marks()

    def restore(self) -> None:
        """Make the place what it was when it was frozen."""
        self.canary.unlink(missing_ok=True)
        now = self._marks()
        for name in sorted(now, reverse=True):
            if now[name] != self._clean.get(name):
                _remove(self.folder / name)
        for name in sorted(self._clean):
            path = self.folder / name
            if not path.exists():
                _copy(self._pristine / name, path)
                self._clean[name] = _mark(path)

    def outside(self) -> _Marks:
        """What shows a change of any file that no command may write to."""
        return {
            name: mark
            for name, mark in self._marks().items()
            if name.partition("/")[0] not in WRITABLE
        }

    def written_bytes(self) -> int:
        """Bytes on the disk that all files take."""
        return sum(path.lstat().st_blocks * 512 for path in self.folder.rglob("*"))

    def _marks(self) -> _Marks:
        marks = {}
        for folder, folders, files in os.walk(self.folder):
            for name in (*folders, *files):
                path = Path(folder, name)
                marks[path.relative_to(self.folder).as_posix()] = _mark(path)
        return marks


def _mark(path: Path) -> tuple[int, ...]:
    """Changes whenever a file is written to or replaced: nobody can set the time of change."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        return (status.st_mode,)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_mode, status.st_ino, status.st_size, *times)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        shutil.copy2(source, target)
