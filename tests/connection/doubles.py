"""A queue in memory and a transport that does as it is told."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import orjson
import trio

from tests.downlinks.downlink_doubles import Disk
from tests.intake.doubles import MemoryStore
from tests.notebook import Notebook
from tpxd.config.connection_file import ConnectionFile, ConnectorConfig
from tpxd.config.flow import Flow
from tpxd.connection.backlog import backlog_of
from tpxd.connection.connection import Connection
from tpxd.connection.delivery import Queue
from tpxd.connection.far_end import FarEnd, context_of
from tpxd.connection.health import Health
from tpxd.connection.in_hand import InHand
from tpxd.connection.outbound import Outbound, format_of
from tpxd.connection.states import ConnectionState
from tpxd.connection.watches import CertificateWatch
from tpxd.connector import Connector, Context, Incoming, Outgoing, Receipts, Transport
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.events import EventLog
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor, Fate, Filtered, Ledger, LoadedDownlinks, Rejected, Settled
from tpxd.timing import ClockWatch
from tpxd.wire.tls import TlsContextCache


def make_uplink(
    seq: int, lane: str = "70B3D5E75E00A1C4", received_ms: int = 1_700_000_000_000, **fields: Any
) -> Uplink:
    """A stored uplink."""
    document = {"DevEUI_uplink": {"DevEUI": lane, "FCntUp": seq, **fields}}
    return Uplink(seq, received_ms, "DevEUI_uplink", lane, "", orjson.dumps(document))


class MemoryCursor(Cursor):
    """A queue in memory; uplinks are numbered from 1 without a gap."""

    id = "plant"
    position = 0
    far_ahead = False
    retired = False
    validity_s: float | None = None

    def __init__(self) -> None:
        self.rows: list[Uplink] = []
        self.fates: list[tuple[int, Settled]] = []
        self.handed: list[tuple[int, Uplink]] = []
        self.refuses: Exception | None = None
        self._settled: set[int] = set()
        self._arrived = trio.Event()

    def add(self, *uplinks: Uplink) -> None:
        """Uplinks arrive."""
        self.rows.extend(uplinks)
        self._arrived.set()

    def is_done(self, seq: int) -> bool:
        """See `spool.Cursor`."""
        return seq <= self.position or seq in self._settled

    @property
    def newest_seq(self) -> int:
        """See `spool.Cursor`."""
        return len(self.rows)

    async def next_batch(
        self, max_uplinks: int, max_bytes: int, after: int | None = None, *, wait: bool = True
    ) -> list[Uplink]:
        """See `spool.Cursor`."""
        begin = max(self.position, after or 0)
        while not (found := self._between(begin, self.newest_seq)[:max_uplinks]) and wait:
            self._arrived = trio.Event()
            await self._arrived.wait()
        await trio.lowlevel.checkpoint()
        return found

    async def newcomers(self, max_uplinks: int, max_bytes: int, after: int) -> list[Uplink]:
        """See `spool.Cursor`."""
        await trio.lowlevel.checkpoint()
        return self._between(after, self.newest_seq)[:max_uplinks]

    async def lanes_waiting(self, after: int, through: int, besides: Collection[int]) -> dict[str, int]:
        """See `spool.Cursor`."""
        await trio.lowlevel.checkpoint()
        return {row.lane: row.seq for row in self._between(after, through) if row.seq not in besides}

    async def commit(
        self,
        settled: Sequence[tuple[int, Settled]],
        handed: Sequence[tuple[int, Uplink]] = (),
        *,
        in_order: bool = True,
    ) -> None:
        """See `spool.Cursor`."""
        await trio.lowlevel.checkpoint()
        if self.refuses is not None:
            raise self.refuses
        self.fates.extend(settled)
        self.handed.extend(handed)
        self._settled.update(seq for seq, _ in settled)
        if in_order:
            self.position = settled[-1][0]
        while self.position + 1 in self._settled:
            self.position += 1

    def _between(self, after: int, through: int) -> list[Uplink]:
        return [row for row in self.rows[after:through] if row.seq not in self._settled]

    @property
    def oldest_waiting_ms(self) -> int | None:
        """See `spool.Cursor`."""
        return next((row.received_ms for row in self.rows if row.seq > self.position), None)

    @property
    def ledger(self) -> Ledger:
        """See `spool.Cursor`."""
        waiting = len(self._between(self.position, self.newest_seq))
        kinds = {Filtered: Fate.FILTERED, Rejected: Rejected}
        fates = Counter(kinds.get(type(fate), fate) for _, fate in self.fates)
        delivered, filtered, expired = (fates[v] for v in (Fate.DELIVERED, Fate.FILTERED, Fate.EXPIRED))
        return Ledger(len(self.rows), delivered, filtered, expired, fates[Rejected], 0, waiting)


Send = Callable[[Sequence[Outgoing], Receipts], Awaitable[None]]


@dataclass
class Peer:
    """The far end: its script decides what opening and sending do.

    Attributes:
        opening: raised when the link is opened, None opens it.
        sending: called for each batch; receipts everything unless set.
        batches: the seqs of each batch that was sent.
        opens: the times at which the link was opened.
        most_open: how many links were open at once, at most.
    """

    opening: Callable[[], Exception | None] = lambda: None
    sending: Send | None = None
    batches: list[list[int]] = field(default_factory=list)
    opens: list[float] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0

    @asynccontextmanager
    async def open(self, config: ConnectorConfig, context: Context) -> AsyncIterator[Transport]:
        """The opener."""
        self.opens.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if (error := self.opening()) is not None:
            raise error
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            yield ScriptedTransport(self)
        finally:
            self.open_now -= 1


class ScriptedTransport:
    """An open link to a `Peer`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """See `connector.Transport`."""
        self._peer.batches.append([outgoing.uplink.seq for outgoing in batch])
        await trio.lowlevel.checkpoint()
        if self._peer.sending is not None:
            await self._peer.sending(batch, receipts)
            return
        for index in range(len(batch)):
            receipts.delivered(index)

    async def receive(self) -> Incoming:
        """See `connector.Transport`."""
        await trio.sleep_forever()

    async def acknowledge(self, incoming: Incoming) -> None:
        """See `connector.Transport`."""


