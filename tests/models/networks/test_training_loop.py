"""The training loop: what moves, what is kept, how it goes on, and how it ends."""

import logging
import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from featurepipe.errors import FitError, RunError, StoreError
from featurepipe.features.backbones import BACKBONES
from featurepipe.features.engines.quiet_keras import computing_in, keras, seeded
from featurepipe.manifest.labels import labels_of
from featurepipe.models.networks import stage_training
from featurepipe.models.networks.checkpoints import CheckpointFolder
from featurepipe.models.networks.losses import total_losses
from featurepipe.models.networks.material import Dataset
from featurepipe.models.networks.network import Backbone, Network
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import make_outputs, make_targets
from featurepipe.models.networks.recipes import NETWORKS, Stage
from featurepipe.models.networks.training_loop import train_network

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
]

SIZE, N_TRAIN, N_VALIDATION = 16, 36, 12
N_IMAGES = N_TRAIN + N_VALIDATION
KINDS = np.arange(N_IMAGES) % 3
STAGE = Stage("all", learning_rate=0.02)


def draw_toy():
    """Noisy pictures, each brightest in the colour that it is called by."""
    pixels = np.random.default_rng(0).normal(60, 12, (N_IMAGES, SIZE, SIZE, 3))
    pixels[np.arange(N_IMAGES), :, :, KINDS] += 130
    return pixels.clip(0, 255).astype(np.uint8)


PIXELS = draw_toy()


def small_network(outputs, dropout=0.0):
    """Means of the colours, batch normalisation, and a layer."""
    pixels = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    x = keras.layers.Dense(8, activation="relu")(x)
    return Network(keras.Model(pixels, x), outputs, dropout=dropout)


def block_network(outputs, pairs=False):
    """A backbone of three blocks."""
    picture = keras.Input((SIZE, SIZE, 3))
    x = picture
    for number in (1, 2, 3):
        x = keras.layers.Conv2D(4, 3, 2, name=f"block{number}_conv", activation="relu")(x)
        x = keras.layers.BatchNormalization(name=f"block{number}_bn", momentum=0.5)(x)
    model = keras.Model(picture, keras.layers.GlobalAveragePooling2D()(x))
    spec = replace(BACKBONES["mobilenet_v2"], name="blocks", blocks=r"(block\d+)_")
    pixels = keras.Input((SIZE, SIZE, 3))
    trunk = keras.Model(pixels, model(keras.layers.Rescaling(1 / 255)(pixels)))
    return Network(trunk, outputs, backbone=Backbone(spec, model), pairs=pairs)


@dataclass
class Toy:
    """Images, their parts, and a network to be trained on them."""

    settings: NetworkSettings
    network: Network
    train: Dataset
    validation: Dataset

    @classmethod
    def of(cls, settings, build=small_network, kinds=KINDS, seed=0, **options):
        labels = {"color": labels_of("color", [("rgb"[kind],) for kind in kinds])}
        targets = make_targets(labels, settings)
        with seeded(seed):
            network = build(make_outputs(labels, settings), **options)
        return cls(
            settings,
            network,
            Dataset(lambda rows: PIXELS[rows], targets.take(np.arange(N_TRAIN))),
            Dataset(
                lambda rows: PIXELS[N_TRAIN + rows], targets.take(np.arange(N_TRAIN, N_IMAGES))
            ),
        )

    @staticmethod
    def checkpoints(folder):
        return CheckpointFolder(folder / "training", {"of": "toy"})

    def fit(self, folder, *, resume=False):
        place = self.checkpoints(folder)
        return train_network(
            self.network, self.train, self.validation, self.settings, place, resume=resume
        )

    def validation_loss(self):
        """Of the network as it is."""
        outputs = self.network.outputs
        scores = self.network.score_and_embed(PIXELS[N_TRAIN:])[:, : outputs[-1].columns.stop]
        return float(total_losses(outputs, scores, self.validation.targets))


@pytest.fixture
def recipe(monkeypatch):
    """Settings of a network whose recipe has other stages."""

    def settle(*stages, network="smallervggnet", **options):
        monkeypatch.setitem(NETWORKS, network, replace(NETWORKS[network], stages=stages))
        return NetworkSettings.of(
            network, **{"task": "per-attribute", "batch_size": 12, "augment": False} | options
        )

    return settle


