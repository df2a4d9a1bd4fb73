"""One connection's queue: takes what comes next, and says what became of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import trio

from tpxd.lorawan.uplink import Uplink
from tpxd.spool import ledger
from tpxd.spool.contract import Cursor
from tpxd.spool.exchange import Exchange, Standing
from tpxd.spool.memories import fitting
from tpxd.spool.rows import MAX_BLOCKS, Settled
from tpxd.spool.state import Ledger


class JournalCursor(Cursor):
    """How far one connection has come in the journal. Made by `JournalSpool.queue`."""

    def __init__(self, exchange: Exchange, standing: Standing) -> None:
        self._exchange = exchange
        self.id = standing.row.id
        self._standing = standing
        self._backlog = _Passage(exchange)
        self._newcomers = _Passage(exchange)

    @property
    def validity_s(self) -> float | None:
        """See `Cursor`."""
        return self._exchange.validity_s.get(self.id)

    @validity_s.setter
    def validity_s(self, value: float | None) -> None:
        self._exchange.validity_s[self.id] = value

    @property
    def position(self) -> int:
        """See `Cursor`."""
        return self._standing.row.position

    def is_done(self, seq: int) -> bool:
        """See `Cursor`."""
        row = self._standing.row
        return seq <= row.position or seq in row.ahead

    @property
    def newest_seq(self) -> int:
        """See `Cursor`."""
        return self._exchange.state.last_seq

    @property
    def far_ahead(self) -> bool:
        """See `Cursor`."""
        return len(self._standing.row.ahead.blocks) >= MAX_BLOCKS

    @property
    def ledger(self) -> Ledger:
        """See `Cursor`."""
        return self._exchange.state.ledger(self._standing.row)

    @property
    def retired(self) -> bool:
        """See `Cursor`."""
        return self._standing.row.retired_ms is not None

    @property
    def oldest_waiting_ms(self) -> int | None:
        """See `Cursor`."""
        if not self._exchange.state.waiting(self._standing.row):
            return None
        held = self._exchange.newest.get(self._standing.row.position + 1)
        return held.received_ms if held is not None else self._standing.oldest_ms

    async def next_batch(
        self, max_uplinks: int, max_bytes: int, after: int | None = None, *, wait: bool = True
    ) -> list[Uplink]:
        """See `Cursor`."""
        seen = after or 0
        while True:
            start = max(self.position, seen)
            if self._standing.row.ahead.count:
                start = self._standing.row.ahead.run_from(start)
            batch = await self._backlog.after(start, max_uplinks, max_bytes)
            seen = batch[-1].seq if batch else self.newest_seq
            if self._standing.row.ahead.count:
                batch = [uplink for uplink in batch if uplink.seq not in self._standing.row.ahead]
            if batch:
                return batch
            if seen >= self.newest_seq:
                if not wait:
                    return []
                await self._exchange.arrival()

    async def newcomers(self, max_uplinks: int, max_bytes: int, after: int) -> list[Uplink]:
        """See `Cursor`."""
        return await self._newcomers.after(after, max_uplinks, max_bytes)

    async def lanes_waiting(self, after: int, through: int, besides: Collection[int]) -> dict[str, int]:
        """See `Cursor`."""
        return await self._exchange.look(
            partial(ledger.lanes_waiting, id=self.id, after=after, through=through, besides=besides)
        )

    async def commit(
        self,
        settled: Sequence[tuple[int, Settled]],
        handed: Sequence[tuple[int, Uplink]] = (),
        *,
        in_order: bool = True,
    ) -> None:
        """See `Cursor`."""
        settle = partial(
            ledger.settle, id=self.id, settled=tuple(settled), at_ms=self._exchange.now_ms(), in_order=in_order
        )
        await self._exchange.settle(settle, handed)


class _Passage:
    """A way through the journal: from memory where the uplinks are there, else in pages from the disk."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._page: list[Uplink] = []
        self._page_after = self._page_through = 0

    async def after(self, start: int, max_uplinks: int, max_bytes: int) -> list[Uplink]:
        """The uplinks that follow on a seq, at least one; none where nothing follows. A checkpoint where it answers."""
        while start < self._exchange.state.last_seq:
            batch = self._exchange.newest.after(start, max_uplinks, max_bytes)
            if batch is not None:
                self._page, self._page_through = [], 0
                await trio.lowlevel.checkpoint()
                return batch
            if not self._page_after <= start < self._page_through:
                page = await self._exchange.read(start)
                self._page, self._page_after, self._page_through = page.uplinks, start, page.through
            else:
                await trio.lowlevel.checkpoint()
            batch = [uplink for uplink in self._page if uplink.seq > start][:max_uplinks]
            if batch:
                return fitting(batch, max_bytes)
            start = self._page_through
        return []
