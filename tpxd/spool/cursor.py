"""One connection's queue: takes what comes next, and says what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from tpxd.lorawan.uplink import Uplink
from tpxd.spool import ledger
from tpxd.spool.newest import fitting
from tpxd.spool.rows import CursorRow, Settled
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
        self._ahead: list[Uplink] = []
        self._ahead_after = self._ahead_through = 0

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

    @property
    def ledger(self) -> Ledger:
        """What became of everything so far."""
        return self._spool.state.ledger(self._row)

    @property
    def retired(self) -> bool:
        """Its file was removed; the queue is forgotten after the retention."""
        return self._row.retired_ms is not None

    @property
    def oldest_waiting_ms(self) -> int | None:
        """When the oldest uplink arrived that the connection is not done with; None when nothing waits."""
        if not self._spool.state.waiting(self._row):
            return None
        held = self._spool.newest.get(self._row.position + 1)
        return held.received_ms if held is not None else self._oldest_ms

    async def next_batch(self, max_uplinks: int, max_bytes: int, after: int | None = None) -> list[Uplink]:
        """Wait for uplinks later than `after` (default: the position) and return the oldest, in order.

        Calls with `after` may run ahead of `commit`. Each uplink is shared with other connections: read only.

        Args:
            max_bytes: of all bodies together; one uplink is returned however large it is.

        Raises:
            SpoolUnavailable: the disk cannot be read.

        Cancellation: nothing is lost; call again.
        """
        while True:
            start = max(self.position, self.position if after is None else after)
            batch = self._spool.newest.after(start, max_uplinks, max_bytes)
            if batch is not None:
                self._ahead, self._ahead_through = [], 0
                await trio.lowlevel.checkpoint()
                return batch
            if start >= self._spool.state.last_seq:
                await self._spool.arrival()
                continue
            if not self._ahead_after <= start < self._ahead_through:
                page = await self._spool.read(start)
                self._ahead, self._ahead_after, self._ahead_through = page.uplinks, start, page.through
            else:
                await trio.lowlevel.checkpoint()
            batch = [uplink for uplink in self._ahead if uplink.seq > start][:max_uplinks]
            if batch:
                return fitting(batch, max_bytes)
            after = self._ahead_through

    async def commit(self, settled: Sequence[tuple[int, Settled]], handed: Sequence[tuple[int, Uplink]] = ()) -> None:
        """Make durable what became of uplinks: the position moves to the last of them, the ledger with it.

        Args:
            settled: (seq, fate) in ascending order, beginning with the first after the position. What the spool had
                to drop meanwhile is left out of account.
            handed: (seq, report) what is appended to the journal with it, each when the position moves past its seq;
                one that its recipient got within the duplicate window is not.

        Raises:
            SpoolUnavailable: the disk refuses, or there is no room for what is handed on; nothing has changed.

        Cancellation: it may have been stored or not.
        """
        settle = partial(ledger.settle, id=self.id, settled=tuple(settled), at_ms=self._spool.now_ms())
        await self._spool.settle(settle, handed)

    def note_oldest(self) -> None:
        """The newest uplinks are about to be let go: keep what is asked about them."""
        held = self._spool.newest.get(self._row.position + 1)
        if held is not None:
            self._oldest_ms = held.received_ms

    def moved(self, row: CursorRow, oldest_ms: int | None) -> None:
        """The writer changed the row."""
        self._row = row
        self._oldest_ms = oldest_ms