@pytest.fixture
def on_fit(monkeypatch):
    """Have something called before Keras trains each epoch: its number in this process, data."""
    own = keras.Model.fit

    def install(action):
        epochs = []

        def fit(self, data, **options):
            epochs.append(data)
            action(len(epochs), data)
            return own(self, data, **options)

        monkeypatch.setattr(keras.Model, "fit", fit)

    return install


def without_seconds(history):
    return history.drop(columns="seconds")


def n_images(data):
    _, truth, _ = data[0]
    return len(next(iter(truth.values())))


def moved(network, before):
    """Paths of the variables that are not what they were."""
    return {
        f"{variable.path.split('/')[-2]}/{variable.name}"
        for variable, value in zip(network.variables, before, strict=True)
        if not np.array_equal(keras.ops.convert_to_numpy(variable.value), value)
    }


def test_a_network_learns_what_can_be_learnt(tmp_path, recipe):
    toy = Toy.of(recipe(STAGE, epochs=12))
    training = toy.fit(tmp_path)
    history = training.history
    assert history["train_loss"].iloc[-1] < 0.5 * history["train_loss"].iloc[0]
    assert history["validation_loss"].iloc[-1] < 0.5 * history["validation_loss"].iloc[0]
    assert history["validation_accuracy:color"].iloc[-1] == 1
    assert history["train_accuracy:color"].iloc[-1] > 0.9
    assert history["epoch"].tolist() == [*range(1, 13)]
    assert history["seconds"].gt(0).all()
    assert training.seconds == pytest.approx(history["seconds"].sum())
    assert training.scores.shape == (12, N_VALIDATION, 3)
    assert training.peak_bytes > 2**20
    assert (training.batch_size, training.ended_by) == (12, "")
    assert toy.validation_loss() == pytest.approx(history["attributes_loss"].min(), rel=1e-4)


def test_it_stops_early_keeps_the_best_epoch_and_halves_the_rate(tmp_path, recipe, monkeypatch):
    monkeypatch.setattr("featurepipe.models.networks.schedules._PLATEAU_PATIENCE", 2)
    # What is validated is called by other names, so that learning makes it worse.
    kinds = np.where(np.arange(N_IMAGES) < N_TRAIN, KINDS, (KINDS + 1) % 3)
    stage = replace(STAGE, schedule="plateau", patience=5)
    toy = Toy.of(recipe(stage, epochs=50), kinds=kinds)
    history = toy.fit(tmp_path).history
    losses = history["attributes_loss"].to_numpy()
    best = int(losses.argmin())
    assert (np.diff(losses[best:]) > 0).all()
    assert history.index[history["best"]].tolist() == [best]
    assert len(history) == best + 1 + 5
    # Halved after each second epoch without a better one.
    n_halved = [0] * (best + 3) + [1, 1, 2]
    np.testing.assert_allclose(history["learning_rate"], 0.02 * 0.5 ** np.array(n_halved))
    assert toy.validation_loss() == pytest.approx(losses[best], rel=1e-4)
    assert [path.name for path in (tmp_path / "training").glob("best-*")] == [
        f"best-{best + 1}.npz"
    ]


