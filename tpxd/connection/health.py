"""What is known about one connection, for people and probes: state, reason, last error, and its queue's ledger."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any, Final

from tpxd.connection.backlog import Backlog
from tpxd.connection.in_hand import InHand
from tpxd.connection.state_lines import StateLines
from tpxd.connection.states import FIRST, PASSING, ConnectionState, ImpossibleTransition, check_transition
from tpxd.downlinks.book import DownlinkCounts
from tpxd.errors import Problem, TpxdError
from tpxd.events import Event, LastError, Tell, timestamp
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor, Fate, Rejected, Settled

logger = logging.getLogger(__name__)

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


STALLED_S: Final = 30.0
LOST_S: Final = 3_600.0
ALL_REJECTED: Final = 10
"""So many in a row, and none delivered among them, need a person."""


@dataclass(slots=True)
class FileState:
    """Which version of the file runs, and what is wrong with the newest one; warnings keep it from nothing."""

    generation: int = 0
    running: int | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def error(self) -> str | None:
        """The problems as one text, None when the file is fine."""
        return _as_one_text(self.problems)

    @property
    def warning(self) -> str | None:
        """What is let pass since it ran before, as one text, None when there is nothing such."""
        return _as_one_text(self.warnings)

    def to_document(self) -> dict[str, Any]:
        """As the health document shows it; `warning` is there only where there is one."""
        document = {"generation": self.generation, "running": self.running, "error": self.error}
        return document | ({"warning": self.warning} if self.warnings else {})


def _as_one_text(problems: tuple[Problem, ...]) -> str | None:
    return "; ".join(str(problem) for problem in problems) or None


@dataclass(slots=True)
class Health:
    """One connection's health; changed by its tasks, read by the control plane, all on one thread.

    Attributes:
        name, connector_id, active: as in the version of the file that runs, or the newest one seen.
        in_hand: what is taken from its queue.
        backlog: of the version at work, or that was last; None where its file lets no new uplinks go first.
        trouble: what fails beside the way of uplinks, as its connector says; None when nothing does.
        last_rejection: the newest error that was the rejection of an uplink.
        rejected_running: how many of the newest uplinks were rejected, since one was delivered or a version began.
        lines: says in events what state it is in.
        retry_at: when it is tried again, seconds since the epoch; None when it is not.
    """

    id: str
    cursor: Cursor
    tell: Tell
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    name: str = ""
    connector_id: str | None = None
    active: bool = True
    state: ConnectionState = FIRST
    reason: str | None = None
    since: float = 0.0
    file: FileState = field(default_factory=FileState)
    downlinks: DownlinkCounts = field(default_factory=DownlinkCounts)
    in_hand: InHand = field(default_factory=InHand)
    backlog: Backlog | None = None
    trouble: str | None = None
    last_rejection: LastError | None = None
    rejected_running: int = 0
    last_delivery: float | None = None
    last_error: LastError | None = None
    retry_at: float | None = None
    certificate_expires: datetime | None = None
    _cursor_moved_at: float = float("-inf")
    _drain: Drain = field(default_factory=Drain)
    _lost_at: dict[str, float] = field(default_factory=dict)
    lines: StateLines = field(init=False)

    def __post_init__(self) -> None:
        self.since = self.wall()
        self.lines = StateLines(self._say, lambda: self.monotonic())

    def begin(self, backlog: Backlog | None) -> None:
        """Another version of the file is at work, and judged by its own uplinks."""
        self.backlog, self.trouble, self.rejected_running = backlog, None, 0
        self.lines.begin()

    def enter(self, state: ConnectionState, reason: str | None = None, *, retry_at: float | None = None) -> None:
        """Enter a state; one that may not follow is logged as a bug. Passing ones make no event, and others only as
        `StateLines` says."""
        try:
            check_transition(self.state, state)
        except ImpossibleTransition as bug:
            text = "%s: a bug: %s; the state is shown all the same"
            logger.error(text, self.id, bug, stack_info=True, extra={"connection": self.id})
        self.retry_at = retry_at
        if state is not self.state:
            self.since = self.wall()
        self.state, self.reason = state, reason
        if state not in PASSING:
            self.lines.entered(state, reason)

    def _say(self, state: str, reason: str | None, left_out: int) -> None:
        text = f"{self.id}: {state}" + (f": {reason}" if reason else "")
        if left_out:
            text += f" (it opened and closed {left_out} times meanwhile)"
        level = logging.INFO if reason is None else logging.WARNING
        self.tell(Event("state", text, self.id, level, more={"state": state}))

    def note(self, error: TpxdError) -> None:
        """Remember an error as the last one."""
        self.last_error = LastError(self.wall(), error.message, error.hint)

    def throttled(self, error: TpxdError | None) -> None:
        """The far end asks for patience (the state stays OPENED), or None: the patience is over."""
        if error is None:
            self.retry_at, self.reason = None, None
        else:
            self.note(error)
            self.retry_at, self.reason = self.wall() + getattr(error, "retry_after_s", 0.0), error.message

    def troubled(self, error: TpxdError | None) -> None:
        """Something beside the way of uplinks fails, or None: it works. One event at its beginning, one at its end."""
        before, self.trouble = self.trouble, None if error is None else error.message
        if error is not None:
            self.note(error)
        if error is not None and before is None:
            text, more = f"{self.id}: {error.message}", {"hint": error.hint}
            self.tell(Event("trouble", text, self.id, logging.WARNING, more=more))
        elif error is None and before is not None:
            self.tell(Event("trouble", f"{self.id}: overcome: {before}", self.id))

    def lost(self, uplink: Uplink, fate: Settled) -> None:
        """An uplink expired or was rejected: an event, and for each of the two at most one an hour."""
        kind, why = "expired", "it is older than uplinkTimeValidity"
        if isinstance(fate, Rejected):
            kind, why = "rejected", fate.reason
            self.last_error = self.last_rejection = LastError(self.wall(), f"rejected: {why}", fate.hint)
        now = self.monotonic()
        if now - self._lost_at.get(kind, float("-inf")) >= LOST_S:
            self._lost_at[kind] = now
            text = f"{self.id}: {kind} and not sent, such as a {uplink.kind} of {uplink.lane}: {why}"
            self.tell(Event(kind, text, self.id, logging.WARNING))

    def cursor_moved(self, fates: Sequence[Settled]) -> None:
        """The cursor moved over uplinks with these fates, oldest first."""
        self._cursor_moved_at = self.monotonic()
        self._drain.sample(self._cursor_moved_at, self.cursor.ledger.waiting)
        since = takewhile(lambda fate: fate is not Fate.DELIVERED, reversed(fates))
        rejected = sum(isinstance(fate, Rejected) for fate in since)
        if Fate.DELIVERED in fates:
            self.last_delivery = self.wall()
            self.rejected_running = rejected
        else:
            self.rejected_running += rejected

    @property
    def oldest_waiting_s(self) -> float | None:
        """How long the oldest waiting uplink has waited."""
        oldest_ms = self.cursor.oldest_waiting_ms
        return None if oldest_ms is None else max(0.0, self.wall() - oldest_ms / 1000)

    @property
    def stalled(self) -> bool:
        """The oldest uplink waits for more than 30 s and the cursor did not move in the last 30 s."""
        waited = self.oldest_waiting_s
        return waited is not None and waited > STALLED_S and self.monotonic() - self._cursor_moved_at > STALLED_S

    @property
    def healthy(self) -> bool:
        """Nothing about this connection needs a person."""
        if self.file.problems:
            return False
        if self.state is ConnectionState.OPENED:
            return not self.stalled and not self.rejects_all
        return self.state is ConnectionState.DEACTIVATED

    @property
    def rejects_all(self) -> bool:
        """Ten uplinks or more were rejected, and none was delivered meanwhile."""
        return self.rejected_running >= ALL_REJECTED

    def why(self) -> str | None:
        """Why it is not healthy, in one line; None when it is."""
        if self.healthy:
            return None
        if self.state is ConnectionState.OPENED and self.stalled:
            return f"stalled: the oldest uplink has waited {self.oldest_waiting_s or 0:.0f} s"
        if self.state is ConnectionState.OPENED and self.rejects_all:
            return f"the last {self.rejected_running} uplinks were all {self.last_rejection}"
        if self.state in (ConnectionState.OPENED, ConnectionState.DEACTIVATED):
            return f"the file has an error: {self.file.error}"
        return f"{self.state}: {self.reason}" if self.reason else str(self.state)

    def to_document(self) -> dict[str, Any]:
        """The health document of the control plane."""
        ledger = self.cursor.ledger
        oldest = self.oldest_waiting_s
        drained = self._drain.estimate_s(self.monotonic(), ledger.waiting)
        error = self.last_error
        expires = self.certificate_expires
        return {
            "id": self.id,
            "name": self.name,
            "connectorId": self.connector_id,
            "active": self.active,
            "state": str(self.state),
            "since": timestamp(self.since),
            "healthy": self.healthy,
            "reason": self.reason or self.why() or self.trouble,
            "file": self.file.to_document(),
            "uplinks": {
                "received": ledger.received,
                "delivered": ledger.delivered,
                "filtered": ledger.filtered,
                "expired": ledger.expired,
                "rejected": ledger.rejected,
                "dropped": ledger.dropped,
                "waiting": ledger.waiting,
                "inFlight": min(self.in_hand.sending, ledger.waiting),
            },
            "downlinks": asdict(self.downlinks),
            "oldestWaitingSeconds": None if oldest is None else round(oldest, 3),
            "replacedCharacters": self.in_hand.replaced,
            "drainSeconds": None if drained is None else round(drained, 1),
            "backlogAlone": None if self.backlog is None else self.backlog.alone,
            "lastDelivery": timestamp(self.last_delivery),
            "lastError": error and {"at": timestamp(error.at), "message": error.message, "hint": error.hint},
            "retryAt": timestamp(self.retry_at),
            "certificateExpires": expires and timestamp(expires.timestamp()),
        }
