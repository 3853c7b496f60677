"""Tries and time limits for what may fail for a moment, or never answer."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from featurepipe.errors import SourceError

TRY_SECONDS = 60.0
"""A try that takes longer is given up."""

LISTING_SECONDS = 600.0
"""The same for a listing: a million objects take minutes."""

N_TRIES = 3

FIRST_PAUSE_SECONDS = 0.5
"""Before the second try; each further pause is twice as long."""

MAX_UNANSWERED = 20
"""After as many questions in a row without an answer there is no point in going on."""

MAX_HANGING = 64
"""The same for tries that were given up and have not ended: each keeps a thread."""

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
    """A try that was given up."""


class Patience:
    """Asks something that may be out of reach. Safe to use from several threads.

    Parameters
    ----------
    place : str
        What is asked, for messages.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._n_unanswered = 0
        self._last_error: Exception | None = None
        self._hanging: list[threading.Thread] = []

    def ask(self, question: Callable[[], _Answer], seconds: float | None = None) -> _Answer:
        """What a question returns, after several tries if need be.

        Parameters
        ----------
        question : callable
            Runs in another thread, which is abandoned if it takes too long.
        seconds : float, optional
            Time limit of each try. Default: `TRY_SECONDS`.

        Raises
        ------
        OSError
            If it cannot be answered; its text is a reason for a person.
        SourceError
            If nothing has been answered for `MAX_UNANSWERED` questions in a row.
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
        # Not an executor: those wait for their threads when the program ends.
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
            f"{self._place} does not answer ({reason}). What was done stays done: check the "
            "connection and run the same command again."
        ) from error


def said(error: BaseException) -> str:
    """What an error says for a person, in one line.

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
    """The error behind one; fsspec says "no such file" of a web server that is not there."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    of_the_web = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    return cause if of_the_web and getattr(cause, "status", None) not in (404, 410) else error


def _is_final(error: Exception) -> bool:
    """Whether the same question would fail again."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in _TRANSIENT_STATUS
    return isinstance(error, _NO_TRANSIENT)
