"""So many uplinks or commands a second, as a file limits them, in bursts of at most one second's worth."""

from __future__ import annotations

import sys

import trio


class Pace:
    """A token bucket on trio's clock; without a rate it never waits.

    Args:
        at_first: how many may go at once at the beginning; default a second's worth.
    """

    def __init__(self, per_second: int | None, *, at_first: int | None = None) -> None:
        self._rate = per_second
        self._tokens = float((per_second or 0) if at_first is None else at_first)
        self._at = trio.current_time()

    async def wait(self) -> int:
        """Wait until at least one may go, and say how many may."""
        if self._rate is None:
            return sys.maxsize
        if (allowed := self._refill()) >= 1:
            return allowed
        await trio.sleep((1 - self._tokens) / self._rate)
        return max(1, self._refill())

    def spend(self, count: int) -> None:
        """So many were taken."""
        if self._rate is not None:
            self._tokens -= count

    def _refill(self) -> int:
        assert self._rate is not None
        now = trio.current_time()
        self._tokens = min(float(self._rate), self._tokens + (now - self._at) * self._rate)
        self._at = now
        return int(self._tokens + 1e-9)
