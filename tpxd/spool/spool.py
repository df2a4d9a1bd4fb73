"""The spool as the event loop sees it: append, cursors, numbers."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import trio

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event, Tell
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import ledger
from tpxd.spool.contract import Appended, KeptQueue, NewReport, SpoolStatistics
from tpxd.spool.cursor import Cursor
from tpxd.spool.exchange import Call, Round, View
from tpxd.spool.fates import Outcome
from tpxd.spool.journal import Journal
from tpxd.spool.keeping import Keeping, SpoolLimits, free_bytes
from tpxd.spool.memories import CAPACITY, Newest, Pending, Recent, Underway
from tpxd.spool.place import exclusive
from tpxd.spool.progress import Progress
from tpxd.spool.reading import Page
from tpxd.spool.rows import CursorRow, DeadLetter
from tpxd.spool.starting import renew_journal, start_journal
from tpxd.spool.state import REMEMBERED, notes_of
from tpxd.spool.writer import MAX_ROWS, Renew, Writer

TRACE_ROWS = 200_000
TRACE_STEP = 4_096
"""A look back goes in steps, so that no uplink waits behind it for more than a few milliseconds."""

T = TypeVar("T")


@asynccontextmanager
async def open_spool(
    path: Path,
    limits: SpoolLimits,
    *,
    tell: Tell,
    wall_clock: Callable[[], float] = time.time,
    measure_free: Callable[[Path], int] = free_bytes,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Spool]:
    """Open the spool at `path`, making or repairing it where needed; at the end everything is in one closed file.

    Raises:
        SpoolVersionError: a newer tpxd wrote the file; it is left as it is.
        SpoolUnavailable: the file cannot be opened or made.

    Cancellation: what was given to `append` before is still committed, which takes as long as the disk does.
    """
    events: list[Event] = []
    with exclusive(path) as lock:
        journal = await trio.to_thread.run_sync(
            start_journal, path, limits.page_size, wall_clock, events.append, measure_free, Progress()
        )
        for event in events:
            tell(event)
        keeping = Keeping(limits, path, wall_clock, measure_free, monotonic=monotonic, hold=lock.hold)
        renew = partial(
            renew_journal,
            page_size=limits.page_size,
            wall_clock=wall_clock,
            note=keeping.note,
            measure_free=measure_free,
            hold=lock.hold,
        )
        spool = Spool(journal, keeping, renew, limits, tell, wall_clock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, spool.writer.run, limiter=trio.CapacityLimiter(1)))
            try:
                yield spool
            finally:
                spool.writer.stop()


class Spool:
    """An open spool; see `open_spool`.

    Attributes:
        state: the journal's numbers as of the last done.
        newest: the newest uplinks, in memory.
        validity_s: see `Cursor.validity_s`.
        writer: the thread's work.
    """

    def __init__(
        self,
        journal: Journal,
        keeping: Keeping,
        renew: Renew,
        limits: SpoolLimits,
        tell: Tell,
        wall_clock: Callable[[], float],
    ) -> None:
        keeping.measure(journal)
        loop = trio.lowlevel.current_trio_token()
        self.state = journal.state.copy()
        self.newest = Newest(self.state.last_seq)
        self.validity_s = keeping.validity_s
        self.writer = Writer(journal, keeping, renew, wall_clock, lambda done: loop.run_sync_soon(self._finish, done))
        self._limits = limits
        self._tell = tell
        self._wall_clock = wall_clock
        self._view = self.writer.view()
        self._cursors: dict[str, Cursor] = {}
        self._to_be: WeakValueDictionary[str, Cursor] = WeakValueDictionary()
        self._underway = Underway(Recent(bytes.fromhex(self.state.meta["key"]), limits.duplicate_window_s))
        self._load_recent(journal)
        self._arrivals = trio.lowlevel.ParkingLot()
        for id in self._view.cursors:
            self._see_cursor(id)

    def _load_recent(self, journal: Journal) -> None:
        since_ms = self.now_ms() - int(self._limits.duplicate_window_s * 1000)
        for digests, first_seq, stored_ms in journal.reader.digests(since_ms, CAPACITY + MAX_ROWS):
            self._underway.recent.add(digests, first_seq, stored_ms)

    async def append(self, report: NewReport) -> Appended:
        """Store a report; it is synced to disk when this returns.

        A report that was stored within the duplicate window is not stored again, unless it is `repeatable`. One that is
        just being stored shares the fate of the first.

        Raises:
            SpoolUnavailable: the disk refuses, the spool is full and may not drop, or too much is under way already.
            UnicodeEncodeError: a text is not Unicode.

        Cancellation: it may have been stored or not.
        """
        now_ms = self.now_ms()
        report.lrn_infos.encode()  # a text that SQLite cannot take must fail here, not in a transaction with others
        underway = self._underway
        digest = secrets.randbits(63) if report.repeatable else underway.digest(report)
        seq = underway.recent.find(digest, now_ms)
        if seq is not None:
            underway.duplicates += 1
            await trio.lowlevel.checkpoint()
            return Appended(seq, duplicate=True)
        pending = underway.find(digest)
        duplicate = pending is not None
        if pending is None:
            pending = underway.enter(report, digest, now_ms)
            self.writer.inbox.append(pending)
            self.writer.ring()
        task = trio.lowlevel.current_task()
        waiters = pending.waiters
        waiters.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            waiters.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if pending.error is not None:
            raise _once_more(pending.error)
        underway.duplicates += duplicate
        return Appended(pending.uplink.seq, duplicate)

    def queue(self, id: str) -> Cursor:
        """The queue of a connection; where there is none, what it will be when `cursor` has made it.

        A new one begins at the journal's end as it is now, however long the disk refuses to make it.
        """
        known = self._cursors.get(id)
        if known is not None:
            return known
        end = self.state.last_seq
        return self._to_be.setdefault(id, Cursor(self, CursorRow(0, id, end, end), None))

    async def cursor(self, id: str) -> Cursor:
        """The queue of a connection, on disk: a new one begins as `queue` says, a retired one goes on where it was.

        Raises:
            SpoolUnavailable: the disk refuses.
        """
        queue = self.queue(id)
        await self.write(partial(ledger.ensure, id=id, position=queue.position))
        return self._cursors[id]

    def cursors(self) -> list[str]:
        """The ids of all queues, also of those whose connection's file was removed."""
        return sorted(self._cursors)

    def find_cursor(self, id: str) -> Cursor | None:
        """A queue that exists, as it is."""
        return self._cursors.get(id)

    def kept_queues(self) -> dict[str, KeptQueue]:
        """The queues whose connections' files were removed, by id."""
        retention_ms = int(self._limits.retention_s * 1000)
        return {
            id: KeptQueue(cursor.ledger.waiting, cursor.retired_ms + retention_ms)
            for id, cursor in sorted(self._cursors.items())
            if cursor.retired_ms is not None
        }

    async def retire(self, id: str) -> None:
        """The connection's file was removed: keep its queue and ledger for the retention, in case it comes back."""
        await self.write(partial(ledger.retire, id=id, at_ms=self.now_ms()))

    async def forget(self, id: str) -> int:
        """Drop a queue, its ledger and what is remembered for it now; returns how many uplinks waited in it."""
        waiting = await self.write(partial(ledger.forget, id=id))
        text = f"the queue of {id} is forgotten; {waiting} uplinks waited in it"
        self._tell(Event("forgotten", text, id, more={"waiting": waiting}))
        return waiting

    async def dead_letters(self, connection: str, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters of a connection, newest first."""
        letters, damaged = await self.look(lambda journal: journal.reader.dead_letters(connection, limit))
        if damaged:
            text = f"{damaged} dead letters of {connection} are damaged on the disk"
            self._tell(Event("damage", text, connection, logging.ERROR, more={"count": damaged}))
        return letters

    async def uplinks_of(self, lane: str, limit: int) -> list[Uplink]:
        """The newest uplinks of one device that are still kept, newest first; looks back `TRACE_ROWS` at most.

        Raises:
            SpoolUnavailable: the disk cannot be read.
        """
        found: list[Uplink] = []
        through, oldest = self.state.last_seq, max(self.state.first_seq - 1, self.state.last_seq - TRACE_ROWS)
        while through > oldest and len(found) < limit:
            after = max(oldest, through - TRACE_STEP)
            find = partial(ledger.newest_of, lane=lane, after=after, through=through, limit=limit - len(found))
            found += await self.look(find)
            through = after
        return found

    async def fates_of(self, seqs: Sequence[int]) -> dict[int, dict[str, Outcome]]:
        """What became of uplinks that are still kept, by seq, then by connection.

        A connection whose queue began later is left out; what is for another connection alone is `filtered`. Removed
        connections are among it as long as their queues are kept.

        Raises:
            SpoolUnavailable: the disk cannot be read.
        """
        return await self.look(partial(ledger.fates_of, seqs=tuple(seqs)))

    async def remember(self, key: str, value: str) -> None:
        """Store a small text under a key, durably."""
        await self.write(lambda journal: journal.put_meta(f"{REMEMBERED}{key}", value))
        self.state.meta[f"{REMEMBERED}{key}"] = value

    def recall(self, key: str) -> str | None:
        """What was stored under a key; None when nothing was."""
        return self.state.meta.get(f"{REMEMBERED}{key}")

    def imbalance(self, id: str) -> int:
        """By how much the ledger of a queue does not balance: 0, unless something is wrong."""
        return self._cursors[id].ledger.imbalance

    def statistics(self) -> SpoolStatistics:
        """How the spool is, as of the last done; whether it stores, as of now."""
        view = self._view
        hindrance = self.writer.progress.text or view.last_error or self.writer.storing.hindrance()
        return SpoolStatistics(
            used_bytes=view.used_bytes,
            max_bytes=self._limits.max_bytes,
            free_bytes=view.free_bytes,
            oldest_ms=view.oldest_ms,
            newest_ms=view.newest_ms or None,
            stored_total=view.last_seq,
            duplicates_total=self._underway.duplicates,
            duplicates_since_ms=self._underway.recent.since_ms(self.now_ms()),
            storing=hindrance is None,
            last_error=hindrance,
        )

    def round_ended_at(self) -> float:
        """When the writer last ended a round, by `time.monotonic`; it does so at least every few seconds."""
        return self.writer.moved_s

    # What follows is for the cursors.

    def now_ms(self) -> int:
        """Now, as the wall clock has it."""
        return int(self._wall_clock() * 1000)

    async def write(self, run: Callable[[Journal], T]) -> T:
        """Run something in the writer's next transaction; returns when it is durable."""
        return await self._call(run, writes=True)

    async def settle(
        self, run: Callable[[Journal], Collection[int]], handed: Sequence[tuple[int, Uplink]], *, whole: bool = False
    ) -> None:
        """Settle uplinks, see `ledger.settle`, and append what is handed on of them, in one transaction.

        Where there is no room for what is handed on, that is dropped, or with `whole` nothing is done at all.
        """
        entered = self._underway.hand_on(handed, self.now_ms()) if handed else ()
        await self._call(run, writes=True, handed=entered, whole=whole)

    async def read(self, after: int) -> Page:
        """Read a page of the journal from the disk; rows that are damaged become holes."""
        page = await self.look(partial(ledger.read_page, after=after))
        for seq in page.damaged:
            text = f"uplink {seq} is damaged on the disk; it is dropped"
            self._tell(Event("damage", text, level=logging.ERROR, more={"seq": seq}))
        return page

    async def look(self, run: Callable[[Journal], T]) -> T:
        """Run something that only reads, between the writer's transactions."""
        return await self._call(run, writes=False)

    async def arrival(self) -> None:
        """Wait until something was stored."""
        await self._arrivals.park()

    async def _call(
        self,
        run: Callable[[Journal], T],
        *,
        writes: bool,
        handed: Sequence[tuple[int, Pending]] = (),
        whole: bool = False,
    ) -> T:
        call = Call(run, writes, trio.lowlevel.current_task(), handed, whole)
        self.writer.calls.append(call)
        self.writer.ring()

        def abort(_: object) -> trio.lowlevel.Abort:
            call.waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if call.error is not None:
            raise _once_more(call.error)
        result: T = call.result
        return result

    def _finish(self, done: Round) -> None:
        """Take in what the writer did, and wake whoever waited for it."""
        self._take_view(done.view)
        for pending in (*done.appended, *done.refused):
            self._underway.ended(pending)
            for task in pending.waiters:
                trio.lowlevel.reschedule(task)
        if done.appended:
            self._take_appended(done)
        for call in done.calls:
            if call.waiter is not None:
                trio.lowlevel.reschedule(call.waiter)
        for event in done.events:
            self._tell(event)

    def _take_view(self, view: View) -> None:
        self._view = view
        state = self.state
        state.first_seq, state.last_seq, state.holes = view.first_seq, view.last_seq, view.holes
        for id in view.cursors:
            self._see_cursor(id)

    def _see_cursor(self, id: str) -> None:
        seen = self._view.cursors[id]
        if seen is None:
            self._cursors.pop(id, None)
            for key in notes_of(self.state.meta, id):
                del self.state.meta[key]
        elif id in self._cursors:
            self._cursors[id].row_changed(*seen)
        else:
            self._cursors[id] = self._to_be.pop(id) if id in self._to_be else Cursor(self, *seen)
            self._cursors[id].row_changed(*seen)

    def _take_appended(self, done: Round) -> None:
        for seq, pending in enumerate(done.appended, done.first_seq):
            pending.uplink.seq = seq
        if self.newest.last_seq != done.first_seq - 1:
            self.newest = Newest(done.first_seq - 1)
        self.newest.add([pending.uplink for pending in done.appended])
        self._underway.recent.add([pending.digest for pending in done.appended], done.first_seq, done.stored_ms)
        if self.newest.is_long():
            for cursor in self._cursors.values():
                cursor.note_oldest()
            last_seq = self.newest.last_seq
            self.newest.trim(min((cursor.position for cursor in self._cursors.values()), default=last_seq + 1))
        self._arrivals.unpark_all()


def _once_more(error: SpoolUnavailable) -> SpoolUnavailable:
    """One error ended many calls; each raises its own, so that their tracebacks do not grow into each other."""
    return SpoolUnavailable(error.message, hint=error.hint)
