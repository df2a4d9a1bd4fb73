"""When the clock cannot be trusted to say that something is too old; clocks are injected."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_S = 60.0
QUIET_S = 600.0


class ClockWatch:
    """Tells whether the wall clock can be trusted to expire anything.

    Nothing expires while the clock is behind the newest stored arrival, nor in the ten minutes after it stepped by
    more than a minute: a server that boots without a time source must not throw its backlog away.
    """

    def __init__(
        self,
        newest_ms: Callable[[], int | None],
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._newest_ms = newest_ms
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._quiet_until = float("-inf")

    def now(self) -> float | None:
        """Seconds since the epoch, or None while nothing may expire."""
        wall, monotonic = self._wall(), self._monotonic()
        offset = wall - monotonic
        if abs(offset - self._offset) > STEP_S:
            self._quiet_until = monotonic + QUIET_S
        self._offset = offset
        newest = self._newest_ms()
        if monotonic < self._quiet_until or (newest is not None and wall * 1000 < newest):
            return None
        return wall
