"""What intake accepted and refused, and whether that looks healthy."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tpxd.events import utc_text

logger = logging.getLogger(__name__)

Clock = Callable[[], float]

WINDOW_S = 300
SLOT_S = 10
FEWEST_REPORTS = 10
LOG_EVERY_S = 60.0
MAX_KINDS = 32
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """One report that was not stored.

    Attributes:
        reason: one word: `report` (it is none), `spool` (nothing can be stored), or the reason of a `TokenError`.
        message: one line for people.
        peer: the sender's address.
        kind: the report's type, "" when it could not be read.
        lane: its DevEUI or LrrID, "" when it could not be read.
        as_id: the AS_ID that the sender gave.
        time_difference_s: the sender's Time minus our clock, where it gave one.
    """

    reason: str
    message: str
    peer: str
    kind: str = ""
    lane: str = ""
    as_id: str | None = None
    time_difference_s: float | None = None

    def to_document(self, at: float) -> dict[str, Any]:
        """The refusal as JSON shows it; texts of strangers are cut."""
        return {
            "at": utc_text(at),
            "message": self.message[:MAX_TEXT],
            "AS_ID": None if self.as_id is None else self.as_id[:MAX_TEXT],
            "DevEUI": self.lane[:MAX_TEXT] or None,
            "peer": self.peer,
            "timeDifferenceSeconds": self.time_difference_s,
        }


class IntakeHealth:
    """How many reports of the last five minutes were refused, in slots of ten seconds.

    Healthy means that fewer than half were refused, or that there were fewer than ten.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[int, list[int]] = {}
        self._example = ""

    def accepted(self) -> None:
        """Count a report that was stored."""
        self._slot()[0] += 1

    def refused(self, message: str) -> None:
        """Count a report that was not; the newest message is shown as an example."""
        self._slot()[1] += 1
        self._example = message

    def _slot(self) -> list[int]:
        """The counts of this moment: accepted, refused."""
        slot = int(self._clock()) // SLOT_S
        counts = self._slots.get(slot)
        if counts is None:
            self._forget(slot)
            counts = self._slots[slot] = [0, 0]
        return counts

    def _forget(self, now: int) -> None:
        """Drop the slots that are too old, and those that lie ahead because the clock was set back."""
        oldest = now - WINDOW_S // SLOT_S
        self._slots = {slot: counts for slot, counts in self._slots.items() if oldest < slot <= now}

    def recent(self) -> tuple[int, int]:
        """How many reports came in the last five minutes, and how many of them were refused."""
        self._forget(int(self._clock()) // SLOT_S)
        accepted = sum(counts[0] for counts in self._slots.values())
        refused = sum(counts[1] for counts in self._slots.values())
        return accepted + refused, refused

    def healthy(self) -> bool:
        """Whether senders get their reports in."""
        return self.reason() is None

    def reason(self) -> str | None:
        """Why not, in one line; None when healthy."""
        reports, refused = self.recent()
        if reports < FEWEST_REPORTS or refused * 2 < reports:
            return None
        return f"{refused} of {reports} reports of the last five minutes were refused, the last one: {self._example}"


@dataclass(slots=True)
class _Refusals:
    """All refusals for one reason."""

    count: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    logged_at: float = float("-inf")
    logged_count: int = 0


class IntakeCounters:
    """Counts since the start of the daemon.

    Attributes:
        accepted_total: reports that were answered with 200.
        duplicates_total: those among them that were already stored.
        unclaimed_total: those among them that no connection's flow takes.
        health: the last five minutes.
    """

    def __init__(self, clock: Clock = time.time) -> None:
        self.accepted_total = 0
        self.duplicates_total = 0
        self.unclaimed_total = 0
        self.health = IntakeHealth(clock)
        self._clock = clock
        self._refusals: dict[str, _Refusals] = {}

    def accepted(self, *, duplicate: bool) -> None:
        """A report is on disk."""
        self.accepted_total += 1
        self.duplicates_total += duplicate
        self.health.accepted()

    def refused(self, refusal: Refusal) -> None:
        """A report was not stored; each reason is logged at most once a minute."""
        self.health.refused(refusal.message[:MAX_TEXT])
        now = self._clock()
        refusals = self._refusals.setdefault(refusal.reason, _Refusals())
        refusals.count += 1
        refusals.last = refusal.to_document(now)
        if refusal.kind and (refusal.kind in refusals.kinds or len(refusals.kinds) < MAX_KINDS):
            refusals.kinds[refusal.kind] += 1
        if not 0 <= now - refusals.logged_at < LOG_EVERY_S:
            more = refusals.count - refusals.logged_count - 1
            since = f" (and {more} more since the last such line)" if more else ""
            logger.warning("report from %s refused: %s%s", refusal.peer, refusal.message, since)
            refusals.logged_at, refusals.logged_count = now, refusals.count

    def to_document(self) -> dict[str, Any]:
        """The `intake` part of the health document."""
        reason = self.health.reason()
        return {
            "healthy": reason is None,
            "reason": reason,
            "accepted": self.accepted_total,
            "duplicates": self.duplicates_total,
            "unclaimed": self.unclaimed_total,
            "refused": {
                name: {"count": refusals.count, "types": dict(refusals.kinds), "last": refusals.last}
                for name, refusals in self._refusals.items()
            },
        }
