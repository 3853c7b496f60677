"""Faults that befall the installed command line; the campaign is `benchmarks/faults.py`."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from featurepipe import FeatureStore
from featurepipe.cli import run
from featurepipe.errors import StoreDamagedError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and links are POSIX")

COMMAND = Path(sys.executable).with_name("featurepipe")
EXTRACT = ("extract", "images", "--backbone=hsv-histogram", "--view=rgb,grey",
           "--workspace=workspace", "--quiet")  # fmt: skip
N = 400
STOPPED = "Finished work is saved; run the same command again to continue."


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Pictures, no two alike."""
    folder, rng = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    files = [folder / f"{number:03}.jpg" for number in range(N)]
    for file in files:
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((320, 240)).save(file, quality=88)
    return files


@pytest.fixture(scope="module")
def whole(pool, tmp_path_factory):
    """A workspace of a run that nothing disturbed."""
    place = tmp_path_factory.mktemp("whole")
    fill(place, pool)
    assert finish(start(place)) == (0, "")
    return place / "workspace"


@pytest.fixture(scope="module")
def half(pool, tmp_path_factory):
    """A workspace that has only the first half of the pictures."""
    place = tmp_path_factory.mktemp("half")
    fill(place, pool[: N // 2])
    assert go_on(place) == (0, "")
    return place / "workspace"


@pytest.fixture(scope="module")
def truth(whole):
    """Features by view and digest, of a run that nothing disturbs."""
    return {
        (view, digest): features
        for view, rows in contents(whole.parent).items()
        for digest, features in rows.values()
    }


@pytest.fixture
def place(tmp_path, pool):
    fill(tmp_path, pool)
    return tmp_path


@pytest.fixture
def done(place, whole):
    """A place of which all rows are done."""
    shutil.copytree(whole, place / "workspace")
    return place


def fill(place, files):
    for file in files:
        image = image_of(place, file)
        image.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, image)


def image_of(place, file):
    return place / "images" / ("black" if int(file.stem) % 2 else "white") / file.name


def start(place, prepare=lambda: None):
    return subprocess.Popen(
        [COMMAND, *EXTRACT],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell without job control has what runs in its background ignore Ctrl-C.
        preexec_fn=lambda: (signal.signal(signal.SIGINT, signal.SIG_DFL), prepare()),
    )


def finish(process):
    """Exit code and what was said to stderr."""
    err = process.communicate(timeout=60)[1]
    assert "Traceback" not in err
    return process.returncode, err.strip()


def go_on(place):
    """Exit code of a run in this process, and what it said to stderr."""
    with chdir(place), redirect_stderr(StringIO()) as err:
        code = run(EXTRACT)
    return code, err.getvalue().strip()


def stores(place):
    return {
        path.stem.rpartition("-")[2]: path
        for path in (place / "workspace" / "features").glob("[!.]*.h5")
    }


def contents(place):
    """Digest and features of every row that is done, by view and image id."""
    found = {}
    for view, path in stores(place).items():
        with FeatureStore.open(path) as store:
            rows = store.rows("done")
            digests, features = store.digests[rows], store.features(rows)
            found[view] = {
                image_id: (digest.tobytes(), row.tobytes())
                for image_id, digest, row in zip(store.ids[rows], digests, features, strict=True)
            }
    return found


def require_right(found, truth):
    wrong = [
        (view, image_id)
        for view, rows in found.items()
        for image_id, (digest, features) in rows.items()
        if truth[view, digest] != features
    ]
    assert not wrong


def require_whole(place, truth, n_images=N):
    """One run more brings every row to what its image is, and leaves nothing behind."""
    assert go_on(place) == (0, "")
    found = contents(place)
    require_right(found, truth)
    assert {view: len(rows) for view, rows in found.items()} == {"rgb": n_images, "grey": n_images}
    beside = {path.name for path in (place / "workspace" / "features").iterdir()}
    locks = {name for name in beside if name.endswith(".lock")}
    assert beside - locks == {path.name for path in stores(place).values()}


def wait_until(holds, process):
    while not holds() and process.poll() is None:
        time.sleep(0.001)
    assert process.poll() is None, process.stderr.read()


def kill_when(holds, process):
    """Kill a process as soon as something holds: it runs a millisecond at a time until then."""
    while not holds():
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        assert process.poll() is None, process.stderr.read()
    process.kill()


def n_done(place):
    n = 0
    for path in stores(place).values():
        # Without the checks of `FeatureStore`: this is asked every millisecond.
        with h5py.File(path, locking=False) as file:
            n += np.count_nonzero(file["status"][:] == 1)
    return n


def test_kills_while_stores_are_made_and_grow_and_rows_are_written(tmp_path, pool, truth):
    late, before = pool[::7], {}
    fill(tmp_path, sorted({*pool} - {*late}))
    for is_grown in (False, True):
        if is_grown:
            fill(tmp_path, late)
        for moment in (is_being_made, partial(has_more_than, before)):
            process = start(tmp_path)
            kill_when(partial(moment, tmp_path), process)
            assert process.communicate()[1] == ""
            after = contents(tmp_path)
            require_right(after, truth)
            require_kept(before, after)
            before = after
    assert before["rgb"] and len(before["rgb"]) < N
    require_whole(tmp_path, truth)


def is_being_made(place):
    return any((place / "workspace" / "features").glob(".*.part"))


def has_more_than(before, place):
    return n_done(place) > sum(map(len, before.values()))


def require_kept(before, after):
    for view, rows in before.items():
        assert rows.items() <= after[view].items(), "a committed row was lost"


@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [(signal.SIGTERM, 143, "Terminated"), (signal.SIGINT, 130, "Interrupted")],
)
def test_a_signal_ends_it_and_keeps_what_was_done(place, truth, sent, code, word):
    process = start(place)
    wait_until(lambda: n_done(place) > 0, process)
    before = contents(place)
    process.send_signal(sent)
    assert finish(process) == (code, f"{word}. {STOPPED}")
    after = contents(place)
    require_kept(before, after)
    require_right(after, truth)
    assert n_done(place) < 2 * N


