"""Near-duplicates are found whatever the scale of the features, and chance neighbours are not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import featurepipe
from featurepipe.errors import FitError
from featurepipe.features.store import FeatureStore
from featurepipe.models.answers.row_chunks import ArrayRows, RowChunks
from featurepipe.models.studies import duplicate_rows, projections
from featurepipe.models.studies.duplicate_rows import near_duplicates
from featurepipe.models.studies.near_duplicates import (
    DuplicateSearch,
    NearDuplicates,
    deciding_store,
)
from featurepipe.workspace import Workspace
from pictures import draw_data_set


def make_rows(n_rows=200, n_features=64, seed=0):
    """Rows of four classes, float32."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.standard_normal((4, n_features))
    rows = centres[np.arange(n_rows) % 4] + rng.standard_normal((n_rows, n_features))
    return rows.astype(np.float32)


def with_copies(X, originals, noise, seed=1):
    rng = np.random.default_rng(seed)
    copies = X[originals] + noise * rng.standard_normal((len(originals), X.shape[1]))
    return np.concatenate([X, copies.astype(np.float32)])


def found_in(X, chunk_rows=None):
    return near_duplicates(RowChunks(ArrayRows(X), chunk_rows or max(len(X), 1)))


def as_set(pairs):
    return set(map(tuple, pairs.tolist()))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_copies_are_found_and_nothing_else(scale):
    X = with_copies(make_rows(), [3, 50, 120], noise=0.3)
    pairs, distances = found_in((scale * X).astype(np.float32))
    assert as_set(pairs) == {(3, 200), (50, 201), (120, 202)}
    assert (np.diff(distances) >= 0).all()
    between = cdist(X, X)
    median = np.median(between[np.triu_indices(len(X), k=1)])
    np.testing.assert_allclose(distances, between[tuple(pairs.T)] / median, rtol=0.05)


def test_rows_without_copies_have_no_pairs():
    pairs, distances = found_in(make_rows())
    assert pairs.shape == (0, 2)
    assert distances.shape == (0,)


def test_the_rule_is_as_stated():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((80, 3)).astype(np.float32)
    between = cdist(X, X)
    median = np.median(between[np.triu_indices(80, k=1)])
    np.fill_diagonal(between, np.inf)
    nearest = np.argsort(between, axis=1)[:, :5]
    fifth = np.sort(between, axis=1)[:, 4]
    # The median is known from a sample of pairs: what lies at its limit may be in or out.
    expected, open_pairs = set(), set()
    for i in range(80):
        for j in nearest[i]:
            pair = (min(i, j), max(i, j))
            if between[i, j] < max(0.65 * min(fifth[i], fifth[j]), 0.09 * median):
                expected.add(pair)
            elif between[i, j] < 0.11 * median:
                open_pairs.add(pair)
    found = as_set(found_in(X)[0])
    assert len(expected) > 10
    assert expected <= found <= expected | open_pairs


@pytest.mark.parametrize("chunk_rows", [60, 110, 206, 207])
def test_chunk_by_chunk_the_same_pairs_are_found(chunk_rows):
    X = with_copies(make_rows(), [3, 50, 50, 50, 50, 50, 120], noise=0.3)
    pairs, distances = found_in(X)
    assert len(pairs) > 3
    also, their_distances = found_in(X, chunk_rows)
    np.testing.assert_array_equal(also, pairs)
    np.testing.assert_allclose(their_distances, distances, rtol=1e-6)


def test_every_pair_of_chunks_is_counted():
    done = []
    near_duplicates(RowChunks(ArrayRows(make_rows(10)), 4), lambda *counts: done.append(counts))
    assert done == [(number, 9) for number in range(1, 10)]


