"""Fixtures that the whole suite shares."""

import os
from pathlib import Path

import pytest

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
