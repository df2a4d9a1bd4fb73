"""The spool as everybody else sees it: append, cursors, numbers."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import trio

from tpxd.events import Event, Tell
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import ledger
from tpxd.spool.contract import Appended, DownlinkStore, KeptQueue, NewReport, Spool, SpoolStatistics
from tpxd.spool.cursor import JournalCursor
from tpxd.spool.downlink_table import DownlinkTable
from tpxd.spool.exchange import Exchange, Standing
from tpxd.spool.fates import Outcome
from tpxd.spool.keeping import Keeping, SpoolLimits, free_bytes
from tpxd.spool.place import exclusive
from tpxd.spool.progress import Progress
from tpxd.spool.rows import DeadLetter
from tpxd.spool.starting import renew_journal, start_journal
from tpxd.spool.state import REMEMBERED

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
) -> AsyncIterator[JournalSpool]:
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
        exchange = Exchange(journal, keeping, renew, limits, tell, wall_clock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, exchange.writer.run, limiter=trio.CapacityLimiter(1)))
            try:
                yield JournalSpool(exchange, limits, tell)
            finally:
                exchange.writer.stop()


class JournalSpool(Spool):
    """The spool on SQLite; see `open_spool`.

    Attributes:
        exchange: the way to the writer's thread, for what else belongs to the spool.
    """

    def __init__(self, exchange: Exchange, limits: SpoolLimits, tell: Tell) -> None:
        self.exchange = exchange
        self.downlinks: DownlinkStore = DownlinkTable(exchange)
        self._limits = limits
        self._tell = tell
        self._cursors: WeakValueDictionary[Standing, JournalCursor] = WeakValueDictionary()

    async def append(self, report: NewReport) -> Appended:
        """See `Spool`."""
        now_ms = self.exchange.now_ms()
        report.lrn_infos.encode()  # a text that SQLite cannot take must fail here, not in a transaction with others
        underway = self.exchange.underway
        digest = secrets.randbits(63) if report.repeatable else underway.digest(report)
        seq = underway.recent.find(digest, now_ms)
        if seq is not None:
            underway.duplicates += 1
            await trio.lowlevel.checkpoint()
            return Appended(seq, duplicate=True)
        known = underway.find(digest)
        pending = known or underway.enter(report, digest, now_ms)
        await self.exchange.stored(pending, new=known is None)
        underway.duplicates += known is not None
        return Appended(pending.uplink.seq, known is not None)

    def queue(self, id: str) -> JournalCursor:
        """See `Spool`."""
        return self._cursor_at(self.exchange.standing(id))

    async def cursor(self, id: str) -> JournalCursor:
        """See `Spool`."""
        queue = self.queue(id)
        await self.exchange.write(partial(ledger.ensure, id=id, position=queue.position))
        return self._cursor_at(self.exchange.standings[id])

    def cursors(self) -> list[str]:
        """See `Spool`."""
        return sorted(self.exchange.standings)

    def find_cursor(self, id: str) -> JournalCursor | None:
        """See `Spool`."""
        standing = self.exchange.standings.get(id)
        return None if standing is None else self._cursor_at(standing)

    def kept_queues(self) -> dict[str, KeptQueue]:
        """See `Spool`."""
        retention_ms = int(self._limits.retention_s * 1000)
        state = self.exchange.state
        return {
            id: KeptQueue(state.waiting(standing.row), standing.row.retired_ms + retention_ms)
            for id, standing in sorted(self.exchange.standings.items())
            if standing.row.retired_ms is not None
        }

    async def retire(self, id: str) -> None:
        """See `Spool`."""
        await self.exchange.write(partial(ledger.retire, id=id, at_ms=self.exchange.now_ms()))

    async def forget(self, id: str) -> int:
        """See `Spool`."""
        waiting = await self.exchange.write(partial(ledger.forget, id=id))
        text = f"the queue of {id} is forgotten; {waiting} uplinks waited in it"
        self._tell(Event("forgotten", text, id, more={"waiting": waiting}))
        return waiting

    async def dead_letters(self, connection: str, limit: int = 100) -> list[DeadLetter]:
        """See `Spool`."""
        letters, damaged = await self.exchange.look(lambda journal: journal.reader.dead_letters(connection, limit))
        if damaged:
            text = f"{damaged} dead letters of {connection} are damaged on the disk"
            self._tell(Event("damage", text, connection, logging.ERROR, more={"count": damaged}))
        return letters

    async def uplinks_of(self, lane: str, limit: int) -> list[Uplink]:
        """See `Spool`."""
        found: list[Uplink] = []
        state = self.exchange.state
        through, oldest = state.last_seq, max(state.first_seq - 1, state.last_seq - TRACE_ROWS)
        while through > oldest and len(found) < limit:
            after = max(oldest, through - TRACE_STEP)
            find = partial(ledger.newest_of, lane=lane, after=after, through=through, limit=limit - len(found))
            found += await self.exchange.look(find)
            through = after
        return found

    async def fates_of(self, seqs: Sequence[int]) -> dict[int, dict[str, Outcome]]:
        """See `Spool`."""
        return await self.exchange.look(partial(ledger.fates_of, seqs=tuple(seqs)))

    async def remember(self, key: str, value: str) -> None:
        """See `Spool`."""
        await self.exchange.write(lambda journal: journal.put_meta(f"{REMEMBERED}{key}", value))
        self.exchange.state.meta[f"{REMEMBERED}{key}"] = value

    def recall(self, key: str) -> str | None:
        """See `Spool`."""
        return self.exchange.state.meta.get(f"{REMEMBERED}{key}")

    def statistics(self) -> SpoolStatistics:
        """See `Spool`."""
        view, writer, underway = self.exchange.view, self.exchange.writer, self.exchange.underway
        hindrance = writer.progress.text or view.last_error or writer.storing.hindrance()
        return SpoolStatistics(
            used_bytes=view.used_bytes,
            max_bytes=self._limits.max_bytes,
            free_bytes=view.free_bytes,
            oldest_ms=view.oldest_ms,
            newest_ms=view.newest_ms or None,
            stored_total=view.last_seq,
            duplicates_total=underway.duplicates,
            duplicates_since_ms=underway.recent.since_ms(self.exchange.now_ms()),
            storing=hindrance is None,
            last_error=hindrance,
        )

    def round_ended_at(self) -> float:
        """See `Spool`."""
        return self.exchange.writer.moved_s

    def _cursor_at(self, standing: Standing) -> JournalCursor:
        cursor = self._cursors.get(standing)
        if cursor is None:
            cursor = self._cursors[standing] = JournalCursor(self.exchange, standing)
        return cursor
