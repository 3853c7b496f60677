"""Limits of what is served, and the refusals of requests beyond them."""

from dataclasses import dataclass

from starlette.exceptions import HTTPException

MAX_IMAGES = 100
"""Most images of one request."""

CLOSE = {"Connection": "close"}
"""Headers of an answer before which the body was not read to its end."""


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Attributes
    ----------
    max_bytes : int
        Most bytes of a body.
    max_in_flight : int
        Most requests that are received or answered at once.
    timeout_s : float
        Seconds in which a body must arrive, and in which an answer must be there.
    """

    max_bytes: int
    max_in_flight: int
    timeout_s: float

    def too_large(self) -> HTTPException:
        """The body has too many bytes."""
        text = f"The body is larger than {self.max_bytes:,} bytes. Send fewer or smaller images."
        return HTTPException(413, text, CLOSE)

    def too_slow(self) -> HTTPException:
        """The body did not arrive in time."""
        return HTTPException(408, f"The body did not arrive within {self.timeout_s:g} s.", CLOSE)

    def too_busy(self) -> HTTPException:
        """Others must be answered first."""
        text = "The server is busy with other requests. Try again later."
        return HTTPException(503, text, {"Retry-After": "1"} | CLOSE)
