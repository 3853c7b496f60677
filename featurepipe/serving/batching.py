"""Batching: images of any number of requests are decoded side by side and answered together."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Queue
from typing import Generic, Self, TypeVar

from featurepipe.features.extraction.memory_budget import count_cpus

MAX_TOGETHER = 16
"""Most images of one pass: more would only wait for each other."""

Decoded = TypeVar("Decoded")
Answer = TypeVar("Answer")


class Batcher(Generic[Decoded, Answer]):
    """Decodes images in threads, and answers whatever is decoded in one pass after another.

    Images that arrive while a pass runs wait for the next. While nothing runs, an image waits for
    no other.

    Parameters
    ----------
    decode : callable
        Decodes the bytes of an image; called by several threads.
    answer : callable
        Answers decoded images, at least one and at most `MAX_TOGETHER`; called by one thread.
    on_pass : callable
        Called with the number of images before each pass.
    """

    def __init__(
        self,
        decode: Callable[[bytes], Decoded],
        answer: Callable[[Sequence[Decoded]], Sequence[Answer]],
        on_pass: Callable[[int], None],
    ) -> None:
        self._decode, self._answer, self._on_pass = decode, answer, on_pass
        self._decoders = ThreadPoolExecutor(count_cpus(), "decode")
        # Decoders wait while so many are ready: pixels of images take more memory than their files.
        self._ready: Queue[tuple[Decoded, Future[Answer]] | None] = Queue(2 * MAX_TOGETHER)
        self._passes = threading.Thread(target=self._run_passes, name="passes")
        self._passes.start()

    def submit(self, data: bytes) -> Future[Answer]:
        """Ask about an image; its answer, or the error of `decode` or of its pass.

        Parameters
        ----------
        data : bytes
            An image file. An image that is cancelled before it is decoded costs nothing.
        """
        answered: Future[Answer] = Future()
        self._decoders.submit(self._prepare, data, answered)
        return answered

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Answer what is decoded, and end the threads."""
        self._decoders.shutdown(cancel_futures=True)
        self._ready.put(None)
        self._passes.join()

    def _prepare(self, data: bytes, answered: Future[Answer]) -> None:
        if not answered.set_running_or_notify_cancel():
            return
        try:
            decoded = self._decode(data)
        except Exception as error:
            answered.set_exception(error)
        else:
            self._ready.put((decoded, answered))

    def _run_passes(self) -> None:
        while batch := self._take():
            try:
                self._on_pass(len(batch))
                answers = self._answer([decoded for decoded, _ in batch])
                for (_, answered), answer in zip(batch, answers, strict=True):
                    answered.set_result(answer)
            except Exception as error:
                for _, answered in batch:
                    if not answered.done():
                        answered.set_exception(error)

    def _take(self) -> list[tuple[Decoded, Future[Answer]]]:
        """Wait for an image, and take those that are ready with it; none at the end."""
        batch: list[tuple[Decoded, Future[Answer]]] = []
        try:
            while len(batch) < MAX_TOGETHER:
                one = self._ready.get(block=not batch)
                if one is None:
                    if batch:
                        # The next call finds the end again.
                        self._ready.put(None)
                    break
                batch.append(one)
        except Empty:
            pass
        return batch
