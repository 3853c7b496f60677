"""Connections that are closed if no request arrives in time: uvicorn waits for headers for ever."""

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as HttpProtocol
else:
    HttpProtocol = AutoHTTPProtocol


def closing_after(timeout_s: float) -> type[asyncio.Protocol]:
    """The protocol of connections that are closed after a time without a new request.

    Parameters
    ----------
    timeout_s : float
        Seconds in which the headers of a request must arrive, or its answer must be taken.
    """

    class ClosingProtocol(HttpProtocol):
        _looking: asyncio.TimerHandle | None = None
        _seen: Any = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._look_later()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._looking is not None:
                self._looking.cancel()
            super().connection_lost(exc)

        def _look_later(self) -> None:
            self._looking = self.loop.call_later(timeout_s, self._look)

        def _look(self) -> None:
            # Of each request there is a cycle, which ends with its answer.
            is_waiting = self.cycle is None or self.cycle.response_complete
            if is_waiting and self.cycle is self._seen:
                self.transport.abort()
            else:
                self._seen = self.cycle
                self._look_later()

    return ClosingProtocol
