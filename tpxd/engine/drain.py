"""How long a backlog will take at its present pace."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 30.0
STEP_S: Final = 1.0


class Drain:
    """The number of waiting uplinks over the last half minute, in steps of a second."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self, now: float, waiting: int) -> None:
        """So many wait at `now`, on a monotonic clock."""
        if self._samples and now - self._samples[-1][0] < STEP_S:
            return
        self._samples.append((now, waiting))
        while now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()

    def estimate_s(self, now: float, waiting: int) -> float | None:
        """Seconds until nothing waits; None while it does not become less, 0 when nothing waits."""
        if not waiting:
            return 0.0
        recent = [sample for sample in self._samples if now - sample[0] <= WINDOW_S]
        if not recent or now - recent[0][0] < STEP_S:
            return None
        begun, then = recent[0]
        per_second = (then - waiting) / (now - begun)
        return waiting / per_second if per_second > 0 else None