STAGES = (
    replace(STAGE, title="adam", schedule="decay"),
    replace(STAGE, title="sgd", optimizer="sgd", momentum=0.9, schedule="cosine"),
)


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path, recipe, on_fit):
    settings = recipe(*STAGES, epochs=2, augment=True)
    whole = Toy.of(settings, dropout=0.3)
    expected = whole.fit(tmp_path / "whole")
    assert expected.history["stage"].tolist() == ["adam", "adam", "sgd", "sgd"]

    def kill(number, _):
        if number % 2 == 0:
            raise SystemExit

    on_fit(kill)
    # One epoch each: it goes on within a stage, at the next, and within that.
    for seed in range(3):
        # Whatever the network begins as, once there is a checkpoint.
        toy = Toy.of(settings, dropout=0.3, seed=seed)
        with pytest.raises(SystemExit):
            toy.fit(tmp_path / "killed", resume=True)
    last = Toy.of(settings, dropout=0.3, seed=9)
    training = last.fit(tmp_path / "killed", resume=True)
    pd.testing.assert_frame_equal(
        without_seconds(training.history), without_seconds(expected.history), rtol=1e-4
    )
    np.testing.assert_allclose(training.scores, expected.scores, rtol=1e-4, atol=1e-4)
    for value, kept in zip(last.network.get_weights(), whole.network.get_weights(), strict=True):
        np.testing.assert_allclose(value, kept, rtol=1e-4, atol=1e-4)
    # Of a training that is complete nothing is done again.
    on_fit(lambda *_: pytest.fail("trained"))
    again = Toy.of(settings, dropout=0.3, seed=9).fit(tmp_path / "killed", resume=True)
    pd.testing.assert_frame_equal(again.history, training.history)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, recipe):
    toy = Toy.of(recipe(STAGE, epochs=1))
    toy.fit(tmp_path)
    other = CheckpointFolder(tmp_path / "training", {"of": "another"})
    with pytest.raises(
        RunError, match=r"another training: of is 'toy', not 'another'.*--no-resume"
    ):
        train_network(toy.network, toy.train, toy.validation, toy.settings, other, resume=True)
    state = tmp_path / "training" / "training.npz"
    state.write_bytes(state.read_bytes()[:-200])
    with pytest.raises(RunError, match=r"cannot be read .*--no-resume"):
        toy.fit(tmp_path, resume=True)


def test_frozen_layers_stay_and_the_last_blocks_move(tmp_path, recipe, on_fit):
    stages = (
        replace(STAGE, title="top", n_blocks=0),
        replace(STAGE, title="last blocks", n_blocks=1),
    )
    # Of the blocks there are as many as is said, in the stages that train any.
    settings = recipe(*stages, network="finetune", epochs=1, augment=True, unfreeze=2)
    toy = Toy.of(settings, block_network)
    before, seen = toy.network.get_weights(), []
    on_fit(lambda *_: seen.append(moved(toy.network, before)))
    toy.fit(tmp_path)
    toy.network.set_weights(toy.checkpoints(tmp_path).load().weights)
    top = {"color_scores/kernel", "color_scores/bias"}
    blocks = {f"block{number}_conv/{name}" for number in (2, 3) for name in ("kernel", "bias")}
    # Normalisation is never among them: neither what it learns nor its statistics.
    assert [*seen, moved(toy.network, before)] == [set(), top, top | blocks]


def test_cached_features_train_the_top_alone(tmp_path, recipe, on_fit):
    settings = recipe(replace(STAGE, n_blocks=0), network="finetune", epochs=3)
    toy = Toy.of(settings, block_network)
    features = toy.network.score_and_embed(PIXELS)[:, 3:]
    toy.train = replace(toy.train, load=pytest.fail, features=features[:N_TRAIN])
    toy.validation = replace(toy.validation, load=pytest.fail, features=features[N_TRAIN:])
    seen = []
    on_fit(lambda _, data: seen.append(data[0][0]))
    before = toy.network.get_weights()
    training = toy.fit(tmp_path)
    assert {each.shape for each in seen} == {(12, features.shape[1])}
    assert moved(toy.network, before) == {"color_scores/kernel", "color_scores/bias"}
    rows = toy.network.score_and_embed(PIXELS[N_TRAIN:])
    np.testing.assert_allclose(rows[:, 3:], features[N_TRAIN:], atol=1e-4)
    expected = toy.network.score_features(features[N_TRAIN:])
    np.testing.assert_allclose(rows[:, :3], expected, atol=1e-4)
    best = int(training.history["attributes_loss"].argmin())
    np.testing.assert_allclose(training.scores[best], expected, atol=1e-4)


