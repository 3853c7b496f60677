"""Fixtures that the whole suite shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from browser import Browser, start_browser
from featurepipe.features.headless import HeadlessNetwork
from pictures import ColourMean
from ray_clusters import two_nodes

# How long an example takes says how busy the machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# One process a core is enough: keep native libraries from multiplying threads.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items):
    if SHARED.is_dir():
        return
    absent = pytest.mark.skip(reason=f"real images and weights are not at {SHARED}")
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(absent)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real images and weights; tests that use it carry the mark `shared`."""
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Converted graphs go where no user keeps any; parallel workers of pytest share them."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ["FEATUREPIPE_CACHE"] = str(folder / "cache")


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster of two nodes with a core each, on this machine."""
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; tests that use it are skipped where there is none."""
    driver = start_browser()
    yield Browser(driver)
    driver.quit()


@pytest.fixture
def colour_mean(monkeypatch):
    """Every network's engine is a `ColourMean`: the whole of featurepipe without Keras."""
    engines = []

    def open_engine(network, *, batch_size, **_):
        engines.append(ColourMean(network.input_size, batch_size=batch_size))
        return engines[-1]

    monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", open_engine)
    monkeypatch.setattr(
        "featurepipe.features.extraction.recipe.feature_precision", lambda *_, **__: "float32"
    )
    # Pictures of the tests are smaller than any network takes.
    monkeypatch.setattr(HeadlessNetwork, "require_possible", lambda _: None)
    return engines
