"""Keeps the disk up with downlinks that change in memory, and gets verdicts into the queues of their connections.

Whatever changes is marked; everything that is marked goes to disk in one transaction of the spool, and then what was
marked meanwhile: a crowd of downlinks shares its commits. One task does it all, so no two writes cross.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

import orjson
import trio

from tpxd.downlinks.book import DownlinkCounts
from tpxd.downlinks.lanes import Lanes
from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.reports import DOWNLINK_REJECTED
from tpxd.spool import DownlinkStore, NewReport, StoredDownlink

RETRY_S: Final = 1.0
AT_ONCE: Final = 256
"""Verdicts that share a transaction."""


@dataclass(slots=True, eq=False)
class Batch:
    """What one transaction takes along; `done` when it has ended."""

    downlinks: dict[int, StoredDownlink] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)
    counts: dict[str, DownlinkCounts] = field(default_factory=dict)
    done: trio.Event = field(default_factory=trio.Event)
    error: SpoolUnavailable | None = None


class Saving:
    """See the module.

    Attributes:
        new: ids of downlinks that were never on disk.
        fewer: who waits here looks again whenever fewer downlinks, or fewer verdicts, wait.

    Args:
        lanes: where each downlink goes that is on disk for the first time, in the order in which they came.
    """

    def __init__(self, store: DownlinkStore, lanes: Lanes) -> None:
        self.new: set[int] = set()
        self.fewer = trio.lowlevel.ParkingLot()
        self._store = store
        self._lanes = lanes
        self._batch = Batch()
        self._writing = Batch()
        self._owed: dict[int, StoredDownlink] = {}
        self._work = trio.Event()
        self._stopping = False

    @property
    def owed(self) -> int:
        """How many verdicts are not published yet."""
        return len(self._owed)

    def mark(self, downlink: StoredDownlink, counts: DownlinkCounts) -> None:
        """The disk does not have it as it is now, nor the counters of its connection."""
        self._batch.downlinks[downlink.id] = downlink
        self.count(downlink.connection, counts)
        if downlink.state.final:
            self.fewer.unpark_all()

    def count(self, connection: str, counts: DownlinkCounts) -> None:
        """The disk does not have the counters of a connection as they are now."""
        self._batch.counts[connection] = counts
        self._work.set()

    def drop(self, id: int) -> None:
        """A downlink that was never on disk need not get there."""
        self.new.discard(id)
        self._batch.downlinks.pop(id, None)
        self.fewer.unpark_all()

    def forget(self, id: int) -> None:
        """A downlink is to be deleted."""
        self.new.discard(id)
        self._batch.downlinks.pop(id, None)
        self._batch.forgotten.append(id)

    def owe(self, downlink: StoredDownlink) -> None:
        """It is on disk; its verdict, where it has one, is to be published."""
        if downlink.verdict is not None:
            self._owed[downlink.id] = downlink
            self._work.set()

    async def saved(self, downlink: StoredDownlink) -> None:
        """Wait until the downlink is on disk as it is now.

        Raises:
            SpoolUnavailable: this time the disk refused; the next time may do better.
        """
        batch = self._batch if downlink.id in self._batch.downlinks else self._writing
        if downlink.id in batch.downlinks:
            await batch.done.wait()
            if batch.error is not None:
                raise SpoolUnavailable(batch.error.message, hint=batch.error.hint)

    def stop(self) -> None:
        """Let `run` return after the write that is under way, so that its outcome is known."""
        self._stopping = True
        self._work.set()

    async def run(self) -> None:
        """Save whatever is marked and publish the verdicts, until `stop`; while the disk refuses, try each second."""
        while not self._stopping:
            await self._work.wait()
            self._work = trio.Event()
            if not await self.save() or not await self._publish():
                self._work.set()
                await trio.sleep(RETRY_S)

    async def save(self) -> bool:
        """Save what is marked now, in one transaction; False: the disk refused, and it stays marked.

        Cancellation: it stays marked, whether it was stored or not.
        """
        batch = self._writing = self._batch
        self._batch = Batch()
        downlinks = list(batch.downlinks.values())
        counts = {id: one.durable() for id, one in batch.counts.items()}
        stored = False
        try:
            await self._store.write(downlinks, batch.forgotten, counts)
            stored = True
        except SpoolUnavailable as error:
            batch.error = error
        finally:
            if not stored:
                self._batch.downlinks = batch.downlinks | self._batch.downlinks
                self._batch.forgotten = batch.forgotten + self._batch.forgotten
                self._batch.counts |= batch.counts
            batch.done.set()
        if stored:
            for downlink in downlinks:
                self._stored(downlink)
        return stored

    def _stored(self, downlink: StoredDownlink) -> None:
        if downlink.id in self.new:
            self.new.discard(downlink.id)
            if not downlink.state.final:
                self._lanes.put(downlink)
        self.owe(downlink)

    async def _publish(self) -> bool:
        """Put verdicts into the queues of their connections; False: the disk refused.

        The transaction that stores a verdict notes that it is published, so each is there once, whenever a crash comes.
        """
        while self._owed and not self._stopping:
            batch = list(islice(self._owed.values(), AT_ONCE))
            published = [replace(downlink, verdict=None, version=downlink.version + 1) for downlink in batch]
            try:
                await self._store.write(published, (), {}, [_verdict(downlink) for downlink in batch])
            except SpoolUnavailable:
                return False
            for downlink in batch:
                del self._owed[downlink.id]
                downlink.verdict = None
                downlink.version += 1
            self.fewer.unpark_all()
        return True


def _verdict(downlink: StoredDownlink) -> NewReport:
    body = downlink.verdict or b""
    return NewReport(DOWNLINK_REJECTED, downlink.dev_eui, "", body, orjson.loads(body), recipient=downlink.connection)
