"""Several engines in one pass, short memory, and where the time goes."""

import hashlib
import os
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from featurepipe.errors import DiskFullError, ExtractionError, ImageError, StoreMismatchError
from featurepipe.features.extraction.embedders import share_engines
from featurepipe.features.extraction.embedding import decode_for, embed_decoded, embed_images
from featurepipe.features.extraction.ready_stores import open_stores
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.extraction.updating import extract_features
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.store import FeatureStore
from featurepipe.features.store.stages import BusyClock, StageTimes
from featurepipe.sources import LocalFolder
from pictures import ColourMean, draw_data_set


class CountingFolder(LocalFolder):
    """A folder that counts how often each image is read."""

    def __init__(self, root):
        super().__init__(root)
        self.n_reads = Counter()

    def read(self, image_id):
        self.n_reads[image_id] += 1
        return super().read(image_id)


class ShortOfMemory(ColourMean):
    """An engine for which more than three images at once are too much."""

    def compute(self, images):
        if len(images) > 3:
            raise MemoryError
        return super().compute(images)


class SideBySide(ColourMean):
    """An engine with threads of its own, whose later batches may be done first."""

    n_parallel = 3

    def start(self, images):
        if not hasattr(self, "pool"):
            self.pool, self.delays = ThreadPoolExecutor(3), iter([0.03, 0.0, 0.01] * 100)
        delay = next(self.delays)
        return self.pool.submit(lambda: (time.sleep(delay), self.compute(images))[1])


@pytest.fixture
def source(tmp_path):
    draw_data_set(tmp_path / "images", n_each=3)
    return CountingFolder(tmp_path / "images")


@pytest.fixture
def ids(source, tmp_path):
    root = tmp_path / "images"
    return sorted(file.relative_to(root).as_posix() for file in root.glob("*/*"))


@pytest.fixture
def engine_class(monkeypatch):
    """Call it with the class that every recipe opens."""
    opened = []

    def use(engine_class):
        def open_engine(network, *, batch_size, **_):
            opened.append(engine_class(network.input_size, batch_size=batch_size))
            return opened[-1]

        monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", open_engine)
        monkeypatch.setattr(HeadlessNetwork, "require_possible", lambda _: None)
        return opened

    return use


def recipe(**options):
    return make_recipe("mobilenet_v2", "random", **{"size_px": 8, **options})


def rows(path):
    with FeatureStore.open(path) as store:
        return store.features()


def test_several_sizes_and_views_read_each_image_once(source, ids, tmp_path, engine_class):
    engine_class(ColourMean)
    recipes = {
        tmp_path / "plain.h5": recipe(),
        tmp_path / "grey.h5": recipe(view="grey"),
        tmp_path / "large.h5": recipe(size_px=10),
        tmp_path / "flip.h5": recipe(view="flip"),
    }
    done = extract_features(recipes, source, ids, batch_size=5)
    assert source.n_reads == dict.fromkeys(ids, 1)
    assert [one.n_embedded for one in done] == [24] * 4
    for path, made in recipes.items():
        alone = tmp_path / "alone.h5"
        alone.unlink(missing_ok=True)
        extract_features({alone: made}, source, ids, batch_size=5)
        np.testing.assert_array_equal(rows(path), rows(alone))
    # Mean colours are those of the mirror image too; the others differ.
    assert len({rows(path).tobytes() for path in recipes}) == 3


def test_each_store_gets_what_it_lacks(source, ids, tmp_path, engine_class):
    engine_class(ColourMean)
    half, none = tmp_path / "half.h5", tmp_path / "none.h5"
    extract_features({half: recipe()}, source, ids[:12])
    source.n_reads.clear()
    done = extract_features({half: recipe(), none: recipe(view="grey")}, source, ids)
    assert [(one.n_embedded, one.n_unchanged) for one in done] == [(12, 12), (24, 0)]
    assert source.n_reads == dict.fromkeys(ids, 1)
    extract_features({tmp_path / "whole.h5": recipe()}, source, ids)
    np.testing.assert_array_equal(rows(half), rows(tmp_path / "whole.h5"))


