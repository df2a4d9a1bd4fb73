"""The event loop's side of the writer's thread: gives it work, takes in its rounds, and knows what was done last.

Work goes into the writer's boxes; whoever waits for it sleeps until the round that ends it. Each round also brings the
journal's numbers and the rows that it changed, so that most questions are answered here, without the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

import trio

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event, Tell
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import ledger
from tpxd.spool.journal import Journal
from tpxd.spool.keeping import Keeping, SpoolLimits
from tpxd.spool.memories import CAPACITY, Newest, Pending, Recent, Underway
from tpxd.spool.reading import Page
from tpxd.spool.rounds import Call, Round, View
from tpxd.spool.rows import CursorRow
from tpxd.spool.state import notes_of
from tpxd.spool.writer import MAX_ROWS, Renew, Writer

T = TypeVar("T")


@dataclass(slots=True, eq=False, weakref_slot=True)
class Standing:
    """Where one queue stands, as of the last round: its row, and when the oldest uplink arrived that waits in it.

    Its owner keeps it when the queue is forgotten; one that is made under the same id later has one of its own.
    """

    row: CursorRow
    oldest_ms: int | None = None


class Exchange:
    """See the module.

    Attributes:
        state: the journal's numbers as of the last round.
        standings: where each queue stands.
        view: of the last round.
        newest: the newest uplinks, in memory.
        underway: what is on its way to the disk, and the reports that were stored lately.
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
        self.view = self.writer.view()
        self.standings: dict[str, Standing] = {}
        self.underway = Underway(Recent(bytes.fromhex(self.state.meta["key"]), limits.duplicate_window_s))
        self._to_be: WeakValueDictionary[str, Standing] = WeakValueDictionary()
        self._tell = tell
        self._wall_clock = wall_clock
        self._arrivals = trio.lowlevel.ParkingLot()
        since_ms = self.now_ms() - int(limits.duplicate_window_s * 1000)
        for digests, first_seq, stored_ms in journal.reader.digests(since_ms, CAPACITY + MAX_ROWS):
            self.underway.recent.add(digests, first_seq, stored_ms)
        self._take_standings(self.view)

    def now_ms(self) -> int:
        """Now, as the wall clock has it."""
        return int(self._wall_clock() * 1000)

    def standing(self, id: str) -> Standing:
        """Where a queue stands; where there is none, where it will stand once it is made.

        A new one begins at the journal's end as it is now, however long the disk refuses to make it.
        """
        known = self.standings.get(id)
        if known is not None:
            return known
        end = self.state.last_seq
        return self._to_be.setdefault(id, Standing(CursorRow(0, id, end, end)))

    async def stored(self, pending: Pending, *, new: bool) -> None:
        """Have a report stored, or with others wait for one that is on its way already.

        Raises:
            SpoolUnavailable: it is not stored.

        Cancellation: it may have been stored or not.
        """
        if new:
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

    async def write(self, run: Callable[[Journal], T]) -> T:
        """Run something in the writer's next transaction; returns when it is durable."""
        return await self._call(run, writes=True)

    async def settle(
        self, run: Callable[[Journal], Collection[int]], handed: Sequence[tuple[int, Uplink]], *, whole: bool = False
    ) -> None:
        """Settle uplinks, see `ledger.settle`, and append what is handed on of them, in one transaction.

        Where there is no room for what is handed on, that is dropped, or with `whole` nothing is done at all.
        """
        entered = self.underway.hand_on(handed, self.now_ms()) if handed else ()
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
            self.underway.ended(pending)
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
        self.view = view
        state = self.state
        state.first_seq, state.last_seq, state.holes = view.first_seq, view.last_seq, view.holes
        self._take_standings(view)

    def _take_standings(self, view: View) -> None:
        for id, seen in view.cursors.items():
            if seen is None:
                self.standings.pop(id, None)
                for key in notes_of(self.state.meta, id):
                    del self.state.meta[key]
            else:
                standing = self.standings.get(id) or self._to_be.pop(id, None) or Standing(seen[0])
                standing.row, standing.oldest_ms = seen
                self.standings[id] = standing

    def _take_appended(self, done: Round) -> None:
        for seq, pending in enumerate(done.appended, done.first_seq):
            pending.uplink.seq = seq
        if self.newest.last_seq != done.first_seq - 1:
            self.newest = Newest(done.first_seq - 1)
        self.newest.add([pending.uplink for pending in done.appended])
        self.underway.recent.add([pending.digest for pending in done.appended], done.first_seq, done.stored_ms)
        if self.newest.is_long():
            self._trim_newest()
        self._arrivals.unpark_all()

    def _trim_newest(self) -> None:
        """Let go of the newest uplinks that all are done with, and keep what is asked about those that go."""
        for standing in self.standings.values():
            held = self.newest.get(standing.row.position + 1)
            if held is not None:
                standing.oldest_ms = held.received_ms
        last_seq = self.newest.last_seq
        self.newest.trim(min((standing.row.position for standing in self.standings.values()), default=last_seq + 1))


def _once_more(error: SpoolUnavailable) -> SpoolUnavailable:
    """One error ended many calls; each raises its own, so that their tracebacks do not grow into each other."""
    return SpoolUnavailable(error.message, hint=error.hint)
