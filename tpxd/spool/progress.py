"""Shows that long work on the spool goes on: in systemd's STATUS=, in its time limits, and in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tpxd import sdnotify

logger = logging.getLogger(__name__)

Alive = Callable[[str], None]
"""Takes a line about how far the work is."""

NOTIFY_S = 1.0
LOG_S = 10.0
EXTEND_S = 30
"""So much longer than until now the service may take, from each sign of life on."""


class Progress:
    """Call it as often as you like.

    Attributes:
        text: what was said last; None where nothing long is under way.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.text: str | None = None
        self._monotonic = monotonic
        self._notified_s = self._logged_s = monotonic()

    def __call__(self, text: str) -> None:
        self.text = text
        now_s = self._monotonic()
        if now_s - self._notified_s >= NOTIFY_S:
            self._notified_s = now_s
            sdnotify.extend(EXTEND_S)
            sdnotify.status(text)
        if now_s - self._logged_s >= LOG_S:
            self._logged_s = now_s
            logger.info("%s", text)

    def done(self) -> None:
        """The long work is over."""
        if self.text is not None:
            self.text = None
            sdnotify.status("")
