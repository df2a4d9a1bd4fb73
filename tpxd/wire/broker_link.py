"""The tasks of a session with a message broker: one reads, one writes, one keeps the link alive.

A protocol core that never waits makes all decisions; here is what awaits. One task alone calls `send_all`, so that no
cancelled command cuts a packet in half, and what many commands append to the core goes out in one piece.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Generic, Protocol, TypeVar

import trio

from tpxd.errors import LinkLost, RemoteViolation, TransportError
from tpxd.wire.streams import explain, one_error

READ_BYTES = 1 << 16
# what came is taken in pieces of so much, and others may go on between them
PIECE_BYTES = 128
# after some reads that brought so little, and nothing whole, more is waited for: each byte costs as much as many
FEW_BYTES = 64
FEW_READS = 8
GATHERING_S = 0.002
# what a message takes besides its body
MESSAGE_BYTES = 512
FLUSH_S = 1.0
GOODBYE_S = 1.0
# a writer that fails leaves the reader this long to find out why
REASON_S = 1.0
WRONG_PORT = "is this the broker's port for this protocol, and does it want TLS?"
"""The hint where what comes first is none of the protocol: a TLS alert, or another server's greeting."""

Event = TypeVar("Event")
Event_co = TypeVar("Event_co", covariant=True)


class HasBody(Protocol):
    """A message of the broker."""

    @property
    def body(self) -> bytes:
        """What it carries."""


Message = TypeVar("Message", bound=HasBody)


class Core(Protocol[Event_co]):
    """A protocol core, which never awaits."""

    @property
    def has_outgoing(self) -> bool:
        """There are bytes to send."""

    def outgoing(self, now: float) -> bytes:
        """Take them."""

    def receive_data(self, data: bytes | bytearray, now: float) -> Iterable[Event_co]:
        """Take what arrived and return what it means; raises RemoteViolation, or why the broker lets nobody in."""

    def next_deadline(self) -> float:
        """When `tick` is due."""

    def tick(self, now: float) -> None:
        """Time went by: there may be something to say; raises LinkLost when the broker is silent for too long."""


class BrokerLink(Generic[Event, Message]):
    """See the module.

    Args:
        dispatch: gets each event but messages, with the time; what it raises ends the link.
        lost: the error for a link that broke, from the reason and the hint.
        messages: the events that are the broker's messages; they wait until they are received. Reading never waits for
            whoever receives, since receipts come the same way.
        unread_bytes: how much of them may wait.
        no_room: gets each one beyond that; what it raises ends the link.

    Attributes:
        on_sent: each is called once, with the time, when the system has taken over all that the core had to say when it
            was put here.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        core: Core[Event],
        dispatch: Callable[[Event, float], None],
        lost: Callable[[str, str | None], TransportError],
        *,
        messages: type[Message],
        unread_bytes: int,
        no_room: Callable[[Message], None],
    ) -> None:
        self.on_sent: list[Callable[[float], None]] = []
        self._stream = stream
        self._core = core
        self._dispatch = dispatch
        self._lost = lost
        self._messages = messages
        self._room = unread_bytes
        self._no_room = no_room
        self._received, self._unread = trio.open_memory_channel[Message](math.inf)
        self._to_write = trio.lowlevel.ParkingLot()
        self._written = trio.lowlevel.ParkingLot()
        # a packet may have been cut in half: nothing that is sent now would be understood
        self._cut = False
        self._let_in = False

    @asynccontextmanager
    async def open(
        self, connected: Callable[[], Awaitable[None]], say_goodbye: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Run the tasks while the block lasts; the stream is closed in any case.

        Args:
            connected: waits until the broker has let us in, or raises.
            say_goodbye: says the last words where there are any, also while we are being cancelled; it is cut off after
                `GOODBYE_S`, and not called where nothing can be said any more.

        Raises:
            TransportError: the link ended while the block ran; the block is cancelled and this leaves it.
        """
        try:
            with one_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
                    await connected()
                    self._let_in = True
                    nursery.start_soon(self._keep_alive)
                    yield
                    await self._flush()
                    nursery.cancel_scope.cancel()
        finally:
            if not self._cut:
                # a link that ended by itself is what we want
                ended = suppress(trio.BrokenResourceError, trio.ClosedResourceError, RemoteViolation)
                with trio.move_on_after(GOODBYE_S, shield=True), ended:
                    await say_goodbye()
            await trio.aclose_forcefully(self._stream)

    def wake(self) -> None:
        """The core has something to say."""
        self._to_write.unpark_all()

    async def receive(self) -> Message:
        """Wait for the broker's next message; each goes to one caller."""
        message = await self._unread.receive()
        self._room += len(message.body) + MESSAGE_BYTES
        return message

    @property
    def has_unread(self) -> bool:
        """Whether messages wait."""
        return self._unread.statistics().current_buffer_used > 0

    async def send(self) -> None:
        """Send all that the core has to say; for `say_goodbye`, as the link's own task does this before.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the link ended.
        """
        while self._core.has_outgoing:
            # a cancellation that is already here must not meet us with packets in our hands
            await trio.lowlevel.checkpoint_if_cancelled()
            sent, self.on_sent = self.on_sent, []
            self._cut = True
            await self._stream.send_all(self._core.outgoing(trio.current_time()))
            self._cut = False
            now = trio.current_time()
            for tell in sent:
                tell(now)

    async def _read(self) -> None:
        try:
            in_vain = 0
            while data := await self._stream.receive_some(READ_BYTES):
                meant = 0
                for begin in range(0, len(data), PIECE_BYTES):
                    if begin:
                        await trio.lowlevel.checkpoint()
                    meant = self._take(data[begin : begin + PIECE_BYTES])
                in_vain = in_vain + 1 if len(data) < FEW_BYTES and not meant else 0
                if in_vain > FEW_READS:
                    await trio.sleep(GATHERING_S)
        except RemoteViolation as error:
            hint = None if self._let_in else WRONG_PORT
            raise LinkLost(f"the broker broke the protocol: {error}", hint=hint) from error
        except trio.BrokenResourceError as error:
            raise self._lost(*explain(error)) from error
        raise self._lost("the broker closed the connection", None)

    def _take(self, data: bytes | bytearray) -> int:
        """Give what came to the core, and each event to whom it concerns; how many there were."""
        now, count = trio.current_time(), 0
        for count, event in enumerate(self._core.receive_data(data, now), 1):  # noqa: B007
            if not isinstance(event, self._messages):
                self._dispatch(event, now)
                continue
            size = len(event.body) + MESSAGE_BYTES
            if size > self._room:
                self._no_room(event)
            else:
                self._room -= size
                self._received.send_nowait(event)
        if self._core.has_outgoing:
            self.wake()
        return count

    async def _write(self) -> None:
        try:
            while True:
                await self.send()
                self._written.unpark_all()
                await self._to_write.park()
        except trio.BrokenResourceError as error:
            # the reader meets the same end, often with the reason, such as a TLS alert
            await trio.sleep(REASON_S)
            raise self._lost(*explain(error)) from error

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep_until(self._core.next_deadline())
            self._core.tick(trio.current_time())
            self.wake()

    async def _flush(self) -> None:
        """Let the writer send what there is, for a short time."""
        with trio.move_on_after(FLUSH_S):
            while self._core.has_outgoing or self._cut:
                await self._written.park()
