"""The file of a manifest is read in groups of rows, and damage in any of them is noticed."""

import json
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurepipe.errors import ManifestError
from featurepipe.manifest import Labelling, Manifest, ManifestRows
from featurepipe.manifest.manifest import new_manifest
from featurepipe.manifest.manifest_file import (
    CHECKSUM_KEY,
    DESCRIPTION_KEY,
    ROWS_PER_GROUP,
    About,
    Description,
    Group,
    column_checksum,
)

ABOUT = About(
    root="/x",
    source="/x",
    labels_source=None,
    labelling=Labelling(),
    findings=(),
    all_images=False,
)
N = 2 * ROWS_PER_GROUP + 7
IDS = [f"{'ü' * (row % 3)}{row:07d}.jpg" for row in range(N)]
LABELS = [None if row % 5 == 0 else ("yes" if row % 2 else "no",) for row in range(N)]
STRINGS, LISTS = pa.string(), pa.list_(pa.string())


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The file of a manifest of three groups, and its manifest."""
    path = tmp_path_factory.mktemp("large") / "m.parquet"
    ids, labels = zip(*sorted(zip(IDS, LABELS, strict=True)), strict=True)
    manifest = new_manifest(
        list(ids), "/x", "/x/t.csv", None, Labelling(), {"label": list(labels)}, []
    )
    manifest.save(path)
    return path, manifest


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 1),
        (0, N),
        (ROWS_PER_GROUP - 1, ROWS_PER_GROUP + 1),
        (ROWS_PER_GROUP, 2 * ROWS_PER_GROUP),
        (N - 1, N),
        (5, 5),
        (N - 2, N + 9),
        (N, N + 1),
    ],
)
def test_ids_of_any_rows(large, start, stop):
    path, manifest = large
    with ManifestRows(path) as rows:
        assert rows.ids(start, stop).to_pylist() == manifest.ids[start:stop].tolist()


def test_it_says_what_the_manifest_says(large):
    path, manifest = large
    with ManifestRows(path) as rows:
        assert (len(rows), rows.root, rows.source) == (N, "/x", "/x/t.csv")
        assert rows.columns == ("label",)
        assert rows.checksum == checksum(manifest)
        assert rows.about.findings == manifest.findings
        rows.check()
    other = Manifest.load(path)
    assert checksum(other) == checksum(manifest)
    other.columns["label"][-1] = ("other",)
    assert checksum(other) != checksum(manifest)


def checksum(manifest):
    with manifest.rows() as rows:
        return rows.checksum


def test_chunks_are_all_ids_in_order(large):
    path, manifest = large
    with ManifestRows(path) as rows:
        chunks = list(rows.chunks(30_000))
    assert [start for start, _ in chunks] == list(range(0, N, 30_000))
    assert [one for _, ids in chunks for one in ids.to_pylist()] == manifest.ids.tolist()


def test_equal_cells_are_one_object(large):
    path, manifest = large
    with ManifestRows(path) as rows:
        ids, columns = rows.read_all()
    assert ids == manifest.ids.tolist()
    assert columns == manifest.columns
    assert len({id(cell) for cell in columns["label"]}) == 3


def test_only_groups_that_are_read_must_be_sound(large, tmp_path):
    path, manifest = large
    with pq.ParquetFile(path) as file:
        ids = file.metadata.row_group(1).column(0)
    damaged = bytearray(path.read_bytes())
    damaged[ids.data_page_offset + 500] ^= 1
    (tmp_path / "m.parquet").write_bytes(damaged)
    with ManifestRows(tmp_path / "m.parquet") as rows:
        for start, stop in ((0, ROWS_PER_GROUP), (2 * ROWS_PER_GROUP, N)):
            assert rows.ids(start, stop).to_pylist() == manifest.ids[start:stop].tolist()
        for start in (ROWS_PER_GROUP, 2 * ROWS_PER_GROUP - 1):
            with pytest.raises(ManifestError, match="Cannot read the manifest"):
                rows.ids(start, start + 1)
        with pytest.raises(ManifestError, match="Cannot read the manifest"):
            rows.check()


def test_no_flip_of_a_byte_changes_what_is_read(tmp_path):
    path = tmp_path / "m.parquet"
    columns = {"a": [("x", "y"), None], "b": [(), ("z",)]}
    manifest = new_manifest(["a.jpg", "b.jpg"], "/x", "/y", None, Labelling(), columns, [])
    manifest.save(path)
    sound = path.read_bytes()
    noticed = 0
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            with ManifestRows(path) as rows:
                assert rows.about.source == "/y"
                assert rows.read_all() == (["a.jpg", "b.jpg"], columns)
        except ManifestError:
            noticed += 1
    assert noticed > len(sound) / 4


class TestChecksum:
    def test_it_does_not_depend_on_how_arrow_holds_the_cells(self):
        cells = [["ab", "c"], None, [], ["", "ü"], ["d"]]
        whole = column_checksum(pa.array(cells, LISTS))
        longer = pa.array([["x"], None, *cells, ["y"]], LISTS)
        assert column_checksum(longer[2:-1]) == whole
        chunked = pa.chunked_array([pa.array(cells[:2], LISTS), pa.array(cells[2:], LISTS)])
        assert column_checksum(chunked.combine_chunks()) == whole
        # A missing list may hide strings.
        offsets, hidden = pa.array([0, 2, 3, 3, 5, 6], pa.int32()), pa.array(list("abcdef"))
        mask = pa.array([False, True, False, False, False])
        of_hidden = pa.ListArray.from_arrays(offsets, hidden, mask=mask)
        shown = pa.array([["a", "b"], None, [], ["d", "e"], ["f"]], LISTS)
        assert column_checksum(of_hidden) == column_checksum(shown)
        names = pa.array(["a", "bc", "", "d"])
        assert column_checksum(names[1:3]) == column_checksum(pa.array(["bc", ""]))

    @pytest.mark.parametrize(
        "others",
        [
            [[["ab"]], [["a", "b"]], [["a"], ["b"]], [["a"], ["b"], []]],
            [[None], [[]], [[""]], [["", ""]], [[""], [""]]],
        ],
    )
    def test_other_cells_have_another(self, others):
        assert len({column_checksum(pa.array(cells, LISTS)) for cells in others}) == len(others)

    def test_its_value(self):
        names = lengths(1, 2) + b"abc"
        assert column_checksum(pa.array(["a", "bc"])) == zlib.crc32(names)
        of_lists = column_checksum(pa.array([["a"], None, ["bc"]], LISTS))
        assert of_lists == zlib.crc32(lengths(1, -1, 1) + names)


def description(n_rows=1, firsts=("a",), columns=(), n_checksums=1, **changes):
    groups = tuple(Group(first_id=first, checksums=(0,) * n_checksums) for first in firsts)
    described = Description(format=3, about=ABOUT, columns=columns, n_rows=n_rows, groups=groups)
    return json.dumps(described.model_dump(mode="json") | changes).encode()


def lengths(*numbers):
    return np.array(numbers, "<i4").tobytes()


X = {"columns": ("x",), "n_checksums": 2}


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (b"[]", {"id": ["a"]}, "its description is a list"),
        (b"[" * 100_000, {"id": ["a"]}, "recursion depth"),
        (b'{"format": 2}', {"id": ["a"]}, "its format is 2, not 3"),
        (b'{"format": 3}', {"id": ["a"]}, "about: Field required"),
        (description(about=7), {"id": ["a"]}, "about: Input should be an object"),
        (description(), {"id": [1]}, "its columns are others"),
        (description(), {"path": ["a"]}, "its columns are others"),
        (description(), {"id": ["a"], "table.x": [["a"]]}, "its columns are others"),
        (description(**X), {"id": ["a"], "table.x": ["a"]}, "its columns are others"),
        (description(**X), {"id": ["a"], "table.y": [["a"]]}, "its columns are others"),
        (description(**X), {"id": ["a"], "table.x": [["a", None]]}, "a label is missing"),
        (description(2), {"id": ["a"]}, "its description is of other rows"),
        (description(10**15), {"id": ["a"]}, "its description is of other rows"),
        (description(1, ("a", "b")), {"id": ["a"]}, "its description is of other rows"),
        (description(100_001), {"id": ["a"] * 100_001}, "its rows are in other groups"),
        (description(n_checksums=2), {"id": ["a"]}, "has another number of checksums"),
        (description(2), {"id": ["a", None]}, "an id is missing"),
        (description(2), {"id": ["a", "a"]}, "its images are not in order, or one is there twice"),
        (description(2, "b"), {"id": ["b", "a"]}, "its images are not in order"),
        (description(1, "b"), {"id": ["a"]}, "its images are not in order"),
        (description(), {"id": ["a"]}, "its checksum does not match"),
        (description(10_000), {"id": ["x" * 10_000] * 10_000}, "more than 100 times its size"),
    ],
)
def test_what_is_no_manifest_is_not_believed(tmp_path, text, columns, message):
    table = pa.table(columns)
    metadata = {DESCRIPTION_KEY: text, CHECKSUM_KEY: str(zlib.crc32(text)).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="Cannot read the manifest") as caught:
        Manifest.load(tmp_path / "m.parquet")
    assert message in str(caught.value)


@pytest.mark.parametrize("checksum", [{}, {CHECKSUM_KEY: b"7"}])
def test_a_description_has_a_checksum_of_its_own(tmp_path, checksum):
    table = pa.table({"id": ["a"]}).replace_schema_metadata(
        {DESCRIPTION_KEY: description(), **checksum}
    )
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="its description does not match its checksum"):
        ManifestRows(tmp_path / "m.parquet")


@pytest.mark.parametrize("firsts", [("a000000", "a000000"), ("a000000", "a099999")])
def test_groups_are_in_order_among_each_other(tmp_path, firsts):
    groups = [[f"a{row:06d}" for row in range(ROWS_PER_GROUP)], [firsts[1]]]
    columns = [pa.array(ids, STRINGS) for ids in groups]
    described = Description(
        format=3,
        about=ABOUT,
        columns=(),
        n_rows=ROWS_PER_GROUP + 1,
        groups=tuple(
            Group(first_id=first, checksums=(column_checksum(ids),))
            for first, ids in zip(firsts, columns, strict=True)
        ),
    )
    with pq.ParquetWriter(tmp_path / "m.parquet", described.schema) as writer:
        for ids in columns:
            writer.write_table(pa.table({"id": ids}), row_group_size=ROWS_PER_GROUP)
        writer.add_key_value_metadata(described.metadata())
    with (
        pytest.raises(ManifestError, match="its images are not in order, or one is there twice"),
        ManifestRows(tmp_path / "m.parquet") as rows,
    ):
        rows.check()


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (0, 0),
        (0, N - 1),
        (5, ROWS_PER_GROUP - 1),
        (ROWS_PER_GROUP - 1, ROWS_PER_GROUP),
        (ROWS_PER_GROUP, ROWS_PER_GROUP),
        (ROWS_PER_GROUP + 3, 2 * ROWS_PER_GROUP + 1),
        (N - 1, N - 1),
    ],
)
def test_images_are_found_from_one_id_to_another(large, first, last):
    path, manifest = large
    ids = manifest.ids.tolist()
    with ManifestRows(path) as rows:
        assert rows.ids_between(ids[first], ids[last]).to_pylist() == ids[first : last + 1]
        # Ids that the manifest lacks: just below the first, and just above the last.
        below, above = ids[first][:-1], f"{ids[last]}x"
        assert rows.ids_between(below, above).to_pylist() == ids[first : last + 1]


def test_no_image_is_before_the_first_or_after_the_last(large):
    with ManifestRows(large[0]) as rows:
        assert rows.ids_between("", "!").to_pylist() == []
        assert rows.ids_between("\U0010ffff", "\U0010ffff").to_pylist() == []
