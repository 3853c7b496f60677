"""serve(): a run -> answers over HTTP."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from featurepipe.errors import UsageError
from featurepipe.features.extraction.decoding import require_few_pixels
from featurepipe.features.extraction.embedding import DecodedImage
from featurepipe.features.extraction.image_headers import MAX_PIXELS
from featurepipe.models.heads.fit_memory import parse_memory
from featurepipe.predictions import COVERAGE
from featurepipe.workflows.answering import COVERAGE_PER, answer_json, check_answering
from featurepipe.workflows.predictor import Predictor

logger = logging.getLogger(__name__)

_BLANK = b"P6 8 8 255\n" + bytes(3 * 8 * 8)


def serve(
    run: str | None = None,
    *,
    workspace: Path | str = ".",
    host: str = "127.0.0.1",
    port: int = 8000,
    top: int = 1,
    coverage: float = COVERAGE,
    coverage_per: str = COVERAGE_PER[0],
    weights: Sequence[str] = (),
    max_bytes: str = "32MB",
    max_pixels: int = 50_000_000,
    max_in_flight: int = 64,
    timeout: float = 30.0,
    trusted: Sequence[str] = (),
    on_start: Callable[[str, str], None] | None = None,
) -> None:
    """Answer requests over HTTP until the process is told to stop (SIGTERM, Ctrl-C).

    Requires the extra ``serve``.

    Parameters
    ----------
    run : str, optional
        Default: the best run that was fitted on the present labels and images; see `predict`.
    workspace : Path or str
    host : str
        Address to listen on; the default is reached from this machine only.
    port : int
        0 for any that is free.
    top, coverage, coverage_per, weights
        See `predict`.
    max_bytes : str
        Largest body of a request, such as ``"32MB"``.
    max_pixels : int
        Most pixels of an image; larger ones are refused unread, so that others need not wait for
        them. At most that of every command, 128 million.
    max_in_flight : int
        Requests that are received or answered at once; further ones get status 503.
    timeout : float
        Seconds in which the headers, the body and the answer of a request must each be there; in
        a graceful stop, those in which requests in flight must end.
    trusted : sequence of str
        See `predict`.
    on_start : callable, optional
        Called with the URL and the name of the run when it is ready.

    Raises
    ------
    UsageError
        If an option is impossible, the address cannot be used, or the extra is not installed.
    FeaturepipeError
        If the run cannot be used; see `Predictor`.
    """
    check_answering(top, coverage, coverage_per)
    if not 1 <= max_pixels <= MAX_PIXELS:
        raise UsageError(f"--max-pixels is {max_pixels}. Set 1 to {MAX_PIXELS}.")
    if max_in_flight < 1:
        raise UsageError(f"--max-in-flight is {max_in_flight}. Set at least 1.")
    if not 0 < timeout < math.inf:
        raise UsageError(f"--timeout is {timeout:g}. Set a number of seconds above 0.")
    n_bytes = parse_memory(max_bytes)
    try:
        from featurepipe.serving.application import create_application
        from featurepipe.serving.batching import Batcher
        from featurepipe.serving.limits import Limits
        from featurepipe.serving.metrics import Metrics
        from featurepipe.serving.running import bind, run_until_stopped
    except ModuleNotFoundError as error:
        raise UsageError(
            f"featurepipe serve needs {error.name}, which is not installed. "
            "Run: pip install 'featurepipe[serve]'"
        ) from error
    with bind(host, port) as listener:
        predictor = Predictor(run, workspace=workspace, weights=weights, trusted=trusted)
        name = predictor.run.name
        answer = partial(
            predictor.answer_decoded, top=top, coverage=coverage, coverage_per=coverage_per
        )
        blank = predictor.decode(_BLANK)
        # Engines are loaded before the first request comes: for one image, and for several.
        answer([blank])
        answer([blank, blank])

        def decode(data: bytes) -> DecodedImage:
            require_few_pixels(data, max_pixels)
            return predictor.decode(data)

        def tell(url: str) -> None:
            logger.info("Serving %s at %s (help at %s/docs). Stop with Ctrl-C.", name, url, url)
            if on_start is not None:
                on_start(url, name)

        metrics = Metrics()
        limits = Limits(n_bytes, max_in_flight, timeout)
        with Batcher(decode, answer, metrics.pass_images.observe) as batcher:
            app = create_application(name, batcher, answer_json, limits, metrics)
            run_until_stopped(app, listener, timeout, tell)
