"""The order of sacrifice: which of the oldest rows go when room is short. Pure.

Oldest first: what every cursor is done with; then what has expired for all that still wait for it; then what still
waits. Only the oldest row needs to be looked at: who waits for it also waits for every younger one but those it settled
ahead, and younger ones expire later, so what may go is always a beginning of the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

SLICE_ROWS = 512
"""Rows deleted at once, so that no commit waits long."""

ROW_OVERHEAD_BYTES = 64

NOTICE_S = 3_600


class Cause(Enum):
    """Why rows may go."""

    DONE = "done"
    EXPIRED = "expired"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Sacrifice:
    """Everything up to `through` goes."""

    through: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Arrival:
    """One of the oldest rows."""

    seq: int
    received_ms: int
    size: int


@dataclass(frozen=True, slots=True)
class Laggard:
    """A cursor: its position, and how long its uplinks stay valid; None: for ever."""

    position: int
    validity_s: float | None


def choose(
    oldest: Sequence[Arrival], cursors: Sequence[Laggard], needed_bytes: int, now_ms: int | None, *, may_drop: bool
) -> Sacrifice | None:
    """Say which of the oldest rows go to gain so many bytes; None when there is nothing that may go.

    Args:
        now_ms: None while nothing may expire.
    """
    if not oldest:
        return None
    done = min((cursor.position for cursor in cursors), default=oldest[-1].seq)
    if oldest[0].seq <= done:
        return Sacrifice(_enough([row for row in oldest if row.seq <= done], needed_bytes), Cause.DONE)
    expired: list[Arrival] = []
    for row in oldest:
        if not all(
            cursor.validity_s is not None and now_ms is not None and row.received_ms + cursor.validity_s * 1000 < now_ms
            for cursor in cursors
            if cursor.position < row.seq
        ):
            break
        expired.append(row)
    if expired:
        return Sacrifice(_enough(expired, needed_bytes), Cause.EXPIRED)
    if may_drop:
        return Sacrifice(_enough(oldest, needed_bytes), Cause.DROPPED)
    return None


def _enough(rows: Sequence[Arrival], needed_bytes: int) -> int:
    gained = 0
    for row in rows:
        gained += row.size + ROW_OVERHEAD_BYTES
        if gained >= needed_bytes:
            return row.seq
    return rows[-1].seq


class DropNotices:
    """Turns many drops into one notice per connection and hour."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def note(self, lost: Mapping[str, int]) -> None:
        """So many uplinks were dropped, by connection."""
        for id, count in lost.items():
            self._counts[id] = self._counts.get(id, 0) + count

    def due(self, now_s: float) -> dict[str, int]:
        """What to say now, at a monotonic time: drops of connections about which nothing was said for an hour."""
        ready = {
            id: count
            for id, count in self._counts.items()
            if id not in self._since or now_s - self._since[id] >= NOTICE_S
        }
        for id in ready:
            del self._counts[id]
            self._since[id] = now_s
        return ready
