"""How much of what carries nothing a far end may send: pings, heartbeats, empty frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tpxd.errors import RemoteViolation

AT_ONCE: Final = 1_000
"""So many at once are fine: a far end may have been stopped for a while, and go on with all that it had to say."""
PER_SECOND: Final = 10.0


@dataclass(slots=True)
class Allowance:
    """What is left of it: `AT_ONCE` in the beginning, `PER_SECOND` more with time, never more than at first."""

    left: float = AT_ONCE
    at: float = 0.0

    def spend(self, now: float, what: str) -> None:
        """One more came.

        Raises:
            RemoteViolation: it was one too many.
        """
        self.left = min(self.left + max(0.0, now - self.at) * PER_SECOND, AT_ONCE) - 1
        self.at = now
        if self.left < 0:
            raise RemoteViolation(f"a flood of {what}")
