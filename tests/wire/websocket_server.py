"""The server's end of a WebSocket, as a stream that keeps trio's rules: wsproto, and nothing of what is tested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import index

import trio
import wsproto
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request

GOODBYE_S = 1.0


async def accept_websocket(stream: trio.abc.Stream) -> ServerEnd:
    """Take the handshake of one client and choose its first subprotocol."""
    protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    asked: list[Request] = []
    while not asked:
        protocol.receive_data(bytes(await stream.receive_some()))
        asked += [event for event in protocol.events() if isinstance(event, Request)]
    await stream.send_all(protocol.send(AcceptConnection(subprotocol=asked[0].subprotocols[0])))
    return ServerEnd(stream, protocol)


class ServerEnd(trio.abc.Stream):
    """The bytes of binary messages, each `send_all` one of them."""

    def __init__(self, stream: trio.abc.Stream, protocol: wsproto.WSConnection) -> None:
        self._stream = stream
        self._protocol = protocol
        self._received = b""
        self._sending = trio.Lock()
        self._asked_to_send = self._ended = self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        with self._only_sender():
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._protocol.state is not ConnectionState.OPEN:
                raise trio.BrokenResourceError("the WebSocket has ended")
            await self._write(self._protocol.send(BytesMessage(data=bytes(data))) if data else b"")

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        with self._only_sender():
            await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint()
        while not self._received and not self._ended:
            if self._closed:
                raise trio.ClosedResourceError
            self._protocol.receive_data(bytes(await self._stream.receive_some()) or None)
            for event in self._protocol.events():
                match event:
                    case BytesMessage():
                        self._received += bytes(event.data)
                    case Ping() if self._protocol.state is ConnectionState.OPEN:
                        await self._write(self._protocol.send(event.response()))
                    case CloseConnection():
                        self._ended = True
                        if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                            await self._write(self._protocol.send(event.response()))
        taken = self._received[:max_bytes]
        self._received = self._received[len(taken) :]
        return taken

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        states = (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING)
        goodbye = self._protocol.send(CloseConnection(code=1000)) if self._protocol.state in states else b""
        self._closed, self._received = True, b""
        try:
            with trio.move_on_after(GOODBYE_S):
                await self._write(goodbye)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # it has ended already
            pass
        finally:
            await self._stream.aclose()

    async def _write(self, data: bytes) -> None:
        async with self._sending:
            if data:
                await self._stream.send_all(data)

    @contextmanager
    def _only_sender(self) -> Iterator[None]:
        if self._closed:
            raise trio.ClosedResourceError
        if self._asked_to_send:
            raise trio.BusyResourceError("another task is sending")
        self._asked_to_send = True
        try:
            yield
        finally:
            self._asked_to_send = False
