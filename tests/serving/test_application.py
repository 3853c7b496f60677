"""What each path answers: the JSON of predict, limits, metrics, and a page without requests."""

import asyncio
import re
import threading
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

import featurepipe
from command_line import succeed
from featurepipe.serving.limits import MAX_IMAGES, Limits
from pictures import draw_data_set
from servers import LIMITS, answering, application, client_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    draw_data_set(folder / "images", n_each=6)
    featurepipe.extract(folder / "images", backbone="hsv_histogram", workspace=folder)
    featurepipe.fit(head="knn", workspace=folder)
    return folder


@pytest.fixture(scope="module")
def files(place):
    return sorted((place / "images").glob("*/*.png"))


@pytest.fixture(scope="module")
def app(place):
    with answering(featurepipe.Predictor(workspace=place)) as app:
        yield app


def ask(app, *, method="POST", path="/predict", **request):
    async def send():
        async with client_of(app) as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


def figures(app):
    text = ask(app, method="GET", path="/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(\w\S*) (\S+)$", text, re.M)}


def form(*images):
    return [("image", image) for image in images]


def test_files_get_the_json_of_predict(app, place, files, capsys):
    printed = succeed(capsys, "predict", *files[:3], "--workspace", place, "--json")
    response = ask(app, files=form(*((str(file), file.read_bytes()) for file in files[:3])))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    # Sums in another order: probabilities agree to 6 digits or so.
    assert rounded(response.text) == rounded("[" + ", ".join(printed.splitlines()) + "]")


def rounded(text):
    """The same text with four digits of each number: keys, their order and names are compared."""
    assert re.search(r"\d\.\d{7}", text)
    return re.sub(r"\d\.\d+", lambda number: f"{float(number[0]):.4f}", text)


def test_one_image_as_the_body_whatever_its_type(app, files):
    for kind in ("image/png", "application/x-www-form-urlencoded", "text/plain", None):
        headers = {"content-type": kind} if kind else {}
        response = ask(app, content=files[0].read_bytes(), headers=headers)
        (answer,) = response.json()
        assert response.status_code == 200
        assert answer["image"] == 0
        assert answer["attributes"]["label"][0]["class"] == files[0].parent.name


