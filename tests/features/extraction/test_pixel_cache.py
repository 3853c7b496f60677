import hashlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

import featurepipe
from featurepipe import FeatureStore
from featurepipe.cli import run
from featurepipe.errors import (
    DiskFullError,
    ExtractionError,
    StoreError,
    StoreMismatchError,
    UnknownNameError,
    UsageError,
)
from featurepipe.features.backbones import BACKBONES, find_backbone
from featurepipe.features.engines.probes import distance, tolerance
from featurepipe.features.extraction.decoding import decode_image
from featurepipe.features.extraction.pixel_cache import PixelCache, PixelRecipe, decode_pixels
from featurepipe.manifest import read_manifest
from featurepipe.sources import LocalFolder
from featurepipe.workspace import Workspace
from pictures import draw, draw_data_set

SIZE = 8
BROKEN, CHANGED = "blue_plain/01.png", "red_plain/00.png"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A workspace of 24 images, one of which is broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featurepipe.features.store.checked_rows._SECONDS_BETWEEN_LOOKS", 0)
    draw_data_set(tmp_path / "images", n_each=3)
    (tmp_path / "images" / BROKEN).write_bytes(b"broken")
    manifest = read_manifest("images", attributes=("color", "kind"))
    place = Workspace(tmp_path)
    manifest.save(place.manifest)
    return place


def decode(place, size_px=SIZE):
    root = place.root / "images"
    ids = sorted(str(file.relative_to(root)) for file in root.glob("*/*"))
    return decode_pixels(place.pixels(size_px), LocalFolder(root), ids, size_px)


def expected(place, image_id, size_px=SIZE):
    return decode_image((place.root / "images" / image_id).read_bytes(), (size_px, size_px))


def pixels_by_id(place):
    with PixelCache.open(place.pixels(SIZE)) as cache:
        return dict(zip(cache.row_of, cache.read(list(cache.row_of)).tolist(), strict=True))


def flip(path, name, row):
    """Flip one bit of one row of a dataset, as a failing disk would."""
    with h5py.File(path) as file:
        dataset = file[name]
        at = dataset.id.get_offset() + row * dataset.id.get_storage_size() // len(dataset)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 8
    path.write_bytes(raw)


def row_of(path, image_id):
    with FeatureStore.open(path) as store:
        return store.ids.tolist().index(image_id)


def test_pixels_are_those_of_the_decoded_images_in_the_order_asked(place):
    done = decode(place)
    assert (done.n_images, done.n_embedded, list(done.refused)) == (24, 23, [BROKEN])
    with PixelCache.open(place.pixels(SIZE)) as cache:
        ids = [*reversed(cache.row_of), CHANGED, CHANGED]
        pixels = cache.read(ids)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (25, SIZE, SIZE, 3)
        for image_id, found in zip(ids, pixels, strict=True):
            np.testing.assert_array_equal(found, expected(place, image_id))
        again = cache.read(np.array(ids, dtype=object))
        np.testing.assert_array_equal(again, pixels)
        assert cache.read([]).shape == (0, SIZE, SIZE, 3)


def test_what_a_cache_says_of_itself(place):
    decode(place)
    with PixelCache.open(place.pixels(SIZE)) as cache:
        assert cache.path == place.pixels(SIZE) == place.root / "pixels" / "8.h5"
        assert cache.size_px == SIZE
        assert cache.images_per_s > 0
        assert cache.key == PixelRecipe(SIZE).key
        # As ever, so that caches made before can be read.
        assert cache.key.as_dict() == {
            "backbone": "pixels",
            "decoding": "full",
            "pooling": "avg",
            "precision": "uint8",
            "preprocessing": "none",
            "resize": "pillow-bilinear",
            "size_px": SIZE,
            "view": "rgb",
            "weights": {"kind": "none"},
        }
        assert len(cache.row_of) == 23
        assert {
            image_id: hashlib.sha256((place.root / "images" / image_id).read_bytes()).digest()
            for image_id in cache.row_of
        } == cache.digests
        assert cache.refused() == {
            BROKEN: "not an image (no JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC)"
        }
        checksums = cache.checksums(["red_plain/01.png", CHANGED])
        assert checksums.dtype == np.uint32
        assert cache.checksums([CHANGED]).tolist() == checksums[1:].tolist()


@pytest.mark.parametrize("image_id", [BROKEN, "absent.png"])
def test_images_without_pixels_are_one_clear_error(place, image_id):
    decode(place)
    with PixelCache.open(place.pixels(SIZE)) as cache:
        for ask in (cache.read, cache.checksums):
            with pytest.raises(StoreError, match=f"8.h5 has no pixels of '{image_id}': expected"):
                ask([CHANGED, image_id])


