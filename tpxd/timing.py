"""When: whether the clock can be trusted, when to try again, how fast, until when. Clocks are injected."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

import trio

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


Strategy = Literal["CALM", "NORMAL", "AGGRESSIVE"]

BURST_S: Final = 300.0
BURST_SHORTEST_S: Final = 1.0
BURST_LONGEST_S: Final = 30.0
JITTER_S: Final = 60.0
STEADY_S: Final = 300.0
AUTHENTICATION_S: Final = 300.0

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

TABLES: Final[dict[Strategy, tuple[tuple[float, float], ...]]] = {
    "CALM": ((10 * MINUTE, 12 * HOUR), (HOUR, DAY)),
    "NORMAL": ((5 * MINUTE, HOUR), (HOUR, DAY), (DAY, float("inf"))),
    "AGGRESSIVE": ((3 * MINUTE, 3 * HOUR), (30 * MINUTE, 7 * DAY), (HOUR, float("inf"))),
}
"""Per strategy: (delay between tries, how long this phase lasts), in seconds, after the burst."""


@dataclass(slots=True)
class Burst:
    """Decorrelated jitter for five minutes from the first failure on."""

    _random: random.Random = field(default_factory=random.Random)
    _began: float | None = None
    _last_delay: float = BURST_SHORTEST_S

    def delay(self, now: float) -> float | None:
        """Seconds to wait after a failure at `now` (any monotonic clock), or None when the burst is over."""
        if self._began is None:
            self._began = now
        if now - self._began >= BURST_S:
            return None
        self._last_delay = self._random.uniform(BURST_SHORTEST_S, min(BURST_LONGEST_S, self._last_delay * 3))
        return self._last_delay

    def over_for_s(self, now: float) -> float:
        """How long it has been over."""
        return 0.0 if self._began is None else now - self._began - BURST_S

    def reset(self) -> None:
        """Forget earlier failures: the next one begins a burst."""
        self._began, self._last_delay = None, BURST_SHORTEST_S


@dataclass(slots=True)
class Backoff:
    """The retry clock of one connection.

    Attributes:
        strategy: which table holds after the burst.
    """

    strategy: Strategy
    _random: random.Random = field(default_factory=random.Random)
    _burst: Burst = field(init=False)

    def __post_init__(self) -> None:
        self._burst = Burst(self._random)

    def reset(self) -> None:
        """Forget earlier failures: the next one begins a burst."""
        self._burst.reset()

    def delay(self, now: float) -> float | None:
        """Seconds to wait after a failure at `now` (any monotonic clock), or None when the strategy gives up."""
        if (delay := self._burst.delay(now)) is not None:
            return delay
        elapsed = self._burst.over_for_s(now)
        for delay, lasts in TABLES[self.strategy]:
            if elapsed < lasts:
                return delay + self._random.uniform(-JITTER_S, JITTER_S)
            elapsed -= lasts
        return None


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


class Stopping:
    """One connection's request to stop.

    Attributes:
        requested: it was asked for; nothing new should be begun.
    """

    def __init__(self) -> None:
        self.requested = False
        self._scopes: dict[trio.CancelScope, Callable[[], float]] = {}

    def request(self) -> None:
        """Ask for it."""
        self.requested = True
        for scope, grace_s in self._scopes.items():
            scope.deadline = min(scope.deadline, trio.current_time() + grace_s())

    @contextmanager
    def bounds(self, grace_s: Callable[[], float]) -> Iterator[None]:
        """A block of work that may go on for `grace_s()` seconds after the request, and is then cancelled."""
        with trio.CancelScope() as scope:
            self._scopes[scope] = grace_s
            if self.requested:
                scope.deadline = trio.current_time() + grace_s()
            try:
                yield
            finally:
                del self._scopes[scope]

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """A block that ends at once when a stop is requested: for waiting only, since it cancels what is inside."""
        with self.bounds(lambda: 0.0):
            yield
