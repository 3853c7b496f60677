"""`featurepipe serve`."""

from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import answers, examples, option, output, weights
from featurepipe.commands.terminal import write_json


@cloup.command(
    epilog=examples(
        "serve",
        "serve xception-bagged-sgd --port 8080",
        "serve --top 3 --coverage 0.9",
        "serve --host 0.0.0.0 --max-in-flight 200",
    )
)
@cloup.argument("run", required=False, help="Name of the run to use; default: the best.")
@cloup.option_group("Model", weights)
@answers()
@cloup.option_group(
    "Server",
    option(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="Address to listen on; 0.0.0.0 for all networks.",
    ),
    option(
        "--port",
        type=click.IntRange(0, 65535),
        metavar="N",
        default=8000,
        help="Port to listen on; 0 for any that is free.",
    ),
    option("--max-bytes", metavar="SIZE", default="32MB", help="Largest body of a request."),
    option(
        "--max-pixels",
        type=click.IntRange(1, 128_000_000),
        metavar="N",
        default=50_000_000,
        help="Largest number of pixels of an image.",
    ),
    option(
        "--max-in-flight",
        type=click.IntRange(1),
        metavar="N",
        default=64,
        help="Number of requests that are received or answered at once.",
    ),
    option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        default=30.0,
        help="Time limit for a request to arrive, and for its answer.",
    ),
)
@output()
def serve(as_json: bool, **options: Any) -> None:
    """Answer requests for predictions over HTTP.

    POST /predict takes image files, several at once or one as the body, and answers what predict
    --json prints. /docs describes the API, /healthz tells that the server answers, and /metrics
    is for Prometheus. Requests that arrive together are computed together. SIGTERM or Ctrl-C ends
    the server after the requests in flight are answered. With --json, the URL and the run are
    printed as JSON when it is ready.
    """
    if as_json:
        options["on_start"] = _write_start
    featurepipe.serve(**options)


def _write_start(url: str, run: str) -> None:
    write_json({"url": url, "run": run}, indent=None)