def test_only_new_and_changed_images_are_decoded_again(place, caplog):
    caplog.set_level("INFO", "featurepipe")
    decode(place)
    assert "Decoding images to 8 px …" in caplog.text and "Loading" not in caplog.text
    caplog.clear()
    assert decode(place).n_embedded == 0
    assert "Decoding" not in caplog.text
    before = pixels_by_id(place)
    draw(place.root / "images" / CHANGED, "white", bright_top=True, seed=5)
    draw(place.root / "images" / "a_new" / "x.png", "blue", bright_top=True, seed=6)
    done = decode(place)
    assert (done.n_images, done.n_embedded, done.n_unchanged) == (25, 2, 22)
    after = pixels_by_id(place)
    for image_id in (CHANGED, "a_new/x.png"):
        assert after.pop(image_id) == expected(place, image_id).tolist()
    assert after == {image_id: rows for image_id, rows in before.items() if image_id != CHANGED}


def test_an_interrupt_keeps_what_was_decoded(place, monkeypatch):
    monkeypatch.setattr("featurepipe.features.engines.pixel_engine._MAX_BATCH_SIZE", 4)
    read, n_read = LocalFolder.read, []

    def interrupted(source, image_id):
        n_read.append(image_id)
        if image_id == "white_plain/02.png":
            raise KeyboardInterrupt
        return read(source, image_id)

    monkeypatch.setattr(LocalFolder, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(place)
    monkeypatch.setattr(LocalFolder, "read", read)
    with FeatureStore.open(place.pixels(SIZE)) as store:
        n_done = store.counts()["done"]
    assert n_done >= 16
    assert decode(place).n_embedded == 23 - n_done
    assert pixels_by_id(place)[CHANGED] == expected(place, CHANGED).tolist()


def test_other_versions_may_go_on(place, monkeypatch):
    decode(place)
    draw(place.root / "images" / CHANGED, "white", bright_top=True, seed=5)
    monkeypatch.setattr(
        "featurepipe.features.extraction.ready_stores.library_versions", lambda *_: {"x": "2"}
    )
    assert decode(place).n_embedded == 1


def test_pixels_of_probes_must_be_equal():
    reference = np.uint8([[200, 100], [0, 1]])
    assert distance(reference, reference, "uint8") == tolerance("uint8") == 0
    assert distance(np.uint8([[200, 100], [1, 1]]), reference, "uint8") == 1
    assert distance(np.uint8([[197, 104], [0, 1]]), np.uint8([[3, 4], [0, 1]]), "uint8") > 5


def test_it_is_an_error_if_no_image_can_be_decoded(place):
    for file in (place.root / "images").glob("*/*"):
        file.write_bytes(b"broken")
    with pytest.raises(ExtractionError, match="None of the 24 images can be read"):
        decode(place)


def test_another_size_or_store_is_never_mixed_in(place, colour_mean):
    decode(place)
    place.pixels(SIZE).rename(place.pixels(9))
    with pytest.raises(StoreMismatchError, match="size_px is 8, not 9"):
        decode(place, 9)
    (done,) = featurepipe.extract(backbone="resnet50", weights="random", size_px=8)
    with pytest.raises(StoreError, match=r"holds features of resnet50\. Expected a pixel"):
        PixelCache.open(done.store)
    with pytest.raises(StoreError, match=r"There is no feature store .*8.h5"):
        PixelCache.open(place.pixels(SIZE))
    with pytest.raises(UsageError, match="cannot be resized to 0 px"):
        decode(place, 0)


def test_pixels_are_no_backbone_that_features_are_made_of(place):
    assert "pixels" not in BACKBONES
    with pytest.raises(UnknownNameError):
        find_backbone("pixels")


def test_feature_stores_lie_beside_and_are_as_ever(place, colour_mean):
    decode(place)
    (done,) = featurepipe.extract(backbone="resnet50", weights="random", size_px=8)
    assert place.stores() == [done.store.absolute()]
    assert place.pixel_caches() == [place.pixels(SIZE)]
    with FeatureStore.open(done.store) as store:
        assert store.features().dtype == store.probe.dtype == store.dtype == np.float32
        assert not store.holds_pixels
    fitted = featurepipe.fit(head="logistic", n_jobs=1)
    assert fitted["backbone"].unique().tolist() == ["resnet50"]


def test_pixels_take_one_byte_each(place):
    decode(place, 64)
    assert place.pixels(64).stat().st_size < (24 + 8) * (64 * 64 * 3 + 512) + 2**16
    with FeatureStore.open(place.pixels(64), writable=True) as store:
        assert store.holds_pixels
        assert store.features().dtype == store.probe.dtype == np.uint8
        rows = np.array([0])
        others = store.digests[rows], store.sizes[rows], store.mtimes[rows]
        with pytest.raises(TypeError, match="according to the rule 'same_kind'"):
            store.write_done(rows, np.ones((1, 64 * 64 * 3), np.float32), *others)


def test_the_room_that_pixels_need_shows_before_the_work(place, monkeypatch):
    class Usage:
        free = 24 * 300 * 300 * 3

    monkeypatch.setattr("featurepipe.features.store.layout.shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(DiskFullError, match=r"needs 9 MB and .* has 6 MB free"):
        decode(place, 300)
    assert place.pixel_caches() == []


def test_growing_copies_a_bounded_number_of_rows_at_once(place, monkeypatch):
    decode(place)
    before = pixels_by_id(place)
    monkeypatch.setattr("featurepipe.features.store.layout._CHUNK_BYTES", 5 * SIZE * SIZE * 3)
    with FeatureStore.open(place.pixels(SIZE), writable=True) as store:
        ids = [*store.ids, "a_new.png", "z_new.png"]
        store.rewrite(ids, np.arange(len(store)))
    assert pixels_by_id(place) == before
    with FeatureStore.open(place.pixels(SIZE)) as store:
        assert len(store.damaged_rows()) == 0
        assert store.counts() == {"pending": 2, "done": 23, "refused": 1}


def test_rows_are_checked_once(place, monkeypatch):
    decode(place)
    with PixelCache.open(place.pixels(SIZE)) as cache:
        some = list(cache.row_of)[:5]
        before = cache.read(some)
        monkeypatch.setattr(FeatureStore, "features", lambda *_: pytest.fail("checked again"))
        np.testing.assert_array_equal(cache.read(some[::-1]), before[::-1])


@pytest.mark.parametrize("name", ["features", "digests", "crc32"])
def test_a_damaged_row_is_an_error_each_time(place, name):
    decode(place)
    flip(place.pixels(SIZE), name, row_of(place.pixels(SIZE), CHANGED))
    with PixelCache.open(place.pixels(SIZE)) as cache:
        assert len(cache.read(["red_plain/01.png"])) == 1
        for _ in range(2):
            with pytest.raises(
                StoreError, match=rf"damaged \(checksum\), first '{CHANGED}'.*train again"
            ):
                cache.read(["red_plain/01.png", CHANGED])


def test_a_damaged_cache_is_found_and_healed(place, capsys, caplog):
    decode(place)
    cache, whole = place.pixels(SIZE), pixels_by_id(place)
    assert run(["info", str(cache), "--verify"]) == 0
    assert "Pixel cache 8" in (out := capsys.readouterr().out)
    assert "24 rows: checksums and images match" in out
    assert run(["info", "pixels/8.h5", "--verify", "--workspace", "absent"]) == 0
    assert "could not be read" not in capsys.readouterr().out
    flip(cache, "features", row_of(cache, CHANGED))
    assert run(["info", str(cache), "--verify"]) == 1
    assert f"{CHANGED} (checksum)" in (err := capsys.readouterr().err)
    assert err.endswith("Train again.\n") and "extract" not in err
    assert decode(place).n_embedded == 1
    assert "1 of 24 rows are computed again" in caplog.text
    assert pixels_by_id(place) == whole
    assert not list(cache.parent.glob("*.damaged"))


def test_a_truncated_cache_keeps_its_sound_rows(place):
    decode(place)
    cache, whole = place.pixels(SIZE), pixels_by_id(place)
    cache.write_bytes(cache.read_bytes()[: -3 * SIZE * SIZE * 3 + 1])
    assert decode(place).n_embedded == 3
    assert pixels_by_id(place) == whole


@pytest.mark.parametrize("target", ["out.npz", "out.parquet", "out.csv"])
def test_pixels_are_not_exported_as_features(place, target):
    decode(place)
    with pytest.raises(StoreError, match="is a pixel cache: it holds images of 8 px"):
        featurepipe.export(place.pixels(SIZE), target)
    assert not list(place.root.glob("*out*"))


def test_threads_may_read_at_once(place):
    decode(place)
    with PixelCache.open(place.pixels(SIZE)) as cache, ThreadPoolExecutor(4) as pool:
        ids = list(cache.row_of)
        batches = [ids[start % 20 : start % 20 + 3] for start in range(60)]
        for batch, pixels in zip(batches, pool.map(cache.read, batches), strict=True):
            np.testing.assert_array_equal(pixels[0], expected(place, batch[0]))
