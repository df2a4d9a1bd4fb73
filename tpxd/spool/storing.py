"""Whether the disk takes what it is given, and how fast: what is told about that."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event

SLOW_S = 5.0
"""A disk that takes longer for a commit is no disk that the LRC can wait for."""


class Storing:
    """The writer's thread notes here; the event loop asks for `hindrance`.

    Attributes:
        error: why the last write was refused; None where it was not.
        refused_bytes: the most of one transaction that was refused since.
    """

    def __init__(self, note: Callable[[Event], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self.error: str | None = None
        self.refused_bytes = 0
        self._note = note
        self._monotonic = monotonic
        self._began_s: float | None = None
        self._took_s = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Something goes to the disk meanwhile."""
        self._began_s = self._monotonic()
        try:
            yield
        finally:
            took_s, was_slow = self._monotonic() - self._began_s, self._took_s > SLOW_S
            self._took_s, self._began_s = took_s, None
            if took_s > SLOW_S and not was_slow:
                text = f"the disk took {took_s:.0f} s for one write"
                self._note(Event("spool", text, level=logging.WARNING, more={"hint": "the LRC may not wait so long"}))

    def refused(self, error: SpoolUnavailable, size: int = 0) -> bool:
        """The disk refused so many bytes; True when that is news. One event, until something is stored again."""
        news = self.error is None
        if news:
            text = f"nothing can be stored: {error}"
            self._note(Event("spool", text, level=logging.ERROR, more={"hint": error.hint}))
        self.error = str(error)
        self.refused_bytes = max(self.refused_bytes, size)
        return news

    def stored(self, size: int) -> None:
        """Something was written durably; when it is as much as was refused, the disk stores again."""
        if self.error is not None and size >= self.refused_bytes:
            self._note(Event("spool", "the spool stores again"))
            self.error = None
            self.refused_bytes = 0

    def hindrance(self) -> str | None:
        """Why the LRC cannot rely on this disk now; None where it can."""
        began_s = self._began_s
        if self.error is not None:
            return self.error
        if began_s is not None and (so_far_s := self._monotonic() - began_s) > SLOW_S:
            return f"the disk has not ended a write for {so_far_s:.0f} s"
        if self._took_s > SLOW_S:
            return f"the disk took {self._took_s:.0f} s for the last write"
        return None
