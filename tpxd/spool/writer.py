"""The one thread that touches SQLite. Everything that arrived while the last commit ran is the next commit.

Theory of operation: the event loop puts work into `inbox` and `calls` and rings once; deques need no lock for that. The
thread takes what is there, commits it as one transaction, and hands a `Round` back in one call into the loop. Then it
reads one page for whoever waits for one, and looks for the next work. With nothing to do it keeps the file in order.

When the disk refuses, everyone in the transaction gets `SpoolUnavailable`, and the next work is tried all the same.
When the file turns out to be damaged or gone, or a failed sync has ended trust in it, a new one takes its place on the
spot and the work is tried again: callers wait, that is all. While no new one can be made nothing is stored; it is tried
again each second, and what the old one holds can be read.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool import ledger
from tpxd.spool.database import FREE_SPACE, Damaged, Displaced, Distrusted, is_full
from tpxd.spool.journal import Journal
from tpxd.spool.keeping import Keeping, NoRoom
from tpxd.spool.memories import Pending
from tpxd.spool.progress import Alive, Progress
from tpxd.spool.rounds import Call, Round, View
from tpxd.spool.rows import CursorRow
from tpxd.spool.storing import Storing

MAX_ROWS = 1_024
MAX_BYTES = 8 << 20
"""Of one transaction; what is beyond waits for the next, so that nobody waits for a very long one."""

CROWD = 8
GATHER_S = 0.003
"""With so many waiting, or in one of the last commits, a commit lets more come for a moment: its own cost is then
shared by more of them. Those that were just answered come again; the first of them should not go alone."""

TICK_S = 1.0
KEEPING_PAUSE_S = 0.02
PROBE_S = 1.0
CHECKPOINT_COMMITS = 100
CHECKPOINT_BYTES = 2 << 20
"""After so much the log is moved into the database, in the next moment when nobody waits; a few milliseconds."""

OVERDUE = 4
"""After so many times as much it is moved whoever waits."""


T = TypeVar("T")
Renew = Callable[[Journal, Damaged | Distrusted, Alive], Journal]
"""Puts a new file in place of the journal's."""


class Stored(NamedTuple):
    """What a transaction appended, from `first_seq` on; `no_room`: why the new reports are not among it."""

    first_seq: int = 0
    uplinks: Sequence[Pending] = ()
    no_room: NoRoom | None = None


