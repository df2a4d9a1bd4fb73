"""One connection's queue: takes what comes next, and says what became of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from tpxd.lorawan.uplink import Uplink
from tpxd.spool import ledger
from tpxd.spool.memories import fitting
from tpxd.spool.rows import MAX_BLOCKS, CursorRow, Settled
from tpxd.spool.state import Ledger

if TYPE_CHECKING:
    from tpxd.spool.spool import Spool


class Cursor:
    """How far one connection has come in the journal. Made by `Spool.cursor`.

    Attributes:
        id: the connection's.
        validity_s: how long its uplinks stay valid; None: for ever. Set by the engine; when the spool is full, what
            has expired for everyone goes before what has not.
    """

    def __init__(self, spool: Spool, row: CursorRow, oldest_ms: int | None) -> None:
        self.id = row.id
        self._spool = spool
        self._row = row
        self._oldest_ms = oldest_ms
        self._backlog = _Passage(spool)
        self._newcomers = _Passage(spool)

    @property
    def validity_s(self) -> float | None:
        """See the class."""
        return self._spool.validity_s.get(self.id)

    @validity_s.setter
    def validity_s(self, value: float | None) -> None:
        self._spool.validity_s[self.id] = value

    @property
    def position(self) -> int:
        """The connection is done, durably, with everything up to here."""
        return self._row.position

    def is_done(self, seq: int) -> bool:
        """Whether the connection is done, durably, with this uplink."""
        return seq <= self._row.position or seq in self._row.ahead

    @property
    def newest_seq(self) -> int:
        """The newest uplink that is stored."""
        return self._spool.state.last_seq

    @property
    def far_ahead(self) -> bool:
        """So much is settled beyond the position that no more should be before the position has come after."""
        return len(self._row.ahead.blocks) >= MAX_BLOCKS

    @property
    def ledger(self) -> Ledger:
        """What became of everything so far."""
        return self._spool.state.ledger(self._row)

    @property
    def retired(self) -> bool:
        """Its file was removed; the queue is forgotten after the retention."""
        return self._row.retired_ms is not None

    @property
    def retired_ms(self) -> int | None:
        """When its file was removed; None while it is there."""
        return self._row.retired_ms

    @property
    def oldest_waiting_ms(self) -> int | None:
        """When the oldest uplink arrived that the connection is not done with; None when nothing waits."""
        if not self._spool.state.waiting(self._row):
            return None
        held = self._spool.newest.get(self._row.position + 1)
        return held.received_ms if held is not None else self._oldest_ms

    async def next_batch(
        self, max_uplinks: int, max_bytes: int, after: int | None = None, *, wait: bool = True
    ) -> list[Uplink]:
        """Wait for uplinks later than `after` (default: the position) and return the oldest, in order.

        Calls with `after` may run ahead of `commit`. What is settled already is left out. Each uplink is shared with
        other connections: read only.

        Args:
            max_bytes: of all bodies together; one uplink is returned however large it is.
            wait: False returns an empty list rather than wait for the next arrival.

        Raises:
            SpoolUnavailable: the disk cannot be read.

        Cancellation: nothing is lost; call again.
        """
        seen = after or 0
        while True:
            start = max(self.position, seen)
            if self._row.ahead.count:
                start = self._row.ahead.run_from(start)
            batch = await self._backlog.after(start, max_uplinks, max_bytes)
            seen = batch[-1].seq if batch else self.newest_seq
            if self._row.ahead.count:
                batch = [uplink for uplink in batch if uplink.seq not in self._row.ahead]
            if batch:
                return batch
            if seen >= self.newest_seq:
                if not wait:
                    return []
                await self._spool.arrival()

    async def newcomers(self, max_uplinks: int, max_bytes: int, after: int) -> list[Uplink]:
        """The uplinks that follow on `after`, however far the position is behind; none when there is none yet.

        Otherwise like `next_batch`, beside which it is called in turns.
        """
        return await self._newcomers.after(after, max_uplinks, max_bytes)

    async def lanes_waiting(self, after: int, through: int, besides: Collection[int]) -> dict[str, int]:
        """The lanes of what waits in a part of the journal, and the last uplink of each there.

        It reads the whole part in one go, in which nothing is stored: a thousand uplinks take a few milliseconds.

        Args:
            besides: seqs that do not count.

        Raises:
            SpoolUnavailable: the disk cannot be read.
        """
        return await self._spool.look(
            partial(ledger.lanes_waiting, id=self.id, after=after, through=through, besides=besides)
        )

    async def commit(
        self,
        settled: Sequence[tuple[int, Settled]],
        handed: Sequence[tuple[int, Uplink]] = (),
        *,
        in_order: bool = True,
    ) -> None:
        """Make durable what became of uplinks: the position moves to the last of them, the ledger with it.

        Args:
            settled: (seq, fate) in ascending order, beginning with the first after the position that is not settled.
                What the spool had to drop meanwhile is left out of account.
            handed: (seq, report) what is appended to the journal with it, each unless its seq was settled before; one
                that its recipient got within the duplicate window is not. Where there is no room for them, they count
                as received and dropped there.
            in_order: False takes them in any order; the position moves as far as there is no gap.

        Raises:
            SpoolUnavailable: the disk refuses; nothing has changed.

        Cancellation: it may have been stored or not.
        """
        settle = partial(
            ledger.settle, id=self.id, settled=tuple(settled), at_ms=self._spool.now_ms(), in_order=in_order
        )
        await self._spool.settle(settle, handed)

    def note_oldest(self) -> None:
        """The newest uplinks are about to be let go: keep what is asked about them."""
        held = self._spool.newest.get(self._row.position + 1)
        if held is not None:
            self._oldest_ms = held.received_ms

    def row_changed(self, row: CursorRow, oldest_ms: int | None) -> None:
        """The writer changed the row."""
        self._row = row
        self._oldest_ms = oldest_ms


class _Passage:
    """A way through the journal: from memory where the uplinks are there, else in pages from the disk."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._page: list[Uplink] = []
        self._page_after = self._page_through = 0

    async def after(self, start: int, max_uplinks: int, max_bytes: int) -> list[Uplink]:
        """The uplinks that follow on a seq, at least one; none where nothing follows. A checkpoint where it answers."""
        while start < self._spool.state.last_seq:
            batch = self._spool.newest.after(start, max_uplinks, max_bytes)
            if batch is not None:
                self._page, self._page_through = [], 0
                await trio.lowlevel.checkpoint()
                return batch
            if not self._page_after <= start < self._page_through:
                page = await self._spool.read(start)
                self._page, self._page_after, self._page_through = page.uplinks, start, page.through
            else:
                await trio.lowlevel.checkpoint()
            batch = [uplink for uplink in self._page if uplink.seq > start][:max_uplinks]
            if batch:
                return fitting(batch, max_bytes)
            start = self._page_through
        return []
