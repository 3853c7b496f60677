import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from featurepipe import FeatureStore
from featurepipe.errors import ExtractionError, StoreMismatchError
from featurepipe.features.extraction.decoding import decode_image
from featurepipe.features.extraction.embedders import share_engines
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.extraction.updating import extract_features
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.sources import LocalFolder
from pictures import ColourMean, draw_data_set

SIZE = 8


@pytest.fixture
def engine(monkeypatch):
    """The engine that every recipe opens."""
    engine = ColourMean((SIZE, SIZE))

    def open_engine(*_, batch_size, **__):
        engine.batch_size = batch_size or 16
        return engine

    monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", open_engine)
    monkeypatch.setattr(HeadlessNetwork, "require_possible", lambda _: None)
    return engine


@pytest.fixture
def recipe(engine):
    return make_recipe("mobilenet_v2", "random", size_px=SIZE)


@pytest.fixture
def images(tmp_path):
    draw_data_set(tmp_path / "images", n_each=3)
    return listed(tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features" / "a.h5"


def listed(tmp_path):
    root = tmp_path / "images"
    return {str(file.relative_to(root)): file for file in sorted(root.glob("*/*"))}


def extract(recipe, images, path, **options):
    """Images are files by id; all lie below one folder."""
    image_id, file = next(iter(images.items()))
    root = Path(str(file).removesuffix(image_id))
    return extract_features({path: recipe}, LocalFolder(root), list(images), **options)[0]


def contents(path):
    with FeatureStore.open(path) as store:
        return store.ids.tolist(), store.status.tolist(), store.features().tolist()


def test_features_are_those_of_each_image(engine, recipe, images, path):
    summary = extract(recipe, images, path, batch_size=5)
    assert (summary.n_images, summary.n_embedded, summary.n_unchanged) == (24, 24, 0)
    assert summary.refused == {}
    assert summary.images_per_s > 0
    ids, status, features = contents(path)
    assert ids == list(images)
    assert status == [1] * 24
    for image_id, row in zip(ids, features, strict=True):
        lone = decode_image(images[image_id].read_bytes(), (SIZE, SIZE))
        assert row == ColourMean((SIZE, SIZE)).embed(lone[None])[0].tolist()


def test_a_second_run_embeds_nothing_and_opens_no_engine(engine, recipe, images, path, monkeypatch):
    extract(recipe, images, path)
    monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", pytest.fail)
    summary = extract(recipe, images, path)
    assert (summary.n_embedded, summary.n_unchanged) == (0, 24)


def test_only_new_and_changed_images_are_embedded(engine, recipe, images, path, tmp_path):
    extract(recipe, images, path)
    _, _, before = contents(path)
    changed, touched = list(images.values())[:2]
    changed.write_bytes(list(images.values())[10].read_bytes())
    os.utime(touched, ns=(1, 1))
    (tmp_path / "images" / "a_new").mkdir()
    (tmp_path / "images" / "a_new" / "x.png").write_bytes(touched.read_bytes())
    engine.n_embedded = 0
    summary = extract(recipe, listed(tmp_path), path)
    assert engine.n_embedded == 2
    assert (summary.n_images, summary.n_embedded, summary.n_unchanged) == (25, 2, 23)
    ids, _, after = contents(path)
    assert ids[0] == "a_new/x.png"
    assert after[1] == before[10]
    assert after[0] == after[2] == before[1]
    assert after[3:] == before[2:]
    engine.n_embedded = 0
    extract(recipe, listed(tmp_path), path)
    assert engine.n_embedded == 0


def test_refused_images_keep_a_reason_and_the_run_goes_on(engine, recipe, images, path):
    first, second, third = list(images)[:3]
    images[first].write_bytes(b"")
    images[second].write_bytes(images[second].read_bytes()[:90])
    images[third].unlink()
    summary = extract(recipe, images, path)
    assert set(summary.refused) == {first, second, third}
    assert summary.refused[first] == "empty file"
    assert "No such file" in summary.refused[third]
    assert summary.n_embedded == 21
    with FeatureStore.open(path) as store:
        assert store.counts() == {"pending": 0, "done": 21, "refused": 3}


def test_features_outlive_what_keeps_an_image_from_being_read(engine, recipe, images, path):
    extract(recipe, images, path)
    before = contents(path)
    lost, damaged = list(images)[:2]
    sound = images[lost].read_bytes()
    images[lost].unlink()
    images[damaged].write_bytes(b"broken")
    done = extract(recipe, images, path)
    assert list(done.unread) == [lost] and "No such file" in done.unread[lost]
    assert list(done.refused) == [damaged]
    assert "1 refused, 1 unreadable now (features kept)" in done.in_words()
    images[lost].write_bytes(sound)
    engine.n_embedded = 0
    assert extract(recipe, images, path).unread == {}
    assert engine.n_embedded == 0
    _, status, features = contents(path)
    assert status == [1, 2] + [1] * 22
    assert features == [before[2][0], *before[2][2:]]


def test_refused_images_are_tried_again_once_they_change(engine, recipe, images, path):
    broken = next(iter(images))
    sound = images[broken].read_bytes()
    images[broken].write_bytes(b"broken")
    extract(recipe, images, path)
    engine.n_embedded = 0
    assert list(extract(recipe, images, path).refused) == [broken]
    assert list(extract(recipe, images, path, retry_refused=True).refused) == [broken]
    images[broken].write_bytes(sound)
    assert extract(recipe, images, path).refused == {}
    assert engine.n_embedded == 1


def test_it_is_an_error_if_no_image_can_be_read(engine, recipe, images, path):
    for file in images.values():
        file.write_bytes(b"broken")
    with pytest.raises(ExtractionError, match="None of the 24 images can be read"):
        extract(recipe, images, path)


def test_another_recipe_is_never_mixed_in(engine, recipe, images, path):
    extract(recipe, images, path)
    with pytest.raises(StoreMismatchError, match="pooling is 'avg', not 'max'"):
        extract(make_recipe("mobilenet_v2", "random", size_px=SIZE, pooling="max"), images, path)
    with pytest.raises(StoreMismatchError, match=r"weights.seed is 0, not 3"):
        extract(make_recipe("mobilenet_v2", "random", size_px=SIZE, seed=3), images, path)


def test_other_software_may_go_on_only_if_it_computes_the_same(
    engine, recipe, images, path, caplog
):
    caplog.set_level("INFO", "featurepipe")
    some = dict(list(images.items())[:4])
    extract(recipe, some, path)
    engine.versions = {"colour-mean": "2"}
    extract(recipe, dict(list(images.items())[:8]), path)
    assert "its features are the same" in caplog.text
    engine.shift = 0.001
    with pytest.raises(StoreMismatchError, match=r"computes other features.*colour-mean is '1'"):
        extract(recipe, images, path)
    assert contents(path)[1] == [1] * 8 + [0] * 16


@pytest.mark.parametrize("batch_size", [None, 1, 2, 10])
def test_images_without_a_store_keep_their_order(engine, recipe, images, tmp_path, batch_size):
    ids, source = list(images)[:7], LocalFolder(tmp_path / "images")
    engines = share_engines([recipe], batch_size)
    whole, _ = embed_images(source, ids, [recipe], engines=engines)
    images[ids[3]].write_bytes(b"broken")
    features, refused = embed_images(source, ids, [recipe], engines=engines)
    assert features.tolist() == np.delete(whole, 3, axis=0).tolist()
    assert list(refused) == [3]
    assert refused[3].startswith("not an image")


def test_an_interrupt_keeps_what_was_committed(engine, recipe, images, path, monkeypatch):
    compute = engine.compute

    def interrupted(batch):
        if engine.n_embedded > 8 + 10:  # the probes, and two batches
            raise KeyboardInterrupt
        return compute(batch)

    monkeypatch.setattr(engine, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(recipe, images, path, batch_size=4)
    with FeatureStore.open(path) as store:
        assert store.counts()["done"] == 12
    monkeypatch.setattr(engine, "compute", compute)
    assert extract(recipe, images, path).n_embedded == 12


SLOW_EXTRACTION = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from pictures import ColourMean
    from featurepipe.features.extraction import recipe, updating
    from featurepipe.features.headless import HeadlessNetwork
    from featurepipe.sources import LocalFolder

    class Slow(ColourMean):
        def compute(self, images):
            time.sleep(0.004)
            return super().compute(images)

    HeadlessNetwork.require_possible = lambda _: None
    recipe.open_engine = lambda *_, batch_size, **__: Slow((8, 8), batch_size=batch_size)
    root = Path(sys.argv[2])
    ids = [str(p.relative_to(root)) for p in sorted(root.glob("*/*"))]
    made = recipe.make_recipe("mobilenet_v2", "random", size_px=8)
    print("ready", flush=True)
    store = Path(sys.argv[3])
    updating.extract_features({store: made}, LocalFolder(root), ids, batch_size=1)
    """
)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_extraction_resumes_to_the_same_store(seed, engine, recipe, tmp_path):
    draw_data_set(tmp_path / "images", n_each=8)
    images, killed = listed(tmp_path), tmp_path / "killed.h5"
    command = [
        sys.executable,
        "-c",
        SLOW_EXTRACTION,
        Path(__file__).parents[2],
        tmp_path / "images",
    ]
    delays, n_done = random.Random(seed), []
    for _ in range(3):
        process = subprocess.Popen([*command, killed], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delays.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if killed.exists():
            with FeatureStore.open(killed) as store:
                n_done.append(store.counts()["done"])
                assert len(store.features()) == n_done[-1]
    assert n_done == sorted(n_done), "a committed row was lost"
    assert n_done, "no store was made before the kill"
    extract(recipe, images, killed, batch_size=1)
    extract(recipe, images, tmp_path / "whole.h5", batch_size=1)
    assert contents(killed) == contents(tmp_path / "whole.h5")