def test_a_second_writer_is_refused_and_a_reader_is_not(place, truth, monkeypatch, capsys):
    monkeypatch.chdir(place)
    process = start(place)
    wait_until(lambda: n_done(place) > 0, process)
    # The first waits: otherwise it might be done before the second begins.
    process.send_signal(signal.SIGSTOP)
    assert run(EXTRACT) == 1
    assert capsys.readouterr().err == (
        "featurepipe: Another featurepipe process is writing to workspace. Wait until it "
        "ends, or use another --workspace.\n"
    )
    store = str(stores(place)["rgb"])
    assert run(["info", store, "--verify"]) == 0
    assert "checksums and images match" in capsys.readouterr().out
    process.send_signal(signal.SIGCONT)
    looks = [contents(place)]
    while process.poll() is None:
        looks.append(contents(place))
        require_right(looks[-1], truth)
        require_kept(*looks[-2:])
    assert finish(process) == (0, "")
    assert n_done(place) == 2 * N


def test_rows_that_are_replaced_are_never_seen_half_written(done, pool, truth):
    place = done
    for old, new in zip(pool[:200], reversed(pool), strict=False):
        image_of(place, old).unlink()
        os.link(new, image_of(place, old))
    process = start(place)
    expected = {row for (view, _), row in truth.items() if view == "rgb"}
    with FeatureStore.open(stores(place)["rgb"]) as store:
        while process.poll() is None:
            assert {row.tobytes() for row in store.features()} <= expected
            assert not len(store.damaged_rows())
    assert finish(process) == (0, "")
    require_right(contents(place), truth)
    assert n_done(place) == 2 * N


def test_images_that_change_meanwhile_are_found_the_next_time(place, pool, truth):
    process = start(place)
    wait_until(lambda: n_done(place) > 0, process)
    late = sorted((place / "images").glob("*/*"))[-90:]
    replaced, cut, gone = late[::3], late[1::3], late[2::3]
    for image in late:
        image.unlink()
    for image, file in zip(replaced + cut, pool, strict=False):
        data = file.read_bytes()
        image.write_bytes(data if image in replaced else data[:2000])
    code, _ = finish(process)
    assert code == 0
    require_right(contents(place), truth)
    for image, file in zip(replaced + cut, pool, strict=False):
        image.write_bytes(file.read_bytes())
    assert go_on(place) == (0, "")
    found = contents(place)
    require_right(found, truth)
    for rows in found.values():
        assert len(rows) >= N - len(gone)
        for image in replaced + cut:
            digest, _ = rows[f"{image.parent.name}/{image.name}"]
            assert digest == hashlib.sha256(image.read_bytes()).digest()
    assert not any(image.exists() for image in gone)


