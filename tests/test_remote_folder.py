"""A URL is listed folder by folder, and of its files only those that are asked for are kept."""

import threading
import tracemalloc
from itertools import islice

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from featurepipe.errors import SourceError
from featurepipe.manifest import read_manifest
from featurepipe.manifest.folder_walk import images_among
from featurepipe.output_folders import MARKER
from featurepipe.sources import UNKNOWN, open_archive, open_source, patience, remote, walk

# Characters before and after the slash, by which a folder sorts unlike its bare name.
ODD = ["a.png", "a/b.png", "a-b/c.png", "a b/c.png", "a0/c.png", "a/b/c.png", "a/b!.png",
       "A/z.png", "a/b.d/e.png", "ä/x.png", "a.d/x.png", "\U0001f600/x.png"]  # fmt: skip


def test_a_file_may_have_the_name_of_a_folder():
    # As in object stores.
    keys = {"": ["a.png", "a/", "a", "a-b/"], "a/": ["a/c"], "a-b/": ["a-b/e/", "a-b/d"],
            "a-b/e/": ["a-b/e/f"]}  # fmt: skip
    assert list(walk(keys.__getitem__)) == ["a", "a-b/d", "a-b/e/f", "a.png", "a/c"]


class NotedFileSystem(MemoryFileSystem):
    """Files of the memory; notes what is asked for, and remembers what it says."""

    protocol = "noted"
    cachable = False
    asked: list[tuple[str, str]] = []  # noqa: RUF012
    said: dict[str, object] = {}  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("noted://"))

    def note(self, method, path):
        self.asked.append((method, self._strip_protocol(path)))

    def ls(self, path, detail=True, **options):
        self.note("ls", path)
        found = super().ls(path, detail, **options)
        self.said[path] = found
        return found

    def find(self, path, **options):
        self.note("find", path)
        found = super().find(path, **options)
        self.said[path] = found
        return found

    def info(self, path, **options):
        self.note("info", path)
        return super().info(path, **options)

    def invalidate_cache(self, path=None):
        self.said.clear()


@pytest.fixture(params=["finds", "asks each folder"])
def noted(request, monkeypatch):
    """Puts files at noted://data; gives what is asked for from then on."""
    fsspec.register_implementation("noted", NotedFileSystem, clobber=True)
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    if request.param != "finds":
        monkeypatch.setattr(NotedFileSystem, "find", AbstractFileSystem.find)
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(NotedFileSystem, "asked", asked)

    def put(*names):
        MemoryFileSystem().pipe({f"/data/{name}": name.encode() for name in names})
        asked.clear()
        return asked

    put.finds = request.param == "finds"
    yield put
    MemoryFileSystem.store.clear()
    NotedFileSystem.said.clear()


class TestNames:
    def test_they_are_sorted_as_whole_paths(self, noted):
        noted(*ODD)
        assert list(open_source("noted://data").names()) == sorted(ODD)

    def test_any_tree_comes_sorted_and_whole(self, noted):
        rng = np.random.default_rng(0)
        parts = ["a", "b", "a.", "a-", "ab", "a!", "0"]
        names = {
            "/".join([*rng.choice(parts, rng.integers(0, 5)), f"{rng.choice(parts)}.png"])
            for _ in range(100)
        }
        noted(*names)
        assert list(open_source("noted://data").names()) == sorted(names)

    def test_later_folders_are_not_listed_yet(self, noted):
        asked = noted(*(f"x/{folder}/{k}.png" for folder in "abcd" for k in range(2)))
        names = open_source("noted://data").names()
        assert asked == []
        assert list(islice(names, 3)) == ["x/a/0.png", "x/a/1.png", "x/b/0.png"]
        below = "find" if noted.finds else "ls"
        assert asked == [
            ("ls", "/data"), ("ls", "/data/x"), (below, "/data/x/a"), (below, "/data/x/b"),
        ]  # fmt: skip

    def test_hidden_and_marked_folders_hold_no_images(self, noted, tmp_path):
        hidden = ["x/.h/a.png", "x/.a.png", ".h/a.png", "y/z/.h/b/a.png"]
        # Sorted, the marker comes after some names of its folder.
        marked = [f"m/{name}" for name in (MARKER, "!.png", "a.png", "-/a.png", "s/t/a.png")]
        deep = [f"x/deep/m/{name}" for name in (MARKER, " .png", "s/a.png")]
        images = ["x/a.png", "x/a.d/b.png", "y/z/a.png", "m-/a.png", "x/deep/n.png", "a.png"]
        other = ["x/notes.txt", f"x/{MARKER}.png/a.txt"]
        every = [*hidden, *marked, *deep, *images, *other]
        asked = noted(*every)
        assert list(open_source("noted://data").names(images_among)) == sorted(images)
        assert not any("/.h" in path for _, path in asked)
        for name in every:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        for place in ("noted://data", tmp_path, f"file://{tmp_path}"):
            assert read_manifest(place).ids.tolist() == sorted(images)
        # Unless they are left out, all files are there.
        assert list(open_source("noted://data").names()) == sorted(every)

    def test_a_marked_root_holds_none(self, noted):
        noted(MARKER, "!.png", "a/b.png")
        assert list(open_source("noted://data").names(images_among)) == []

    def test_a_file_is_not_below_itself(self, noted):
        noted("a.png")
        assert list(open_source("noted://data/a.png").names()) == []

    def test_of_the_top_nothing_below_is_listed(self, noted):
        asked = noted("b.txt", "a.png", "x/c.png", "y/d.tar", "z.tar/e.png")
        assert open_source("noted://data").names_at_top() == ["a.png", "b.txt"]
        MemoryFileSystem().pipe("/data/s-1.tar", bytes(10240))
        assert open_archive("noted://data/s-*.tar").names == []
        assert [method for method, _ in asked] == ["ls", "ls", "info"]

    def test_one_that_is_listed_for_its_manifest_asks_for_its_top_once(self, noted):
        asked = noted("a.png", "b.png")
        assert len(read_manifest("noted://data")) == 2
        assert asked == [("ls", "/data")]