def test_a_loss_that_is_no_number_ends_it_and_the_best_is_kept(
    tmp_path, recipe, on_fit, monkeypatch, caplog
):
    toy = Toy.of(recipe(STAGE, epochs=5))
    plans, plan = [], stage_training.plan_batches

    def record(*arguments):
        plans.append(plan(*arguments))
        return plans[-1]

    def spoil(number, _):
        if number == 3:
            toy.train.targets.weights["color"][7] = np.nan

    monkeypatch.setattr(stage_training, "plan_batches", record)
    on_fit(spoil)
    training = toy.fit(tmp_path)
    step = 1 + next(k for k, batch in enumerate(plans[2]) if 7 in batch.images)
    assert training.ended_by == "loss not finite"
    assert len(training.history) == len(training.scores) == 2
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    best = int(training.history["attributes_loss"].argmin())
    assert f"not finite at step {step} of epoch 3" in warning.message
    assert f"keeping epoch {best + 1}, the best so far" in warning.message
    assert toy.validation_loss() == pytest.approx(
        training.history["attributes_loss"].min(), rel=1e-4
    )


def test_a_loss_that_is_no_number_in_the_first_epoch_is_an_error(tmp_path, recipe):
    toy = Toy.of(recipe(STAGE, epochs=2, learning_rate=1e38))
    with pytest.raises(FitError, match=r"not finite at step [23] of epoch 1.*--learning-rate"):
        toy.fit(tmp_path)


