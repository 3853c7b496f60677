"""How far a long step is: a bar on a terminal, now and then a line elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable
from typing import Self

from tqdm import tqdm

from featurepipe.words import visible

logger = logging.getLogger("featurepipe")

_SECONDS_BETWEEN_LINES = 60.0


def tell(findings: Iterable[str]) -> None:
    """Warn of each finding on a line of its own."""
    for finding in findings:
        logger.warning("%s", finding)


class SilentCount:
    """Counts steps where another process shows the progress; used as `Progress` is.

    Attributes
    ----------
    n_done : int
    """

    def __init__(self) -> None:
        self.n_done = 0

    def advance(self, n: int = 1) -> None:
        """Count `n` more steps as done."""
        self.n_done += n

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Progress:
    """Progress of one long step, shown unless featurepipe's log is set to warnings only.

    Parameters
    ----------
    total : int or None
        Steps to do; None if the first `report` will tell.
    title : str
        What is being done.
    unit : str
        What one step is, in the singular.
    """

    def __init__(self, total: int | None, title: str, unit: str) -> None:
        self._total, self._title, self._unit = total, title, unit
        self._n_done, self._note = 0, ""
        self._started = self._last_line = time.monotonic()
        self._wanted = logger.isEnabledFor(logging.INFO)
        on_terminal = self._wanted and sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=visible(title), unit=f" {unit}", disable=not on_terminal)

    def report(self, n_done: int, n_total: int) -> None:
        """Set the steps that are done, and how many there are.

        Parameters
        ----------
        n_done, n_total : int
        """
        if self._total != n_total:
            self._total = self._bar.total = n_total
            self._bar.refresh()
        self.advance(n_done - self._n_done)

    def note(self, text: str) -> None:
        """Show something beside the count, such as the number of workers."""
        self._note = f"; {text}" if text else ""
        self._bar.set_postfix_str(visible(text), refresh=False)

    def advance(self, n: int = 1) -> None:
        """Count `n` more steps as done."""
        self._n_done += n
        self._bar.update(n)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self._n_done / (now - self._started)
            logger.info(
                "%s: %d of %d (%.1f %ss/s%s)",
                self._title,
                self._n_done,
                self._total,
                rate,
                self._unit,
                self._note,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
