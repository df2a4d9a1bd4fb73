"""Whether the LRC takes downlinks, and when to try it again; times in, decisions out. Pure but for its events."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from tpxd.errors import TpxdError
from tpxd.events import Event, LastError, Tell
from tpxd.lorawan.downlink_request import Answer
from tpxd.timing import BURST_LONGEST_S, Burst

UNDECIDED: Final = 3
MOST_REFUSED: Final = 1_000
"""AS_IDs that are remembered as refused; the oldest go first."""


@dataclass(slots=True)
class Patience:
    """When to try again: as a `Burst` says, then every 30 s."""

    _burst: Burst = field(default_factory=Burst)

    def delay(self, now: float) -> float:
        """Seconds to wait after a failure at `now`."""
        return self._burst.delay(now) or BURST_LONGEST_S

    def reset(self) -> None:
        """It went well."""
        self._burst.reset()


@dataclass(slots=True)
class LrcReach:
    """What the last tries told about the LRC as a whole.

    Attributes:
        reachable: None before the first try.
        retry_at: while it is not reachable, the time on trio's clock before which nobody tries.
        last_error: kept after it was overcome.
        refused: AS_IDs that the LRC refused with 401 or 403 when they were tried last, and what it said.
    """

    tell: Tell
    wall: Callable[[], float]
    reachable: bool | None = None
    retry_at: float = float("-inf")
    last_error: LastError | None = None
    refused: dict[str, LastError] = field(default_factory=dict)
    _patience: Patience = field(default_factory=Patience)
    _undecided: int = 0
    _warned: bool = False

    def away(self, error: TpxdError) -> None:
        """It cannot be reached: everybody waits, and then one tries."""
        self.last_error = LastError(self.wall(), error.message, error.hint)
        if self.reachable is not False:
            self.tell(Event("lrc", f"downlinks wait: {error.message}", level=logging.WARNING))
        self.reachable = False
        now = trio.current_time()
        if now >= self.retry_at:  # those that were under way with this one do not make the wait longer
            self.retry_at = now + self._patience.delay(now)

    def undecided(self, error: TpxdError) -> None:
        """It did not answer, or not now; when that goes on and it answers nobody else, it counts as away."""
        self.last_error = LastError(self.wall(), error.message, error.hint)
        self._undecided += 1
        if self._undecided >= UNDECIDED:
            self.away(error)

    def unauthorised(self, as_id: str, error: TpxdError) -> None:
        """It is there, and refuses this AS_ID, or what is signed with it; one event when that begins."""
        self._is_there()
        self.last_error = LastError(self.wall(), error.message, error.hint)
        known = self.refused.pop(as_id, None)
        self.refused[as_id] = self.last_error
        if len(self.refused) > MOST_REFUSED:
            del self.refused[next(iter(self.refused))]
        if known is None:
            text, more = f"downlinks wait, tried every five minutes: {error.message}", {"hint": error.hint}
            self.tell(Event("lrc", text, level=logging.WARNING, more=more))

    def answered(self, answer: Answer, as_id: str) -> None:
        """It is there, and took what this AS_ID signed for its own."""
        self._is_there()
        if self.refused.pop(as_id, None) is not None:
            self.tell(Event("lrc", f"the LRC takes {named(as_id)} again"))
        if not answer.documented and not self._warned:
            self._warned = True
            text = f"the LRC takes downlinks with an answer that is not documented: {answer.cause}"
            self.tell(Event("lrc", text, level=logging.WARNING))

    def _is_there(self) -> None:
        if self.reachable is False:
            self.tell(Event("lrc", "the LRC takes downlinks again"))
        self.reachable = True
        self._undecided = 0
        self._patience.reset()

    @property
    def trouble(self) -> str | None:
        """Which AS_IDs it refuses, in one line; None while it refuses none."""
        if not self.refused:
            return None
        newest, others = next(reversed(self.refused.values())), len(self.refused) - 1
        return f"{newest.message}; {others} more AS_IDs" if others else newest.message


def named(as_id: str) -> str:
    """An AS_ID for people, who may have set none."""
    return f'AS_ID "{as_id}"' if as_id else "downlinks without an AS_ID"