async def no_dial(*_: object) -> NoReturn:
    """For connectors that open nothing."""
    raise AssertionError("nothing should be dialled")


def make_connection(
    peer: Peer,
    cursor: Cursor,
    *,
    grace_s: float = 5.0,
    flow: Flow | None = None,
    in_hand: InHand | None = None,
    **configuration: Any,
) -> Connection:
    """A connection to a scripted peer; `in_hand` is what another version of it left."""
    config = ConnectorConfig.model_validate(configuration)
    file = ConnectionFile(connectorId="scripted", name="scripted", configuration=config, flow=flow or Flow())
    events = EventLog()
    health = Health("plant", cursor, events.tell, in_hand=in_hand or InHand())
    connector = Connector("scripted", ConnectorConfig, peer.open, "Scripted", "for tests", 256)
    context = context_of(health, "00000000", no_dial, TlsContextCache(), Notebook())
    outbound = Outbound(file.flow, format_of(config), config.uplinkTimeValidity, ClockWatch(lambda: None), "plant")
    return Connection(
        file,
        FarEnd(connector, config, context),
        Queue(cursor, health.in_hand, outbound, backlog_of("plant", config.backlogShare, events.tell)),
        health,
        CertificateWatch(),
        DownlinkQueue(Disk(), MemoryStore().append, LoadedDownlinks([], {}, 0), None, time.time),
        grace_s,
    )


@asynccontextmanager
async def running(connection: Connection) -> AsyncIterator[Connection]:
    """The connection at work while the block lasts."""
    if connection.health.state is not ConnectionState.CLOSED:
        connection.health.enter(ConnectionState.CLOSED)  # as it is shown between two versions
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        yield connection
        nursery.cancel_scope.cancel()


def delivered(cursor: MemoryCursor) -> list[int]:
    """What was delivered, in the order of the commits."""
    return [seq for seq, fate in cursor.fates if fate is Fate.DELIVERED]
