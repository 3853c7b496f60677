"""Metrics in the format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from featurepipe.serving.batching import MAX_TOGETHER

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """What a server has done since it started.

    Attributes
    ----------
    requests : Counter
        Requests to predict, by status.
    images : Counter
        Images, by whether they were answered or refused.
    pass_images : Histogram
        Images of one pass.
    seconds : Histogram
        Seconds from the headers of a request to its answer.
    in_flight : Gauge
        Requests that are received or answered now.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "featurepipe_requests", "Requests to predict.", ["status"], registry=registry
        )
        self.images = Counter("featurepipe_images", "Images.", ["result"], registry=registry)
        self.pass_images = Histogram(
            "featurepipe_pass_images",
            "Images that were computed together.",
            buckets=[2**k for k in range(MAX_TOGETHER.bit_length())],
            registry=registry,
        )
        self.seconds = Histogram(
            "featurepipe_request_seconds",
            "Seconds from the headers of a request to its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "featurepipe_requests_in_flight", "Requests in flight.", registry=registry
        )

    def text(self) -> bytes:
        """All of them, for Prometheus."""
        return generate_latest(self._registry)