class TestStamps:
    def test_only_the_folders_of_the_images_are_listed(self, noted):
        names = [f"{top}/{folder}/{k}.png" for top in "xy" for folder in "abc" for k in range(3)]
        asked = noted("0.png", *names)
        source = open_source("noted://data")
        ids = ["x/c/1.png", "x/c/2.png", "y/a/0.png", "y/a/gone.png"]
        sizes = source.stamps(ids)[:, 0].tolist()
        assert sizes == [9, 9, 9, UNKNOWN]
        assert sorted(asked) == [("ls", "/data/x/c"), ("ls", "/data/y/a")]
        asked.clear()
        # What was asked for last is known, so that images are read with one request.
        assert source.stamps(ids)[:, 0].tolist() == sizes
        assert source.read("y/a/0.png") == b"y/a/0.png"
        assert asked == []
        assert source.stamps(["0.png"])[0, 0] == 5
        assert asked == [("ls", "/data")]

    def test_the_folder_listed_last_is_not_listed_again(self, noted):
        asked = noted(*(f"{folder}/{k}.png" for folder in "ab" for k in range(5)))
        source = open_source("noted://data")
        source.stamps(["a/0.png", "a/1.png"])
        assert source.stamps(["a/1.png", "a/2.png"])[:, 0].tolist() == [7, 7]
        assert asked == [("ls", "/data/a")]
        source.stamps(["b/0.png"])
        assert source.stamps(["a/2.png"])[0, 0] == 7
        # Nothing was kept of the first folder.
        assert asked == [("ls", "/data/a"), ("ls", "/data/b"), ("ls", "/data/a")]

    def test_what_fsspec_said_is_not_kept(self, noted):
        noted("a/0.png", "b/1.png")
        source = open_source("noted://data")
        assert list(source.names()) == ["a/0.png", "b/1.png"]
        source.stamps(["a/0.png", "b/1.png"])
        assert NotedFileSystem.said == {}

    def test_of_a_folder_that_is_gone_they_are_unknown(self, noted):
        noted("a/0.png", "b")
        source = open_source("noted://data")
        stamps = source.stamps(["a/0.png", "b/1.png", "gone/0.png", "gone/too/0.png"])
        assert stamps[:, 0].tolist() == [7, UNKNOWN, UNKNOWN, UNKNOWN]
        with pytest.raises(SourceError, match=r"Cannot list noted://gone \(no such file\)\. Check"):
            open_source("noted://gone").stamps(["a/0.png"])

    def test_a_folder_that_cannot_be_listed_is_an_error(self, noted, monkeypatch):
        noted("a/0.png", "b/1.png")
        monkeypatch.setattr(NotedFileSystem, "ls", refuse)
        with pytest.raises(SourceError, match=r"Cannot list noted://data \(Access Denied\)\. Che"):
            open_source("noted://data").stamps(["a/0.png", "b/1.png"])

    def test_small_folders_are_listed_together_and_large_ones_after_each_other(
        self, noted, monkeypatch
    ):
        noted(*(f"{folder}/{k}.png" for folder in "abcd" for k in range(3)))
        monkeypatch.setattr(remote, "N_SMALL", 1)
        together, listing, most, ls = threading.Barrier(2, timeout=20), [], [], NotedFileSystem.ls

        def slow(self, path, *arguments, **options):
            if path[-1] in "ac":
                # Both are asked for, or neither is answered.
                together.wait()
                return ls(self, path, *arguments, **options)
            listing.append(path)
            most.append(len(listing))
            try:
                return ls(self, path, *arguments, **options)
            finally:
                listing.remove(path)

        monkeypatch.setattr(NotedFileSystem, "ls", slow)
        ids = ["a/0.png", "b/0.png", "b/1.png", "c/0.png", "d/0.png", "d/1.png"]
        assert open_source("noted://data").stamps(ids)[:, 0].tolist() == [7] * 6
        assert most == [1, 1]


def refuse(self, path, *arguments, **options):
    raise PermissionError(13, "Access Denied")


class EndlessFileSystem(AbstractFileSystem):
    """Folders of a hundred files each, which take no memory."""

    protocol = "endless"
    cachable = False
    n_folders = 0

    def ls(self, path, detail=True, **options):
        name = self._strip_protocol(path)
        if name == "data":
            return [
                {"name": f"data/{folder:06d}", "size": 0, "type": "directory"}
                for folder in range(self.n_folders)
            ]
        return [
            {"name": f"{name}/{k:03d}.png", "size": 1, "mtime": 1.0, "type": "file"}
            for k in range(100)
        ]


def test_memory_does_not_grow_with_the_files(monkeypatch):
    fsspec.register_implementation("endless", EndlessFileSystem, clobber=True)
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)

    def peak(n_folders):
        monkeypatch.setattr(EndlessFileSystem, "n_folders", n_folders)
        source = open_source("endless://data")
        tracemalloc.start()
        try:
            return sum(1 for _ in source.names(images_among)), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)
    n_few, few = peak(20)
    n_many, many = peak(420)
    assert (n_few, n_many) == (2_000, 42_000)
    # The name of a folder takes about 60 bytes, what fsspec says about it 230 more.
    assert many - few < 10 * 40_000