class TestAmongManyRows:
    """What is not compared by all features is not missed."""

    @pytest.fixture(autouse=True)
    def many(self, monkeypatch):
        """Take any rows for many, and small samples and blocks of them."""
        monkeypatch.setattr(duplicate_rows, "FEW_ROWS", 0)
        monkeypatch.setattr(duplicate_rows, "_LEAST_SAMPLED", 12)
        monkeypatch.setattr(projections, "N_AXES", 20)
        monkeypatch.setattr(projections, "_BLOCK", 32)
        monkeypatch.setattr(projections, "_OTHERS", 50)
        monkeypatch.setattr(projections, "_PAIRS", 7)

    @pytest.fixture
    def compared(self, monkeypatch):
        """How many rows are compared with how many, by all features."""
        counts, nearest = [], duplicate_rows.nearest_others

        def counted(rows, asked, among, *others):
            counts.append((len(asked), len(among)))
            return nearest(rows, asked, among, *others)

        monkeypatch.setattr(duplicate_rows, "nearest_others", counted)
        return counts

    @pytest.mark.parametrize(
        ("scale", "chunk_rows", "dense"),
        [(1.0, 60, 1 / 64), (1.0, 306, 0), (1e-3, 307, 1), (1e4, 307, 0), (1e4, 60, 1)],
    )
    def test_the_same_pairs_are_found(self, monkeypatch, compared, scale, chunk_rows, dense):
        X = with_copies(make_rows(300), [3, 50, 50, 50, 50, 50, 120], noise=0.3)
        X = (scale * X).astype(np.float32)
        monkeypatch.setattr(projections, "_MANY", dense)
        pairs, distances = found_in(X, chunk_rows)
        assert [among for _, among in compared] == [12, 31, 307]
        assert compared[0][0] == 307
        assert compared[-1][0] < 60
        monkeypatch.setattr(duplicate_rows, "FEW_ROWS", 1000)
        all_pairs, their_distances = found_in(X)
        assert len(pairs) > 3
        np.testing.assert_array_equal(pairs, all_pairs)
        np.testing.assert_allclose(distances, their_distances, rtol=1e-6)

    def test_the_rule_is_as_stated_where_many_rows_are_close(self, monkeypatch):
        rng = np.random.default_rng(2)
        X = rng.standard_normal((400, 3)).astype(np.float32)
        X = with_copies(X, [7] * 12, noise=0.01)
        pairs, _ = found_in(X)
        monkeypatch.setattr(duplicate_rows, "FEW_ROWS", 1000)
        assert len(pairs) > 100
        np.testing.assert_array_equal(pairs, found_in(X)[0])

    def test_rows_that_no_axes_describe_are_found_too(self, monkeypatch):
        X = with_copies(np.random.default_rng(0).random((200, 64), np.float32), [9, 8], 0.01)
        assert as_set(found_in(X)[0]) == {(9, 200), (8, 201)}

    def test_equal_rows_have_no_pairs(self):
        assert found_in(np.ones((20, 4), dtype=np.float32))[0].shape == (0, 2)

    def test_every_step_is_counted(self):
        done = []
        X = with_copies(make_rows(100), [3], noise=0.1)
        near_duplicates(RowChunks(ArrayRows(X), 50), lambda *counts: done.append(counts))
        numbers, totals = zip(*done, strict=True)
        assert numbers == tuple(range(1, len(done) + 1))
        assert all(number <= total for number, total in done)
        assert numbers[-1] == totals[-1]


def test_more_copies_than_neighbours_are_one_group():
    X = with_copies(make_rows(), [7] * 12, noise=0.02)
    pairs, _ = found_in(X)
    ids = np.array([f"{row:03}" for row in range(len(X))], dtype=object)
    groups = NearDuplicates("s", ids, pairs, np.zeros(len(pairs))).groups()
    assert sorted(groups) == ["007", *(f"{row}" for row in range(200, 212))]
    assert set(groups.values()) == {0}


@pytest.mark.parametrize("n_rows", [0, 1, 2])
def test_too_few_rows_have_no_pairs(n_rows):
    assert found_in(make_rows(n_rows))[0].shape == (0, 2)


def test_equal_rows_have_no_pairs():
    assert found_in(np.ones((20, 4), dtype=np.float32))[0].shape == (0, 2)


def test_only_pairs_that_training_shares_with_others_are_leaks():
    pairs = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [0, 4]])
    found = NearDuplicates("s", np.array([*"abcdx"], dtype=object), pairs, np.arange(5.0))
    part_of = {"a": "train", "b": "test", "c": "unseen", "d": "train"}
    leaks = found.across(part_of)
    assert leaks.ids.tolist() == [["a", "b"], ["a", "c"], ["c", "d"]]
    assert leaks.distances.tolist() == [0, 1, 3]


@pytest.fixture
def stores(tmp_path, colour_mean):
    folder = tmp_path / "dataset"
    draw_data_set(folder, n_each=3)
    twin = folder / "red_plain" / "same-bytes.png"
    twin.write_bytes((folder / "red_plain" / "00.png").read_bytes())
    featurepipe.extract(folder, workspace=tmp_path, backbone="hsv_histogram")
    featurepipe.extract(
        workspace=tmp_path, backbone="resnet50", weights="random", size_px=8,
        view=["grey", "rgb"],
    )  # fmt: skip
    return sorted((tmp_path / "features").glob("*.h5"))


