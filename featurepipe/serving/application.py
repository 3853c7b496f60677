"""The application: what each path answers."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

import featurepipe
from featurepipe.errors import FeaturepipeError, ImageError
from featurepipe.serving.batching import Batcher
from featurepipe.serving.bodies import read_images
from featurepipe.serving.description import PREDICT, docs_page
from featurepipe.serving.limits import Limits
from featurepipe.serving.metrics import Metrics

logger = logging.getLogger(__name__)

# As nginx counts requests whose client has gone.
_CLIENT_GONE = 499

# The page itself is all there is: it asks for nothing, here or elsewhere.
_ONLY_STYLE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def create_application(
    run: str,
    batcher: Batcher[Any, Any],
    as_json: Callable[[str | int, Any, str], dict[str, Any]],
    limits: Limits,
    metrics: Metrics,
) -> FastAPI:
    """The ASGI application that answers with a run.

    Parameters
    ----------
    run : str
        Its name.
    batcher : Batcher
    as_json : callable
        Says what the name of an image, its answer from the batcher and the reason why there is
        none are in JSON.
    limits : Limits
    metrics : Metrics
    """
    app = FastAPI(
        title="featurepipe",
        version=featurepipe.__version__,
        description=f"Predictions of the run {run}.",
        # FastAPI's own pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
    )
    predicting = _Predicting(batcher, as_json, limits, metrics)
    page = ""

    @app.post("/predict", summary="Predict the attributes of images", **PREDICT)
    async def predict(request: Request) -> Response:
        return await predicting.respond(request)

    @app.get("/healthz", summary="Whether the server answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "run": run}

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=_ONLY_STYLE)

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> Response:
        return _error(error)

    @app.exception_handler(Exception)
    async def fail(_: Request, __: Exception) -> Response:
        # uvicorn writes the traceback to stderr.
        return _json({"error": "The server failed; its standard error says why."}, 500)

    page = docs_page(app.openapi(), limits)
    return app


class _Predicting:
    """Requests to predict: how many there are, what they get, how long it takes."""

    def __init__(
        self,
        batcher: Batcher[Any, Any],
        as_json: Callable[[str | int, Any, str], dict[str, Any]],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._batcher, self._as_json = batcher, as_json
        self._limits, self._metrics = limits, metrics
        self._n_in_flight = 0

    async def respond(self, request: Request) -> Response:
        started, status = time.perf_counter(), 500
        answers: list[dict[str, Any]] = []
        self._n_in_flight += 1
        self._metrics.in_flight.set(self._n_in_flight)
        try:
            if self._n_in_flight > self._limits.max_in_flight:
                raise self._limits.too_busy()
            images = await read_images(request, self._limits)
            answers = await self._answer(images)
            status = 200 if any("refused" not in answer for answer in answers) else 422
            return _json(answers, status)
        except HTTPException as error:
            status = error.status_code
            return _error(error)
        except FeaturepipeError as error:
            return _json({"error": str(error)}, status)
        except ClientDisconnect:
            status = _CLIENT_GONE
            return Response(status_code=status)
        finally:
            self._n_in_flight -= 1
            self._record(status, answers, time.perf_counter() - started)

    async def _answer(self, images: list[tuple[str | int, bytes]]) -> list[dict[str, Any]]:
        asked = [asyncio.wrap_future(self._batcher.submit(data)) for _, data in images]
        names = [name for name, _ in images]
        # Only the batcher holds the files from here on, until they are decoded.
        images.clear()
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                # When time is up, this cancels those that are not decoded yet.
                said = await asyncio.gather(*asked, return_exceptions=True)
        except TimeoutError:
            raise self._limits.too_busy() from None
        return [self._of_image(name, one) for name, one in zip(names, said, strict=True)]

    def _of_image(self, name: str | int, said: Any) -> dict[str, Any]:
        if isinstance(said, ImageError):
            return self._as_json(name, [], str(said))
        if isinstance(said, BaseException):
            raise said
        return self._as_json(name, said, "")

    def _record(self, status: int, answers: list[dict[str, Any]], seconds: float) -> None:
        n_refused = sum("refused" in answer for answer in answers)
        metrics = self._metrics
        metrics.in_flight.set(self._n_in_flight)
        metrics.requests.labels(status).inc()
        metrics.seconds.observe(seconds)
        metrics.images.labels("answered").inc(len(answers) - n_refused)
        metrics.images.labels("refused").inc(n_refused)
        logger.info(
            "POST /predict %d: %d answered, %d refused, %.0f ms",
            status, len(answers) - n_refused, n_refused, 1000 * seconds,
        )  # fmt: skip


def _json(value: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # A file name may hold half a surrogate pair, which JSON can only escape.
    return Response(text.encode(errors="backslashreplace"), status, headers, "application/json")


def _error(error: HTTPException) -> Response:
    return _json({"error": error.detail}, error.status_code, dict(error.headers or {}))
