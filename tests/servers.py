"""Servers of tests: an application without a socket, and the command itself."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx

import featurepipe
from featurepipe.predictions import COVERAGE
from featurepipe.serving.application import create_application
from featurepipe.serving.batching import Batcher
from featurepipe.serving.limits import Limits
from featurepipe.serving.metrics import Metrics
from featurepipe.workflows.answering import answer_json

LIMITS = Limits(max_bytes=1_000_000, max_in_flight=8, timeout_s=60.0)


@contextmanager
def application(decode, answer, limits=LIMITS):
    """An application and its batcher; `answer` gets what `decode` makes of the bytes."""
    metrics = Metrics()
    with Batcher(decode, answer, metrics.pass_images.observe) as batcher:
        yield create_application("run", batcher, answer_json, limits, metrics)


@contextmanager
def answering(predictor: featurepipe.Predictor, limits=LIMITS):
    """An application that answers with a run."""

    def answer(images):
        return predictor.answer_decoded(images, top=1, coverage=COVERAGE, coverage_per="image")

    with application(predictor.decode, answer, limits) as app:
        yield app


def client_of(app) -> httpx.AsyncClient:
    """A client that calls an application without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@contextmanager
def running(workspace: Path, *options: str):
    """The command in a process of its own: the process, and its address."""
    command = [sys.executable, "-m", "featurepipe", "serve", "--workspace", str(workspace)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--json", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.stderr.read())
        yield process, json.loads(line)["url"]
    finally:
        process.kill()
        process.communicate()
