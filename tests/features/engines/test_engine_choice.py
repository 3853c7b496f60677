import ctypes
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.engines import choose_engine, choose_precision, hardware
from featurepipe.features.engines.precision import native_precision
from featurepipe.features.engines.probes import N_PROBES
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import Weights, resolve_weights

ENGINES = "featurepipe.features.engines"
MOBILENET = find_backbone("mobilenet_v2")
RANDOM = HeadlessNetwork(MOBILENET, resolve_weights("random", MOBILENET), 96)


class Driver:
    """NVIDIA's NVML, as ctypes shows it, with some GPUs."""

    def __init__(self, capabilities, fails=False):
        self.capabilities, self.fails, self.is_open = capabilities, fails, False

    def nvmlInit_v2(self):  # noqa: N802
        self.is_open = not self.fails
        return 9 if self.fails else 0

    def nvmlShutdown(self):  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = len(self.capabilities)

    def nvmlDeviceGetHandleByIndex_v2(self, index, gpu):  # noqa: N802
        gpu._obj.value = index + 1

    def nvmlDeviceGetCudaComputeCapability(self, gpu, major, minor):  # noqa: N802
        major._obj.value, minor._obj.value = self.capabilities[gpu.value - 1], 0


@pytest.fixture
def no_driver(monkeypatch):
    monkeypatch.setattr(hardware, "_GPU_DEVICES", ())
    monkeypatch.setattr(hardware, "_NVML", "no-such-library")


def install(monkeypatch, driver):
    monkeypatch.setattr(hardware, "ctypes", SimpleNamespace(**vars(ctypes) | {"CDLL": driver}))


def test_no_driver(no_driver):
    assert not hardware.has_gpu_driver()
    assert not hardware.gpu_has_bfloat16()


def test_a_device_file_tells_of_a_driver(no_driver, monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "_GPU_DEVICES", (tmp_path / "nothing", tmp_path))
    assert hardware.has_gpu_driver()
    assert not hardware.gpu_has_bfloat16()


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
def test_the_driver_of_nvidia_is_asked(no_driver, monkeypatch, driver, has_gpu, has_bfloat16):
    install(monkeypatch, lambda name: driver)
    assert hardware.has_gpu_driver() == has_gpu
    assert hardware.gpu_has_bfloat16() == has_bfloat16
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
    monkeypatch.setattr(hardware, "_GPU_DEVICES", (tmp_path,))
    monkeypatch.setattr(f"{ENGINES}.quiet_keras.computes_on_gpu", lambda: computes)
    assert choose_engine("auto") == expected


def test_a_gpu_without_keras_means_openvino(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "_GPU_DEVICES", (tmp_path,))
    monkeypatch.setitem(sys.modules, f"{ENGINES}.quiet_keras", None)
    assert choose_engine("auto") == "openvino"


def test_precisions_that_are_named():
    assert choose_precision("bfloat16", "keras", RANDOM) == "bfloat16"
    histogram = replace(RANDOM, backbone=find_backbone("hsv-histogram"))
    assert choose_precision("auto", "keras", histogram) == "float32"
    with pytest.raises(UsageError, match="smaller than float16 has numbers"):
        choose_precision("float16", "openvino", RANDOM)
    with pytest.raises(UnknownNameError, match="Unknown precision 'float31'"):
        choose_precision("float31", "openvino", RANDOM)


def test_keras_without_a_gpu_computes_in_float32(no_driver):
    assert choose_precision("auto", "keras", RANDOM) == "float32"


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