@pytest.fixture
def search(stores, tmp_path):
    """A search among the first images, or all."""

    def among(n_images=None):
        with FeatureStore.open(stores[-1]) as store:
            ids = store.ids[:n_images]
        return DuplicateSearch.among(Workspace(tmp_path), stores[-1], ids)

    return among


class TestWhichStoreTells:
    def test_a_network_that_is_shown_the_images_as_they_are(self, stores):
        names = [path.stem for path in stores]
        assert names[1:] == ["resnet50-random0-8-avg-grey", "resnet50-random0-8-avg-rgb"]
        assert deciding_store(stores).stem == "resnet50-random0-8-avg-rgb"
        assert deciding_store(stores[:2]).stem == "resnet50-random0-8-avg-grey"

    def test_none_tells_by_colours_alone(self, stores):
        assert deciding_store(stores[:1]) is None

    def test_images_of_identical_bytes_stand_for_each_other(self, search):
        assert "red_plain/00.png" in search().images
        assert "red_plain/same-bytes.png" not in search().images

    def test_within_memory_the_same_pairs_are_found_or_it_is_refused(self, search):
        everywhere, bounded = search().find(), search().find(10_000_000)
        np.testing.assert_array_equal(bounded.pairs, everywhere.pairs)
        n_images = len(search().images)
        with pytest.raises(FitError, match=f"Comparing {n_images} images .* than 0MB"):
            search().find(1_000)

    def test_only_the_images_that_are_asked_about_are_compared(self, search):
        assert search(8).images.tolist() == search().images[:8].tolist()


class TestWhatIsRemembered:
    @pytest.fixture
    def kept(self, search):
        """A search whose findings are in its file."""
        asked = search()
        asked.remember(asked.find())
        return asked

    @pytest.fixture
    def searched(self, monkeypatch):
        """Numbers of the images that were compared."""
        compared = []

        def compare(rows, progress):
            compared.append(len(rows.reader))
            return near_duplicates(rows, progress)

        monkeypatch.setattr("featurepipe.models.studies.near_duplicates.near_duplicates", compare)
        return compared

    def test_is_what_was_found(self, search, kept, searched):
        fresh, again = replace(kept, file=kept.file.with_name("none.npz")).find(), search().find()
        assert len(again) > 0
        assert searched == [len(again.images)]
        assert again.ids.tolist() == fresh.ids.tolist()
        np.testing.assert_array_equal(again.distances, fresh.distances)
        assert (again.is_remembered, fresh.is_remembered) == (True, False)

    def test_is_not_written_again(self, search, kept):
        kept.file.touch()
        before = kept.file.stat().st_mtime_ns
        search().remember(search().find())
        assert kept.file.stat().st_mtime_ns == before

    def test_is_searched_again_among_other_images(self, search, kept, searched, caplog):
        assert len(search(8).find().images) == 8
        assert searched == [8]
        assert not caplog.messages
        search(8).remember(search(8).find())
        assert search(8).find().is_remembered
        assert not search().find().is_remembered

    def test_is_searched_again_with_other_features(self, search, kept, searched):
        with FeatureStore.open(kept.store, writable=True) as store:
            row = kept.rows[:1]
            features, digests = 2 * store.features(row), store.digests[row]
            store.write_done(row, features, digests, store.sizes[row], store.mtimes[row])
        assert not search().find().is_remembered

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            ({"pairs": lambda a: a[:, :1]}, "pairs is int64 of shape"),
            ({"pairs": lambda a: a.astype(float)}, "pairs is float64 of shape"),
            ({"pairs": lambda a: a + 1000}, "pairs has positions without an image"),
            ({"pairs": lambda a: a[:, ::-1]}, "it does not match the SHA-256 in it"),
            ({"distances": lambda a: a[1:]}, "distances is float64 of shape"),
            ({"distances": lambda a: a / 2}, "it does not match the SHA-256 in it"),
            ({"sha256": lambda a: np.array("")}, "it does not match the SHA-256 in it"),
            ({"compared": lambda a: a[None]}, "compared is <U64 of shape (1,)"),
            ({}, "is not a zip file"),
        ],
    )
    def test_is_not_believed_when_damaged(self, search, kept, searched, caplog, damage, said):
        arrays = dict(np.load(kept.file))
        for name, change in damage.items():
            arrays[name] = change(arrays[name])
        np.savez(kept.file, **arrays)
        if not damage:
            kept.file.write_text("near-duplicates")
        found = search().find()
        assert searched == [len(found.images)]
        (line,) = caplog.messages
        assert line.startswith(f"Searching for near-duplicates again: {kept.file}, which")
        assert said in line
        search().remember(found)
        caplog.clear()
        assert search().find().is_remembered
        assert not caplog.messages
