"""The images of a source are listed into a file, and compared with those of the workspace."""

import tempfile
import tracemalloc
from pathlib import Path

import pytest

import featurepipe
from featurepipe.errors import DiskFullError, ExtractionError, WorkspaceError
from featurepipe.manifest import (
    Labelling,
    Manifest,
    ManifestRows,
    Relabelling,
    list_source,
    read_manifest,
)
from featurepipe.manifest.manifest_file import ROWS_PER_GROUP, About
from featurepipe.workflows.source_images import read_source
from featurepipe.workspace import Workspace
from pictures import draw_data_set

NOTHING = Relabelling((), None, None, None, None)


def names(numbers):
    """Names in 10 class folders, sorted, one after the other."""
    return (f"class_{number // 100_000}/image_{number:07d}.jpg" for number in numbers)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes a folder that seems to have the images of some numbers."""
    (tmp_path / "images").mkdir()

    def make(numbers):
        monkeypatch.setattr("featurepipe.manifest.listing.images_below", lambda _: names(numbers))
        return tmp_path / "images"

    return make


def peak(source):
    """The most bytes that Python has for a listing, and its number of images."""
    tracemalloc.start()
    try:
        with list_source(source) as listed:
            return tracemalloc.get_traced_memory()[1], len(listed.rows)
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_images(folder, monkeypatch):
    for module in ("manifest_file", "manifest_rows"):
        monkeypatch.setattr(f"featurepipe.manifest.{module}.ROWS_PER_GROUP", 1000)
    # What is imported late counts once.
    peak(folder(range(10)))
    few, n_few = peak(folder(range(2_000)))
    many, n_many = peak(folder(range(42_000)))
    assert (n_few, n_many) == (2_000, 42_000)
    # The name of an image alone takes 80 bytes.
    assert many - few < 8 * 40_000


def saved(space, numbers):
    about = About(
        root="/other",
        source="/other",
        labels_source=None,
        labelling=Labelling(),
        findings=(),
        all_images=False,
    )
    with ManifestRows.unsaved(names(numbers), {}, lambda: about) as rows:
        rows.save(space.manifest)


EVEN = range(0, 3 * ROWS_PER_GROUP, 2)


@pytest.mark.parametrize(
    ("others", "is_shared"),
    [
        (range(1, 3 * ROWS_PER_GROUP, 2), False),
        (range(3 * ROWS_PER_GROUP, 3 * ROWS_PER_GROUP + 5), False),
        ([*range(1, 2 * ROWS_PER_GROUP + 7, 2), 3 * ROWS_PER_GROUP - 2], True),
        ([0, *range(1, 3 * ROWS_PER_GROUP, 2)], True),
        ([3 * ROWS_PER_GROUP - 2, 4 * ROWS_PER_GROUP], True),
        (range(ROWS_PER_GROUP, ROWS_PER_GROUP + 1), True),
    ],
)
@pytest.mark.parametrize("is_swapped", [False, True])
def test_one_image_in_common_is_enough(folder, tmp_path, others, is_shared, is_swapped):
    space = Workspace(tmp_path)
    there, here = (others, EVEN) if is_swapped else (EVEN, others)
    saved(space, there)
    if is_shared:
        with read_source(space, folder(here), NOTHING, all_images=False) as (listed, is_new):
            assert (len(listed.rows), is_new) == (len(here), True)
        return
    with (
        pytest.raises(WorkspaceError, match=r"holds other images: .* read from /other") as caught,
        read_source(space, folder(here), NOTHING, all_images=False),
    ):
        pass
    first, other = next(names(there)), next(names(here))
    assert f"images such as {first}, read from" in str(caught.value)
    assert f"such as {other}. Give another" in str(caught.value)


@pytest.mark.parametrize("most_in_memory", [2**24, 1])
def test_the_listed_file_is_that_of_the_manifest(folder, tmp_path, monkeypatch, most_in_memory):
    monkeypatch.setattr("featurepipe.manifest.manifest_rows._MOST_IN_MEMORY", most_in_memory)
    source = folder(range(0, 900_000, 7))
    manifest = read_manifest(source)
    manifest.save(tmp_path / "whole.parquet")
    with list_source(source) as listed:
        assert len(listed.rows) == len(manifest) == 128_572
        listed.rows.save(tmp_path / "streamed.parquet")
        # It can be read and saved again.
        assert listed.rows.ids(5, 6).to_pylist() == [manifest.ids[5]]
        listed.rows.save(tmp_path / "again.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    assert (tmp_path / "streamed.parquet").read_bytes() == whole
    assert (tmp_path / "again.parquet").read_bytes() == whole
    assert Manifest.load(tmp_path / "whole.parquet").ids.tolist() == manifest.ids.tolist()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full disk at hand")
def test_a_full_disk_is_named_before_anything_is_written(folder, tmp_path, monkeypatch):
    with Path("/dev/full").open("r+b", 0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        monkeypatch.setattr("featurepipe.manifest.manifest_rows._MOST_IN_MEMORY", 1)
        said = r"The disk is full: cannot write a temporary manifest \(\$TMPDIR\)\."
        with pytest.raises(DiskFullError, match=said):
            list_source(folder(range(10)))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_extraction_into_shards_never_has_all_images(tmp_path, monkeypatch):
    draw_data_set(tmp_path / "images", n_each=2)
    for name in ("00.png", "01.png"):
        (tmp_path / "images" / "red_bright" / name).write_bytes(b"broken")
    store = tmp_path / "home" / "features" / "hsv_histogram-none-128-avg-rgb.shards"
    store.mkdir(parents=True)
    for name in ("new_manifest", "ManifestRows.read_all"):
        monkeypatch.setattr(f"featurepipe.manifest.manifest.{name}", pytest.fail)
    message = r"No image of 1 label of 'label' .*'red_bright' \(2 images, such as red_bright/00\.p"
    with pytest.raises(ExtractionError, match=message):
        featurepipe.extract(
            tmp_path / "images", backbone="hsv_histogram", workspace=tmp_path / "home"
        )
    with ManifestRows(tmp_path / "home" / "manifest.parquet") as rows:
        assert len(rows) == 16
    with featurepipe.FeatureStore.open(store) as shards:
        assert sorted(set(shards.status.tolist())) == [1, 2]
