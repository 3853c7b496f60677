import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.engines import (
    choose_engine,
    engine_choice,
    feature_precision,
    training_precision,
)
from featurepipe.features.engines.precision import native_precision
from featurepipe.features.engines.probes import N_PROBES
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import Weights, resolve_weights

ENGINES = "featurepipe.features.engines"
MOBILENET = find_backbone("mobilenet_v2")
RANDOM = HeadlessNetwork(MOBILENET, resolve_weights("random", MOBILENET), 96)


class Driver:
    """NVIDIA's library, with some GPUs."""

    class NVMLError(Exception):
        pass

    def __init__(self, capabilities, fails=False):
        self.capabilities, self.fails, self.is_open = capabilities, fails, False

    def nvmlInit(self):  # noqa: N802
        if self.fails:
            raise self.NVMLError("library not found")
        self.is_open = True

    def nvmlShutdown(self):  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.capabilities)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return f"gpu {index}"

    def nvmlDeviceGetCudaComputeCapability(self, gpu):  # noqa: N802
        return self.capabilities[int(gpu.split()[1])], 0


@pytest.fixture
def no_driver(monkeypatch):
    monkeypatch.setattr(engine_choice, "_GPU_DEVICES", ())
    monkeypatch.setattr(engine_choice, "_WINDOWS_GPU", Path("absent"))


def test_no_driver(no_driver):
    assert not engine_choice.has_gpu_driver()
    assert not engine_choice.gpu_has_bfloat16()


def test_nvidias_library_is_not_imported_where_there_is_no_gpu(no_driver, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert not engine_choice.has_gpu_driver()


def test_a_device_file_tells_of_a_driver(no_driver, monkeypatch, tmp_path):
    monkeypatch.setattr(engine_choice, "_GPU_DEVICES", (tmp_path / "nothing", tmp_path))
    assert engine_choice.has_gpu_driver()
    assert not engine_choice.gpu_has_bfloat16()


@pytest.mark.parametrize(
    ("driver", "has_gpu", "has_bfloat16"),
    [
        (Driver([9]), True, True),
        (Driver([8, 12]), True, True),
        (Driver([9, 7]), True, False),
        (Driver([]), False, False),
        (Driver([9], fails=True), False, False),
    ],
)
def test_the_driver_of_nvidia_is_asked_on_windows(
    no_driver, monkeypatch, tmp_path, driver, has_gpu, has_bfloat16
):
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(engine_choice, "_WINDOWS_GPU", tmp_path)
    assert engine_choice.has_gpu_driver() == has_gpu
    assert engine_choice.gpu_has_bfloat16() == has_bfloat16
    assert not driver.is_open


def test_engines_that_are_named():
    assert choose_engine("keras") == "keras"
    assert choose_engine("openvino") == "openvino"
    with pytest.raises(UnknownNameError, match="Did you mean 'openvino'"):
        choose_engine("openvin")


def test_no_gpu_means_openvino(no_driver):
    assert choose_engine("auto") == "openvino"


@pytest.mark.keras
@pytest.mark.parametrize(("computes", "expected"), [(True, "keras"), (False, "openvino")])
def test_a_gpu_means_keras_if_keras_can_use_it(monkeypatch, tmp_path, computes, expected):
    monkeypatch.setattr(engine_choice, "_GPU_DEVICES", (tmp_path,))
    monkeypatch.setattr(f"{ENGINES}.quiet_keras.computes_on_gpu", lambda: computes)
    assert choose_engine("auto") == expected


def test_a_gpu_without_keras_means_openvino(monkeypatch, tmp_path):
    monkeypatch.setattr(engine_choice, "_GPU_DEVICES", (tmp_path,))
    monkeypatch.setitem(sys.modules, f"{ENGINES}.quiet_keras", None)
    assert choose_engine("auto") == "openvino"


def test_precisions_that_are_named():
    assert feature_precision("bfloat16", "keras", RANDOM) == "bfloat16"
    histogram = replace(RANDOM, backbone=find_backbone("hsv-histogram"))
    assert feature_precision("auto", "keras", histogram) == "float32"
    with pytest.raises(UsageError, match="smaller than the smallest float16"):
        feature_precision("float16", "openvino", RANDOM)
    assert feature_precision("int8", "openvino", RANDOM) == "int8"
    assert feature_precision("int8", "keras", histogram) == "float32"
    with pytest.raises(UsageError, match="computed by OpenVINO on the processor, not by Keras"):
        feature_precision("int8", "keras", RANDOM)
    with pytest.raises(UnknownNameError, match="Unknown precision 'float31'"):
        feature_precision("float31", "openvino", RANDOM)


def test_without_a_gpu_keras_computes_in_float32(no_driver):
    assert feature_precision("auto", "keras", RANDOM) == "float32"
    assert training_precision("auto") == "float32"


@pytest.mark.keras
@pytest.mark.parametrize(
    ("capabilities", "computes", "expected"),
    [([9], True, "bfloat16"), ([7], True, "float16"), ([9], False, "float32")],
)
def test_networks_are_trained_in_what_the_gpu_computes(
    monkeypatch, tmp_path, capabilities, computes, expected
):
    monkeypatch.setattr(engine_choice, "_GPU_DEVICES", (tmp_path,))
    monkeypatch.setitem(sys.modules, "pynvml", Driver(capabilities))
    monkeypatch.setattr(f"{ENGINES}.quiet_keras.computes_on_gpu", lambda: computes)
    assert training_precision("auto") == expected


def test_precisions_of_training_that_are_named():
    assert training_precision("bfloat16") == "bfloat16"
    with pytest.raises(UnknownNameError, match="Unknown precision 'float16x'"):
        training_precision("float16x")
    with pytest.raises(UnknownNameError, match="Unknown precision 'int8'"):
        training_precision("int8")


def test_openvino_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(f"{ENGINES}.engine_choice.importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="OpenVINO is not installed"):
        choose_engine("openvino")


@pytest.fixture
def noisy_engine(monkeypatch, tmp_path):
    """Every engine has bfloat16, and computes something in it that is off by `error`."""
    made = SimpleNamespace(error=0.0, n_opened=0)
    reference = np.random.default_rng(0).normal(size=(N_PROBES, 50)).astype(np.float32)

    def open_engine(*_, precision, **__):
        made.n_opened += 1
        shift = made.error if precision == "bfloat16" else 0
        return SimpleNamespace(embed=lambda pictures: reference + np.float32(shift))

    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path))
    monkeypatch.setattr(f"{ENGINES}.precision._has_bfloat16", lambda engine: True)
    monkeypatch.setattr(f"{ENGINES}.precision.open_engine", open_engine)
    return made


