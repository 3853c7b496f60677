"""Retries and time limits for servers that fail temporarily or never answer."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from featurepipe.errors import SourceError

TRY_SECONDS = 60.0
"""Time limit of one try."""

LISTING_SECONDS = 600.0
"""Time limit of a listing: a million objects take minutes."""

N_TRIES = 3

FIRST_PAUSE_SECONDS = 0.5
"""Pause before the second try; it doubles before each further try."""

MAX_UNANSWERED = 20
"""Number of requests in a row without an answer after which the source counts as unreachable."""

MAX_HANGING = 64
"""Number of abandoned tries that may still be running: each keeps a thread."""

_NO_TRANSIENT = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    TypeError,
    ValueError,
)
_TRANSIENT_STATUS = (408, 425, 429)

_Answer = TypeVar("_Answer")


class _NoAnswerError(TimeoutError):
    """A try that exceeded its time limit."""


class Patience:
    """Sends requests to a source that may be unreachable. Safe to use from several threads.

    Parameters
    ----------
    place : str
        Path or URL of the source, for messages.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._n_unanswered = 0
        self._last_error: Exception | None = None
        self._hanging: list[threading.Thread] = []

    def ask(self, question: Callable[[], _Answer], seconds: float | None = None) -> _Answer:
        """Call a function, with several tries if it fails.

        Parameters
        ----------
        question : callable
            Runs in another thread, which is abandoned at the time limit.
        seconds : float, optional
            Time limit of each try. Default: `TRY_SECONDS`.

        Raises
        ------
        OSError
            If all tries fail; its text is the reason shown to people.
        SourceError
            If `MAX_UNANSWERED` requests in a row failed.
        """
        for attempt in range(N_TRIES):
            if attempt:
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            self._refuse_if_silent()
            try:
                answer = self._within(seconds or TRY_SECONDS, question)
            except Exception as raised:
                error = _meant(raised)
                if _is_final(error):
                    self._count(None)
                    raise OSError(said(error)) from error
            else:
                self._count(None)
                return answer
        self._count(error)
        self._refuse_if_silent()
        raise OSError(f"{said(error)}, {N_TRIES} tries") from error

    def _within(self, seconds: float, question: Callable[[], _Answer]) -> _Answer:
        answer: Future[_Answer] = Future()
        # Not an executor: executors wait for their threads when the program ends.
        asker = threading.Thread(target=_settle, args=(answer, question), daemon=True)
        asker.start()
        asker.join(seconds)
        if not answer.done():
            with self._lock:
                self._hanging = [thread for thread in self._hanging if thread.is_alive()] + [asker]
            raise _NoAnswerError(f"no answer within {seconds:g} s")
        return answer.result()

    def _count(self, error: Exception | None) -> None:
        with self._lock:
            self._n_unanswered = 0 if error is None else self._n_unanswered + 1
            self._last_error = error

    def _refuse_if_silent(self) -> None:
        with self._lock:
            n_unanswered, error = self._n_unanswered, self._last_error
            n_hanging = sum(thread.is_alive() for thread in self._hanging)
        if n_unanswered >= MAX_UNANSWERED and error is not None:
            reason = f"{said(error)}, {N_TRIES} tries, for {n_unanswered} files in a row"
        elif n_hanging >= MAX_HANGING:
            reason = f"{n_hanging} reads have not ended"
        else:
            return
        raise SourceError(
            f"{self._place} does not answer ({reason}). Finished work is kept. Check the "
            "connection, and run the same command again."
        ) from error


def said(error: BaseException) -> str:
    """The text of an error for people, on one line.

    Parameters
    ----------
    error : BaseException
    """
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = str(getattr(error, "strerror", None) or error)
    return " ".join(text.split())[:200] or type(error).__name__


def _settle(answer: "Future[_Answer]", question: Callable[[], _Answer]) -> None:
    try:
        answer.set_result(question())
    except BaseException as error:
        answer.set_exception(error)


def _meant(error: Exception) -> Exception:
    """The cause of an error; fsspec reports an unreachable web server as "no such file"."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    of_the_web = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    return cause if of_the_web and getattr(cause, "status", None) not in (404, 410) else error


def _is_final(error: Exception) -> bool:
    """Whether another try would fail as well."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in _TRANSIENT_STATUS
    return isinstance(error, _NO_TRANSIENT)
