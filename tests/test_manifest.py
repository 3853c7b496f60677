"""Folders and tables become manifests; manifests are relabelled, saved and loaded."""

import os
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurepipe.errors import (
    FeaturepipeError,
    ManifestError,
    SourceError,
    UnknownNameError,
    UsageError,
)
from featurepipe.image_types import image_suffixes
from featurepipe.manifest import GivenImage, Manifest, find_images, read_manifest
from featurepipe.output_folders import MARKER


def touch(root: Path, *names: str) -> Path:
    """Empty files: listing opens no image."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    return path


def cells(manifest: Manifest, name: str) -> dict[str, object]:
    return manifest.table[name].to_dict()


def read_table(folder: Path, text: str, **options) -> Manifest:
    """A CSV table beside the files a.jpg, b.jpg, c.jpg and d.jpg."""
    touch(folder, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    return read_manifest(write(folder / "table.csv", text), **options)


def same(one: Manifest, other: Manifest) -> bool:
    return (
        one.table.equals(other.table)
        and list(one.ids) == list(other.ids)
        and one.columns == other.columns
        and (one.root, one.source, one.labels_source, one.labelling, one.findings)
        == (other.root, other.source, other.labels_source, other.labelling, other.findings)
    )


class TestListing:
    def test_ids_are_sorted_posix_paths(self, tmp_path):
        touch(tmp_path, "dog/2.png", "cat/10.jpg", "cat/1.jpg", "cat/deep/er.gif")
        manifest = read_manifest(tmp_path)
        assert list(manifest.ids) == ["cat/1.jpg", "cat/10.jpg", "cat/deep/er.gif", "dog/2.png"]
        assert manifest.ids.dtype == object
        assert len(manifest) == 4

    def test_every_suffix_counts_in_any_case_and_nothing_else(self, tmp_path):
        images = [f"x{suffix}" for suffix in image_suffixes()] + ["UPPER.JPG"]
        touch(tmp_path, *images, "notes.txt", "jpg", "archive.zip")
        assert list(read_manifest(tmp_path).ids) == sorted(images)

    def test_hidden_files_and_folders_are_skipped(self, tmp_path):
        touch(tmp_path, "cat/a.jpg", "cat/._a.jpg", ".trash/b.jpg", "dog/.c/d.jpg", "dog/e.jpg")
        assert list(read_manifest(tmp_path).ids) == ["cat/a.jpg", "dog/e.jpg"]

    def test_what_featurepipe_wrote_is_skipped(self, tmp_path):
        written = [f"{folder}/{name}" for folder in ("ann", "runs/x") for name in (MARKER, "p.png")]
        touch(tmp_path, "cat/a.jpg", "dog/b.jpg", *written, "ann/deep/q.png")
        (tmp_path / "linked").symlink_to(tmp_path / "ann")
        assert list(read_manifest(tmp_path).ids) == ["cat/a.jpg", "dog/b.jpg"]
        with pytest.raises(ManifestError, match=r"featurepipe wrote the folder .*ann, so its pict"):
            read_manifest(tmp_path / "ann")

    def test_a_hidden_source_is_read_all_the_same(self, tmp_path):
        touch(tmp_path, ".data/a.jpg")
        assert list(read_manifest(tmp_path / ".data").ids) == ["a.jpg"]

    def test_images_of_types_that_are_not_read_are_counted_and_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr("featurepipe.image_types.reads_heic", lambda: False)
        touch(tmp_path, "cat/a.jpg", "dog/b.mpo", "dog/c.pjpeg", "dog/d.PPM", "dog/e.apng")
        touch(tmp_path, "cat/IMG_1.HEIC", "cat/IMG_2.HEIC", "dog/f.nef", "dog/.g.nef", "notes.txt")
        manifest = read_manifest(tmp_path)
        assert len(manifest) == 5
        assert manifest.findings == (
            "Ignoring 3 images of a type that is not read (2 .heic, 1 .nef), such as "
            "cat/IMG_1.HEIC. To use them, install what reads HEIC (pip install "
            "'featurepipe[heic]'), or convert them to JPEG or PNG",
        )
        monkeypatch.setattr("featurepipe.image_types.reads_heic", lambda: True)
        assert len(read_manifest(tmp_path)) == 7

    def test_a_class_of_types_that_are_not_read_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("featurepipe.image_types.reads_heic", lambda: False)
        touch(tmp_path, "cat/a.jpg", "dog/b.heic")
        said = (
            "No image of 1 label of 'label' can be read: 'dog' (1 .heic). To use them, install "
            "what reads HEIC (pip install 'featurepipe[heic]'), or convert them to JPEG or PNG. "
            "Else move them out of the source."
        )
        # With one class or several beside it.
        for _ in range(2):
            with pytest.raises(ManifestError) as caught:
                read_manifest(tmp_path)
            assert str(caught.value) == said
            touch(tmp_path, "owl/c.jpg")
        table = tmp_path / "t.csv"
        table.write_text("path,kind\ncat/a.jpg,x\nowl/c.jpg,y\ndog/b.heic,z\n")
        with pytest.raises(
            ManifestError, match=r"No image of 1 label of 'kind' .*: 'z' \(1 \.heic"
        ):
            read_manifest(tmp_path, labels=table)
        with tarfile.open(tmp_path / "data.tar", "w") as archive:
            for name in ("cat/a.jpg", "dog/b.heic"):
                archive.add(tmp_path / name, name)
        with pytest.raises(ManifestError) as caught:
            read_manifest(tmp_path / "data.tar")
        assert str(caught.value) == said

    def test_raw_files_beside_the_classes_are_no_class(self, tmp_path):
        touch(tmp_path, "photos/cat/a.jpg", "photos/dog/b.jpg", "raw/a.nef")
        manifest = read_manifest(tmp_path)
        assert manifest.labels()["label"].classes == ("cat", "dog")
        assert manifest.findings[0].startswith("Ignoring 1 image of a type that is not read (1 .n")

    def test_a_source_of_types_that_are_not_read_says_so(self, tmp_path):
        touch(tmp_path, "cat/a.psd", "dog/b.psd")
        with pytest.raises(ManifestError) as caught:
            read_manifest(tmp_path)
        assert str(caught.value) == (
            f"The folder {tmp_path} contains no images that can be read: 2 .psd, such as "
            "cat/a.psd. To use them, convert them to JPEG or PNG."
        )

    def test_links_in_a_circle_or_upwards_end(self, tmp_path):
        root = touch(tmp_path / "data", "cat/a.jpg", "dog/b.jpg")
        touch(tmp_path, "outside.jpg")
        (root / "cat" / "again").symlink_to(root)
        (root / "dog" / "up").symlink_to(tmp_path)
        assert list(read_manifest(root).ids) == ["cat/a.jpg", "dog/b.jpg"]

    def test_a_linked_folder_is_read_and_a_folder_keeps_its_own_name(self, tmp_path):
        touch(tmp_path / "elsewhere", "a.jpg")
        root = touch(tmp_path / "data", "zebra/b.jpg")
        (root / "cat").symlink_to(tmp_path / "elsewhere")
        (root / "alias").symlink_to(root / "zebra")
        assert list(read_manifest(root).ids) == ["cat/a.jpg", "zebra/b.jpg"]

    @pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
    def test_a_name_that_no_file_can_hold_is_left_out_and_said(self, tmp_path):
        touch(tmp_path, "a.jpg")
        try:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).touch()
        except OSError:
            pytest.skip("this file system takes UTF-8 only")
        manifest = read_manifest(tmp_path)
        assert list(manifest.ids) == ["a.jpg"]
        assert manifest.findings[0] == (
            "Ignoring 1 image with a name that is not UTF-8: '\\udcff.jpg'"
        )

    def test_a_folder_that_cannot_be_listed_is_named(self, tmp_path, monkeypatch):
        touch(tmp_path, "cat/a.jpg", "closed/b.jpg")
        scandir = os.scandir

        def refuse(path):
            if Path(path).name == "closed":
                raise PermissionError(13, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(
            ManifestError, match=r"Cannot list the folder .*closed \(Permission denied\)"
        ):
            read_manifest(tmp_path)

    def test_a_missing_source_is_named(self, tmp_path):
        with pytest.raises(
            ManifestError, match=r"The source .*nowhere does not exist. Expected a fold"
        ):
            read_manifest(tmp_path / "nowhere")

    def test_a_folder_without_images_says_what_counts(self, tmp_path):
        touch(tmp_path, "notes.txt")
        with pytest.raises(
            ManifestError, match=r"contains no images\. Expected files .*\.jfif .*\.tiff"
        ):
            read_manifest(tmp_path)


class TestFolderNames:
    def test_the_class_is_the_first_level_at_which_images_differ(self, tmp_path):
        touch(tmp_path, "set/set/cat/1.jpg", "set/set/cat/old/2.jpg", "set/set/dog/3.jpg")
        manifest = read_manifest(tmp_path)
        assert manifest.attribute_names == ("label",)
        assert cells(manifest, "label") == {
            "set/set/cat/1.jpg": ("cat",),
            "set/set/cat/old/2.jpg": ("cat",),
            "set/set/dog/3.jpg": ("dog",),
        }
        assert manifest.findings == ()

    def test_images_in_no_class_folder_are_unlabelled_and_said(self, tmp_path):
        touch(tmp_path, "cat/1.jpg", "dog/2.jpg", "cover.jpg")
        manifest = read_manifest(tmp_path)
        assert cells(manifest, "label")["cover.jpg"] is None
        assert manifest.findings == ("1 image without a label for 'label': cover.jpg",)

    @pytest.mark.parametrize("folder", ["", "one/", "one/two/"])
    def test_images_in_one_folder_have_no_attributes(self, tmp_path, folder):
        touch(tmp_path, *(f"{folder}{k}.jpg" for k in range(4)))
        manifest = read_manifest(tmp_path)
        assert manifest.attribute_names == ()
        assert manifest.labels() == {}
        assert list(manifest.combinations()) == [None] * 4
        assert manifest.findings == (
            f"4 images without a label: {folder}0.jpg, {folder}1.jpg, {folder}2.jpg, …. To learn "
            "classes, put each in a folder of its own, or pass --labels: one class cannot be told "
            "from another",
        )

    def test_class_names_lose_blanks_around_them(self, tmp_path):
        touch(tmp_path, " cat/1.jpg", "dog /2.jpg")
        assert read_manifest(tmp_path).labels()["label"].classes == ("cat", "dog")

    def test_folders_are_not_cut_at_the_label_separator(self, tmp_path):
        touch(tmp_path, "a|b/1.jpg", "c/2.jpg")
        assert read_manifest(tmp_path).labels()["label"].classes == ("a|b", "c")

    @pytest.mark.parametrize(
        ("folders", "expected"),
        [
            (("black/dress", "blue/jeans"), [("black", "dress"), ("blue", "jeans")]),
            (("black_dress", "blue_jeans"), [("black", "dress"), ("blue", "jeans")]),
            (("black-dress", "blue-t_shirt"), [("black", "dress"), ("blue", "t_shirt")]),
            (("black dress", "blue-green jeans"), [("black", "dress"), ("blue-green", "jeans")]),
            (("x/1/black_dress", "y/2/blue_jeans"), [("black", "dress"), ("blue", "jeans")]),
        ],
    )
    def test_attributes_out_of_levels_or_names(self, tmp_path, folders, expected):
        touch(tmp_path, *(f"{folder}/1.jpg" for folder in folders))
        manifest = read_manifest(tmp_path, attributes=("color", "category"))
        colors, categories = manifest.table["color"], manifest.table["category"]
        assert manifest.attribute_names == ("color", "category")
        assert [(a[0], b[0]) for a, b in zip(colors, categories, strict=True)] == expected

    def test_one_attribute_is_the_label_by_another_name(self, tmp_path):
        touch(tmp_path, "cat/1.jpg", "cat/old/2.jpg", "dog/3.jpg")
        manifest = read_manifest(tmp_path, attributes=("animal",))
        assert manifest.attribute_names == ("animal",)
        assert list(manifest.table["animal"]) == [("cat",), ("cat",), ("dog",)]

    @pytest.mark.parametrize("misfit", ["black_dress_long", "dress", "_dress", "black"])
    def test_a_folder_that_does_not_fit_is_named(self, tmp_path, misfit):
        touch(tmp_path, "black_jeans/1.jpg", "blue_jeans/2.jpg", f"{misfit}/3.jpg")
        message = (
            f"Folder '{misfit}' does not match the 2 attributes color, category: expected 2 fold"
        )
        with pytest.raises(ManifestError, match=message) as caught:
            read_manifest(tmp_path, attributes=("color", "category"))
        assert "--attributes" in str(caught.value)
        assert "--labels TABLE" in str(caught.value)

    def test_attributes_without_class_folders_are_an_error(self, tmp_path):
        touch(tmp_path, "1.jpg", "2.jpg")
        with pytest.raises(
            ManifestError, match="Cannot read the attributes color, category from folder names"
        ):
            read_manifest(tmp_path, attributes=("color", "category"))


class TestGivenFolders:
    def test_train_and_test_are_stepped_over(self, tmp_path):
        touch(tmp_path, "d/train/cat/1.jpg", "d/train/dog/2.jpg", "d/test/cat/3.jpg")
        manifest = read_manifest(tmp_path)
        assert cells(manifest, "label")["d/test/cat/3.jpg"] == ("cat",)
        assert list(manifest.table["split"]) == ["test", "train", "train"]
        assert manifest.findings == ("Predefined split: 2 train and 1 test images",)

    def test_validation_counts_as_train(self, tmp_path):
        touch(
            tmp_path, "Train/cat/1.jpg", "Valid/dog/2.jpg", "validation/dog/3.jpg", "TEST/cat/4.jpg"
        )
        manifest = read_manifest(tmp_path)
        assert list(manifest.table["split"]) == ["test", "train", "train", "train"]
        assert manifest.findings == (
            "Predefined split: 3 train and 1 test images; validation images (2) count as train",
        )

    def test_validation_counts_as_test_where_there_is_none(self, tmp_path):
        touch(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "val/dog/3.jpg")
        manifest = read_manifest(tmp_path)
        assert list(manifest.table["split"]) == ["train", "train", "test"]
        assert manifest.findings[0].endswith("; validation images (1) count as test")

    @pytest.mark.parametrize("folders", [("test", "val"), ("train", "test", "cat")])
    def test_other_folders_are_classes(self, tmp_path, folders):
        touch(tmp_path, *(f"{folder}/1.jpg" for folder in folders))
        manifest = read_manifest(tmp_path)
        assert manifest.labels()["label"].classes == tuple(sorted(folders))
        assert "split" not in manifest.table


class TestTable:
    @pytest.mark.parametrize(
        "column", ["path", "Image", "FILE", "file_name", "image_id", "id", "photo"]
    )
    def test_the_path_column_is_known_by_name_or_values(self, tmp_path, column):
        manifest = read_table(tmp_path, f"label,{column}\ncat,b.jpg\ndog,a.jpg\n")
        assert cells(manifest, "label") == {"a.jpg": ("dog",), "b.jpg": ("cat",)}
        assert manifest.root == str(tmp_path)

    def test_a_small_table_cannot_fill_the_memory(self, tmp_path):
        pq.write_table(pa.table({"path": ["x" * 10_000] * 10_000}), tmp_path / "t.parquet")
        assert (tmp_path / "t.parquet").stat().st_size < 1_000_000
        with pytest.raises(ManifestError, match=r"it holds more than 100 times its size"):
            read_manifest(tmp_path / "t.parquet")

    def test_a_table_without_line_ends_is_not_read_whole(self, tmp_path):
        with (tmp_path / "t.csv").open("wb") as file:
            file.write(b"path,label\n")
            file.truncate(10**11)
        with pytest.raises(ManifestError, match=r"it has a line of more than 16,777,216 char"):
            read_manifest(tmp_path / "t.csv")

    def test_a_table_is_a_regular_file(self, tmp_path):
        os.mkfifo(tmp_path / "t.csv")
        with pytest.raises(FeaturepipeError, match=r"t\.csv is not a regular file"):
            read_manifest(tmp_path / "t.csv")

    def test_a_column_of_numbers_called_id_is_not_the_path(self, tmp_path):
        manifest = read_table(tmp_path, "id,picture,label\n1,a.jpg,cat\n2,b.jpg,dog\n")
        assert list(manifest.ids) == ["a.jpg", "b.jpg"]

    def test_no_path_column_is_an_error(self, tmp_path):
        with pytest.raises(
            ManifestError, match=r"no column of image paths \(columns: picture, label\)\. Name it"
        ):
            read_table(tmp_path, "picture,label\nx,cat\n")
        with pytest.raises(ManifestError, match="Its cells are separated by spaces: separate them"):
            read_table(tmp_path, "path label\na.jpg cat\nb.jpg dog\n")

    def test_only_the_empty_cell_is_missing(self, tmp_path):
        manifest = read_table(tmp_path, "path,label\na.jpg,None\nb.jpg,NA\nc.jpg,nan\nd.jpg, \n")
        assert list(manifest.table["label"]) == [("None",), ("NA",), ("nan",), None]
        assert manifest.findings == ("1 image without a label for 'label': d.jpg",)

    def test_every_other_column_is_an_attribute(self, tmp_path):
        manifest = read_table(tmp_path, ",path,color,kind\n0,a.jpg,red,hat\n1,b.jpg,blue,shoe\n")
        assert manifest.attribute_names == ("color", "kind")

    def test_named_attributes_are_taken_in_their_order(self, tmp_path):
        text = "path,color,kind,size\na.jpg,red,hat,1\nb.jpg,blue,shoe,2\n"
        manifest = read_table(tmp_path, text, attributes=("kind", "color"))
        assert manifest.attribute_names == ("kind", "color")
        assert list(manifest.combinations()) == ["hat_red", "shoe_blue"]

    def test_several_labels_in_a_cell(self, tmp_path):
        manifest = read_table(tmp_path, "path,label\na.jpg, sun | sea|sun\nb.jpg,sea\n")
        assert list(manifest.table["label"]) == [("sea", "sun"), ("sea",)]
        labels = manifest.labels()["label"]
        assert not labels.exclusive
        np.testing.assert_array_equal(labels.indicator, [[True, True], [True, False]])

    @pytest.mark.parametrize(("separator", "expected"), [(";", ("a", "b|c")), ("", ("a;b|c",))])
    def test_another_separator_or_none(self, tmp_path, separator, expected):
        text = "path,label\na.jpg,a;b|c\n"
        manifest = read_table(tmp_path, text, label_separator=separator)
        assert list(manifest.table["label"]) == [expected]

    def test_parquet_lists_numbers_and_missing_cells(self, tmp_path):
        touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
        table = pa.table(
            {
                "path": ["a.jpg", "b.jpg", "c.jpg"],
                "tags": [["sun", "sea"], [], None],
                "year": pa.array([2019.0, None, 2021.0]),
                "image": [{"bytes": b"\0", "path": "x"}] * 3,
            }
        )
        pq.write_table(table, tmp_path / "table.parquet")
        manifest = read_manifest(tmp_path / "table.parquet")
        assert manifest.attribute_names == ("tags", "year")
        assert list(manifest.table["tags"]) == [("sea", "sun"), (), None]
        assert list(manifest.table["year"]) == [("2019",), None, ("2021",)]
        labels = manifest.labels()["tags"]
        np.testing.assert_array_equal(labels.labelled, [True, True, False])
        np.testing.assert_array_equal(labels.indicator, [[True, True], [False] * 2, [False] * 2])

    @pytest.mark.parametrize("sign", ["=", ":"])
    def test_named_zeros_and_ones_are_gathered(self, tmp_path, sign):
        text = (
            f"path,tag{sign}sun,tag{sign}sea,place\n"
            "a.jpg,1,1,x\nb.jpg,0,0,x\nc.jpg,,1.0,y\nd.jpg,,,y\n"
        )
        manifest = read_table(tmp_path, text)
        assert set(manifest.attribute_names) == {"place", "tag"}
        assert list(manifest.table["tag"]) == [("sea", "sun"), (), ("sea",), None]
        assert list(manifest.relabelled(attributes=("tag",)).table) == ["tag"]

    def test_plain_zeros_and_ones_are_attributes_of_their_own(self, tmp_path):
        text = "image_id,Smiling,Male,place\na.jpg,1,0,x\nb.jpg,0,1,x\nc.jpg,0,,y\n"
        manifest = read_table(tmp_path, text)
        assert manifest.attribute_names == ("Smiling", "Male", "place")
        assert list(manifest.table["Smiling"]) == [("1",), ("0",), ("0",)]
        assert list(manifest.table["Male"]) == [("0",), ("1",), None]
        assert all(labels.exclusive for labels in manifest.labels().values())

    def test_tags_of_minus_one_and_one_are_gathered_as_celeba_writes_them(self, tmp_path):
        text = "image_id,face=Smiling,face=Male\na.jpg,1,-1\nb.jpg,-1,-1\n"
        manifest = read_table(tmp_path, text)
        assert list(manifest.table["face"]) == [("Smiling",), ()]

    def test_minus_one_beside_zero_is_a_value_of_its_own(self, tmp_path):
        text = "path,x=Edema\na.jpg,1\nb.jpg,-1\nc.jpg,0\n"
        manifest = read_table(tmp_path, text)
        assert list(manifest.table["x=Edema"]) == [("1",), ("-1",), ("0",)]

    def test_a_label_column_stays_beside_zeros_and_ones(self, tmp_path):
        manifest = read_table(tmp_path, "path,label,sun,sea\na.jpg,cat,1,1\nb.jpg,dog,0,1\n")
        assert manifest.attribute_names == ("label", "sun", "sea")
        assert list(manifest.table["label"]) == [("cat",), ("dog",)]

    def test_a_group_column_is_kept_and_no_attribute(self, tmp_path):
        text = "path,label,patient\na.jpg,cat,p1\nb.jpg,dog,\n"
        manifest = read_table(tmp_path, text, group="patient")
        assert manifest.attribute_names == ("label",)
        assert manifest.group_column == "patient"
        assert list(manifest.table["patient"]) == ["p1", None]

    def test_unknown_columns_are_named_with_the_nearest(self, tmp_path):
        text = "path,label,patient\na.jpg,cat,p1\n"
        with pytest.raises(
            UnknownNameError, match=r"group column 'patients'. Did you mean 'patient'"
        ):
            read_table(tmp_path, text, group="patients")
        with pytest.raises(UnknownNameError, match=r"attribute 'labels'. Did you mean 'label'"):
            read_table(tmp_path, text, attributes=("labels",))
        with pytest.raises(UnknownNameError, match="Folder names give no groups"):
            read_manifest(tmp_path, group="patient")

    def test_a_split_column_is_a_given_split(self, tmp_path):
        text = "path,label,split\na.jpg,cat,Train\nb.jpg,dog,val\nc.jpg,dog,test\nd.jpg,dog,\n"
        manifest = read_table(tmp_path, text)
        assert manifest.attribute_names == ("label",)
        assert list(manifest.table["split"]) == ["train", "train", "test", "train"]
        assert manifest.findings == (
            "Predefined split: 3 train and 1 test images; validation images (1) count as train",
        )

    def test_a_split_of_one_side_is_none(self, tmp_path):
        manifest = read_table(tmp_path, "path,label,split\na.jpg,cat,train\nb.jpg,dog,train\n")
        assert "split" not in manifest.table
        assert manifest.findings == ('Ignoring the column "split": every value is "train"',)

    def test_an_unknown_split_is_an_error(self, tmp_path):
        with pytest.raises(
            ManifestError, match=r"'split' contains 'holdout'\. Expected one of train, val"
        ):
            read_table(tmp_path, "path,label,split\na.jpg,cat,holdout\n")

    def test_a_list_of_paths_has_labels_by_folder(self, tmp_path):
        touch(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
        manifest = read_manifest(write(tmp_path / "t.csv", "path\ncat/1.jpg\ndog/3.jpg\n"))
        assert cells(manifest, "label") == {"cat/1.jpg": ("cat",), "dog/3.jpg": ("dog",)}

    def test_images_that_do_not_exist_are_left_out_and_said(self, tmp_path):
        text = "path,label\na.jpg,cat\nx1.jpg,dog\nx2.jpg,dog\n../x3.jpg,dog\n,dog\n"
        touch(tmp_path, "x3.jpg")
        manifest = read_table(tmp_path / "data", text)
        assert list(manifest.ids) == ["a.jpg"]
        assert manifest.findings == (
            f"Ignoring 4 rows of table.csv without a file below {tmp_path / 'data'}: "
            "x1.jpg, x2.jpg, ../x3.jpg, …",
        )

    def test_a_table_of_no_existing_image_is_an_error(self, tmp_path):
        with pytest.raises(ManifestError) as caught:
            read_table(tmp_path, "path,label\nx.jpg,cat\ny.jpg,dog\n")
        assert str(caught.value) == (
            f"None of the 2 paths in the column 'path' of {tmp_path}/table.csv exists below "
            f"{tmp_path}, for example x.jpg, y.jpg. Images there have names such as a.jpg. Move "
            "the table beside the images, or pass the folder of the images as the source and the "
            "table with --labels."
        )

    def test_equal_rows_of_an_image_are_one_and_said(self, tmp_path):
        manifest = read_table(tmp_path, "path,label\na.jpg,cat\n./a.jpg,cat\nb.jpg,dog\n")
        assert cells(manifest, "label") == {"a.jpg": ("cat",), "b.jpg": ("dog",)}
        assert manifest.findings == ("1 image of table.csv with several identical rows: a.jpg",)

    def test_rows_that_contradict_each_other_are_an_error(self, tmp_path):
        with pytest.raises(
            ManifestError, match=r"rows with different values of 'label' for 1 image: a\.jpg\. Keep"
        ):
            read_table(tmp_path, "path,label\na.jpg,cat\na.jpg,dog\n")

    def test_columns_that_play_no_role_may_differ_and_are_then_missing(self, tmp_path):
        text = "path,label,box\na.jpg,cat,1\na.jpg,cat,2\nb.jpg,dog,3\n"
        manifest = read_table(tmp_path, text, attributes=("label",))
        assert list(manifest.table["label"]) == [("cat",), ("dog",)]
        assert list(manifest.relabelled(attributes=("box",)).table["box"]) == [None, ("3",)]

    def test_an_attribute_without_any_label_is_an_error(self, tmp_path):
        message = "Attribute 'color' has no label for any of the 2 images"
        with pytest.raises(ManifestError, match=message):
            read_table(tmp_path, "path,color\na.jpg,\nb.jpg,\n")
        text = "path,label,color\na.jpg,cat,\nb.jpg,dog,\n"
        with pytest.raises(ManifestError, match=message):
            read_table(tmp_path, text, attributes=("label", "color"))
        assert read_table(tmp_path, text).findings == ("Ignoring the column 'color': it is empty",)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("path,label\na.jpg\n", "line 2 has 1 cells, the header has 2"),
            ("path,label\na.jpg,cat,x\n", "line 2 has 3 cells, the header has 2"),
            ("path,label,label\na.jpg,cat,x\n", "two columns are named 'label'"),
            ('path,label\n"a.jpg,cat\n', "unexpected end of data"),
            ("path,label\n", "has no rows"),
            ("", "has no rows"),
        ],
    )
    def test_a_csv_that_cannot_be_read_says_why(self, tmp_path, text, reason):
        with pytest.raises(ManifestError, match=reason):
            read_table(tmp_path, text)

    @pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
    def test_a_file_of_another_kind_cannot_be_read(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00 something else")
        with pytest.raises(
            ManifestError, match=rf"Cannot read the table .*{name} \(.*Expected a valid \."
        ):
            read_manifest(tmp_path / name)

    def test_an_unknown_type_is_an_error(self, tmp_path):
        touch(tmp_path, "table.xlsx")
        with pytest.raises(
            ManifestError, match=r"has the suffix '\.xlsx'\. Save it as \.csv, \.tsv or \.parquet"
        ):
            read_manifest(tmp_path / "table.xlsx")

    def test_excel_s_mark_at_the_start_is_no_part_of_the_header(self, tmp_path):
        manifest = read_table(tmp_path, "\ufeffpath,label\na.jpg,cat\n")
        assert list(manifest.table) == ["label"]

    @pytest.mark.parametrize(
        "options",
        [
            {"attributes": ("label", "label")},
            {"attributes": ("label", "patient"), "group": "patient"},
            {"attributes": ("split",)},
            {"group": "split"},
        ],
    )
    def test_names_that_contradict_each_other_are_an_error(self, tmp_path, options):
        with pytest.raises(UsageError):
            read_table(tmp_path, "path,label,patient,split\na.jpg,cat,p,train\n", **options)


class TestLabelsOfAFolder:
    def read(self, root: Path, text: str, **options) -> Manifest:
        touch(root, "images/x/a.jpg", "images/x/b.jpg", "images/y/a.jpg", "images/y/c.jpg")
        table = write(root / "lists" / "labels.csv", text)
        return read_manifest(root / "images", labels=table, **options)

    @pytest.mark.parametrize("path", ["x/b.jpg", "./x/b.jpg", "../images/x/b.jpg", "b.jpg"])
    def test_paths_below_root_or_from_the_table_and_bare_names(self, tmp_path, path):
        manifest = self.read(tmp_path, f"path,label\n{path},cat\n")
        assert cells(manifest, "label")["x/b.jpg"] == ("cat",)
        assert manifest.labels_source == str(tmp_path / "lists" / "labels.csv")

    def test_absolute_paths(self, tmp_path):
        manifest = self.read(tmp_path, f"path,label\n{tmp_path}/images/y/c.jpg,cat\n")
        assert cells(manifest, "label")["y/c.jpg"] == ("cat",)

    def test_labels_without_images_and_images_without_labels_are_said(self, tmp_path):
        text = "path,label\nx/b.jpg,cat\na.jpg,dog\nz.jpg,dog\ny/c.jpg,\n"
        manifest = self.read(tmp_path, text)
        assert manifest.findings == (
            f"Ignoring 2 rows of labels.csv without an image below {tmp_path / 'images'}: "
            "a.jpg, z.jpg",
            f"Ignoring 2 images below {tmp_path / 'images'} that labels.csv does not name: "
            "x/a.jpg, y/a.jpg. Use --all-images to include them",
            "1 image without a label for 'label': y/c.jpg",
        )
        assert manifest.ids.tolist() == ["x/b.jpg", "y/c.jpg"]

    def test_all_images_includes_those_that_the_table_does_not_name(self, tmp_path):
        manifest = self.read(tmp_path, "path,label\nx/b.jpg,cat\n", all_images=True)
        assert manifest.findings == (
            "3 images without a label for 'label': x/a.jpg, y/a.jpg, y/c.jpg",
        )
        assert len(manifest) == 4
        manifest.save(tmp_path / "m.parquet")
        assert Manifest.load(tmp_path / "m.parquet").all_images

    def test_labels_given_later_keep_the_images(self, tmp_path):
        few = self.read(tmp_path, "path,label\nx/b.jpg,cat\nx/a.jpg,dog\n")
        every = read_manifest(tmp_path / "images")
        table = write(tmp_path / "later.csv", "path,mood\nx/b.jpg,glad\n")
        for manifest, all_images in ((few, False), (every, True)):
            later = manifest.relabelled(labels=table)
            assert later.ids.tolist() == manifest.ids.tolist()
            assert later.all_images == all_images
            assert later.attribute_names == ("mood",)

    def test_labels_of_no_image_are_an_error(self, tmp_path):
        with pytest.raises(ManifestError, match=r"None of the 1 paths in .* names an image below"):
            self.read(tmp_path, "path,label\nz.jpg,cat\n")

    def test_a_table_may_add_groups_to_the_folders_labels(self, tmp_path):
        text = "path,patient\nb.jpg,p1\nc.jpg,p1\n"
        manifest = self.read(tmp_path, text, group="patient")
        assert list(manifest.table["label"]) == [("x",), ("x",), ("y",), ("y",)]
        assert list(manifest.table["patient"]) == [None, "p1", None, "p1"]

    def test_a_group_of_the_attribute_s_name_is_an_error(self, tmp_path):
        with pytest.raises(UsageError, match="'label' is both a group and an attribute"):
            self.read(tmp_path, "path,label\nb.jpg,p1\n", group="label")

    def test_a_table_as_source_contradicts_them(self, tmp_path):
        table = write(tmp_path / "t.csv", "path,label\na.jpg,cat\n")
        with pytest.raises(UsageError, match="cannot be combined with the table"):
            read_manifest(table, labels=table)


class TestArchives:
    """WebDataset's layout: labels beside the images."""

    def read(self, folder: Path, files: dict[str, bytes], **options) -> Manifest:
        return read_manifest(write_tar(folder / "x.tar", files), **options)

    def test_folders_in_the_archive_are_classes(self, tmp_path):
        files = {
            "./set/cat/1.jpg": b"c",
            "./set/dog/2.jpg": b"d",
            "./set/._1.jpg": b"",
            "a.txt": b"",
        }
        manifest = self.read(tmp_path, files)
        assert cells(manifest, "label") == {"set/cat/1.jpg": ("cat",), "set/dog/2.jpg": ("dog",)}
        assert manifest.root == manifest.source == str(tmp_path / "x.tar")
        assert manifest.images().read("set/dog/2.jpg") == b"d"
        assert manifest.findings == ()

    def test_cls_is_the_label(self, tmp_path):
        files = {
            "a/1.jpg": b"",
            "a/1.cls": b"cat\n",
            "a/2.x.jpg": b"",
            "a/2.cls": b"7",
            "b/3.jpg": b"",
        }
        manifest = self.read(tmp_path, files)
        assert cells(manifest, "label") == {
            "a/1.jpg": ("cat",), "a/2.x.jpg": ("7",), "b/3.jpg": None,
        }  # fmt: skip
        assert manifest.findings == ("1 image without a label for 'label': b/3.jpg",)

    def test_json_entries_are_columns(self, tmp_path):
        files = {
            "1.jpg": b"", "1.json": b'{"color": "red", "year": 2019, "tags": ["sun", "sea"]}',
            "2.jpg": b"", "2.json": b'{"color": null, "old": true, "tags": [], "box": [1, 2]}',
            "3.jpg": b"", "3.json": b'{"color": "blue", "meta": {"a": 1}}',
        }  # fmt: skip
        manifest = self.read(tmp_path, files)
        assert set(manifest.attribute_names) == {"color", "year", "tags", "old"}
        assert list(manifest.table["color"]) == [("red",), None, ("blue",)]
        assert list(manifest.table["tags"]) == [("sea", "sun"), (), None]
        assert list(manifest.table["year"]) == [("2019",), None, None]
        assert list(manifest.table["old"]) == [None, ("True",), None]
        chosen = self.read(tmp_path, files, attributes=("tags", "color"), group="year")
        assert (chosen.attribute_names, chosen.group_column) == (("tags", "color"), "year")

    def test_cls_counts_where_json_says_otherwise(self, tmp_path):
        files = {"1.jpg": b"", "1.cls": b"cat", "1.json": b'{"label": 3, "color": "red"}'}
        manifest = self.read(tmp_path, files)
        assert list(manifest.table["label"]) == [("cat",)]
        assert list(manifest.table["color"]) == [("red",)]

    @pytest.mark.parametrize(
        "text",
        [b"[1]", b"{", b"\xff", b"[" * 60_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\\ud800"}'],
    )
    def test_json_that_is_no_object_is_said(self, tmp_path, text):
        manifest = self.read(tmp_path, {"1.jpg": b"", "1.json": text, "2.jpg": b"", "2.cls": b"x"})
        assert list(manifest.table["label"]) == [None, ("x",)]
        assert manifest.findings[0] == (
            "Ignoring 1 invalid label file (not UTF-8 text or a JSON object): 1.json"
        )

    def test_members_left_out_are_said(self, tmp_path):
        files = {"../evil.jpg": b"e", "../evil.txt": b"e", "1.jpg": b"", "big.json": b"x" * 70_000}
        manifest = self.read(tmp_path, files)
        assert list(manifest.ids) == ["1.jpg"]
        assert manifest.findings == (
            "Ignoring 1 file of the archive (its name points outside the archive): ../evil.jpg",
            "Ignoring 1 file of the archive (larger than 65536 bytes): big.json",
            "1 image without a label: 1.jpg. To learn classes, put each in a folder of its own, or "
            "pass --labels: one class cannot be told from another",
        )

    def test_a_table_labels_an_archive_s_images(self, tmp_path):
        table = write(tmp_path / "t.csv", "path,mood\ncat/1.jpg,glad\n2.jpg,calm\n")
        files = {"cat/1.jpg": b"", "dog/2.jpg": b"", "dog/2.cls": b"unused"}
        manifest = self.read(tmp_path, files, labels=table)
        assert manifest.attribute_names == ("mood",)
        assert list(manifest.table["mood"]) == [("glad",), ("calm",)]

    @pytest.mark.parametrize("pattern", ["", "s-*.tar"])
    def test_shards(self, tmp_path, pattern):
        for number, name in enumerate(("cat", "dog")):
            write_tar(tmp_path / f"s-{number}.tar", {f"{name}/1.jpg": b"%d" % number})
        manifest = read_manifest(tmp_path / pattern)
        assert cells(manifest, "label") == {
            "s-0.tar/cat/1.jpg": ("cat",), "s-1.tar/dog/1.jpg": ("dog",),
        }  # fmt: skip
        assert manifest.source == str(tmp_path / pattern)
        assert manifest.root == str(tmp_path / (pattern or "*.tar"))
        manifest.save(tmp_path / "m.parquet")
        loaded = Manifest.load(tmp_path / "m.parquet")
        assert same(loaded, manifest)
        assert loaded.images().read("s-1.tar/dog/1.jpg") == b"1"
        table = write(tmp_path / "t.csv", "path,mood\ns-1.tar/dog/1.jpg,glad\n")
        assert list(loaded.relabelled(labels=table).table["mood"]) == [None, ("glad",)]

    def test_images_beside_tar_files_are_the_source(self, tmp_path):
        write_tar(touch(tmp_path, "cat/1.jpg", "dog/2.jpg") / "x.tar", {"3.jpg": b""})
        assert list(read_manifest(tmp_path).ids) == ["cat/1.jpg", "dog/2.jpg"]

    def test_an_archive_without_images_says_what_counts(self, tmp_path):
        with pytest.raises(
            ManifestError, match=r"The archive .*x\.tar contains no images\. Expected files"
        ):
            self.read(tmp_path, {"a.txt": b""})

    def test_a_compressed_archive_says_what_to_do(self, tmp_path):
        touch(tmp_path, "x.tar.gz")
        with pytest.raises(ManifestError, match=r"is compressed: .* Decompress it first"):
            read_manifest(tmp_path / "x.tar.gz")
        with pytest.raises(ManifestError, match=r"x\.tar does not exist"):
            read_manifest(tmp_path / "x.tar")


class TestUrls:
    @pytest.fixture
    def memory(self):
        file_system = MemoryFileSystem()
        yield file_system
        file_system.store.clear()

    def test_a_folder(self, memory, tmp_path):
        names = ("cat/1.jpg", "dog/2.jpg", "dog/.c/3.jpg", f"runs/x/{MARKER}", "runs/x/p.png")
        memory.pipe({f"/data/{name}": name.encode() for name in names})
        manifest = read_manifest("memory://data/")
        assert cells(manifest, "label") == {"cat/1.jpg": ("cat",), "dog/2.jpg": ("dog",)}
        assert manifest.root == manifest.source == "memory://data"
        manifest.save(tmp_path / "m.parquet")
        loaded = Manifest.load(tmp_path / "m.parquet")
        assert same(loaded, manifest)
        assert loaded.images().read("dog/2.jpg") == b"dog/2.jpg"
        assert loaded.images().stamps(["cat/1.jpg"])[0, 0] == 9

    def test_a_table_and_paths_relative_to_it(self, memory, tmp_path):
        text = (
            b"path,label\nx/1.jpg,cat\nmemory://data/x/2.jpg,dog\n../data/3.jpg,dog\n"
            b"gone.jpg,dog\n../up.jpg,dog\n"
        )
        memory.pipe({"/data/t.csv": text, "/up.jpg": b""})
        memory.pipe({f"/data/{name}": b"" for name in ("x/1.jpg", "x/2.jpg", "3.jpg")})
        manifest = read_manifest("memory://data/t.csv")
        assert cells(manifest, "label") == {
            "3.jpg": ("dog",), "x/1.jpg": ("cat",), "x/2.jpg": ("dog",),
        }  # fmt: skip
        assert (manifest.root, manifest.source) == ("memory://data", "memory://data/t.csv")
        assert manifest.findings == (
            "Ignoring 2 rows of t.csv without a file below memory://data: gone.jpg, ../up.jpg",
        )

    def test_a_parquet_table(self, memory):
        pq.write_table(pa.table({"path": ["1.jpg"], "label": ["cat"]}), buffer := BytesIO())
        memory.pipe({"/data/t.parquet": buffer.getvalue(), "/data/1.jpg": b"x"})
        manifest = read_manifest("memory://data/t.parquet")
        assert list(manifest.table["label"]) == [("cat",)]
        assert manifest.images().read("1.jpg") == b"x"

    def test_a_table_of_labels(self, memory, tmp_path):
        touch(tmp_path, "x/1.jpg", "y/2.jpg")
        memory.pipe("/labels/t.csv", b"path,label\nx/1.jpg,cat\n2.jpg,dog\n")
        manifest = read_manifest(tmp_path, labels="memory://labels/t.csv")
        assert list(manifest.table["label"]) == [("cat",), ("dog",)]
        assert manifest.labels_source == "memory://labels/t.csv"
        other = manifest.relabelled(labels="memory://labels/t.csv", attributes=("label",))
        assert list(other.table["label"]) == [("cat",), ("dog",)]

    @pytest.mark.parametrize("url", ["memory://data/x.tar", "memory://data"])
    def test_archives(self, memory, tmp_path, url):
        data = write_tar(tmp_path / "x.tar", {"a/1.jpg": b"1", "a/1.cls": b"cat"}).read_bytes()
        memory.pipe("/data/x.tar", data)
        manifest = read_manifest(url)
        assert list(manifest.table["label"]) == [("cat",)]
        assert manifest.images().read(manifest.ids[0]) == b"1"

    def test_nothing_there(self, memory):
        memory.pipe("/data/notes.txt", b"")
        with pytest.raises(ManifestError, match="The folder memory://data contains no images"):
            read_manifest("memory://data")
        with pytest.raises(SourceError, match=r"Cannot reach memory://data/t\.csv"):
            read_manifest("memory://data/t.csv")

    def test_a_password_is_refused_and_not_repeated(self, tmp_path):
        url = "https://user:hunter2@host/data"
        touch(tmp_path, "a.jpg")
        for options in ({"source": url}, {"source": tmp_path, "labels": f"{url}.csv"}):
            with pytest.raises(UsageError, match="contains a password") as caught:
                read_manifest(**options)
            assert "hunter2" not in str(caught.value)


class TestManifest:
    def test_where_an_image_lies(self, tmp_path, monkeypatch):
        touch(tmp_path, "data/cat/a.jpg", "data/dog/b.jpg")
        monkeypatch.chdir(tmp_path)
        manifest = read_manifest("data")
        assert manifest.root == str(tmp_path / "data")
        (tmp_path / "data" / "cat" / "a.jpg").write_bytes(b"meow")
        assert manifest.images().read("cat/a.jpg") == b"meow"

    def test_labels_come_in_the_order_asked_with_all_classes(self, tmp_path):
        touch(tmp_path, "black_dress/1.jpg", "blue_jeans/2.jpg", "red_shirt/3.jpg", "cover.jpg")
        manifest = read_manifest(tmp_path, attributes=("color", "category"))
        labels = manifest.labels(["red_shirt/3.jpg", "cover.jpg", "black_dress/1.jpg"])
        color = labels["color"]
        assert list(labels) == ["color", "category"]
        assert color.attribute == "color"
        assert color.classes == ("black", "blue", "red")
        assert color.exclusive
        assert list(color.labelled) == [True, False, True]
        assert list(color.codes) == [2, -1, 0]
        with pytest.raises(ManifestError, match="'x' is not one of"):
            manifest.labels(["x"])

    def test_combinations_are_of_exclusive_attributes(self, tmp_path):
        text = "path,color,tags,kind\na.jpg,red,x|y,hat\nb.jpg,,x,hat\nc.jpg,blue,,shoe\n"
        combinations = read_table(tmp_path, text).combinations()
        assert combinations.to_dict() == {"a.jpg": "red_hat", "b.jpg": None, "c.jpg": "blue_shoe"}


class TestRelabelling:
    def test_other_attributes_and_a_group_out_of_the_saved_table(self, tmp_path):
        text = "path,color,kind,patient\na.jpg,red,hat,p\nb.jpg,blue,shoe,q\n"
        read_table(tmp_path / "data", text).save(tmp_path / "m.parquet")
        shutil.rmtree(tmp_path / "data")
        manifest = Manifest.load(tmp_path / "m.parquet")
        assert manifest.attribute_names == ("color", "kind", "patient")
        grouped = manifest.relabelled(group="patient")
        assert (grouped.attribute_names, grouped.group_column) == (("color", "kind"), "patient")
        chosen = grouped.relabelled(attributes=["kind"])
        assert (chosen.attribute_names, chosen.group_column) == (("kind",), "patient")
        assert same(chosen.relabelled(), chosen)
        assert same(chosen.relabelled(attributes=()), chosen)

    def test_other_attributes_out_of_folder_names(self, tmp_path):
        touch(tmp_path / "data", "black_dress/1.jpg", "blue_jeans/2.jpg")
        manifest = read_manifest(tmp_path / "data")
        shutil.rmtree(tmp_path / "data")
        relabelled = manifest.relabelled(attributes=("color", "category"))
        assert list(relabelled.table["category"]) == [("dress",), ("jeans",)]

    def test_another_table_over_the_same_images(self, tmp_path):
        first = read_table(tmp_path / "data", "path,label\na.jpg,cat\nb.jpg,dog\n", group="label")
        shutil.rmtree(tmp_path / "data")
        table = write(tmp_path / "new.csv", "file,mood,keeper\nb.jpg,glad;calm,x\nz.jpg,sad,x\n")
        manifest = first.relabelled(labels=table, attributes=("mood",), label_separator=";")
        assert list(manifest.ids) == ["a.jpg", "b.jpg"]
        assert list(manifest.table["mood"]) == [None, ("calm", "glad")]
        assert manifest.group_column is None
        assert manifest.findings == (
            f"Ignoring 1 row of new.csv without an image below {tmp_path / 'data'}: z.jpg",
            "1 image without a label for 'mood': a.jpg",
        )

    def test_the_separator_is_kept(self, tmp_path):
        text = "path,label,patient\na.jpg,x;y,p\n"
        manifest = read_table(tmp_path, text, label_separator=";").relabelled(group="patient")
        assert list(manifest.table["label"]) == [("x", "y")]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\"), min_size=1, max_size=8)


class TestSaving:
    def test_a_saved_manifest_comes_back_and_the_bytes_repeat(self, tmp_path):
        text = "path,label,patient,split,x\na.jpg,x|y,p,train,\nb.jpg,,p,test,1\n"
        manifest = read_table(
            tmp_path / "data", text, attributes=("label",), group="patient", label_separator="|"
        )
        manifest.save(tmp_path / "deep" / "one.parquet")
        manifest.save(tmp_path / "two.parquet")
        assert same(Manifest.load(tmp_path / "deep" / "one.parquet"), manifest)
        once = (tmp_path / "deep" / "one.parquet").read_bytes()
        assert (tmp_path / "two.parquet").read_bytes() == once
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["one.parquet"]

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(rows=st.lists(st.lists(NAMES, max_size=3) | st.none(), min_size=1, max_size=5))
    def test_any_labels_come_back(self, tmp_path, rows):
        ids = [f"{row}.jpg" for row in range(len(rows))]
        touch(tmp_path, *ids)
        kind = pa.list_(pa.string())
        # A first row with a label, so that there is one at all.
        table = pa.table({"path": ids, "a": pa.array([["x"], *rows[1:]], kind)})
        pq.write_table(table, tmp_path / "t.parquet")
        manifest = read_manifest(tmp_path / "t.parquet", label_separator="")
        manifest.save(tmp_path / "m.parquet")
        assert same(Manifest.load(tmp_path / "m.parquet"), manifest)
        kept = [None if row is None else {x.strip() for x in row if x.strip()} for row in rows]
        for cell, names in list(zip(manifest.table["a"], kept, strict=True))[1:]:
            assert (set(cell) if cell else set()) == (names or set())

    def test_a_damaged_file_is_an_error_or_harmless(self, tmp_path):
        text = "path,label,patient\na.jpg,cat,p\nb.jpg,dog,q\n"
        manifest = read_table(tmp_path, text)
        manifest.save(tmp_path / "m.parquet")
        sound = (tmp_path / "m.parquet").read_bytes()
        damaged = tmp_path / "damaged.parquet"
        for position in range(0, len(sound), 7):
            spoilt = bytearray(sound)
            spoilt[position] ^= 0x41
            damaged.write_bytes(spoilt)
            try:
                assert same(Manifest.load(damaged), manifest)
            except ManifestError:
                continue

    @pytest.mark.parametrize("n_bytes", [0, 10, 500])
    def test_a_file_that_was_cut_off_is_an_error(self, tmp_path, n_bytes):
        read_table(tmp_path, "path,label\na.jpg,cat\n").save(tmp_path / "m.parquet")
        sound = (tmp_path / "m.parquet").read_bytes()
        (tmp_path / "m.parquet").write_bytes(sound[:n_bytes])
        with pytest.raises(ManifestError, match="Cannot read the manifest"):
            Manifest.load(tmp_path / "m.parquet")

    def test_a_foreign_or_missing_file_is_an_error(self, tmp_path):
        pd.DataFrame({"path": ["a.jpg"]}).to_parquet(tmp_path / "foreign.parquet")
        with pytest.raises(ManifestError, match="its format is None, not 3"):
            Manifest.load(tmp_path / "foreign.parquet")
        with pytest.raises(
            ManifestError, match=r"Cannot read the manifest .*featurepipe extract SOURCE"
        ):
            Manifest.load(tmp_path / "missing.parquet")


class TestFindImages:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path, monkeypatch):
        touch(tmp_path, "new/b.jpg", "new/a.jpg", "new/sub/c.png", "new/notes.txt", "new/.d.jpg")
        touch(tmp_path, "odd.data")
        monkeypatch.chdir(tmp_path)

    def ids(self, *paths) -> list[str]:
        found = find_images(paths)
        assert all(Path(image.image_id) == image.path and not image.reason for image in found)
        return [image.image_id for image in found]

    def test_files_folders_and_patterns_in_the_order_given(self, tmp_path):
        assert self.ids("new/b.jpg", Path("new")) == ["new/b.jpg", "new/a.jpg", "new/sub/c.png"]
        assert self.ids("new/*.jpg") == ["new/a.jpg", "new/b.jpg"]
        assert self.ids("new/*") == ["new/a.jpg", "new/b.jpg", "new/sub/c.png"]
        assert self.ids("**/*.png") == ["new/sub/c.png"]
        assert self.ids(f"{tmp_path}/new/*.jpg")[0] == f"{tmp_path.as_posix()}/new/a.jpg"

    def test_each_image_comes_once(self, tmp_path):
        assert self.ids("new/a.jpg", tmp_path / "new", "./new/*.jpg") == [
            "new/a.jpg",
            f"{tmp_path.as_posix()}/new/b.jpg",
            f"{tmp_path.as_posix()}/new/sub/c.png",
        ]

    def test_a_link_to_itself_is_an_image_that_cannot_be_read(self, tmp_path):
        (tmp_path / "new" / "loop.jpg").symlink_to("loop.jpg")
        assert "new/loop.jpg" in self.ids("new")

    def test_a_named_file_needs_no_suffix_and_no_escaping(self, tmp_path):
        touch(tmp_path, "[1].jpg")
        assert self.ids("odd.data", "[1].jpg") == ["odd.data", "[1].jpg"]

    @pytest.mark.parametrize("path", ["missing.jpg", "new/*.gif", "*.data", "new/*.txt", "empty"])
    def test_what_leads_to_nothing_is_named(self, tmp_path, path):
        (tmp_path / "empty").mkdir()
        reasons = {"missing.jpg": "no such file", "empty": "a folder without images"}
        missing = GivenImage(path, Path(path), reasons.get(path, "no image matches"))
        assert find_images(["new/a.jpg", path, "new/b.jpg"])[1] == missing
        with pytest.raises(
            ManifestError, match=r"No image found at .*\. Expected a file"
        ) as caught:
            find_images([path])
        assert repr(path) in str(caught.value)
        with pytest.raises(ManifestError, match=r"and 1 other path \("):
            find_images([path, "absent.jpg"])

    @pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
    @pytest.mark.parametrize("path", ["new/caf\udce9.png", "new", "new/*"])
    def test_a_name_that_no_table_can_hold_is_refused(self, path):
        try:
            Path("new/caf\udce9.png").touch()
        except OSError:
            pytest.skip("this file system takes UTF-8 only")
        (refused,) = [image for image in find_images([path, "new"]) if image.reason]
        assert refused.image_id == "new/caf\udce9.png"
        assert refused.reason == "its name is not UTF-8: rename it"
        with pytest.raises(ManifestError, match=r"^The image 'new/caf\\udce9.png' cannot be used"):
            find_images(["new/caf\udce9.png"])

    def test_what_looks_like_an_image_counts_and_what_featurepipe_wrote_does_not(self, tmp_path):
        touch(tmp_path, "new/e.nef", f"new/out/{MARKER}", "new/out/f.jpg")
        assert self.ids("new") == ["new/a.jpg", "new/b.jpg", "new/e.nef", "new/sub/c.png"]
        assert self.ids("new/*.nef") == ["new/e.nef"]
        assert self.ids("new/out/f.jpg") == ["new/out/f.jpg"]
        assert find_images(["new/a.jpg", "new/out"])[1].reason == "featurepipe wrote this folder"

    @pytest.mark.parametrize("path", ["x" * 5000, "nul\0.jpg", ""])
    def test_names_that_no_file_can_have_are_missing(self, path):
        assert find_images(["new/a.jpg", path])[1].reason in (
            "no such file",
            "a folder without images",
        )


