"""The command in a process of its own: how it starts, what it survives, how it stops."""

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
from PIL import Image

import featurepipe
from command_line import fail, succeed
from pictures import draw_data_set
from servers import running


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("running")
    draw_data_set(folder / "images", n_each=6)
    featurepipe.extract(folder / "images", backbone="hsv_histogram", workspace=folder)
    featurepipe.fit(head="knn", workspace=folder)
    return folder


@pytest.fixture(scope="module")
def files(place):
    return sorted((place / "images").glob("*/*.png"))


@pytest.fixture(scope="module")
def impatient(place):
    """The URL of a server with a short time limit."""
    with running(place, "--timeout", "0.5") as (_, url):
        yield url


def connect(url):
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def head(n_bytes):
    return b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % n_bytes


def read_all(connection):
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_requests_in_flight_at_sigterm_are_answered_and_it_exits_with_0(place, files):
    body = files[0].read_bytes()
    with running(place, "hsv_histogram-knn") as (process, url), connect(url) as connection:
        connection.sendall(head(len(body)) + body[:20])
        # The first request is seen to have begun.
        with httpx.Client(timeout=60) as client:
            while "in_flight 1.0" not in client.get(f"{url}/metrics").text:
                time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        while is_listening(url):
            time.sleep(0.01)
        connection.sendall(body[20:])
        answer = read_all(connection)
        assert process.wait(60) == 0
        said = process.stderr.read()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])[0]["attributes"]["label"]
    lines = said.splitlines()
    assert f"Serving hsv_histogram-knn at {url} (help at {url}/docs). Stop with Ctrl-C." in lines
    assert lines[-2].startswith("POST /predict 200: 1 answered, 0 refused, ")
    assert lines[-1] == "Stopped."


def is_listening(url):
    try:
        connect(url).close()
    except OSError:
        return False
    return True


@pytest.mark.keras
@pytest.mark.shared
def test_garments_asked_by_many_clients_get_the_answers_of_predict(tmp_path, shared, capsys):
    for folder in sorted((shared / "data" / "garments").iterdir()):
        (tmp_path / "images" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:10]:
            (tmp_path / "images" / folder.name / file.name).symlink_to(file)
    weights = f"mobilenet_v2={shared / 'weights' / 'mobilenet_v2_notop.h5'}"
    featurepipe.extract(
        tmp_path / "images", backbone="mobilenet_v2", weights=weights, workspace=tmp_path
    )
    featurepipe.fit(head="logistic", workspace=tmp_path)
    files = sorted((tmp_path / "images").glob("*/*"))
    printed = succeed(capsys, "predict", *files, "--json", "--workspace", tmp_path)
    expected = [json.loads(line) for line in printed.splitlines()]

    def ask(file):
        response = client.post(f"{url}/predict", files={"image": (str(file), file.read_bytes())})
        assert response.status_code == 200
        return response.json()

    with (
        running(tmp_path) as (_, url),
        httpx.Client(timeout=240) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = [answer for (answer,) in pool.map(ask, files)]
    for answer, one in zip(answers, expected, strict=True):
        assert answer["image"] == one["image"]
        ((best,), (other,)) = answer["attributes"]["label"], one["attributes"]["label"]
        assert best["probability"] == pytest.approx(other["probability"], rel=1e-3)
        assert best | {"probability": 0} == other | {"probability": 0}


def test_ctrl_c_stops_it_too_and_quiet_says_nothing(place):
    with running(place, "--quiet") as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_a_slow_body_gets_408_and_slow_headers_are_cut_off(impatient):
    with connect(impatient) as slow, connect(impatient) as silent, connect(impatient) as partial:
        slow.sendall(head(1000) + b"x")
        partial.sendall(b"POST /predict HTTP/1.1\r\nHo")
        assert read_all(slow).startswith(b"HTTP/1.1 408 ")
        for connection in (silent, partial):
            with suppress(ConnectionResetError):
                assert read_all(connection) == b""
    assert httpx.get(f"{impatient}/healthz").status_code == 200


def test_hostile_requests_harm_nothing(place, files):
    good = files[0].read_bytes()
    hostile = [
        b"nonsense\r\n\r\n",
        b"\x00" * 100_000,
        b"GET /" + b"x" * 200_000,
        head(10**12),
        head(10) + b"x",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        head(len(good) - 30) + good[:-30],
    ]  # fmt: skip

    def attack(data):
        with connect(url) as connection, suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)

    with running(place, "--quiet", "--timeout", "60") as (process, url):
        with ThreadPoolExecutor(8) as pool, httpx.Client(timeout=60) as client:
            for attacking in [pool.submit(attack, data) for data in hostile * 5]:
                assert client.post(f"{url}/predict", content=good).status_code == 200
                attacking.result(60)
            while "in_flight 0.0" not in client.get(f"{url}/metrics").text:
                time.sleep(0.01)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        # No traceback.
        assert process.stderr.read() == ""


