"""Networks are trained, saved, read and gone on with by Keras' other backends."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from hidden_modules import hiding

pytestmark = pytest.mark.keras

TRAIN = """
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from featurepipe.features.engines.quiet_keras import backend, keras
from featurepipe.manifest.labels import labels_of
from featurepipe.models.networks.checkpoints import CheckpointFolder
from featurepipe.models.networks.losses import total_losses
from featurepipe.models.networks.material import Dataset
from featurepipe.models.networks.training_loop import train_network
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.outputs import make_outputs, make_targets
from featurepipe.models.networks.recipes import NETWORKS
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.trained import TrainedNetwork

folder = Path(sys.argv[1])
kinds = np.arange(30) % 3
pixels = np.random.default_rng(0).normal(60, 12, (30, 16, 16, 3))
pixels[np.arange(30), :, :, kinds] += 130
pixels = pixels.clip(0, 255).astype(np.uint8)
labels = {"color": labels_of("color", [("rgb"[kind],) for kind in kinds])}
own_fit = keras.Model.fit


def train(network, settings, place, resume=False):
    targets = make_targets(labels, settings)
    train = Dataset(pixels[:24].__getitem__, targets.take(np.arange(24)))
    validation = Dataset(pixels[24:].__getitem__, targets.take(np.arange(24, 30)))
    checkpoints = CheckpointFolder(folder / place, {})
    return train_network(network, train, validation, settings, checkpoints, resume=resume)


def small_network(outputs, **options):
    layers = keras.layers
    seen = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, 2, activation="relu")(layers.Rescaling(1 / 255)(seen))
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization(momentum=0.5)(x))
    return Network(keras.Model(seen, x), outputs, dropout=0.2, **options)


def fails_once_and_is_interrupted():
    calls = []

    def fit(self, data, **options):
        calls.append(data)
        fitted = own_fit(self, data, **options)
        if len(calls) == 1:
            raise MemoryError
        return fitted

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            # Keras holds what it has trained elsewhere at this moment.
            if len(calls) == 3:
                raise KeyboardInterrupt

    return lambda self, data, callbacks, **options: fit(
        self, data, callbacks=[*callbacks, Interrupt()], **options
    )


settings = NetworkSettings.of(
    "smallervggnet", task="per-attribute", epochs=2, batch_size=24, learning_rate=0.02
)
outputs = make_outputs(labels, settings)
network = small_network(outputs)
keras.Model.fit = fails_once_and_is_interrupted()
plain = replace(settings.stages[0], augments=False)
interrupted = train(network, replace(settings, stages=(plain,)), "small")
keras.Model.fit = own_fit
best = network.score_and_embed(pixels[24:])
again = small_network(outputs)
training = train(again, settings, "small", resume=True)
expected = again.score_and_embed(pixels[24:])
again.model.save(folder / "network.keras")
loaded = TrainedNetwork(folder / "network.keras", {"color": 3}, 4)
rows = np.concatenate([loaded.embed(pixels[24:28]), loaded.embed(pixels[28:])])
NETWORKS["pair"] = replace(NETWORKS["pair"], stages=NETWORKS["pair"].stages[:1])
pairs = train(
    small_network(outputs, pairs=True),
    NetworkSettings.of("pair", epochs=1, batch_size=8, augment=False),
    "pair",
)
targets = make_targets(labels, settings).take(np.arange(24, 30))
print(json.dumps({
    "backend": backend(),
    "engine": loaded.name,
    "ended_by": [interrupted.ended_by, training.ended_by],
    "batch_size": training.batch_size,
    "interrupted_loss": float(total_losses(outputs, best[:, :3], targets)),
    "resumed_loss": float(total_losses(outputs, expected[:, :3], targets)),
    "history": training.history.to_dict("list"),
    "apart": float(abs(rows - expected).max()),
    "size": float(abs(expected).max()),
    "pairs": pairs.history.to_dict("list"),
}))
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_networks_are_trained_by_other_backends(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", hiding("tensorflow") + TRAIN, str(tmp_path)],
        env=os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["backend"], found["engine"]) == (backend, f"keras-{backend}")
    assert found["ended_by"] == ["interrupt", ""]
    # Memory did not suffice for 24 images, in words of its own.
    assert found["batch_size"] == 12
    history = found["history"]
    assert history["epoch"] == [1, 2]
    assert history["train_loss"][1] < history["train_loss"][0] < 10
    assert found["interrupted_loss"] == pytest.approx(history["attributes_loss"][0], rel=1e-3)
    assert found["resumed_loss"] == pytest.approx(min(history["attributes_loss"]), rel=1e-3)
    assert found["apart"] <= 1e-4 * max(found["size"], 1)
    assert found["pairs"]["stage"] == ["top"]
    for name in ("train_loss:same", "train_loss:color", "validation_loss:same"):
        assert all(0 < loss < 10 for loss in found["pairs"][name])
