"""Downlinks that survive: the book in memory, and the disk that is kept up with it.

A downlink goes to the sender, and a verdict on its way back, only when the disk has it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from tpxd.downlinks.book import DownlinkBook
from tpxd.downlinks.customers import Customers
from tpxd.downlinks.documents import WRONG
from tpxd.downlinks.lanes import Lanes
from tpxd.downlinks.saving import RETRY_S, Saving
from tpxd.errors import SpoolUnavailable
from tpxd.events import Event, Tell
from tpxd.lorawan.downlinks import Downlink, DownlinkError
from tpxd.lorawan.reports import ABOUT_DOWNLINKS
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Appended, DownlinkState, DownlinkStore, LoadedDownlinks, NewReport, StoredDownlink

LAST_SAVE_S: Final = 2.0
MAX_VERDICTS: Final = 20_000
"""Verdicts that wait for the disk; beyond it no further downlink is taken."""

CRASHED: Final = "the daemon ended while the LRC was being told"


Publish = Callable[[NewReport], Awaitable[Appended]]
"""How a report gets into the journal; see `Spool.append`."""


@asynccontextmanager
async def open_downlinks(
    store: DownlinkStore,
    publish: Publish,
    tell: Tell,
    *,
    refusal: str | None = None,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[DownlinkQueue]:
    """Load the downlinks and keep them saved until the body ends.

    Args:
        refusal: why no downlink can be sent at all; each is then rejected with it.

    Raises:
        SpoolUnavailable: they cannot be read.

    Cancellation: what changed is saved, for at most two seconds.
    """
    loaded = await store.load()
    if loaded.damaged:
        text = f"{loaded.damaged} downlinks are damaged on the disk; what became of them is not known"
        tell(Event("damage", text, level=logging.ERROR, more={"count": loaded.damaged}))
    downlinks = DownlinkQueue(store, publish, loaded, refusal, wall)
    last = trio.CancelScope(shield=True)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(downlinks.saving.run)
            yield downlinks
            downlinks.saving.stop()
            nursery.cancel_scope.deadline = last.deadline = trio.current_time() + LAST_SAVE_S
    finally:
        last.deadline = min(last.deadline, trio.current_time() + LAST_SAVE_S)
        with last:
            await downlinks.saving.save()


class DownlinkQueue:
    """See the module; made by `open_downlinks`.

    Attributes:
        book: everything that is kept, to look into.
        customers: whose the devices are.
        lanes: what the LRC should get, once it is on disk.
        publish: gets a report into the journal.
        saving: brings the book to disk, and what is new from there into the lanes.
    """

    def __init__(
        self,
        store: DownlinkStore,
        publish: Publish,
        loaded: LoadedDownlinks,
        refusal: str | None,
        wall: Callable[[], float],
    ) -> None:
        self.lanes = Lanes()
        self.saving = Saving(store, self.lanes)
        self.customers = Customers()
        self.book = DownlinkBook(loaded, self.saving.mark, self.saving.forget, self.customers, wall)
        self.publish = publish
        self._refusal = refusal
        for downlink in loaded.downlinks:
            if downlink.state is DownlinkState.SENDING:
                self.book.doubt(downlink, CRASHED)
            if refusal is not None and not downlink.state.final:
                self.book.end(downlink, DownlinkState.REJECTED, refusal, WRONG)
            if not downlink.state.final:
                self.lanes.put(downlink)
            self.saving.owe(downlink)

    @property
    def waiting(self) -> list[StoredDownlink]:
        """What the LRC should get and is on disk, oldest first."""
        return [downlink for downlink in self.book.open if downlink.id not in self.saving.new]

    def full(self, connection: str) -> bool:
        """So many wait that no further one should be taken from this connection."""
        return self.book.full(connection) or self.saving.owed >= MAX_VERDICTS

    async def room(self, connection: str) -> None:
        """Wait until a further downlink is taken from this connection."""
        while self.full(connection):
            await self.saving.fewer.park()

    def enter(self, connection: str, wanted: Downlink | DownlinkError, mark: str = "") -> StoredDownlink:
        """Take a downlink in, or the refusal of a wrong one; `saved` tells when it is on disk.

        Args:
            connection: where it came from; "" is the control plane.
            mark: its `fingerprint`, where it may come again.
        """
        downlink = self.book.enter(connection, wanted, mark, self._refusal)
        self.saving.new.add(downlink.id)
        return downlink

    async def saved(self, downlink: StoredDownlink) -> None:
        """Wait until the downlink is on disk as it is now.

        Raises:
            SpoolUnavailable: this time the disk refused. It is tried again until it is there, or `withdraw` is called.

        Cancellation: it is saved all the same.
        """
        await self.saving.saved(downlink)

    async def surely_saved(self, downlink: StoredDownlink) -> None:
        """Wait until the downlink is on disk, however long the disk refuses.

        Cancellation: as of `saved`.
        """
        while True:
            try:
                return await self.saved(downlink)
            except SpoolUnavailable:
                await trio.lowlevel.checkpoint()

    def withdraw(self, downlink: StoredDownlink) -> None:
        """Take a downlink back that never was on disk, since whoever sent it is told so."""
        if downlink.id in self.saving.new:
            self.book.withdraw(downlink)
            self.saving.drop(downlink.id)

    def ignored(self, connection: str, *, json: bool) -> None:
        """Count a message that is no downlink: JSON of another kind, or no JSON at all."""
        counts = self.book.counts(connection)
        if json:
            counts.unrecognised += 1
        else:
            counts.ignored += 1
        self.saving.count(connection, counts)

    def heard(self, kind: str, dev_eui: str, fields: dict[str, Any]) -> bool:
        """A report of the LRC came; whether it is about a downlink that is known."""
        self.customers.note(dev_eui, fields.get("CustomerID"))
        return kind in ABOUT_DOWNLINKS and self.transmitted(dev_eui, fields)

    def transmitted(self, dev_eui: str, fields: dict[str, Any]) -> bool:
        """A report about a downlink came: it is kept with the downlink; False where that is not known."""
        downlink = self.book.of_report(dev_eui, fields)
        if downlink is not None:
            self.book.transmit(downlink, fields)
        return downlink is not None

    def is_about_one_of(self, connection: str, report: Uplink) -> bool:
        """Whether a report about a downlink is about a downlink that came from this connection."""
        downlink = self.book.of_report(report.lane, report.fields)
        return downlink is not None and downlink.connection == connection

    async def surely_published(self, report: NewReport) -> None:
        """Put a report into the queue of the connection that it is for, however long the disk refuses.

        Cancellation: it may be there or not.
        """
        while True:
            try:
                await self.publish(report)
                return
            except SpoolUnavailable:
                await trio.sleep(RETRY_S)
