"""When a connection that failed is tried again. Pure: times in, times out.

A failure begins a burst of five minutes with decorrelated jitter between 1 s and 30 s, so that a blip of two
seconds costs two seconds; then the documented table of the reconnect strategy holds, each delay moved by up to a
minute either way. The first receipt resets it; merely opening does not, since a far end that accepts and then
drops would otherwise be tried for ever in a burst. A link that stood for five minutes resets it too: a connection
with an uplink a day must not count the time between two blips as one long outage.

Source: ThingPark X IoT Flow, "About connections", reconnectStrategy; decorrelated jitter as Mosquitto's bridges use it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final, Literal

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