def test_rehash_reads_what_size_and_time_do_not_tell(source, ids, tmp_path, engine_class):
    opened = engine_class(ColourMean)
    path, file = tmp_path / "a.h5", tmp_path / "images" / ids[5]
    extract_features({path: recipe()}, source, ids)
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1  # behind the last chunk's name: its checksum, which nobody reads
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    source.n_reads.clear()
    assert extract_features({path: recipe()}, source, ids)[0].n_embedded == 0
    assert not source.n_reads
    opened.clear()
    (done,) = extract_features({path: recipe()}, source, ids, rehash=True)
    assert (done.n_embedded, done.n_unchanged) == (1, 23)
    assert source.n_reads == dict.fromkeys(ids, 1)
    with FeatureStore.open(path) as store:
        assert store.digests[5].tobytes() == hashlib.sha256(data).digest()


def test_short_memory_means_smaller_batches(source, ids, tmp_path, engine_class):
    engine_class(ColourMean)
    expected, _ = embed_images(source, ids, [recipe()])
    opened = engine_class(ShortOfMemory)
    opened.clear()
    features, refused = embed_images(source, ids, [recipe()], engines=share_engines([recipe()], 16))
    np.testing.assert_array_equal(features, expected)
    assert refused == {}
    assert [engine.batch_size for engine in opened] == [16, 8, 4, 2]


def test_memory_too_short_for_one_image_is_an_error(source, ids, engine_class):
    class Hopeless(ColourMean):
        def compute(self, images):
            raise MemoryError("not even one")

    opened = engine_class(Hopeless)
    with pytest.raises(ExtractionError, match=r"does not fit into memory.*not even one"):
        embed_images(source, ids, [recipe()], engines=share_engines([recipe()], 4))
    assert [engine.batch_size for engine in opened] == [4, 2, 1]


def test_batches_side_by_side_keep_their_rows(source, ids, tmp_path, engine_class):
    engine_class(ColourMean)
    expected, _ = embed_images(source, ids, [recipe()])
    engine_class(SideBySide)
    features, _ = embed_images(source, ids, [recipe()], engines=share_engines([recipe()], 2))
    np.testing.assert_array_equal(features, expected)


