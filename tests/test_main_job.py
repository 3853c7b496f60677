"""The main job with the installed command, real images and real weights."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featurepipe import FeatureStore
from featurepipe.cli import run

FEATUREPIPE = Path(sys.executable).with_name("featurepipe")
N_KILLED = 120


def featurepipe(folder, *arguments):
    result = subprocess.run(
        [FEATUREPIPE, *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def link_some(source: Path, target: Path, n_each: int) -> None:
    for folder in sorted(source.iterdir()):
        (target / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:n_each]:
            (target / folder.name / image.name).symlink_to(image)


@pytest.mark.keras
@pytest.mark.shared
def test_garments_from_images_to_predictions(tmp_path, shared):
    link_some(shared / "data" / "garments", tmp_path / "dataset", n_each=30)
    weights = shared / "weights" / "mobilenet_v2_notop.h5"
    featurepipe(
        tmp_path, "extract", "dataset", "--attributes", "color,category",
        "--backbone", "mobilenet_v2", "--weights", weights,
    )  # fmt: skip
    featurepipe(tmp_path, "fit", "--head", "bagged-sgd")
    featurepipe(tmp_path, "fit", "--head", "logistic", "--task", "multi-label")
    featurepipe(tmp_path, "report")
    board = pd.read_csv(tmp_path / "leaderboard.csv").set_index(["head", "attribute"])
    assert set(board["weights"]) == {"mobilenet_v2_notop.h5"}
    assert (board["accuracy"].xs("category", level=1) >= 0.85).all()
    assert (board["accuracy"].xs("color", level=1) >= 0.75).all()

    out = featurepipe(tmp_path, "predict", shared / "data" / "garments-examples")
    answers = pd.read_csv(io.StringIO(out))
    best = answers.pivot(index="image", columns="attribute", values="class")
    best.index = [Path(image).name for image in best.index]
    # Red dress, blue dress, red shirt, blue shirt, blue jeans, black jeans.
    expected = ["dress", "dress", "shirt", "shirt", "jeans", "jeans"]
    assert (best["category"].iloc[:6] == expected).sum() >= 5


@pytest.mark.keras
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_command_resumes_to_the_same_store(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for index in range(N_KILLED):
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index:03}.png")
    arguments = ["extract", "images", "--backbone", "mobilenet_v2", "--weights", "random"]
    arguments += ["--size", "160", "--batch-size", "4"]
    store = tmp_path / "killed" / "features" / "mobilenet_v2-random0-160-avg-rgb.h5"
    process = subprocess.Popen(
        [FEATUREPIPE, *arguments, "--workspace", "killed"], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not _n_done(store):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < _n_done(store) < N_KILLED
    featurepipe(tmp_path, *arguments, "--workspace", "killed")
    with chdir(tmp_path):
        assert run([*arguments, "--workspace", "whole"]) == 0
    whole = tmp_path / "whole" / "features" / store.name
    with FeatureStore.open(store) as resumed, FeatureStore.open(whole) as expected:
        assert resumed.ids.tolist() == expected.ids.tolist()
        assert resumed.status.tolist() == expected.status.tolist() == [1] * N_KILLED
        np.testing.assert_array_equal(resumed.features(), expected.features())


def _n_done(store):
    if not store.exists():
        return 0
    with FeatureStore.open(store) as opened:
        return opened.counts()["done"]
