"""What the writer's thread does for the file between commits: room, retention, recounting. Synchronous.

Two limits, one order of sacrifice (see `room`). For `max_size` whatever is deleted helps. For `min_free` it helps only
where the file itself is large enough to cover what the disk lacks, and where nobody else takes what it gives: else what
waits would be gone and the disk as full as before. Then nothing that waits goes, and what comes is refused.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool import ledger
from tpxd.spool.damage.repair import copies_bytes, drop_copies
from tpxd.spool.database import Damaged, translated
from tpxd.spool.journal import Journal
from tpxd.spool.room import SLICE_ROWS, Arrival, Cause, DropNotices, Laggard, choose
from tpxd.timing import ClockWatch

SLICES_AT_ONCE = 4
IN_VAIN_BYTES = 1 << 20
"""So much may others take, at least, of what was dropped for the disk's sake, before no more is."""

RECOUNT_ROWS = 1_024
RECOUNT_EVERY_S = 3_600.0
VACUUM_PAGES = 256
MEASURE_EVERY_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """How large the spool may become and how long it keeps what.

    Attributes:
        max_bytes: pages in use.
        min_free_bytes: what must stay free on the disk.
        retention_s: rows that every connection is done with, and queues of removed connections, stay this long.
        refuse_when_full: rather refuse new uplinks than drop the oldest that still wait.
        duplicate_window_s: a report with the same type, lane and body within this time is not stored again.
        page_size: of the SQLite file, from its making on; a broken one is read with it.
    """

    max_bytes: int = 1 << 30
    min_free_bytes: int = 256 << 20
    retention_s: float = 86_400.0
    refuse_when_full: bool = False
    duplicate_window_s: float = 600.0
    page_size: int = 4_096


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Why something could not be stored.

    Attributes:
        message: for whoever is refused.
        told: the event when it begins.
    """

    message: str
    told: str
    hint: str


@dataclass(frozen=True, slots=True)
class Given:
    """What was dropped for the disk's sake since it last had enough.

    Attributes:
        whole: see `Keeping._whole`, when it began.
    """

    whole: int
    bytes: int


FULL = NoRoom(
    "the spool is full",
    "the spool is full of what still waits: new uplinks are refused",
    "raise [spool] max_size, free space on the disk, or remove connections that nobody needs",
)


class Keeping:
    """Keeps the journal within its limits.

    Attributes:
        validity_s: how long uplinks stay valid, by cursor; set by the engine, in another thread.
        used_bytes, free_bytes: as last measured.
        events: what to report; whoever reports it empties it.
    """

    def __init__(
        self,
        limits: SpoolLimits,
        path: Path,
        wall_clock: Callable[[], float],
        free_bytes: Callable[[Path], int],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        hold: Callable[[], None] = lambda: None,
    ) -> None:
        self.validity_s: dict[str, float | None] = {}
        self.used_bytes = 0
        self.free_bytes = 0
        self.events: list[Event] = []
        self._limits = limits
        self._path = path
        self._newest_ms = 0
        self._clock = ClockWatch(lambda: self._newest_ms, wall=wall_clock, monotonic=monotonic)
        self._measure_free = free_bytes
        self._hold = hold
        self._spare_bytes = 0
        self._copies_bytes = 0
        self._unmeasured = 0
        self._given: Given | None = None
        self._notices, self._not_handed_on = DropNotices(), DropNotices()
        self._evicted = 0
        self._recounted_through: int | None = 0
        self._recounted_at_s = time.monotonic()

    def note(self, event: Event) -> None:
        """Report something, soon."""
        self.events.append(event)

    def measure(self, journal: Journal) -> None:
        """Look how much is used and free."""
        self._measure_pages(journal)
        self.free_bytes = self._measure_free(self._path.parent)
        self._newest_ms = journal.state.newest_ms
        with translated(self._path):
            self._copies_bytes = copies_bytes(self._path)
        if self.free_bytes >= self._limits.min_free_bytes:
            self._given = None

    def _measure_pages(self, journal: Journal) -> None:
        self.used_bytes, self._spare_bytes = journal.reader.page_bytes()
        self._unmeasured = 0

    def make_room(self, journal: Journal, incoming_bytes: int) -> NoRoom | None:
        """Inside a transaction: delete the oldest rows until so many bytes fit; or say why nothing may go.

        It deletes a few slices at once. Where more is to be done, the next commits go on with it.
        """
        if self._unmeasured > MEASURE_EVERY_BYTES or self._shortage(incoming_bytes) > 0:
            self.measure(journal)
            self._drop_copies(journal, incoming_bytes)
        fits = self._fit(journal, incoming_bytes)
        self._unmeasured += incoming_bytes
        return fits

    def _drop_copies(self, journal: Journal, incoming_bytes: int) -> None:
        """Where room is short, what earlier repairs left goes before any uplink."""
        if self._copies_bytes and self._shortage(incoming_bytes) > 0:
            with translated(self._path):
                drop_copies(self._path)
            self.events.append(Event("spool", "room is short: the damaged file of an earlier repair is deleted"))
            self.measure(journal)

    def _fit(self, journal: Journal, incoming_bytes: int) -> NoRoom | None:
        for _ in range(SLICES_AT_ONCE):
            shortage = self._shortage(incoming_bytes)
            if shortage <= 0:
                return None
            no_room = self._no_room(journal, incoming_bytes)
            if not self._sacrifice(journal, shortage, may_drop=no_room is None):
                return no_room or FULL
        return None

    def _shortage(self, incoming_bytes: int) -> int:
        used = self.used_bytes + self._copies_bytes + self._unmeasured + incoming_bytes
        return max(used - self._limits.max_bytes, self._disk_shortage(incoming_bytes))

    def _disk_shortage(self, incoming_bytes: int) -> int:
        """What the disk lacks. Pages that are free in the file count as free: they are used again, or given back."""
        free = self.free_bytes + self._spare_bytes - self._unmeasured
        return self._limits.min_free_bytes + incoming_bytes - free

    def _no_room(self, journal: Journal, incoming_bytes: int) -> NoRoom | None:
        """Why nothing that still waits may go for what comes; None when it may."""
        if self._limits.refuse_when_full:
            return FULL
        shortage = self._disk_shortage(incoming_bytes)
        if shortage <= 0:
            return None
        whole = self._whole(journal)
        given = self._given or Given(whole, 0)
        taken = given.whole - whole
        if shortage > self.used_bytes or taken > max(IN_VAIN_BYTES, given.bytes // 2):
            return NoRoom(
                f"the disk has {self.free_bytes} bytes left, {shortage} less than [spool] min_free asks for; to drop"
                " what waits would not bring them",
                "something else fills the disk: what waits is kept, and new uplinks are refused",
                "free space on the disk, or lower [spool] min_free",
            )
        self._given = Given(given.whole, given.bytes + shortage)
        return None

    def _whole(self, journal: Journal) -> int:
        """What the disk has for the spool and for what must stay free; it changes only by what others do."""
        return self.free_bytes + self.used_bytes + self._spare_bytes + journal.log_bytes()

    def _sacrifice(self, journal: Journal, needed_bytes: int, *, may_drop: bool) -> bool:
        state = journal.state
        oldest = [Arrival(*row) for row in journal.reader.arrivals(state.first_seq - 1, SLICE_ROWS)]
        cursors = [Laggard(row.position, self.validity_s.get(row.id)) for row in state.cursors.values()]
        chosen = choose(oldest, cursors, needed_bytes, self._now_ms(), may_drop=may_drop)
        if chosen is None:
            return False
        if chosen.cause is not Cause.DONE:
            lost = ledger.pass_over(journal, chosen.through, expired=chosen.cause is Cause.EXPIRED)
            if chosen.cause is Cause.DROPPED:
                state.dropped = Counter(state.dropped) + Counter(lost)
        journal.delete_through(chosen.through)
        self._measure_pages(journal)
        return True

    def tick(self, journal: Journal) -> bool:
        """Outside a transaction: do a little of what is due; True when more of it can be done at once."""
        journal.must_be_in_place()
        self._hold()
        self.measure(journal)
        self._drop_copies(journal, 0)
        more = self._let_go(journal)
        if self.free_bytes < self._limits.min_free_bytes:
            if (shortage := self._disk_shortage(0)) > 0:
                with journal.transaction():
                    more = self._sacrifice(journal, shortage, may_drop=False) or more
            journal.give_back(VACUUM_PAGES)
        self._forget_retired(journal)
        self._notice(journal)
        return self._recount(journal) or more

    def _let_go(self, journal: Journal) -> bool:
        """Delete a slice of what every cursor is done with for longer than the retention."""
        state = journal.state
        now_ms = self._now_ms()
        if now_ms is None:
            return False
        stored = journal.reader.stored_before(now_ms - int(self._limits.retention_s * 1000))
        done = min((row.position for row in state.cursors.values()), default=state.last_seq)
        through = min(stored, done, state.first_seq - 1 + SLICE_ROWS)
        if through < state.first_seq:
            return False
        with journal.transaction():
            journal.delete_through(through)
        return True

    def _forget_retired(self, journal: Journal) -> None:
        now_ms = self._now_ms()
        if now_ms is None:
            return
        before_ms = now_ms - int(self._limits.retention_s * 1000)
        for row in list(journal.state.cursors.values()):
            if row.retired_ms is not None and row.retired_ms < before_ms:
                with journal.transaction():
                    waiting = ledger.forget(journal, row.id)
                text = f"the queue of {row.id}, whose file was removed, is forgotten; {waiting} uplinks waited in it"
                self.events.append(Event("forgotten", text, row.id, more={"waiting": waiting}))

    def _notice(self, journal: Journal) -> None:
        state = journal.state
        self._notices.note(state.dropped)
        self._not_handed_on.note(state.not_handed_on)
        state.dropped, state.not_handed_on = {}, {}
        for id, count in self._notices.due(time.monotonic()).items():
            text = f"the spool is full: {count} uplinks that waited for {id} were dropped, the oldest first"
            self.events.append(Event("dropped", text, id, logging.WARNING, more={"count": count}))
        for id, count in self._not_handed_on.due(time.monotonic()).items():
            text = f"the spool is full: {count} uplinks that were to be handed on to {id} were dropped"
            self.events.append(Event("dropped", text, id, logging.WARNING, more={"count": count}))
        if journal.evicted > self._evicted:
            text = f"too many dead letters: the oldest {journal.evicted - self._evicted} were deleted"
            self.events.append(Event("dead_letters", text, level=logging.WARNING))
            self._evicted = journal.evicted

    def _recount(self, journal: Journal) -> bool:
        """Count a slice of the rows; True while there are further slices. Raises `Damaged` when rows are missing."""
        state = journal.state
        if self._recounted_through is None:
            if time.monotonic() - self._recounted_at_s < RECOUNT_EVERY_S:
                return False
            self._recounted_through = 0
        after = max(self._recounted_through, state.first_seq - 1)
        through = min(after + RECOUNT_ROWS, state.last_seq)
        if journal.reader.count(after, through) != state.present(after, through):
            raise Damaged(f"rows are missing between {after + 1} and {through}")
        self._recounted_through = through
        if through < state.last_seq:
            return True
        self._recounted_through = None
        self._recounted_at_s = time.monotonic()
        for row in state.cursors.values():
            if difference := state.ledger(row).imbalance:
                text = f"the ledger of {row.id} does not balance: {difference:+d} uplinks"
                self.events.append(Event("imbalance", text, row.id, logging.ERROR, more={"difference": difference}))
        return False

    def _now_ms(self) -> int | None:
        """Now; None while the clock cannot be trusted to let anything go."""
        now_s = self._clock.now()
        return None if now_s is None else int(now_s * 1000)


def free_bytes(directory: Path) -> int:
    """What the file system of a directory has left for this user."""
    try:
        status = os.statvfs(directory)
    except OSError as error:
        raise SpoolUnavailable(f"{directory}: {error.strerror}") from error
    return status.f_bavail * status.f_frsize
