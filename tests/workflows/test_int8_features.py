"""Features in int8, from extraction to prediction."""

import importlib.util

import pytest

import featurepipe
from featurepipe.errors import StoreMismatchError
from featurepipe.features.store import FeatureStore
from pictures import draw, draw_data_set
from small_graphs import PX, save_network, without_nncf

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason="NNCF, the extra int8, is not installed"
)
OF_FILE = {"preprocess": "none", "size_px": PX}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=8)
    save_network(tmp_path / "small.xml")
    return tmp_path


def extract(**options):
    (done,) = featurepipe.extract(
        "dataset", attributes=["color", "kind"], backbone="small.xml", **OF_FILE, **options
    )
    return done


def test_a_store_keeps_its_precision(folder):
    first = extract(precision="int8")
    with FeatureStore.open(first.store) as store:
        assert store.key.precision == "int8"
        assert "nncf" in store.made_by["versions"]
    draw(folder / "dataset" / "red_plain" / "new.png", "red", bright_top=False, seed=99)
    later = extract()
    assert (later.store, later.n_embedded) == (first.store, 1)
    with pytest.raises(StoreMismatchError, match="precision"):
        extract(precision="float32")


def test_predict_computes_what_was_fitted(folder, monkeypatch):
    extract(precision="int8")
    featurepipe.fit(head="knn")
    # The graph is in the cache, so that NNCF is not needed any more.
    without_nncf(monkeypatch)
    table = featurepipe.predict(["dataset"])
    found = table[table["attribute"] == "color"]
    given = found["image"].str.extract(r"/([a-z]+)_[a-z]+/")[0]
    assert len(found) == 8 * 8
    assert (found["class"] == given).mean() > 0.8