def test_an_image_that_cannot_be_read_has_a_reason_and_the_others_an_answer(app, files):
    good = files[0].read_bytes()
    images = [("näme 1.png", good), ("cut.png", good[: len(good) // 2]), ("no.txt", b"hello")]
    response = ask(app, files=form(*images))
    first, cut, no_image = response.json()
    assert response.status_code == 200
    assert first["image"] == "näme 1.png" and set(first) == {"image", "attributes"}
    assert cut == {"image": "cut.png", "refused": "truncated"}
    assert no_image["refused"].startswith("not an image")


def png_bomb():
    """A file of 300 bytes that declares 3.6 gigapixels."""
    buffer = BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (60_000).to_bytes(4) * 2
    return bytes(data)


def jpeg_cut():
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        buffer, "JPEG"
    )
    return buffer.getvalue()[:500]


@pytest.mark.parametrize("body", [b"", b"hello", png_bomb(), jpeg_cut(), b"\xff\xd8\xff" * 9])
def test_hostile_images_get_422_with_the_reason_and_harm_nothing(app, files, body):
    response = ask(app, content=body)
    assert response.status_code == 422
    (answer,) = response.json()
    assert answer["image"] == 0 and answer["refused"]
    assert ask(app, content=files[0].read_bytes()).status_code == 200


def part(name):
    head = b'--x\r\nContent-Disposition: form-data; name=a; filename="%s"\r\n\r\n' % name
    return head + b"no image\r\n--x--\r\n"


def named_in(charset):
    return {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}


def test_names_of_any_bytes_come_back_as_json(app):
    for name, charset, read in [
        ("ñ\n\x00".encode(), "utf-8", "ñ\n\x00"),
        (b"\xff", "utf-8", "ÿ"),
        (b"a \x5cud800 b", "unicode_escape", "a \ud800 b"),
        (b"a", "no-such-charset", "a"),
    ]:
        content = part(name.replace(b"\n", b""))
        response = ask(app, content=content, headers=named_in(charset))
        assert response.status_code == 422
        assert response.json()[0]["image"] == read.replace("\n", "")


def test_a_form_without_files_is_refused(app):
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    for request, said in [
        ({"data": {"image": "text"}, "files": {"other": b"x"}}, "'image' is not a file"),
        ({"content": b"--x--\r\n", "headers": boundary}, "form has no image"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "boundary"),
        ({"content": b"--y\r\nnot a form", "headers": boundary}, "Invalid multipart|multipart"),
        ({"content": part(b"a"), "headers": named_in("undefined")}, "names in the form"),
    ]:
        response = ask(app, **request)
        assert response.status_code == 400, request
        assert re.search(said, response.json()["error"])


def test_large_bodies_are_refused_by_their_header_and_while_they_arrive(app):
    large = b"x" * (LIMITS.max_bytes + 1)
    taken = []

    async def stream():
        for start in range(0, 10 * len(large), 100_000):
            taken.append(start)
            yield large[:100_000]

    for content in (large, stream()):
        response = ask(app, content=content)
        assert response.status_code == 413
        assert response.json()["error"].startswith("The body is larger than 1,000,000 bytes.")
        assert response.headers["connection"] == "close"
    at_the_limit = ask(app, content=large[:-1])
    assert at_the_limit.status_code == 422


def test_a_request_has_a_largest_number_of_images(app):
    response = ask(app, files=form(*[("a", b"x")] * (MAX_IMAGES + 1)))
    assert response.status_code == 400
    assert response.json()["error"] == "Too many files. Maximum number of files is 100."
    assert response.headers["connection"] == "close"
    assert len(ask(app, files=form(*[("a", b"x")] * MAX_IMAGES)).json()) == MAX_IMAGES


def test_a_body_that_does_not_arrive_gets_408():
    async def stream():
        yield b"begins"
        await asyncio.Event().wait()

    limits = Limits(1000, 8, 0.05)
    with application(bytes, list, limits) as app:
        response = ask(app, content=stream())
    assert response.status_code == 408
    assert response.json() == {"error": "The body did not arrive within 0.05 s."}
    assert response.headers["connection"] == "close"


ROW = {"attribute": "label", "class": "red", "probability": 1.0, "given": True, "unknown": False}


def test_further_requests_than_allowed_get_503_and_the_rest_their_answers():
    begun, may_answer = threading.Semaphore(0), threading.Event()

    def answer(images):
        begun.release()
        assert may_answer.wait(60)
        return [[ROW]] * len(images)

    async def check(app):
        async with client_of(app) as client:
            held = [asyncio.create_task(client.post("/predict", content=b"x")) for _ in range(2)]
            assert await asyncio.to_thread(begun.acquire, timeout=60)
            while (await client.get("/metrics")).text.find("in_flight 2.0") < 0:
                await asyncio.sleep(0.001)
            refused = await client.post("/predict", content=b"x")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert "busy" in refused.json()["error"]
            assert (await client.get("/healthz")).json() == {"status": "ok", "run": "run"}
            may_answer.set()
            assert [(await one).status_code for one in held] == [200, 200]
            assert (await client.post("/predict", content=b"x")).status_code == 200

    with application(bytes, answer, Limits(1000, 2, 60.0)) as app:
        asyncio.run(check(app))
        counted = figures(app)
    assert counted['featurepipe_requests_total{status="503"}'] == 1
    assert counted['featurepipe_requests_total{status="200"}'] == 3
    assert counted["featurepipe_requests_in_flight"] == 0


def test_an_answer_that_takes_too_long_gets_503():
    may_answer = threading.Event()

    def answer(images):
        assert may_answer.wait(60)
        return [[ROW]] * len(images)

    with application(bytes, answer, Limits(1000, 2, 0.05)) as app:
        assert ask(app, content=b"x").status_code == 503
        may_answer.set()


def test_a_pass_that_fails_gets_500_with_the_reason():
    def answer(images):
        raise featurepipe.errors.RunError("The run is damaged.")

    with application(bytes, answer) as app:
        response = ask(app, content=b"x")
    assert (response.status_code, response.json()) == (500, {"error": "The run is damaged."})


def test_any_other_failure_gets_500_without_the_reason_and_the_next_request_its_answer():
    def answer(images):
        if b"bad" in images:
            raise ValueError("a secret")
        return [[ROW]] * len(images)

    async def check(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            failed = await client.post("/predict", content=b"bad")
            assert failed.status_code == 500
            assert failed.json() == {"error": "The server failed; its standard error says why."}
            assert (await client.post("/predict", content=b"x")).status_code == 200

    with application(bytes, answer) as app:
        asyncio.run(check(app))
        assert figures(app)['featurepipe_requests_total{status="500"}'] == 1


def test_requests_that_arrive_together_are_answered_together():
    first, may_answer, passes = threading.Event(), threading.Event(), []

    def answer(images):
        passes.append(len(images))
        first.set()
        assert may_answer.wait(60)
        return [[ROW]] * len(images)

    decoded = threading.Semaphore(0)

    def decode(data):
        decoded.release()
        return data

    async def check(app):
        async with client_of(app) as client:
            tasks = [asyncio.create_task(client.post("/predict", content=b"x"))]
            assert await asyncio.to_thread(first.wait, 60)
            tasks += [asyncio.create_task(client.post("/predict", content=b"x")) for _ in range(6)]
            for _ in range(7):
                assert await asyncio.to_thread(decoded.acquire, timeout=60)
            await asyncio.to_thread(may_answer.wait, 0.2)
            may_answer.set()
            for task in tasks:
                assert (await task).status_code == 200

    with application(decode, answer) as app:
        asyncio.run(check(app))
        counted = figures(app)
    assert passes[0] == 1 and sum(passes) == 7
    assert len(passes) <= 3
    assert counted["featurepipe_pass_images_sum"] == 7
    assert counted["featurepipe_pass_images_count"] == len(passes)


def test_metrics_count_images_and_statuses(place, files):
    with answering(featurepipe.Predictor(workspace=place)) as app:
        ask(app, files=form(("a", files[0].read_bytes()), ("b", b"broken")))
        ask(app, content=b"broken")
        counted = figures(app)
    assert counted['featurepipe_images_total{result="answered"}'] == 1
    assert counted['featurepipe_images_total{result="refused"}'] == 2
    assert counted['featurepipe_requests_total{status="200"}'] == 1
    assert counted['featurepipe_requests_total{status="422"}'] == 1
    assert counted["featurepipe_request_seconds_count"] == 2


def test_other_paths_and_methods_have_errors_in_json(app):
    for method, path, status in [("GET", "/nothing", 404), ("GET", "/predict", 405)]:
        response = ask(app, method=method, path=path)
        assert response.status_code == status
        assert set(response.json()) == {"error"}


def test_the_page_and_openapi_describe_every_path_and_ask_for_nothing_else(app):
    described = ask(app, method="GET", path="/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/healthz", "/metrics"}
    assert set(described["paths"]["/predict"]["post"]["responses"]) == {
        "200", "400", "408", "413", "422", "500", "503"
    }  # fmt: skip
    assert (
        "multipart/form-data" in (described["paths"]["/predict"]["post"]["requestBody"]["content"])
    )
    page = ask(app, method="GET", path="/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text and "src=" not in page.text
    for path in described["paths"]:
        assert path in page.text
    assert "1,000,000 bytes" in page.text