def test_every_batch_is_trained_on_once_and_in_order(tmp_path, recipe, monkeypatch):
    toy = Toy.of(recipe(replace(STAGE, learning_rate=1e-9), epochs=2, batch_size=2))
    own, means = keras.Model.fit, []

    class Means(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            means.append(float(logs["loss"]))

    def fit(self, data, *, callbacks, **options):
        expected = [
            float(self.compute_loss(seen, truth, self(seen, training=True), weights))
            for seen, truth, weights in (data[place] for place in range(len(data)))
        ]
        fitted = own(self, data, callbacks=[*callbacks, Means()], **options)
        seen = np.diff(np.arange(1, len(means) + 1) * means, prepend=0)
        assert seen == pytest.approx(expected, rel=1e-3)
        means.clear()
        return fitted

    monkeypatch.setattr(keras.Model, "fit", fit)
    # More batches than are read ahead.
    assert len(toy.fit(tmp_path).history) == 2 < 8 < N_TRAIN / 2


@pytest.mark.parametrize("healthy", [0, 3, 7])
def test_images_that_cannot_be_read_are_told_as_such(tmp_path, recipe, healthy):
    toy = Toy.of(recipe(STAGE, epochs=2, batch_size=4))
    reads = []

    def read(rows):
        reads.append(rows)
        if len(reads) > healthy:
            raise StoreError("96.h5: 1 rows are damaged")
        return PIXELS[rows]

    toy.train = replace(toy.train, load=read)
    with pytest.raises(StoreError, match=r"^96\.h5: 1 rows are damaged$"):
        toy.fit(tmp_path)


def test_smaller_batches_where_memory_does_not_suffice(tmp_path, recipe, monkeypatch, caplog):
    settings = recipe(STAGE, epochs=2, batch_size=8)
    small = Toy.of(settings, dropout=0.3)
    expected = small.fit(tmp_path / "small")
    own = keras.Model.fit

    def fit(self, data, **options):
        fitted = own(self, data, **options)
        # The epoch has moved the weights: all of that is undone.
        if n_images(data) > 8:
            raise MemoryError
        return fitted

    monkeypatch.setattr(keras.Model, "fit", fit)
    toy = Toy.of(replace(settings, batch_size=32), dropout=0.3)
    training = toy.fit(tmp_path / "large")
    said = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert [re.search(r"in batches of (\d+)", each)[1] for each in said] == ["16", "8"]
    assert training.batch_size == 8
    pd.testing.assert_frame_equal(
        without_seconds(training.history), without_seconds(expected.history), rtol=1e-4
    )


def test_memory_that_suffices_for_no_batch_is_an_error(tmp_path, recipe, on_fit):
    def fail(_, data):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    on_fit(fail)
    toy = Toy.of(recipe(STAGE, epochs=2))
    with pytest.raises(FitError, match=r"smallervggnet does not fit into memory, .*batches of 3"):
        toy.fit(tmp_path)


class Terminated(KeyboardInterrupt):
    """As the command line makes of SIGTERM."""


@pytest.mark.parametrize(
    ("epoch", "error"), [(1, KeyboardInterrupt), (2, KeyboardInterrupt), (2, Terminated)]
)
def test_an_interrupt_keeps_the_best_so_far(tmp_path, recipe, on_fit, caplog, epoch, error):
    def interrupt(number, _):
        if number == epoch:
            raise error

    on_fit(interrupt)
    toy = Toy.of(recipe(STAGE, replace(STAGE, title="more"), epochs=3))
    if (epoch, error) != (2, KeyboardInterrupt):
        with pytest.raises(error):
            toy.fit(tmp_path)
        # What was done is a checkpoint.
        assert (tmp_path / "training" / "training.npz").exists() == (epoch > 1)
        return
    training = toy.fit(tmp_path)
    assert training.ended_by == "interrupt"
    assert len(training.history) == len(training.scores) == 1
    assert "Keeping epoch 1, the best so far" in caplog.text
    assert toy.validation_loss() == pytest.approx(
        training.history["attributes_loss"].iloc[0], rel=1e-4
    )


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_balanced_classes_weigh_the_same(tmp_path, recipe, on_fit, class_weight):
    kinds = np.where(np.arange(N_IMAGES) % 9 < 7, 0, np.arange(N_IMAGES) % 9 - 6)
    toy = Toy.of(recipe(STAGE, class_weight=class_weight, batch_size=36), kinds=kinds)
    totals = []

    def record(_, data):
        _, truth, weights = data[0]
        totals.append(weights["color"] @ truth["color"])
        raise KeyboardInterrupt

    on_fit(record)
    with pytest.raises(KeyboardInterrupt):
        toy.fit(tmp_path)
    # Weights are made of all images, validated ones too: 5 blue, 5 green, 38 red.
    expected = {"none": [4, 4, 28], "balanced": [4 * 48 / 15, 4 * 48 / 15, 28 * 48 / 114]}
    np.testing.assert_allclose(totals, [expected[class_weight]], rtol=1e-6)


def test_pairs_move_what_compares_them(tmp_path, recipe):
    settings = recipe(
        replace(STAGE, n_blocks=0), network="pair", epochs=3, batch_size=9, positive_pairs=0.5
    )
    toy = Toy.of(settings, block_network, pairs=True)
    features = toy.network.score_and_embed(PIXELS)[:, 3:]
    toy.train = replace(toy.train, features=features[:N_TRAIN])
    toy.validation = replace(toy.validation, features=features[N_TRAIN:])
    before = toy.network.get_weights()
    history = toy.fit(tmp_path).history
    assert moved(toy.network, before) == {
        "color_scores/kernel",
        "color_scores/bias",
        "same/kernel",
        "same/bias",
    }
    assert history["train_loss:same"].iloc[-1] < history["train_loss:same"].iloc[0]
    assert history["validation_accuracy:same"].between(0, 1).all()
    np.testing.assert_allclose(
        history["validation_loss"],
        2 * history["attributes_loss"] + 0.5 * history["validation_loss:same"],
    )


@pytest.mark.parametrize(
    ("kinds", "batch_size", "why"),
    [
        (KINDS, 3, "in batches of 3"),
        (np.zeros(N_IMAGES, int), 8, "show 1 different label combinations"),
    ],
)
def test_pairs_need_images_of_both_sorts(tmp_path, recipe, kinds, batch_size, why):
    settings = recipe(replace(STAGE, n_blocks=0), network="pair", batch_size=batch_size)
    toy = Toy.of(settings, block_network, kinds=kinds, pairs=True)
    with pytest.raises(FitError, match=f"Pairs cannot be formed: .*{why}"):
        toy.fit(tmp_path)


def test_half_precision_scales_the_loss(tmp_path, recipe, monkeypatch):
    compiled = []
    own = keras.Model.compile

    def record(self, optimizer, **options):
        own(self, optimizer, **options)
        compiled.append(self.optimizer)

    monkeypatch.setattr(keras.Model, "compile", record)
    with computing_in("float16"):
        toy = Toy.of(recipe(STAGE, epochs=1, precision="float16", schedule="plateau"))
    history = toy.fit(tmp_path).history
    assert isinstance(compiled[0], keras.optimizers.LossScaleOptimizer)
    assert np.isfinite(history["train_loss"]).all()
    assert history["learning_rate"].tolist() == pytest.approx([0.02])
