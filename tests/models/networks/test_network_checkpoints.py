"""Where a training stands is kept whole or not at all, and nothing of it is executed."""

import json
import math

import numpy as np
import pytest

from featurepipe.errors import RunError
from featurepipe.models.networks.checkpoints import Checkpoint, CheckpointFolder

PLAN = {"network": "pair", "outputs": {"breed": ["a", "b"]}, "seed": 0, "weights": None}


def make_checkpoint(n_epochs=1, best_epoch=1, seed=0):
    rng = np.random.default_rng([seed, n_epochs])
    best = np.random.default_rng([seed, best_epoch])
    return Checkpoint(
        history=[
            {
                "epoch": k + 1,
                "stage": "top",
                "stage_number": 0,
                "attributes_loss": 0.5 if k + 1 == best_epoch else 1 + 0.1 * k,
                "validation_loss": math.nan,
            }
            for k in range(n_epochs)
        ],
        scores=[rng.normal(size=(4, 3)).astype(np.float32) for _ in range(n_epochs)],
        # Of more than ten, so that their order is none of their names.
        weights=[np.full((k, 2), k, np.float32) for k in range(12)],
        optimizer=[np.array(3, np.int64), rng.normal(size=5).astype(np.float32)],
        best_weights=[best.normal(size=(2, 2)).astype(np.float32), np.arange(3.0)],
        batch_size=16,
        peak_bytes=2**40,
    )


def assert_same(found, expected):
    np.testing.assert_equal(found.history, expected.history)
    for name in ("scores", "weights", "optimizer", "best_weights"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert [each.dtype for each in ours] == [each.dtype for each in theirs]
        np.testing.assert_equal(ours, theirs)
    assert (found.batch_size, found.peak_bytes) == (expected.batch_size, expected.peak_bytes)


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "deep" / ".run.training", PLAN)


def state_of(folder):
    return folder.folder / "training.npz"


def best_files(folder):
    return sorted(path.name for path in folder.folder.glob("best-*"))


def rewrite(path, **changed):
    """The same file with other arrays in it."""
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays}
    np.savez(path, **kept | changed)


def about_of(folder):
    with np.load(state_of(folder)) as arrays:
        return json.loads(str(arrays["about"]))


def test_nothing_is_there_before_something_is_saved(folder):
    assert not folder.exists
    assert not folder.folder.exists()


def test_what_is_saved_is_loaded(folder):
    checkpoint = make_checkpoint(n_epochs=3, best_epoch=2)
    folder.save(checkpoint)
    assert folder.exists
    assert_same(CheckpointFolder(folder.folder, PLAN).load(), checkpoint)
    # Half-written files are none of them.
    assert {path.name for path in folder.folder.iterdir()} == {"training.npz", "best-2.npz"}


def test_only_the_best_epochs_weights_stay(folder):
    first = make_checkpoint(1, 1)
    folder.save(first)
    folder.save(make_checkpoint(2, 1))
    assert best_files(folder) == ["best-1.npz"]
    np.testing.assert_equal(folder.load().best_weights, first.best_weights)
    third = make_checkpoint(3, 3)
    folder.save(third)
    assert best_files(folder) == ["best-3.npz"]
    assert_same(folder.load(), third)


def test_best_weights_of_an_epoch_before_are_not_written_again(folder):
    folder.save(make_checkpoint(1, 1))
    written = (folder.folder / "best-1.npz").stat()
    folder.save(make_checkpoint(2, 1))
    assert (folder.folder / "best-1.npz").stat().st_mtime_ns == written.st_mtime_ns
    assert (folder.folder / "best-1.npz").stat().st_ino == written.st_ino


def test_a_kill_after_the_best_weights_leaves_the_checkpoint_before(folder, monkeypatch):
    before = make_checkpoint(1, 1)
    folder.save(before)
    after = make_checkpoint(2, 2)

    def killed(*_, **__):
        raise KeyboardInterrupt

    replaced = type(folder.folder).replace
    monkeypatch.setattr(
        type(folder.folder),
        "replace",
        lambda self, to: killed() if to.name == "training.npz" else replaced(self, to),
    )
    with pytest.raises(KeyboardInterrupt):
        folder.save(after)
    monkeypatch.undo()
    assert best_files(folder) == ["best-1.npz", "best-2.npz"]
    assert_same(folder.load(), before)
    # The epoch comes again, perhaps a little otherwise, and its own weights are kept.
    again = make_checkpoint(2, 2, seed=7)
    folder.save(again)
    assert best_files(folder) == ["best-2.npz"]
    assert_same(folder.load(), again)