def test_every_error_is_one_line(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + b"x" * 50 + b"PAR1")
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "t.parquet")
    assert "\n" not in str(caught.value)


@pytest.mark.shared
class TestRealFolders:
    def test_garments(self, shared):
        manifest = read_manifest(shared / "data" / "garments", attributes=("color", "category"))
        assert len(manifest) == 2160
        assert manifest.findings == ()
        labels = manifest.labels()
        assert labels["color"].classes == ("black", "blue", "red")
        assert labels["category"].classes == ("dress", "jeans", "shirt")
        assert sorted(set(manifest.combinations())) == [
            "black_jeans", "blue_dress", "blue_jeans", "blue_shirt", "red_dress", "red_shirt",
        ]  # fmt: skip

    def test_products(self, shared):
        manifest = read_manifest(shared / "data" / "products", attributes=("color", "category"))
        counts = manifest.combinations().value_counts()
        assert len(manifest) == 4422
        assert len(counts) == 46
        assert (counts.min(), counts.max()) == (67, 100)

    def test_flowers_need_no_attributes(self, shared):
        manifest = read_manifest(shared / "data" / "flowers17")
        assert manifest.attribute_names == ("label",)
        assert list(manifest.labels()["label"].indicator.sum(axis=0)) == [80] * 17

    def test_photos_are_unlabelled(self, shared):
        manifest = read_manifest(shared / "data" / "photos")
        assert (len(manifest), manifest.attribute_names) == (100, ())