def test_links_in_circles_and_pipes_are_refused_with_their_reason(
    tmp_path, pool, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, pool[:20])
    images = tmp_path / "images" / "black"
    (images / "loop").symlink_to(images, target_is_directory=True)
    (images / "up").symlink_to("..", target_is_directory=True)
    (images / "self.jpg").symlink_to("self.jpg")
    (images / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(images / "pipe.jpg")
    assert run(EXTRACT) == 0
    assert capsys.readouterr().err.startswith("3 images were refused:")
    store = stores(tmp_path)["grey"]
    with FeatureStore.open(store) as opened:
        assert opened.counts() == {"pending": 0, "done": 20, "refused": 3}
        assert opened.refused() == {
            "black/gone.jpg": "cannot be read: No such file or directory",
            "black/pipe.jpg": "cannot be read: not a regular file",
            "black/self.jpg": "cannot be read: Too many levels of symbolic links",
        }
    assert run(["info", str(store), "--verify"]) == 0


@pytest.mark.parametrize("n_bytes", [0, 1000, 100_000, 900_000])
def test_a_file_that_may_not_be_so_large_is_one_error_and_nothing_is_lost(
    tmp_path, pool, half, truth, n_bytes
):
    resource = pytest.importorskip("resource")

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    fill(tmp_path, pool)
    shutil.copytree(half, tmp_path / "workspace")
    before = contents(tmp_path)
    code, err = finish(start(tmp_path, limited))
    assert code == 1
    assert err.startswith("featurepipe: The file is too large: cannot write workspace/features/")
    assert "\n" not in err
    assert contents(tmp_path) == before
    require_whole(tmp_path, truth)


@pytest.fixture
def store(tmp_path, pool, monkeypatch):
    """A finished store of ten images."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, pool[:10])
    assert run(EXTRACT) == 0
    return stores(tmp_path)["rgb"]


def test_what_killed_processes_left_is_removed_by_the_next_writer(store):
    kept, old = store.with_name(".other.h5.123.part"), store.with_name(f".{store.name}.123.part")
    folder = store.with_name(f".{store.name}.abc.part")
    folder.mkdir()
    for file in (kept, old, folder / store.name):
        file.write_bytes(b"half")
    with FeatureStore.open(store):
        assert old.exists() and folder.exists()
    with FeatureStore.open(store, writable=True):
        assert kept.exists() and not old.exists() and not folder.exists()


def damage(path, rng, n_rows):
    """Flip a bit in the features of some rows."""
    with h5py.File(path) as file:
        offset, (n, n_features) = file["features"].id.get_offset(), file["features"].shape
    rows = rng.choice(n, n_rows, replace=False)
    raw = bytearray(path.read_bytes())
    for row in rows:
        raw[offset + 4 * n_features * row + 5] ^= 8
    path.write_bytes(raw)


def is_being_healed(place):
    names = {path.name for path in (place / "workspace" / "features").iterdir()}
    return any(name.endswith(".damaged") for name in names)


def is_healed(place):
    """The new file has taken the place of the damaged one, which is kept."""
    if not is_being_healed(place):
        return False
    try:
        with FeatureStore.open(stores(place)["rgb"]) as store:
            return not len(store.damaged_rows())
    except StoreDamagedError:
        return False


def but_for_the_mark(raw):
    """A file without the byte by which HDF5 marks that it is open for writing."""
    return raw[:20] + raw[21:]


@pytest.mark.parametrize("n_lost", [0, 576 * 4 * 150])
@pytest.mark.parametrize("moment", [is_being_made, is_being_healed, is_healed])
def test_a_kill_amid_healing_loses_no_sound_row(done, truth, moment, n_lost):
    place, whole = done, contents(done)
    path = stores(place)["rgb"]
    damage(path, np.random.default_rng(0), n_rows=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - n_lost])
    broken = path.read_bytes()
    process = start(place)
    kill_when(partial(moment, place), process)
    process.communicate()
    aside = path.with_name(f"{path.name}.damaged")
    kept = [but_for_the_mark(file.read_bytes()) for file in (path, aside) if file.exists()]
    assert but_for_the_mark(broken) in kept, "the damaged file is gone before all is computed"
    code, _ = go_on(place)
    assert code == 0
    assert contents(place) == whole
    require_whole(place, truth)


def test_an_id_that_was_damaged_into_another_is_noticed_and_healed(store, capsys):
    whole = contents(store.parents[2])["rgb"]
    with h5py.File(store, "r+") as file:
        file["ids"][3] = file["ids"][4]
    assert run(EXTRACT) == 0
    assert "1 row does not match the checksum" in capsys.readouterr().err
    assert contents(store.parents[2])["rgb"] == whole


@pytest.mark.parametrize("name", ["key", "made_by"])
def test_a_damaged_account_of_how_a_store_was_made_is_noticed(store, capsys, name):
    with h5py.File(store, "r+") as file:
        text = bytearray(file.attrs[name])
        text[5] ^= 1
        file.attrs[name] = np.bytes_(text)
    assert run(["info", str(store)]) == 1
    err = capsys.readouterr().err
    assert "attributes that say how it was made do not match their checksum" in err
    assert err.count("\n") == 1


def test_features_of_another_byte_order_are_noticed_though_their_checksums_fit(store, capsys):
    with h5py.File(store, "r+") as file:
        features = file["features"][:]
        del file["features"]
        file["features"] = features.view(">f4")
    assert run(["info", str(store), "--verify"]) == 1
    assert "is damaged: features is of shape and type" in capsys.readouterr().err
    assert run(EXTRACT) == 0
    assert store.with_name(f"{store.name}.unreadable").exists()