class Writer:
    """The thread's work and its post boxes.

    Attributes:
        inbox, calls: append to them in the event loop, then `ring`.
        moved_s: monotonic time at which the last round ended, or a long repair made progress.
        progress: of a repair that is under way.
        storing: whether the disk takes what it is given.
    """

    def __init__(
        self,
        journal: Journal,
        keeping: Keeping,
        renew: Renew,
        wall_clock: Callable[[], float],
        deliver: Callable[[Round], None],
    ) -> None:
        self.inbox: deque[Pending] = deque()
        self.calls: deque[Call] = deque()
        self.moved_s = time.monotonic()
        self.progress = Progress()
        self.storing = Storing(keeping.note)
        self._journal = journal
        self._keeping = keeping
        self._renew = renew
        self._fault: Damaged | Distrusted | None = None
        self._renewal: tuple[float, SpoolUnavailable] | None = None
        self._wall_clock = wall_clock
        self._deliver = deliver
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._rung = False
        self._stopping = False
        self._reads: deque[Call] = deque()
        self._no_room: NoRoom | None = None
        self._next_tick_s = 0.0
        self._logged_commits = 0
        self._logged_bytes = 0
        self._oldest: tuple[int, int | None] = (0, None)
        self._crowd = 0

    def ring(self) -> None:
        """Tell the thread that there is work."""
        if not self._rung:
            self._rung = True
            self._bell.put(None)

    def stop(self) -> None:
        """Let `run` return when everything that is in the boxes now is done."""
        self._stopping = True
        self._bell.put(None)

    def run(self) -> None:
        """Work until `stop`, then close the file."""
        while True:
            appends, writes = self._take()
            if appends or writes:
                self._commit(appends, writes)
            elif self._reads:
                self._read(self._reads.popleft())
            elif self._stopping:
                break
            self._keep()
            self._moved()
        with suppress(SpoolUnavailable):  # SQLite's own closing keeps its errors to itself
            self._mended(self._last_work)
        with suppress(Damaged, SpoolUnavailable):  # what could not be moved into the database is still in the log
            self._journal.close()

    def _last_work(self) -> None:
        self._journal.must_be_in_place()
        self._journal.cut_log()

    def _moved(self) -> None:
        self.moved_s = time.monotonic()

    def _take(self) -> tuple[list[Pending], list[Call]]:
        """Wait for work and take a transaction's worth of it; what only reads goes to `_reads`."""
        if not (self._reads or self.inbox or self.calls or self._stopping):
            pause = self._next_tick_s - time.monotonic()
            with suppress(queue.Empty):
                self._bell.get(timeout=max(0.0, pause))
        crowd = max(len(self.inbox), self._crowd)
        if crowd >= CROWD:
            time.sleep(GATHER_S)
        self._rung = False
        appends: list[Pending] = []
        size = 0
        while self.inbox and len(appends) < MAX_ROWS and size < MAX_BYTES:
            pending = self.inbox.popleft()
            size += len(pending.uplink.body)
            appends.append(pending)
        self._crowd = max(len(appends), crowd // 2)
        writes: list[Call] = []
        for _ in range(len(self.calls)):
            call = self.calls.popleft()
            (writes if call.writes else self._reads).append(call)
        return appends, writes

    def _commit(self, appends: list[Pending], writes: list[Call]) -> None:
        stored_ms = int(self._wall_clock() * 1000)
        stored = Stored()
        error: SpoolUnavailable | None = None
        try:
            with self.storing.timed():
                stored = self._mended(lambda: self._transact(appends, writes, stored_ms))
        except SpoolUnavailable as unavailable:
            error = unavailable
            for call in writes:
                call.error = unavailable
            self._refused(unavailable, sum([len(pending.uplink.body) for pending in appends]))
        if stored.uplinks:
            self.storing.stored(sum([len(pending.uplink.body) for pending in stored.uplinks]))
        refused: list[Pending] = []
        if appends and error is None:
            self._note_room(stored.no_room)
        if error is None and stored.no_room is not None:
            error = _unavailable(stored.no_room)
        if error is not None:
            refused += appends
        for pending in refused:
            pending.error = error
        if any(call.handed for call in writes):
            kept = set(map(id, stored.uplinks))
            refused += [pending for call in writes for _, pending in call.handed if id(pending) not in kept]
        self._logged_commits += 1
        self._logged_bytes += sum([len(pending.uplink.body) for pending in stored.uplinks])
        self._publish(stored, refused, stored_ms, writes)

    def _transact(self, appends: list[Pending], writes: list[Call], stored_ms: int) -> Stored:
        """One transaction.

        What a receipt settles is settled first, which may make the room for what is handed on of it; the receipt stands
        though there be none.
        """
        journal = self._journal
        rows: list[Pending] = []
        with journal.transaction():
            for call in writes:
                call.error = None
                if call.whole and call.handed and (no_room := self._make_room([pending for _, pending in call.handed])):
                    call.error = _unavailable(no_room)
                    continue
                call.result = call.run(journal)
                handed = [pending for seq, pending in call.handed if seq in call.result]
                if handed and not call.whole and self._make_room(handed):
                    ledger.drop_handed_on(journal, [pending.uplink.recipient for pending in handed])
                else:
                    rows += handed
            no_room = self._make_room(appends) if appends else None
            if no_room is None:
                rows = rows + appends if rows else appends
            if not rows:
                return Stored(no_room=no_room)
            uplinks = [pending.uplink for pending in rows]
            return Stored(journal.append(uplinks, [pending.digest for pending in rows], stored_ms), rows, no_room)

    def _make_room(self, rows: list[Pending]) -> NoRoom | None:
        return self._keeping.make_room(self._journal, sum([len(pending.uplink.body) for pending in rows]))

    def _read(self, call: Call) -> None:
        try:
            call.result = self._mended(lambda: call.run(self._journal), reads=True)
        except SpoolUnavailable as unavailable:
            call.error = unavailable
        self._publish(Stored(), (), 0, (call,))

    def _mended(self, work: Callable[[], T], *, reads: bool = False) -> T:
        """Do the work. Where the file turns out damaged, or is not trusted, put a new one in its place first, once."""
        for _ in range(2):
            if self._fault is not None and not (reads and self._readable()):
                self._put_new_file(self._fault)
            try:
                return work()
            except (Damaged, Distrusted) as fault:
                self._fault = self._displaced() or fault
        last = self._fault
        if isinstance(last, Damaged):
            self._fault = None  # perhaps it lies in this work alone; if not, the next one finds out
        raise SpoolUnavailable(f"the spool is damaged, and still after a repair: {last}") from last

    def _displaced(self) -> Displaced | None:
        """What is not in its place is not looked for there, whatever else is wrong with it."""
        try:
            self._journal.must_be_in_place()
        except Displaced as displaced:
            return displaced
        return None

    def _readable(self) -> bool:
        return isinstance(self._fault, Distrusted) and not self._journal.closed

    def _put_new_file(self, fault: Damaged | Distrusted) -> None:
        if self._renewal is not None and time.monotonic() < self._renewal[0]:
            raise SpoolUnavailable(self._renewal[1].message, hint=self._renewal[1].hint)
        try:
            self._journal = self._renew(self._journal, fault, self._alive)
        except SpoolUnavailable as unavailable:
            self._renewal = (time.monotonic() + PROBE_S, unavailable)
            raise
        finally:
            self.progress.done()
        self._fault = self._renewal = None

    def _alive(self, text: str) -> None:
        self.moved_s = time.monotonic()
        self.progress(text)

    def _note_room(self, no_room: NoRoom | None) -> None:
        """One event when nothing fits any more, one when it does again."""
        before = self._no_room
        if no_room is not None and (before is None or before.told != no_room.told):
            event = Event("spool", no_room.told, level=logging.ERROR, more={"hint": no_room.hint})
            self._keeping.events.append(event)
        elif before is not None and no_room is None:
            self._keeping.events.append(Event("spool", "the spool has room again"))
        self._no_room = no_room

    def _keep(self) -> None:
        """Keep the file in order, now and then; while the disk refuses, only try whether it still does."""
        logged = max(self._logged_commits / CHECKPOINT_COMMITS, self._logged_bytes / CHECKPOINT_BYTES)
        if logged > (OVERDUE if self.inbox else 1):
            self._logged_commits = self._logged_bytes = 0
            # The log may grow while the database cannot; whoever stores will find out.
            with suppress(SpoolUnavailable), self.storing.timed():
                self._mended(lambda: self._journal.checkpoint())
        if time.monotonic() < self._next_tick_s:
            return
        if self.storing.error is None:
            more = self._guarded(lambda: self._keeping.tick(self._journal))
            self._next_tick_s = time.monotonic() + (KEEPING_PAUSE_S if more else TICK_S)
        else:
            self._next_tick_s = time.monotonic() + PROBE_S
            self._guarded(self._probe)
        self._publish(Stored(), (), 0, ())

    def _probe(self) -> None:
        """Try whether the disk would take again what it refused."""
        with self._journal.transaction():
            self._journal.put_meta("probed_ms", str(int(self._wall_clock() * 1000)))
        size = self.storing.refused_bytes
        if is_full(self._journal.path, size):
            raise SpoolUnavailable(f"{self._journal.path}: there is no room for {size} bytes", hint=FREE_SPACE)
        self.storing.stored(size)

    def _guarded(self, work: Callable[[], T]) -> T | None:
        try:
            return self._mended(work)
        except SpoolUnavailable as unavailable:
            self._refused(unavailable)
            return None

    def _refused(self, error: SpoolUnavailable, size: int = 0) -> None:
        if self.storing.refused(error, size):
            self._next_tick_s = time.monotonic() + PROBE_S

    def _publish(self, stored: Stored, refused: Sequence[Pending], stored_ms: int, calls: Sequence[Call]) -> None:
        """Hand a round to the event loop."""
        events, self._keeping.events = self._keeping.events, []
        self._deliver(Round(stored.uplinks, refused, stored.first_seq, stored_ms, calls, self.view(), events))

    def view(self) -> View:
        """What the event loop needs to know now; only in the thread once `run` has begun."""
        journal, state = self._journal, self._journal.state
        touched = list(journal.touched)
        journal.touched.clear()
        rows = [state.cursors[id] for id in touched if id in state.cursors]
        try:
            arrivals = journal.reader.arrivals_after([row.position for row in rows])
            if self._oldest[0] != state.first_seq or self._oldest[1] is None:
                self._oldest = (state.first_seq, journal.reader.arrivals_after([state.first_seq - 1])[0])
        except (Damaged, SpoolUnavailable):
            # Only shown to people; whoever reads the row itself will find out and repair it.
            arrivals = [None] * len(rows)
        cursors: dict[str, tuple[CursorRow, int | None] | None] = dict.fromkeys(touched)
        for row, arrival in zip(rows, arrivals, strict=True):
            cursors[row.id] = (row, arrival)
        return View(
            state.first_seq,
            state.last_seq,
            state.newest_ms,
            self._oldest[1],
            state.holes,
            cursors,
            self._keeping.used_bytes,
            self._keeping.free_bytes,
            self.storing.error or (None if self._no_room is None else self._no_room.message),
        )


def _unavailable(no_room: NoRoom) -> SpoolUnavailable:
    return SpoolUnavailable(no_room.message, hint=no_room.hint)
