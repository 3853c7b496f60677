import hashlib
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import pooch
import pytest
import requests

from featurepipe.errors import NotReadableError, UsageError, WeightsError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.weights import Weights, resolve_weights, weights_by_backbone

CONTENT = b"what a network has learned" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()

XCEPTION = find_backbone("xception")
MOBILENET = find_backbone("mobilenet_v2")
HSV_HISTOGRAM = find_backbone("hsv_histogram")


@pytest.fixture(autouse=True)
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.requests.append(self.path)


@pytest.fixture
def server(tmp_path):
    """A web server on this machine that has one file of weights."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "weights.h5").write_bytes(CONTENT)
    handler = partial(QuietHandler, directory=tmp_path / "web")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def backbone_at(server, weights_hash, name="weights.h5"):
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    return replace(XCEPTION, weights_url=url, weights_hash=weights_hash)


def test_random():
    weights = resolve_weights("random", XCEPTION, seed=7)
    assert weights == Weights("random", "random", "xception", seed=7)
    assert weights.file_label == "random7"
    assert weights.identity() == {
        "kind": "random",
        "backbone": "xception",
        "seed": 7,
        "keras": version("keras"),
    }


@pytest.mark.parametrize(
    ("name", "file_label"),
    [
        ("best.h5", "best"),
        ("best.weights.h5", "best"),
        ("best.keras", "best"),
        ("my finest (2).v1.h5", "my_finest_2_.v1"),
        ("Größe-1.h5", "Gr_e_1"),
    ],
)
def test_file(tmp_path, name, file_label):
    path = tmp_path / name
    path.write_bytes(CONTENT)
    weights = resolve_weights(str(path), XCEPTION)
    assert weights == Weights("file", name, "xception", SHA256, path=path)
    assert weights.file_label == file_label
    assert weights.identity() == {"kind": "file", "sha256": SHA256}


@pytest.mark.parametrize("text", ["imagenet", "none", "random", "absent.h5"])
def test_a_descriptor_has_none(keras_home, text):
    weights = resolve_weights(text, HSV_HISTOGRAM)
    assert weights == Weights("none", "none", "hsv_histogram")
    assert weights.file_label == weights.source == "none"
    assert weights.identity() == {"kind": "none"}
    assert not keras_home.exists()


def test_weights_of_several_backbones(tmp_path):
    one, other = tmp_path / "one.h5", tmp_path / "a=1,b.h5"
    for path in (one, other):
        path.write_bytes(CONTENT)
    single, several = [XCEPTION, HSV_HISTOGRAM], [XCEPTION, MOBILENET, HSV_HISTOGRAM]
    for path in (one, other):
        assert weights_by_backbone(str(path), single) == {
            "xception": str(path),
            "hsv_histogram": "none",
        }
    assert weights_by_backbone("random", several) == {
        "xception": "random",
        "mobilenet_v2": "random",
        "hsv_histogram": "none",
    }
    assert weights_by_backbone("random", [HSV_HISTOGRAM]) == {"hsv_histogram": "none"}
    expected = {"xception": str(other), "mobilenet_v2": str(one), "hsv_histogram": "none"}
    text = f"Xception={other},mobilenet-v2={one}"
    assert weights_by_backbone(text, several) == expected
    mapping = {"xception": str(other), "MobileNetV2": str(one)}
    assert weights_by_backbone(mapping, several) == expected
    assert weights_by_backbone({"xception": "random"}, several) == {
        "xception": "random",
        "mobilenet_v2": "imagenet",
        "hsv_histogram": "none",
    }


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "one.h5",
            "--weights one.h5 is one file for 2 backbones. Name the backbone of each file: "
            "--weights xception=PATH,mobilenet_v2=PATH",
        ),
        (
            "resnet50=one.h5",
            "--weights names 'resnet50', which is no backbone of this command that has weights: "
            "expected one of xception, mobilenet_v2.",
        ),
        (
            {"hsv_histogram": "one.h5"},
            "--weights names 'hsv_histogram', which is no backbone of this command that has "
            "weights: expected one of xception, mobilenet_v2.",
        ),
    ],
)
def test_weights_that_do_not_say_whose_they_are(tmp_path, monkeypatch, weights, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.h5").write_bytes(CONTENT)
    with pytest.raises(UsageError) as error:
        weights_by_backbone(weights, [XCEPTION, MOBILENET, HSV_HISTOGRAM])
    assert str(error.value) == message


@pytest.mark.parametrize("weights", ["absent.h5", "xception=absent.h5", "mobilenet_v2=absent.h5"])
def test_missing_files_are_told_before_any_is_read(weights):
    with pytest.raises(WeightsError, match=r"There are no weights at 'absent\.h5'"):
        weights_by_backbone(weights, [XCEPTION, MOBILENET])


def test_a_network_needs_some():
    with pytest.raises(WeightsError, match="There are no weights at 'none'"):
        resolve_weights("none", XCEPTION)


def test_missing_file():
    with pytest.raises(WeightsError) as error:
        resolve_weights("imagent", XCEPTION)
    assert str(error.value) == (
        "There are no weights at 'imagent'. Expected 'imagenet', 'random', or the path of a "
        ".weights.h5, .h5, .keras file."
    )


def test_file_of_another_kind(tmp_path):
    (tmp_path / "weights.pt").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"weights\.pt cannot be weights: expected a name"):
        resolve_weights(str(tmp_path / "weights.pt"), XCEPTION)
    with pytest.raises(WeightsError, match="There are no weights at"):
        resolve_weights(str(tmp_path), XCEPTION)


@pytest.mark.parametrize("weights_hash", [MD5, SHA256, None])
def test_download(server, keras_home, weights_hash, capfd):
    weights = resolve_weights("imagenet", backbone_at(server, weights_hash))
    path = keras_home / "models" / XCEPTION.weights_file
    assert weights == Weights("imagenet", "imagenet", "xception", SHA256, path=path)
    assert path.read_bytes() == CONTENT
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    assert weights.file_label == "imagenet"
    assert weights.identity() == {"kind": "imagenet", "sha256": SHA256}
    assert capfd.readouterr() == ("", "")


def test_what_is_there_is_not_downloaded_again(server):
    backbone = backbone_at(server, MD5)
    assert resolve_weights("imagenet", backbone) == resolve_weights("imagenet", backbone)
    assert server.requests == ["/weights.h5"]


def test_a_damaged_file_is_downloaded_again(server, keras_home):
    path = keras_home / "models" / XCEPTION.weights_file
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:100])
    assert resolve_weights("imagenet", backbone_at(server, MD5)).sha256 == SHA256


def test_a_wrong_download_is_thrown_away(server, keras_home):
    backbone = backbone_at(server, "0" * 32)
    with pytest.raises(WeightsError) as error:
        resolve_weights("imagenet", backbone)
    path = keras_home / "models" / XCEPTION.weights_file
    assert str(error.value) == (
        f"No ImageNet weights of xception: {backbone.weights_url} gave another file "
        f"(ValueError). Put the file at {path} by hand, or use --weights PATH or "
        "--weights random."
    )
    assert not list(path.parent.iterdir())


def test_not_found_at_the_source(server):
    with pytest.raises(WeightsError, match=r"/gone\.h5 could not be reached \(HTTPError\)"):
        resolve_weights("imagenet", backbone_at(server, MD5, "gone.h5"))


def test_offline_is_one_clear_line_and_soon(keras_home):
    backbone = replace(XCEPTION, weights_url="http://127.0.0.1:9/weights.h5")
    started = time.monotonic()
    with pytest.raises(WeightsError) as error:
        resolve_weights("imagenet", backbone)
    assert time.monotonic() - started < 5
    assert str(error.value) == (
        "No ImageNet weights of xception: http://127.0.0.1:9/weights.h5 could not be reached "
        f"(ConnectionError). Put the file at {keras_home / 'models' / XCEPTION.weights_file} "
        "by hand, or use --weights PATH or --weights random."
    )


def test_asks_as_keras_would_and_does_not_wait_long(monkeypatch, keras_home):
    asked = {}

    def retrieve(url, known_hash, *, fname, path, downloader):
        asked.update(url=url, known_hash=known_hash, fname=fname, path=path)
        asked["timeout"] = downloader.kwargs["timeout"]
        raise requests.exceptions.ConnectTimeout

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(WeightsError, match=r"could not be reached \(ConnectTimeout\)"):
        resolve_weights("imagenet", XCEPTION)
    assert asked == {
        "url": "https://storage.googleapis.com/tensorflow/keras-applications/xception/"
        "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "known_hash": "md5:b0042744bf5b25fce3cb969f33bebb97",
        "fname": "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "path": keras_home / "models",
        "timeout": (5, 30),
    }


def test_no_progress_bar_without_a_terminal(monkeypatch):
    bars = []
    monkeypatch.setattr(pooch, "HTTPDownloader", lambda progressbar, **_: bars.append(progressbar))
    monkeypatch.setattr(pooch, "retrieve", lambda *_, path, fname, **__: _fill(path / fname))
    for is_terminal in (True, False):
        monkeypatch.setattr("sys.stderr.isatty", lambda answer=is_terminal: answer)
        resolve_weights("imagenet", XCEPTION)
    assert bars == [True, False]


def _fill(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)


def test_a_cache_that_is_a_file(tmp_path, monkeypatch, keras_home, server):
    (keras_home).mkdir()
    (keras_home / "models").write_text("in the way")
    with pytest.raises(WeightsError, match=r"cannot be written .*Set KERAS_HOME to a folder"):
        resolve_weights("imagenet", backbone_at(server, MD5))


def test_without_keras_home_the_cache_is_in_the_home_folder(tmp_path, monkeypatch, server):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = resolve_weights("imagenet", backbone_at(server, MD5))
    assert weights.path == tmp_path / ".keras" / "models" / XCEPTION.weights_file


def test_weights_of_endless_size_are_not_read(tmp_path):
    path = tmp_path / "huge.weights.h5"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(NotReadableError, match=r"huge\.weights\.h5 is larger than 20,000 MB"):
        resolve_weights(str(path), MOBILENET)