def test_images_of_too_many_pixels_are_refused(place, files, tmp_path):
    Image.new("L", (29, 5)).save(tmp_path / "larger.png")
    with running(place, "--max-pixels", "144", "--quiet") as (_, url):
        response = httpx.post(f"{url}/predict", content=(tmp_path / "larger.png").read_bytes())
        assert response.status_code == 422
        assert response.json() == [
            {"image": 0, "refused": "too large: 29 x 5 pixels, at most 144 in all"}
        ]
        # 12 x 12 pixels.
        response = httpx.post(f"{url}/predict", content=files[0].read_bytes())
        assert response.status_code == 200


def test_an_address_that_is_taken_is_refused_before_anything_is_loaded(place, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        # Not even the run is looked for.
        line = fail(capsys, "serve", "no-such-run", "--port", port, "--workspace", place)
    assert line == (
        f"featurepipe: Cannot listen on 127.0.0.1:{port} (Address already in use). Choose another "
        "--host or --port."
    )
    assert "Cannot listen on 192.0.2.1:0" in fail(
        capsys, "serve", "--host", "192.0.2.1", "--port", 0, "--workspace", place
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["no-such-run", "--port", "0"], "no-such-run"),
        (["--max-bytes", "much"], "'much' cannot be read. Expected a size such as 4GB."),
    ],
)
def test_what_cannot_be_served_is_an_error(place, capsys, options, said):
    assert said in fail(capsys, "serve", *options, "--workspace", place)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_pixels": 0}, "--max-pixels is 0. Set 1 to 128000000."),
        ({"max_pixels": 129_000_000}, "--max-pixels is 129000000."),
        ({"max_in_flight": 0}, "--max-in-flight is 0. Set at least 1."),
        ({"timeout": 0}, "--timeout is 0. Set a number of seconds above 0."),
        ({"timeout": float("nan")}, "--timeout is nan."),
        ({"timeout": float("inf")}, "--timeout is inf."),
        ({"top": 0}, "--top is 0."),
    ],
)
def test_impossible_options_are_refused_in_python(place, options, said):
    with pytest.raises(featurepipe.errors.UsageError, match=said):
        featurepipe.serve(workspace=place, **options)


def test_without_the_extra_it_says_what_to_install(tmp_path):
    modules = ["fastapi", "uvicorn", "prometheus_client", "python_multipart"]
    code = (
        "import sys\n"
        "import featurepipe.cli as cli\n"
        "for module in sys.argv[2:]:\n"
        "    # As if it had not been imported yet.\n"
        "    for name in [*sys.modules]:\n"
        "        if name.startswith('featurepipe.serving'):\n"
        "            del sys.modules[name]\n"
        "    sys.modules[module] = None\n"
        "    print(cli.run(['serve', '--port', '0', '--workspace', sys.argv[1]]))\n"
        "    del sys.modules[module]\n"
    )
    command = [sys.executable, "-c", code, tmp_path, *modules]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == "1\n" * len(modules)
    assert result.stderr == "".join(
        f"featurepipe: featurepipe serve needs {module}, which is not installed. "
        "Run: pip install 'featurepipe[serve]'\n"
        for module in modules
    )


def test_other_commands_do_not_need_the_extra(place, capsys):
    code = "import sys, featurepipe; featurepipe.serve, featurepipe.predict; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "featurepipe" in loaded
    assert not loaded & {"fastapi", "starlette", "uvicorn", "prometheus_client"}
    assert "--max-in-flight" in succeed(capsys, "serve", "--help")
