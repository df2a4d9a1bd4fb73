"""The downlink side of a connection: messages from its far end become downlinks.

A message is acknowledged when what became of it is on disk. While the disk works, further messages are read; at most
`AHEAD` are under way. A downlink that comes again is recognised where the protocol says that it comes again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from tpxd.connector import Incoming, Transport
from tpxd.downlinks.book import fingerprint
from tpxd.downlinks.doors import Door, Messages, Taken, take_in
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.errors import TpxdError
from tpxd.lorawan.downlinks import NotJson
from tpxd.spool import StoredDownlink

AHEAD: Final = 256
MAX_SHOWN: Final = 100
"""Characters of a topic or routing key that are shown."""

REPEATED: Final = "it came marked as a repetition, and the acknowledgement of an equal one may have been lost"
"""Why a downlink is in doubt from the beginning: nobody can tell whether it is new."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """Where the messages of one link of a connection go.

    Attributes:
        connection: its id.
        default_port: for downlinks without an FPort, where their topic tells none.
        messages: see `Messages`.
        untold: called with what is wrong with a downlink whose sender cannot be told, since it names no device.
        wall: seconds since the epoch.
    """

    connection: str
    downlinks: DownlinkQueue
    default_port: int | None
    messages: Messages = lambda connection, body: ()
    untold: Callable[[TpxdError], None] = lambda error: None
    wall: Callable[[], float] = time.time
    _met: set[int] = field(default_factory=set)

    def take(self, incoming: Incoming) -> Taken:
        """Decide about one message."""
        book, connection = self.downlinks.book, self.connection
        mark = fingerprint(incoming.source, incoming.body)
        repeats = incoming.redelivered or incoming.retained
        taken: Taken | None = book.redelivered(connection, mark, self._met) if repeats else None
        if taken is None:
            before = book.taken_before(connection, mark)
            taken = () if incoming.retained and before else self._enter(incoming, mark)
            if incoming.redelivered and before and isinstance(taken, StoredDownlink) and not taken.state.final:
                book.doubt(taken, REPEATED)
        if isinstance(taken, StoredDownlink):
            self._met.add(taken.id)
        return taken

    def acknowledged(self, downlink: StoredDownlink) -> None:
        """The far end was told that the downlink is kept."""
        self._met.discard(downlink.id)
        self.downlinks.book.acknowledge(downlink)

    def _enter(self, incoming: Incoming, mark: str) -> Taken:
        door = Door(self.connection, incoming.f_port or self.default_port)
        try:
            taken = take_in(self.downlinks, door, incoming.body, self.messages, self.wall(), mark)
        except NotJson:
            return ()
        if isinstance(taken, StoredDownlink) and not taken.dev_eui:
            self.untold(TpxdError(f"a downlink by {incoming.source[:MAX_SHOWN]} is wrong: {taken.cause}"))
        return taken


async def receive_downlinks(transport: Transport, inbox: Inbox) -> None:
    """Take in what the far end sends, for ever.

    Raises:
        LinkLost: what was not acknowledged is sent again by the far end.

    Cancellation: what was taken in is kept, acknowledged or not.
    """
    send, receive = trio.open_memory_channel[tuple[Incoming, Taken]](AHEAD)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_acknowledge, transport, inbox, receive)
        while True:
            await inbox.downlinks.room(inbox.connection)
            incoming = await transport.receive()
            await send.send((incoming, inbox.take(incoming)))


async def _acknowledge(
    transport: Transport,
    inbox: Inbox,
    received: trio.MemoryReceiveChannel[tuple[Incoming, Taken]],
) -> None:
    """Acknowledge in the order of arrival, each when it is on disk."""
    async for incoming, taken in received:
        if isinstance(taken, StoredDownlink):
            await inbox.downlinks.surely_saved(taken)
        else:
            for report in taken:
                await inbox.downlinks.surely_published(report)
        await transport.acknowledge(incoming)
        if isinstance(taken, StoredDownlink):
            inbox.acknowledged(taken)
