"""The page beside an exported run: it answers in the browser as the model does."""

import functools
import http.server
import json
import re
import threading
import time

import numpy as np
import pytest
from PIL import Image

import featurepipe
from command_line import fail
from featurepipe.errors import UsageError
from featurepipe.workflows.exports.browser_runtime import FILES, fetch_browser_runtime
from histogram_runs import RUN, make_workspace

pytest.importorskip("onnxruntime")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Serves folders on this machine; the address of each."""
    servers = []

    def start(folder):
        handler = functools.partial(Quiet, directory=folder)
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("place")
    make_workspace(root)
    return root


@pytest.fixture(scope="module")
def exported(place, tmp_path_factory):
    """A run with its page; skipped where the npm registry cannot be reached."""
    try:
        fetch_browser_runtime()
    except UsageError as error:
        pytest.skip(f"ONNX Runtime for browsers cannot be had here: {error}")
    out = tmp_path_factory.mktemp("out")
    return featurepipe.export(RUN, out / "model.onnx", page=out / "page", workspace=place)


def look_at(browser, paths):
    """Give pictures to the page, and wait until it has looked at all."""
    browser.driver.find_element("id", "files").send_keys("\n".join(map(str, paths)))
    wait(lambda: re.fullmatch(r"\d+ pictures? done\.", browser.texts("#status")[0]))


def wait(is_done, seconds=120):
    end = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < end
        time.sleep(0.05)


def open_page(browser, address):
    browser.open(address)
    wait(lambda: browser.texts("#status") == ["Ready."])


CARDS = """
return [...document.querySelectorAll(".card")].map((card) => ({
  titles: [...card.querySelectorAll("h4")].map((title) => title.textContent),
  unknown: [...card.querySelectorAll("h4")].map((title) => title.className === "unknown"),
  classes: [...card.querySelectorAll(".bars")].map((bars) => Object.fromEntries(
    [...bars.children].map((line) =>
      [line.querySelector("bdi").textContent, Number(line.dataset.probability)]))),
  text: card.textContent,
}));
"""


def test_the_page_answers_as_the_model_does(browser, exported, serve, tmp_path):
    golden = dict(np.load(exported.golden))
    paths = []
    for number in range(exported.n_golden):
        paths.append(tmp_path / f"{number:02}.png")
        Image.fromarray(golden[f"pixels_{number}"]).save(paths[-1])
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    facts = {"color": ("black", "blue", "red", "white"), "kind": ("bright", "plain")}

    open_page(browser, serve(exported.page))
    look_at(browser, [*paths, tmp_path / "noise.png"])

    *cards, unknown = browser.run(CARDS)
    assert unknown["titles"] == ["color: unknown", "kind: unknown"]
    assert len(cards) == exported.n_golden == 16
    for number, card in enumerate(cards):
        for k, (name, classes) in enumerate(facts.items()):
            assert set(card["classes"][k]) == set(classes)
            for column, text in enumerate(classes):
                expected = golden[f"{name}_probabilities_{number}"][column]
                assert card["classes"][k][text] == pytest.approx(expected, abs=1e-3)
            known = golden[f"{name}_known_{number}"]
            assert card["unknown"][k] == (not known)
            best = classes[int(np.argmax(golden[f"{name}_probabilities_{number}"]))]
            assert card["titles"][k] == f"{name}: {best if known else 'unknown'}"
    assert browser.messages() == []


def test_the_page_asks_for_its_own_files_alone(browser, exported, serve):
    address = serve(exported.page)

    open_page(browser, address)

    own = {path.name for path in exported.page.iterdir()}
    assert {url.removeprefix(address) for url in browser.requests()} == own - {
        "index.html", "licences.txt",
    }  # fmt: skip
    policy = browser.run(
        "return document.querySelector('meta[http-equiv=Content-Security-Policy]').content"
    )
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "unsafe-eval" not in policy.replace("wasm-unsafe-eval", "")


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1400, True)])
def test_everybody_can_use_the_page(browser, exported, serve, tmp_path, width, dark):
    Image.new("RGB", (30, 20), (200, 30, 30)).save(tmp_path / "red.png")
    address = serve(exported.page)
    browser.open(address, width=width, dark=dark)
    wait(lambda: browser.texts("#status") == ["Ready."])
    assert browser.violations() == []

    look_at(browser, [tmp_path / "red.png"])

    assert browser.violations() == []
    assert not browser.is_cut()
    browser.driver.find_element("id", "clear").click()
    assert browser.texts(".card") == []


def test_a_picture_is_upright_and_over_white(browser, exported, serve, tmp_path):
    """As `predict` decodes it."""
    pixels = np.full((40, 40, 3), (30, 60, 200), np.uint8)
    pixels[:, :20] += 55
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a turned.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1).copy()).save(tmp_path / "b upright.png")
    clear = np.full((20, 20, 4), (200, 30, 30, 0), np.uint8)
    Image.fromarray(clear, "RGBA").save(tmp_path / "c clear.png")
    Image.new("RGB", (20, 20), "white").save(tmp_path / "d white.png")

    open_page(browser, serve(exported.page))
    look_at(browser, sorted(tmp_path.glob("*.png")))

    turned, upright, clear, white = (card["classes"] for card in browser.run(CARDS))
    assert turned == upright
    assert clear == white


def test_what_is_no_picture_is_named(browser, exported, serve, tmp_path):
    (tmp_path / "<img src=x onerror=alert(1)>.png").write_bytes(b"no picture")
    Image.new("RGB", (30, 20), (200, 30, 30)).save(tmp_path / "red.png")

    open_page(browser, serve(exported.page))
    look_at(browser, sorted(tmp_path.glob("*.png")))

    broken, red = browser.run(CARDS)
    assert "<img src=x onerror=alert(1)>.png" in broken["text"]
    assert "This browser cannot read it as a picture." in broken["text"]
    assert red["titles"][0].startswith("color: ")
    assert browser.run("return document.querySelectorAll('img').length") == 0


def test_a_page_without_its_model_says_so(browser, exported, serve, tmp_path):
    for path in exported.page.iterdir():
        if path.name != "model.onnx":
            (tmp_path / path.name).write_bytes(path.read_bytes())

    browser.open(serve(tmp_path))

    wait(lambda: "cannot be loaded" in browser.texts("#status")[0])
    assert "model.onnx: 404" in browser.texts("#status")[0]


def test_a_page_from_disk_says_how_to_open_it(browser, exported):
    browser.open(exported.page / "index.html")

    assert "python -m http.server" in browser.texts("#status")[0]


def test_a_page_is_replaced_by_a_newer_one(place, exported):
    (exported.page / "index.html").write_text("old")

    featurepipe.export(RUN, exported.target, page=exported.page, workspace=place)

    assert "<h1><bdi>hsv_histogram-knn</bdi></h1>" in (exported.page / "index.html").read_text()
    assert {path.name for path in exported.page.iterdir()} == {
        "index.html", "page.js", "page.css", "model.onnx", "licences.txt", *FILES,
    }  # fmt: skip


def test_folders_that_a_page_would_spoil_are_refused(place, tmp_path, capsys):
    target = tmp_path / "out" / "model.onnx"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for page, problem in [
        (tmp_path / "mine", r"holds files that featurepipe did not write \(notes\.txt\)"),
        (tmp_path / "mine" / "notes.txt", "is a file"),
        (tmp_path / "out", "golden images"),
        (place / "dataset", "a folder of the source"),
    ]:
        with pytest.raises(UsageError, match=problem):
            featurepipe.export(RUN, target, page=page, workspace=place)
    text = fail(
        capsys, "export", RUN, target.with_suffix(".xml"), "--page", "p", "--workspace", place
    )
    assert "--page only applies to .onnx." in text
    assert not target.parent.exists()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATUREPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_without_the_registry_nothing_is_written(place, empty_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://someone:secret@127.0.0.1:9")

    with pytest.raises(UsageError, match="could not be fetched at the npm registry") as raised:
        featurepipe.export(RUN, tmp_path / "m.onnx", page=tmp_path / "page", workspace=place)

    assert str(empty_cache) in str(raised.value)
    assert "secret" not in str(raised.value)
    assert not (tmp_path / "m.onnx").exists()
    assert not (tmp_path / "page").exists()


def test_another_package_is_refused(empty_cache, tmp_path, monkeypatch, serve):
    folder = tmp_path / "registry" / "onnxruntime-web" / "-"
    folder.mkdir(parents=True)
    (folder / "onnxruntime-web-1.30.0.tgz").write_bytes(b"something else")
    monkeypatch.setenv("npm_config_registry", serve(tmp_path / "registry"))

    with pytest.raises(UsageError, match="is another file than expected"):
        fetch_browser_runtime()
    assert list(empty_cache.rglob("*.tgz")) == []


def test_the_facts_of_the_page_hold_no_thresholds_nor_paths(exported, place):
    html = (exported.page / "index.html").read_text()
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', html)[1])

    assert facts == {
        "run": RUN,
        "coverage": 0.95,
        "attributes": {
            "color": {"classes": ["black", "blue", "red", "white"], "exclusive": True},
            "kind": {"classes": ["bright", "plain"], "exclusive": True},
        },
    }
    assert list(facts["attributes"]) == ["color", "kind"]
    assert str(place) not in html
