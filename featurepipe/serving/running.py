"""Running an application: a socket, uvicorn, and a graceful stop."""

import logging
import math
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from featurepipe.errors import UsageError
from featurepipe.serving.connections import closing_after

logger = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """A socket of an address where nothing else listens; it does not listen yet.

    Parameters
    ----------
    host : str
    port : int
        0 for any that is free.

    Raises
    ------
    UsageError
        If the address cannot be used.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        raise UsageError(
            f"Cannot listen on {host}:{port} ({error.strerror or error}). Choose another --host or "
            "--port."
        ) from error


def run_until_stopped(
    app: FastAPI, listener: socket.socket, timeout_s: float, on_start: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in flight are answered before it returns.

    Parameters
    ----------
    app : FastAPI
    listener : socket
    timeout_s : float
        Seconds in which the headers of a request must arrive, and requests in flight must end.
    on_start : callable
        Called with the URL as soon as it can be asked.
    """
    config = uvicorn.Config(
        app,
        http=closing_after(timeout_s),
        ws="none",
        lifespan="off",
        log_config=None,
        # Of invalid requests there may be many.
        log_level=logging.ERROR,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(timeout_s),
    )
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        _Server(config, lambda: on_start(url)).run(sockets=[listener])
    except KeyboardInterrupt:
        # uvicorn repeats the signal after it has stopped.
        logger.info("Stopped.")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()