@pytest.mark.parametrize(("error", "expected"), [(0.03, "bfloat16"), (0.1, "float32")])
def test_bfloat16_is_chosen_where_it_keeps_the_features(noisy_engine, error, expected):
    # Two pictures of 50 normal features are 10 apart; a shift by 0.03 is of length 0.2.
    noisy_engine.error = error
    assert native_precision("openvino", RANDOM) == expected


def test_the_verdict_is_kept_for_each_engine_and_network(noisy_engine):
    def ask(engine="openvino", seed=0, **settings):
        weights = Weights("random", "random", "mobilenet_v2", seed=seed)
        native_precision(engine, replace(RANDOM, weights=weights, **settings))
        return noisy_engine.n_opened

    assert [ask(), ask()] == [2, 2]
    assert ask(size_px=64) == 4
    assert ask(seed=1) == 6
    assert ask(pooling="max") == 8
    assert ask() == 8


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"{}", b'{"bfloat16_distance": "x"}', b"\xff",
        b'{"bfloat16_distance": 1' + b"0" * 400 + b"}",
    ],
)  # fmt: skip
def test_a_damaged_verdict_is_measured_again(noisy_engine, tmp_path, content):
    assert native_precision("openvino", RANDOM) == "bfloat16"
    (verdict,) = tmp_path.rglob("*.json")
    kept = verdict.read_bytes()
    verdict.write_bytes(content)
    assert native_precision("openvino", RANDOM) == "bfloat16"
    assert noisy_engine.n_opened == 4
    assert verdict.read_bytes() == kept