@pytest.mark.parametrize("name", ["training.npz", "best-1.npz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no archive",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-30],
        lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:],
        lambda data: None,
    ],
    ids=["empty", "text", "half", "no-end", "one-byte", "missing"],
)
def test_a_damaged_checkpoint_says_how_to_begin_anew(folder, name, damage):
    folder.save(make_checkpoint())
    path = folder.folder / name
    damaged = damage(path.read_bytes())
    if damaged is None and name == "training.npz":
        path.unlink()
        assert not folder.exists
        return
    path.unlink() if damaged is None else path.write_bytes(damaged)
    with pytest.raises(RunError) as caught:
        folder.load()
    text = str(caught.value)
    assert text.startswith(f"The checkpoint {state_of(folder)} cannot be read (")
    assert text.endswith("Start again with --no-resume.")
    assert "\n" not in text


def test_a_changed_bit_of_the_list_of_contents_ends_in_no_other_error(folder):
    folder.save(make_checkpoint())
    data = state_of(folder).read_bytes()
    n_refused = 0
    # What the arrays' own bytes are is known by their checksums.
    for place in range(len(data) - 1200, len(data), 5):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        state_of(folder).write_bytes(changed)
        try:
            folder.load()
        except RunError as error:
            assert str(error).endswith("--no-resume.")
            n_refused += 1
    assert n_refused > 50


@pytest.mark.parametrize("about", [b"{}", b"[]", b"3", b'{"plan": 3}', b'{"plan": {}, "be'])
def test_a_description_that_is_none_is_damage(folder, about):
    folder.save(make_checkpoint())
    rewrite(state_of(folder), about=np.array(about.decode()))
    with pytest.raises(RunError, match="--no-resume"):
        folder.load()


def test_a_checkpoint_of_another_training_says_what_differs(folder):
    folder.save(make_checkpoint())
    plan = PLAN | {"seed": 3, "outputs": {"breed": ["a", "b", "c"]}}
    with pytest.raises(RunError) as caught:
        CheckpointFolder(folder.folder, plan).load()
    assert str(caught.value) == (
        f"The checkpoint {folder.folder} belongs to another training: outputs.breed is "
        "['a', 'b'], not ['a', 'b', 'c']; seed is 0, not 3. Start again with --no-resume."
    )


def test_tuples_are_lists_in_a_plan(tmp_path):
    CheckpointFolder(tmp_path, {"size": (3, 4)}).save(make_checkpoint())
    assert_same(CheckpointFolder(tmp_path, {"size": [3, 4]}).load(), make_checkpoint())


class Trap:
    """What would leave a trace if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


@pytest.mark.parametrize("name", ["training.npz", "best-1.npz"])
def test_no_pickle_is_loaded(folder, name, tmp_path):
    folder.save(make_checkpoint())
    trace = tmp_path / "trace"
    key = "weights_0" if name == "training.npz" else "best_0"
    rewrite(folder.folder / name, **{key: np.array([Trap(trace)], dtype=object)})
    with pytest.raises(RunError, match="--no-resume"):
        folder.load()
    assert not trace.exists()


def test_no_object_is_saved(folder):
    checkpoint = make_checkpoint()
    checkpoint.weights[0] = np.array([{}], dtype=object)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        folder.save(checkpoint)
    assert not folder.exists


def test_best_weights_are_looked_for_in_the_folder_alone(folder, tmp_path):
    folder.save(make_checkpoint())
    outside = tmp_path / "best-9.npz"
    (folder.folder / "best-1.npz").rename(outside)
    about = about_of(folder) | {"best": "../../best-9.npz"}
    rewrite(state_of(folder), about=np.array(json.dumps(about)))
    with pytest.raises(RunError, match="--no-resume"):
        folder.load()


@pytest.mark.parametrize(
    "changes",
    [
        {"history": None},
        {"history": [{"epoch": 1}]},
        {"history": [{"epoch": 1, "stage": "top", "stage_number": 0, "attributes_loss": "low"}]},
        {"batch_size": 0},
        {"batch_size": 2**70},
        {"peak_bytes": "many"},
        {"n_arrays": {"weights": 12}},
        {"n_arrays": {"weights": 99, "optimizer": 2, "best": 2}},
        {"best": None},
        {"plan": []},
        {"more": 1},
    ],
)
def test_what_no_training_writes_is_an_error(folder, changes):
    folder.save(make_checkpoint())
    rewrite(state_of(folder), about=np.array(json.dumps(about_of(folder) | changes)))
    with pytest.raises(RunError, match=r"cannot be read .* Start again with --no-resume"):
        folder.load()


def test_a_small_file_cannot_fill_the_memory(folder, monkeypatch):
    monkeypatch.setattr("featurepipe.array_archives.MAX_UNPACKED_BYTES", 10**6)
    folder.save(make_checkpoint())
    with state_of(folder).open("wb") as file:
        np.savez_compressed(file, weights_0=np.zeros(10**6))
    with pytest.raises(RunError, match=r"it would unpack to 8 MB"):
        folder.load()