def test_decoded_images_have_the_features_of_their_files(tmp_path, engine_class):
    engine_class(ColourMean)
    rng = np.random.default_rng(0)
    for k in range(5):
        pixels = rng.integers(0, 256, (80, 120, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.jpg")
    ids = [f"{k}.jpg" for k in range(5)]
    recipes = [recipe(), recipe(fast_decode=True), recipe(view="shuffle"), recipe(size_px=16)]
    expected, _ = embed_images(LocalFolder(tmp_path), ids, recipes)
    # Each way of decoding gives pixels of its own.
    assert not np.array_equal(expected[:, :6], expected[:, 6:12])
    decoded = [decode_for(recipes, (tmp_path / image_id).read_bytes()) for image_id in ids]
    features = embed_decoded(decoded, recipes, share_engines(recipes, 2))
    np.testing.assert_array_equal(features, expected)
    with pytest.raises(ImageError, match="not an image"):
        decode_for(recipes, b"no image")


def test_an_error_in_writing_ends_the_pass(source, ids, tmp_path, engine_class, monkeypatch):
    engine_class(ColourMean)
    path = tmp_path / "a.h5"
    write = FeatureStore.write_done

    def full(store, rows, *columns):
        if rows[0] >= 8:
            raise DiskFullError("The disk is full")
        write(store, rows, *columns)

    monkeypatch.setattr(FeatureStore, "write_done", full)
    with pytest.raises(DiskFullError):
        extract_features({path: recipe()}, source, ids, batch_size=4)
    with FeatureStore.open(path) as store:
        assert store.status.tolist() == [1] * 8 + [0] * 16


def test_where_the_time_went_is_kept(source, ids, tmp_path, engine_class):
    class Slow(ColourMean):
        def compute(self, images):
            time.sleep(0.02)
            return super().compute(images)

    engine_class(Slow)
    path = tmp_path / "a.h5"
    (done,) = extract_features({path: recipe()}, source, ids, batch_size=2)
    assert done.stages.bottleneck == "infer"
    assert done.stages.infer >= 12 * 0.02
    assert "bottleneck: infer" in done.in_words()
    assert done.as_dict()["bottleneck"] == "infer"
    with FeatureStore.open(path) as store:
        assert store.stages.infer == pytest.approx(done.stages.infer)
        assert store.stages.decode == pytest.approx(done.stages.decode)
        assert 24 / store.images_per_s >= 12 * 0.02


def test_the_clock_is_parted_by_work(source, ids, tmp_path, engine_class):
    class SlowWhenLarge(ColourMean):
        def compute(self, images):
            time.sleep(0.03 if self.input_size[0] == 10 else 0.01)
            return super().compute(images)

    engine_class(SlowWhenLarge)
    started = time.perf_counter()
    small, large = extract_features(
        {tmp_path / "small.h5": recipe(), tmp_path / "large.h5": recipe(size_px=10)},
        source,
        ids,
        batch_size=1,
    )
    total = time.perf_counter() - started
    seconds = [24 / one.images_per_s for one in (small, large)]
    assert sum(seconds) <= total
    assert 1.5 < seconds[1] / seconds[0] < 6


def test_a_busy_clock_counts_places_in_use():
    clock, gate = BusyClock(2), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = clock.watch(lambda: pool.submit(gate.wait))
        time.sleep(0.1)
        half = clock.take()
        gate.set()
        future.result()
    assert 0.05 <= half < 0.1
    assert half + clock.take() < 0.1


def test_stage_times():
    times = StageTimes(1, 2, 3, 5) - StageTimes(read=1, write=1)
    assert times == StageTimes(0, 2, 3, 4)
    assert times.bottleneck == "write"
    assert StageTimes().bottleneck == ""


def test_views_of_one_network_share_an_engine(source, ids, tmp_path, engine_class):
    opened = engine_class(ColourMean)
    recipes = {tmp_path / f"{view}.h5": recipe(view=view) for view in ("rgb", "grey", "flip")}
    extract_features(recipes, source, ids, batch_size=4)
    assert [engine.batch_size for engine in opened] == [8]
    recipes[tmp_path / "large.h5"] = recipe(size_px=10)
    extract_features(recipes, source, ids)
    assert [engine.input_size for engine in opened] == [(8, 8), (10, 10)]
    embed_images(source, ids, [recipe(), recipe(view="shuffle")])
    assert [engine.input_size for engine in opened] == [(8, 8), (10, 10), (8, 8)]


def test_every_store_of_a_shared_engine_is_compared_with_it(source, ids, tmp_path, engine_class):
    engine_class(ColourMean)
    recipes = {tmp_path / "rgb.h5": recipe(), tmp_path / "grey.h5": recipe(view="grey")}
    extract_features(recipes, source, ids[:12])
    engine_class(lambda size, batch_size: ColourMean(size, {"colour-mean": "2"}, 0.1, batch_size))
    with pytest.raises(StoreMismatchError, match=r"rgb\.h5"):
        extract_features(recipes, source, ids)
    (tmp_path / "rgb.h5").unlink()
    with pytest.raises(StoreMismatchError, match=r"grey\.h5"):
        extract_features(recipes, source, ids)


def test_a_store_does_not_hold_an_engine_that_is_replaced(source, ids, tmp_path, monkeypatch):
    alive = weakref.WeakSet()

    def open_engine(network, *, batch_size, **_):
        assert not alive
        engine = ColourMean(network.input_size, batch_size=batch_size)
        alive.add(engine)
        return engine

    monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", open_engine)
    monkeypatch.setattr(HeadlessNetwork, "require_possible", lambda _: None)
    with open_stores({tmp_path / "rgb.h5": recipe()}, ids, batch_size=8) as (ready,):
        assert ready.open().batch_size == 8
        assert ready.open(4).batch_size == 4
