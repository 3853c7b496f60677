"""Label tables as people have them: of competitions, spreadsheets and other machines."""

from pathlib import Path

import pytest

from featurepipe.errors import ManifestError
from featurepipe.manifest import Manifest, read_manifest

HASHES = ["000bec180eb18c7604dcecc8fe0dba07", "001513dfcb2ffafc82cccf4d8bbaba97", "001cdf01b096"]
NAMES = [f"{number:06}.jpg" for number in range(1, 13)]


def touch(root: Path, *names: str) -> Path:
    """Empty files: listing opens no image."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path: Path, rows: list[str], encoding: str = "utf-8") -> Path:
    path.write_text("\n".join([*rows, ""]), encoding=encoding)
    return path


def refusal(source: Path, **options) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(source, **options)
    return str(caught.value)


def by_image(manifest: Manifest, name: str = "label") -> dict[str, object]:
    return manifest.table[name].to_dict()


class TestEncodings:
    @pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs")])
    def test_other_separators_are_found_and_said(self, tmp_path, sign, name):
        touch(tmp_path, "a.jpg", "b.jpg")
        rows = [f"path{sign}label{sign}price", f"a.jpg{sign}cat{sign}1,5", f"b.jpg{sign}dog{sign}2"]
        manifest = read_manifest(write(tmp_path / "t.csv", rows, "utf-8-sig"))
        assert by_image(manifest) == {"a.jpg": ("cat",), "b.jpg": ("dog",)}
        assert by_image(manifest, "price")["a.jpg"] == ("1,5",)
        assert manifest.findings == (f"Reading t.csv with {name} between cells",)

    def test_commas_in_quotes_are_no_separators(self, tmp_path):
        touch(tmp_path, "a.jpg")
        rows = ['path;"a, b, c"', 'a.jpg;"x; y"']
        assert by_image(read_manifest(write(tmp_path / "t.csv", rows)), "a, b, c") == {
            "a.jpg": ("x; y",)
        }

    def test_a_tsv_file_is_a_table(self, tmp_path):
        touch(tmp_path, "a.jpg")
        manifest = read_manifest(write(tmp_path / "t.tsv", ["path\tlabel", "a.jpg\tcat"]))
        assert by_image(manifest) == {"a.jpg": ("cat",)}

    def test_windows_1252_is_read_and_said(self, tmp_path):
        touch(tmp_path, "a.jpg")
        rows = ["Datei;Farbe", "a.jpg;grün"]
        manifest = read_manifest(write(tmp_path / "t.csv", rows, "cp1252"))
        assert by_image(manifest, "Farbe") == {"a.jpg": ("grün",)}
        assert manifest.findings[0] == (
            "Reading t.csv as Windows-1252, because it is not UTF-8, for example 'grün'. If that "
            "looks wrong, save the table as UTF-8"
        )

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
    def test_other_encodings_are_named(self, tmp_path, encoding):
        write(tmp_path / "t.csv", ["path,label", "a.jpg,cat"], encoding)
        assert "(it is not text in UTF-8). Expected a valid .csv" in refusal(tmp_path / "t.csv")

    def test_the_original_of_celeba_says_what_to_do(self, tmp_path):
        touch(tmp_path, *NAMES[:2])
        rows = ["2", "Smiling Male", "000001.jpg -1  1", "000002.jpg  1 -1"]
        assert "Save it as .csv, .tsv or .parquet" in refusal(write(tmp_path / "t.txt", rows))
        assert "separate them by commas, and begin with a header line such as path,label" in (
            refusal(write(tmp_path / "t.csv", rows))
        )


class TestHeader:
    @pytest.mark.parametrize("first", ["a.jpg", "A.JPG", "x/a.jpg"])
    def test_a_first_line_of_data_is_refused(self, tmp_path, first):
        touch(tmp_path, "a.jpg", "b.jpg")
        table = write(tmp_path / "t.csv", [f"{first},cat", "b.jpg,cat"])
        assert refusal(table) == (
            f"The first line of t.csv is not a header: it names the image '{first}'. Add a first "
            "line with the names of the columns, such as path,label."
        )

    def test_so_is_one_of_ids(self, tmp_path):
        touch(tmp_path, *(f"{name}.jpg" for name in HASHES))
        table = write(tmp_path / "t.csv", [f"{name},beagle" for name in HASHES])
        assert f"it names the image '{HASHES[0]}'" in refusal(table)

    def test_a_split_column_may_be_written_in_any_case(self, tmp_path):
        touch(tmp_path, "a.jpg", "b.jpg")
        rows = ["path,label,Split", "a.jpg,cat,Train", "b.jpg,dog,Test"]
        manifest = read_manifest(write(tmp_path / "t.csv", rows))
        assert manifest.attribute_names == ("label",)
        assert list(manifest.table["split"]) == ["train", "test"]


class TestPaths:
    """Paths that differ from the images that they name."""

    @pytest.mark.parametrize("column", ["id", "image_id", "id_code"])
    def test_ids_without_extension(self, tmp_path, column):
        touch(tmp_path / "train", *(f"{name}.jpg" for name in HASHES))
        rows = [f"{column},breed", *(f"{name},beagle" for name in HASHES)]
        table = write(tmp_path / "labels.csv", rows)
        manifest = read_manifest(tmp_path / "train", labels=table)
        assert by_image(manifest, "breed") == {f"{name}.jpg": ("beagle",) for name in HASHES}
        assert manifest.findings == (
            "Matched paths of labels.csv that differ from the images: missing extension (3); for "
            f"example '{HASHES[0]}' means {HASHES[0]}.jpg",
        )
        listed = read_manifest(table)
        assert listed.ids.tolist() == [f"train/{name}.jpg" for name in HASHES]
        assert "images: missing folder (3), missing extension (3);" in listed.findings[0]

    @pytest.mark.parametrize(
        ("path", "differences"),
        [
            (" x/a.jpg ", "surrounding spaces"),
            ("x\\a.jpg", "backslashes"),
            ("X/a.JPG", "letter case"),
            ("x/a.png", "other extension"),
            ("x/a", "missing extension"),
            ("a.jpg", "missing folder"),
            (
                " X\\A",
                "surrounding spaces (1), backslashes (1), missing extension (1), letter case",
            ),
            ("C:\\Users\\me\\x\\a.jpg", "leading folders C:/Users/me/ (1), backslashes"),
            ("/home/me/x/a.jpg", "leading folders /home/me/"),
            ("https://example.org/x/a.jpg", "leading folders https://example.org/"),
        ],
    )
    def test_each_is_matched_and_said(self, tmp_path, path, differences):
        touch(tmp_path, "x/a.jpg", "x/b.jpg")
        manifest = read_manifest(write(tmp_path / "t.csv", ["path,label", f"{path},cat"]))
        assert by_image(manifest) == {"x/a.jpg": ("cat",)}
        assert manifest.findings == (
            f"Matched paths of t.csv that differ from the images: {differences} (1); for example "
            f"'{path}' means x/a.jpg",
        )

    def test_names_in_another_unicode_form(self, tmp_path):
        touch(tmp_path, "gru\N{COMBINING DIAERESIS}n.jpg")
        rows = ["path,label", "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n.jpg,cat"]
        manifest = read_manifest(write(tmp_path / "t.csv", rows))
        assert len(manifest) == 1
        if manifest.findings:  # Some file systems know no such difference.
            assert "differ from the images: Unicode form (1);" in manifest.findings[0]

    def test_what_could_be_two_images_is_neither(self, tmp_path):
        touch(tmp_path, "x/a.jpg", "y/a.jpg", "b.jpg", "b.png")
        table = write(tmp_path / "t.csv", ["path,label", "a.jpg,cat", "b,dog"])
        assert (
            "exists below" in refusal(table)
            and "'a.jpg' could be any of 2 images, such as x/a.jpg and y/a.jpg." in refusal(table)
        )  # fmt: skip

    def test_a_name_of_two_images_is_not_that_of_the_one_left(self, tmp_path):
        touch(tmp_path, "x/a.jpg", "y/a.jpg")
        table = write(tmp_path / "t.csv", ["path,label", "x/a.jpg,cat", "a.jpg,dog"])
        assert read_manifest(table).ids.tolist() == ["x/a.jpg"]

    def test_two_paths_that_could_be_one_image_are_neither(self, tmp_path):
        touch(tmp_path, "1.jpg", "2.jpg")
        rows = ["path,label", "1.png,cat", "1.gif,dog", "2.jpg,dog", "2.png,cat"]
        manifest = read_manifest(write(tmp_path / "t.csv", rows))
        assert by_image(manifest) == {"2.jpg": ("dog",)}
        assert manifest.findings == (
            f"Ignoring 3 rows of t.csv without a file below {tmp_path}: 1.png, 1.gif, 2.png",
        )

    def test_a_file_name_in_another_folder_is_not_enough(self, tmp_path):
        touch(tmp_path, "new/1.jpg")
        table = write(tmp_path / "t.csv", ["path,label", "old/1.jpg,cat"])
        assert "'old/1.jpg' has the name of new/1.jpg, but another folder." in refusal(table)
        assert "has the name of new/1.jpg" in refusal(tmp_path / "new" / "..", labels=table)

    def test_folders_are_dropped_only_if_all_paths_have_them(self, tmp_path):
        touch(tmp_path, "1.jpg", "2.jpg")
        rows = ["path,label", "1.jpg,cat", "old/2.jpg,dog"]
        manifest = read_manifest(write(tmp_path / "t.csv", rows))
        assert manifest.ids.tolist() == ["1.jpg"]

    def test_other_names_are_shown_beside_those_of_the_table(self, tmp_path):
        touch(tmp_path / "images", "img_1.jpg")
        table = write(tmp_path / "t.csv", ["path,label", "1.jpg,cat", "2.jpg,dog"])
        assert refusal(tmp_path / "images", labels=table) == (
            f"None of the 2 paths in the column 'path' of {table} names an image below "
            f"{tmp_path}/images, for example 1.jpg, 2.jpg. Images there have names such as "
            "img_1.jpg. Expected paths relative to that folder, or unique file names."
        )


class TestColumns:
    """What columns are, in tables with enough rows to tell."""

    def read(self, folder: Path, header: str, row, **options) -> Manifest:
        touch(folder, *NAMES)
        rows = [f"{name},{row(number)}" for number, name in enumerate(NAMES)]
        return read_manifest(write(folder / "t.csv", [f"path,{header}", *rows]), **options)

    def test_identifiers_are_no_attributes_unless_named(self, tmp_path):
        def row(k):
            return f"{k},lesion{k % 8},{'ab'[k % 2]}"

        manifest = self.read(tmp_path, "Unnamed: 0,lesion,dx", row)
        assert manifest.attribute_names == ("lesion", "dx")
        assert manifest.findings == (
            "Ignoring the column 'Unnamed: 0': 12 of 12 images have a value of their own, as with "
            "an identifier. To learn it all the same, name it in --attributes",
        )
        named = self.read(tmp_path, "Unnamed: 0,lesion,dx", row, attributes=("Unnamed: 0",))
        assert named.attribute_names == ("Unnamed: 0",)
        assert named.findings == ()

    def test_sets_of_labels_that_differ_are_attributes(self, tmp_path):
        sets = ["a|b", "a|c", "a|d", "b|c", "b|d", "c|d", "a", "b", "c", "d", "a|b|c", "a|b|d"]
        manifest = self.read(tmp_path, "tags", lambda k: sets[k])
        assert manifest.attribute_names == ("tags",)

    def test_a_group_of_different_values_is_a_group(self, tmp_path):
        manifest = self.read(
            tmp_path, "patient,dx", lambda k: f"p{k},{'ab'[k % 2]}", group="patient"
        )
        assert manifest.findings == ()
        assert manifest.group_column == "patient"

    def test_a_single_value_is_no_attribute_beside_others(self, tmp_path):
        manifest = self.read(tmp_path, "source,dx", lambda k: f"web,{'ab'[k % 2]}")
        assert manifest.attribute_names == ("dx",)
        assert manifest.findings == ("Ignoring the column 'source': every value is 'web'",)
        assert self.read(tmp_path, "dx", lambda k: "a").attribute_names == ("dx",)

    def test_a_split_by_another_name_is_no_attribute(self, tmp_path):
        manifest = self.read(
            tmp_path, "data set,dx", lambda k: f"{'train' if k % 3 else 'valid'},{'ab'[k % 2]}"
        )
        assert manifest.attribute_names == ("dx",)
        assert manifest.findings == (
            "Ignoring the column 'data set': its values are those of a split (train, valid). To "
            "use this split, rename the column to 'split'",
        )

    def test_all_is_reserved(self, tmp_path):
        message = "An attribute cannot be named 'all': results use that name for all attributes"
        with pytest.raises(ManifestError, match=message):
            self.read(tmp_path, "all", lambda k: "ab"[k % 2])
        touch(tmp_path / "folders", "x/1.jpg", "y/2.jpg")
        with pytest.raises(ManifestError, match=message):
            read_manifest(tmp_path / "folders", attributes=("all",))

    def test_classes_that_differ_in_case_or_spaces_are_said(self, tmp_path):
        classes = ["Blue", "blue", "light blue", "light  Blue", "red", "-1", "1"]
        manifest = self.read(tmp_path, "color", lambda k: classes[k % 7])
        assert manifest.findings == (
            "Classes of 'color' differ only in case or spaces: 'Blue' (2) and 'blue' (2), "
            "'light  Blue' (2) and 'light blue' (2). If they are the same, correct the labels",
        )


class TestRareClasses:
    def test_their_images_lose_the_label_and_they_are_named(self, tmp_path):
        touch(tmp_path, *NAMES[:6])
        rows = [f"{name},{label}" for name, label in zip(NAMES, "aaabbc", strict=False)]
        table = write(tmp_path / "t.csv", ["path,label", *rows])
        manifest = read_manifest(table, min_per_class=3)
        assert manifest.labels()["label"].classes == ("a",)
        assert list(manifest.table["label"]) == [("a",)] * 3 + [None] * 3
        assert manifest.findings == (
            "Leaving out 2 classes of 'label' with fewer than 3 images: 'b' (2), 'c' (1)",
        )
        manifest.save(tmp_path / "m.parquet")
        loaded = Manifest.load(tmp_path / "m.parquet")
        assert loaded.labels()["label"].classes == ("a",)
        again = loaded.relabelled(min_per_class=1)
        assert again.labels()["label"].classes == ("a", "b", "c")
        assert again.findings == ()

    def test_other_labels_of_a_set_remain(self, tmp_path):
        touch(tmp_path, *NAMES[:4])
        rows = [
            "path,tags",
            *(f"{n},{t}" for n, t in zip(NAMES, ["a|b", "a", "c", ""], strict=False)),
        ]
        manifest = read_manifest(write(tmp_path / "t.csv", rows), min_per_class=2)
        assert list(manifest.table["tags"]) == [("a",), ("a",), (), None]

    def test_no_class_left_is_an_error(self, tmp_path):
        touch(tmp_path, "x/1.jpg", "x/2.jpg", "y/3.jpg")
        with pytest.raises(ManifestError, match=r"'label' has the 3 images .* largest has 2\. Set"):
            read_manifest(tmp_path, min_per_class=3)
