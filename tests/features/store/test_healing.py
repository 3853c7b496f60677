"""What an extraction makes of damaged stores."""

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest

import featurepipe
from featurepipe import FeatureStore
from featurepipe.cli import run
from featurepipe.errors import LockedError, NotWritableError, StoreDamagedError, StoreError
from featurepipe.features.store import StoreFile
from featurepipe.files import only_writer
from pictures import ColourMean, draw, draw_data_set

NAME = "resnet50-random0-8-avg-rgb"
OPTIONS = {"backbone": "resnet50", "weights": "random", "size_px": 8}
N = 48
REFUSED = "blue_plain/01.png"
DAMAGED = "red_plain/03.png"


@pytest.fixture
def store(tmp_path, monkeypatch, colour_mean):
    """The store of a workspace of 48 images, one of them refused."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featurepipe.features.store.checked_rows._SECONDS_BETWEEN_LOOKS", 0)
    draw_data_set(tmp_path / "dataset", n_each=6)
    (tmp_path / "dataset" / "blue_plain" / "01.png").write_bytes(b"broken")
    featurepipe.extract("dataset", attributes=("color", "kind"), **OPTIONS)
    return tmp_path / "features" / f"{NAME}.h5"


def contents(path):
    """Features or reason of every settled image."""
    with FeatureStore.open(path) as store:
        ids = store.ids[store.rows("done")]
        features = dict(zip(ids, store.features().tolist(), strict=True))
        return features | store.refused()


def flip(path, name, row, bit=3):
    """Flip one bit of one row of a dataset, as a failing disk would."""
    with h5py.File(path) as file:
        dataset = file[name]
        at = dataset.id.get_offset() + row * dataset.id.get_storage_size() // len(dataset)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << bit
    path.write_bytes(raw)


def others(path):
    """Names of the files beside the store that are not locks."""
    return sorted(
        file.name
        for file in path.parent.iterdir()
        if file != path and not file.name.endswith(".lock")
    )


def row_of(path, image_id):
    with FeatureStore.open(path) as store:
        return store.ids.tolist().index(image_id)


def extract_again(colour_mean, **options):
    before = sum(engine.n_embedded for engine in colour_mean)
    (done,) = featurepipe.extract(**OPTIONS, **options)
    assert sum(engine.n_embedded for engine in colour_mean) - before == done.n_embedded
    return done.n_embedded


def warnings_of(caplog):
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    return [line for line in said if "is damaged" in line]


def test_a_sound_store_is_left_as_it_is(store, colour_mean, caplog):
    before, inode = store.read_bytes(), store.stat().st_ino
    assert extract_again(colour_mean) == 0
    assert (store.read_bytes(), store.stat().st_ino) == (before, inode)
    assert others(store) == [] and warnings_of(caplog) == []


@pytest.mark.parametrize("bit", [0, 3, 7])
@pytest.mark.parametrize("name", ["features", "ids", "digests", "crc32"])
def test_a_flipped_bit_is_noticed_and_its_row_embedded_again(
    store, capsys, caplog, colour_mean, name, bit
):
    whole = contents(store)
    flip(store, name, row_of(store, DAMAGED), bit)
    assert run(["info", str(store), "--verify"]) == 1
    line = capsys.readouterr().err.strip()
    assert "has 1 bad row" in line and "Run featurepipe extract again" in line

    assert extract_again(colour_mean) == 1
    assert warnings_of(caplog) == [
        f"The feature store features/{NAME}.h5 is damaged: 1 row does not match the checksum. "
        f"1 of 48 rows are computed again. Until that is done, the old file is kept as "
        f"{NAME}.h5.damaged."
    ]
    assert contents(store) == whole
    assert others(store) == []
    assert run(["info", str(store), "--verify"]) == 0


def test_flipped_bits_of_a_status(store, capsys, colour_mean):
    whole = contents(store)
    flip(store, "status", row_of(store, DAMAGED), bit=6)  # done -> no status
    flip(store, "status", row_of(store, REFUSED), bit=0)  # refused -> no status
    assert run(["info", str(store), "--verify"]) == 1
    assert "has 2 bad rows" in capsys.readouterr().err
    flip(store, "status", row_of(store, "red_plain/04.png"), bit=0)  # done -> pending
    assert extract_again(colour_mean) == 2
    assert contents(store) == whole


@pytest.mark.parametrize("name", ["reasons", "digests"])
def test_a_flipped_bit_of_a_refusal(store, caplog, colour_mean, name):
    whole = contents(store)
    flip(store, name, row_of(store, REFUSED))
    assert extract_again(colour_mean) == 0
    assert "1 of 48 rows are computed again" in warnings_of(caplog)[0]
    assert contents(store) == whole


@pytest.mark.parametrize("n_lost", [1, 100, 24 * 6 + 1, 24 * 40])
def test_the_sound_rows_of_a_truncated_store_are_kept(store, capsys, caplog, colour_mean, n_lost):
    whole = contents(store)
    n_rows_lost = -(-n_lost // 24)
    refused_is_lost = row_of(store, REFUSED) >= N - n_rows_lost
    store.write_bytes(store.read_bytes()[:-n_lost])
    assert run(["fit"]) == 1
    assert "its end is missing (truncated). Run featurepipe extract again" in (
        capsys.readouterr().err
    )
    # Refused images have no features that could be lost.
    n_done_lost = n_rows_lost - refused_is_lost
    assert extract_again(colour_mean) == n_done_lost
    assert f"{n_done_lost} of 48 rows are computed again" in warnings_of(caplog)[0]
    assert contents(store) == whole
    assert others(store) == []


def test_a_cut_between_any_two_bytes_of_the_features_loses_only_the_rows_behind(store, colour_mean):
    raw, whole = store.read_bytes(), contents(store)
    for n_lost in range(1, 24 * N, 97):
        store.write_bytes(raw[:-n_lost])
        assert extract_again(colour_mean) <= -(-n_lost // 24)
        assert contents(store) == whole


def test_datasets_of_unequal_lengths(store, capsys, caplog, colour_mean):
    whole = contents(store)
    with h5py.File(store, "r+") as file:
        digests = file["digests"][:-5]
        del file["digests"]
        file["digests"] = digests
    assert run(["info", str(store)]) == 1
    assert "unequal lengths" in (line := capsys.readouterr().err) and "extract again" in line
    assert extract_again(colour_mean) == 5
    assert "5 of 48 rows are computed again" in warnings_of(caplog)[0]
    assert contents(store) == whole


def test_an_image_that_is_there_twice(store, caplog, colour_mean):
    whole = contents(store)
    with FeatureStore.open(store, writable=True) as opened:
        opened.rewrite(opened.ids, np.arange(10))
    with h5py.File(store, "r+") as file:
        file["ids"][20] = file["ids"][21]  # both pending: no checksum tells
    assert extract_again(colour_mean) == N - 10 - 1
    assert "it holds an image twice. 0 of 48 rows" in warnings_of(caplog)[0]
    assert contents(store) == whole


def lose_a_dataset(store):
    with h5py.File(store, "r+") as file:
        del file["digests"]


def damage_the_key(store):
    with h5py.File(store, "r+") as file:
        text = bytearray(file.attrs["key"])
        text[5] ^= 1
        file.attrs["key"] = np.bytes_(text)


def test_damage_that_hdf5_notices_only_when_reading_is_healed(store, colour_mean):
    whole, raw = contents(store), bytearray(store.read_bytes())
    # The head of the free list in the heap that holds the datasets' names.
    raw[raw.index(b"HEAP") + 16] ^= 0x49
    store.write_bytes(raw)
    with pytest.raises(StoreDamagedError, match="free list"):
        FeatureStore.open(store)
    with pytest.raises(StoreDamagedError, match="free list"):
        FeatureStore.open(store, writable=True)
    assert store.read_bytes() == bytes(raw)
    (done,) = featurepipe.extract(**OPTIONS)
    assert done.n_embedded == N - 1
    assert contents(store) == whole


def test_an_extraction_without_work_does_not_open_a_store_for_writing(
    store, monkeypatch, colour_mean
):
    opened = []
    own = h5py.File

    def record(path, mode="r", **options):
        opened.append(mode)
        return own(path, mode, **options)

    monkeypatch.setattr(h5py, "File", record)
    assert extract_again(colour_mean) == 0
    assert opened == ["r"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: store.write_bytes(b""),
        lambda store: store.write_bytes(b"no HDF5"),
        lambda store: store.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
        lambda store: store.write_bytes(store.read_bytes()[:40]),
        lambda store: store.write_bytes(store.read_bytes()[:3000]),
        lose_a_dataset,
        damage_the_key,
    ],
)
def test_a_store_of_which_nothing_can_be_read_is_rebuilt_and_kept_aside(
    store, caplog, colour_mean, damage
):
    whole = contents(store)
    damage(store)
    broken = store.read_bytes()
    with pytest.raises(StoreDamagedError):
        FeatureStore.open(store)
    (done,) = featurepipe.extract(**OPTIONS)
    assert done.n_embedded == N - 1
    assert contents(store) == whole
    (line,) = warnings_of(caplog)
    assert line.endswith(
        "Nothing can be read of it: every row is computed again. The old file is kept as "
        f"{NAME}.h5.unreadable."
    )
    assert others(store) == [f"{NAME}.h5.unreadable"]
    assert store.with_name(f"{NAME}.h5.unreadable").read_bytes() == broken

    store.write_bytes(b"again")
    featurepipe.extract(**OPTIONS)
    assert others(store) == [f"{NAME}.h5.unreadable", f"{NAME}.h5.unreadable2"]
    assert store.with_name(f"{NAME}.h5.unreadable").read_bytes() == broken


def test_a_file_of_another_program_is_never_replaced(store):
    store.unlink()
    with h5py.File(store, "w") as file:
        file["mine"] = np.arange(5)
    before = store.read_bytes()
    with pytest.raises(StoreError, match="no feature store of this version") as error:
        featurepipe.extract(**OPTIONS)
    assert not isinstance(error.value, StoreDamagedError)
    assert store.read_bytes() == before and others(store) == []


def test_an_image_that_changed_unseen_is_found_by_rehash(store, capsys, colour_mean):
    image = Path("dataset") / DAMAGED
    draw(image, "white", bright_top=True, seed=5)
    stat, row = image.stat(), np.array([row_of(store, DAMAGED)])
    with FeatureStore.open(store, writable=True) as opened:
        opened.write_seen(row, np.array([stat.st_size]), np.array([stat.st_mtime_ns]))
    assert extract_again(colour_mean) == 0
    assert run(["info", str(store), "--verify"]) == 1
    assert "Run featurepipe extract --rehash again" in capsys.readouterr().err
    assert extract_again(colour_mean, rehash=True) == 1
    assert contents(store)[DAMAGED][0] > 0.9


def test_rows_of_images_that_are_gone_are_kept_and_those_damaged_are_dropped(store, colour_mean):
    gone = ["red_plain/03.png", "red_plain/04.png"]
    for image_id in gone:
        (Path("dataset") / image_id).unlink()
    flip(store, "features", row_of(store, gone[0]))
    assert extract_again(colour_mean) == 0
    with FeatureStore.open(store) as opened:
        assert gone[0] not in opened.ids and len(opened) == N - 1
        assert opened.status[opened.ids.tolist().index(gone[1])] == 1


def test_a_store_that_is_being_written_is_left_alone(store):
    flip(store, "features", 2)
    before = store.read_bytes()
    with only_writer(store), pytest.raises(LockedError, match="is writing to"):
        featurepipe.extract(**OPTIONS)
    assert store.read_bytes() == before


@pytest.mark.parametrize("n_lost", [0, 100])
def test_a_full_disk_leaves_everything_as_it_was(store, monkeypatch, n_lost):
    flip(store, "features", 2)
    store.write_bytes(store.read_bytes()[: store.stat().st_size - n_lost])
    broken = store.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featurepipe.features.store.store.copy_rows", full)
    assert run(["extract", "--backbone=resnet50", "--weights=random", "--size=8"]) == 1
    assert store.read_bytes() == broken
    assert others(store) == []


@pytest.mark.parametrize("n_lost", [0, 24 * 10])
def test_a_healing_that_is_interrupted_goes_on_and_keeps_the_old_file_until_then(
    store, monkeypatch, colour_mean, n_lost
):
    whole = contents(store)
    for row in range(5):
        flip(store, "features", row)
    store.write_bytes(store.read_bytes()[: store.stat().st_size - n_lost])
    broken = store.read_bytes()
    compute = ColourMean.compute

    def interrupted(self, images):
        if self.n_embedded >= 2:
            raise KeyboardInterrupt
        return compute(self, images)

    monkeypatch.setattr(ColourMean, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        featurepipe.extract(**OPTIONS, batch_size=2)
    aside = store.with_name(f"{NAME}.h5.damaged")
    assert aside.read_bytes() == broken
    left = contents(store)
    assert len(left) >= N - 5 - n_lost // 24 and left.items() <= whole.items()
    monkeypatch.setattr(ColourMean, "compute", compute)
    assert extract_again(colour_mean) == N - len(left)
    assert contents(store) == whole
    assert others(store) == []


def test_stores_made_otherwise_are_refused_before_any_is_healed(store, colour_mean):
    featurepipe.extract(**OPTIONS | {"backbone": "xception"})
    other = store.with_name("xception-random0-8-avg-rgb.h5")
    other.replace(store.with_name("mobilenet_v2-random0-8-avg-rgb.h5"))
    flip(store, "features", 2)
    before = store.read_bytes()
    with pytest.raises(StoreError, match="backbone is 'xception', not 'mobilenet_v2'"):
        featurepipe.extract(**OPTIONS | {"backbone": ("resnet50", "mobilenet_v2")})
    assert store.read_bytes() == before
    assert others(store) == ["mobilenet_v2-random0-8-avg-rgb.h5"]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_file_that_may_not_be_opened_is_told_as_such(store, monkeypatch, is_damaged):
    if is_damaged:
        store.write_bytes(store.read_bytes()[:-100])
    before, real = store.read_bytes(), Path.open

    def refuse(self, *args, **options):
        if self.name == store.name:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match=r"cannot be opened \(Permission denied\)") as reading:
        FeatureStore.open(store)
    with pytest.raises(
        NotWritableError, match=r"cannot be written to \(Permission denied\)"
    ) as writing:
        featurepipe.extract(**OPTIONS)
    for error in (reading, writing):
        assert "delete" not in str(error.value).lower()
        assert not isinstance(error.value, StoreDamagedError)
    monkeypatch.undo()
    assert store.read_bytes() == before and others(store) == []


@pytest.mark.parametrize("raised", [PermissionError(13, "Permission denied"), ValueError("a bug")])
def test_what_the_callers_body_raises_is_not_taken_for_damage(store, raised):
    flip(store, "features", 2)
    store.write_bytes(store.read_bytes()[:-100])
    with pytest.raises(type(raised)) as error, StoreFile.look(store):
        raise raised
    assert error.value is raised
    assert others(store) == []
