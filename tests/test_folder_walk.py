"""A folder is walked through in the order of the ids, without listing what comes later."""

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from featurepipe.errors import ManifestError
from featurepipe.manifest.folder_walk import images_below
from featurepipe.output_folders import MARKER


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_ids_are_sorted_as_whole_paths(tmp_path):
    # Characters before and after the slash, by which a folder sorts unlike its bare name.
    names = ["a.jpg", "a/b.jpg", "a-b/c.jpg", "a b/c.jpg", "a0/c.jpg", "a/b/c.jpg", "a/b!.jpg",
             "A/z.jpg", "a/b.d/e.jpg", "ä/x.jpg", "\U0001f600/x.jpg", "\uffee.jpg"]  # fmt: skip
    touch(tmp_path, *names)
    assert list(images_below(tmp_path)) == sorted(names)


def test_any_tree_comes_sorted_and_whole(tmp_path):
    rng = np.random.default_rng(0)
    parts = ["a", "b", "a.", "a-", "ab", "a!", "0"]
    names = {
        "/".join([*rng.choice(parts, rng.integers(0, 5)), f"{rng.choice(parts)}.png"])
        for _ in range(300)
    }
    touch(tmp_path, *names)
    assert list(images_below(tmp_path)) == sorted(names)


def test_later_folders_are_not_listed_yet(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{folder}/{k}.jpg" for folder in "abcd" for k in range(3)))
    listed, scandir = [], os.scandir

    def listing(path):
        listed.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    assert list(islice(images_below(tmp_path), 4)) == ["a/0.jpg", "a/1.jpg", "a/2.jpg", "b/0.jpg"]
    assert listed == [tmp_path.name, "a", "b"]


class TestLinks:
    @pytest.fixture
    def root(self, tmp_path):
        touch(tmp_path, "out/a.jpg", "out/sub/b.jpg")
        return touch(
            tmp_path / "data", "own/c.jpg", ".hidden/d.jpg", f"made/{MARKER}", "made/e.jpg"
        )

    def test_the_first_link_to_a_folder_elsewhere_is_followed(self, root):
        (root / "x").symlink_to(root.parent / "out")
        (root / "y").symlink_to(root.parent / "out")
        (root / "z").symlink_to(root.parent / "out" / "sub")
        assert list(images_below(root)) == ["own/c.jpg", "x/a.jpg", "x/sub/b.jpg"]
        (root / "first").symlink_to(root.parent / "out" / "sub")
        assert list(images_below(root)) == ["first/b.jpg", "own/c.jpg", "x/a.jpg"]

    def test_a_link_is_followed_where_there_is_no_other_path(self, root):
        (root / "a").symlink_to(root / ".hidden")
        (root / "b").symlink_to(root / "made")
        (root / "c").symlink_to(root / "own")
        assert list(images_below(root)) == ["a/d.jpg", "own/c.jpg"]

    def test_links_back_end(self, root):
        (root / "a").symlink_to(root.parent / "out")
        (root.parent / "out" / "back").symlink_to(root)
        (root.parent / "out" / "again").symlink_to(root.parent / "out")
        (root.parent / "out" / "up").symlink_to(root.parent)
        assert list(images_below(root)) == ["a/a.jpg", "a/sub/b.jpg", "own/c.jpg"]

    def test_below_a_linked_root_names_are_own(self, root):
        (root.parent / "link").symlink_to(root)
        (root / "again").symlink_to(root / "own")
        assert list(images_below(root.parent / "link")) == ["own/c.jpg"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ManifestError, match=r"Cannot list the folder .*gone \(No such file or dir"):
        list(images_below(tmp_path / "gone"))
