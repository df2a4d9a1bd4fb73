"""A byte stream over a WebSocket: binary messages, whose borders mean nothing (MQTT 3.1.1, 6).

wsproto decides what is valid and what to answer; here are only the bytes in and out. trio-websocket, which wraps the
same wsproto, keeps a task and a nursery per connection; a stream that reads and writes when it is asked to needs
neither, and nothing of it can run on after it was closed.

Bounds: no message is ever put together: what came of one is handed on, so that a message of any length costs no more
memory than one read. A text message is a violation. Of pings that come faster than we may write, the newest is
answered (RFC 6455, 5.5.3). Extensions are not offered.

Source: RFC 6455; MQTT 3.1.1, 6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import index

import trio
import wsproto
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from tpxd.errors import AuthenticationFailed, ConnectFailed, RemoteViolation, TransportError
from tpxd.wire.http1_client import status_text

READ_BYTES = 1 << 16
GOODBYE_S = 1.0
ORDINARY_ENDS = (1000, 1001, 1005, 1006)
"""Codes that say nothing but that it is over, 1006 with no Close frame at all (RFC 6455, 7.4.1)."""


@dataclass(frozen=True, slots=True)
class WebSocket:
    """What to ask the server for.

    Attributes:
        path: the request's target, with what may show of its query.
        subprotocol: what is spoken inside; the server must choose it.
        query: what follows `path` and a question mark; errors never show it, since it may hold what lets us in.
        login_hint: what to do when the server refuses us.
    """

    path: str
    subprotocol: str
    query: str = field(default="", repr=False)
    login_hint: str = "does the server ask for a client certificate, or does a gateway before it refuse us?"


async def open_websocket(stream: trio.abc.Stream, options: WebSocket, place: str, host: str) -> WebSocketStream:
    """Turn the stream into a WebSocket.

    Args:
        place: how errors call the server.
        host: the request's Host header.

    Raises:
        AuthenticationFailed: the server answered 401 or 403.
        ConnectFailed: it refuses otherwise, or speaks no WebSocket.
        trio.BrokenResourceError: the stream broke.
    """
    protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    target = f"{options.path}?{options.query}" if options.query else options.path
    request = Request(host=host, target=target, subprotocols=[options.subprotocol])
    await stream.send_all(protocol.send(request))
    events: deque[Event] = deque()
    try:
        while not events:
            data = await stream.receive_some(READ_BYTES)
            if not data:
                raise trio.BrokenResourceError("the server closed the connection during the handshake")
            protocol.receive_data(bytes(data))
            events.extend(protocol.events())
    except RemoteProtocolError as error:
        raise _failed(place, f"the answer is no WebSocket handshake ({error})", _NO_WEBSOCKET) from error
    answer = events.popleft()
    if isinstance(answer, RejectConnection):
        raise _refusal(place, options, answer.status_code)
    assert isinstance(answer, AcceptConnection)
    if answer.subprotocol != options.subprotocol:
        raise _failed(
            place,
            f"the server opens a WebSocket, but not for {options.subprotocol}",
            f"is {options.path} the path of its {options.subprotocol} service?",
        )
    return WebSocketStream(stream, protocol, events)


_NO_WEBSOCKET = "does the server offer WebSockets on this port?"


def _failed(place: str, reason: str, hint: str) -> ConnectFailed:
    return ConnectFailed(f"{place}: {reason} (WebSocket handshake)", hint=hint)


def _refusal(place: str, options: WebSocket, status: int) -> TransportError:
    said = status_text(status)
    if status in (401, 403):
        return AuthenticationFailed(f"{place}: {said} (WebSocket handshake)", hint=options.login_hint)
    if status == 404:
        return _failed(place, said, f"is the path right? {options.path} was asked for")
    if 300 <= status < 400:
        return _failed(place, said, "redirects are not followed: set hostName and path to where it leads")
    return _failed(place, said, _NO_WEBSOCKET)


class WebSocketStream(trio.abc.Stream):
    """The bytes of a WebSocket's binary messages; each `send_all` is one message.

    As with every stream of trio, one task may send while another one receives. A send that was cancelled may have cut
    a frame in half, so nothing can be sent after it.
    """

    def __init__(self, stream: trio.abc.Stream, protocol: wsproto.WSConnection, events: deque[Event]) -> None:
        self._stream = stream
        self._protocol = protocol
        self._events = events
        self._received: bytes | bytearray = b""
        self._pong = b""
        self._sending = trio.Lock()
        self._asked_to_send = False
        self._torn = False
        self._ended = False
        self._fault: RemoteViolation | None = None
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send one message; see `trio.abc.SendStream`."""
        with self._only_sender():
            async with self._sending:
                await self._write(self._frame(BytesMessage(data=bytes(data))))
                await self._write_pong()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        with self._only_sender():
            async with self._sending:
                await self._stream.wait_send_all_might_not_block()
                await self._write_pong()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for the next bytes; see `trio.abc.ReceiveStream`.

        Raises:
            trio.BrokenResourceError: the link broke, or the server ended it with a reason or against the protocol,
                which is its cause.
        """
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint()
        while not self._received:
            self._take_events()
            if self._pong and not self._sending.locked():
                async with self._sending:
                    await self._write_pong()
            if self._received:
                break
            if self._closed:
                raise trio.ClosedResourceError
            if self._fault is not None:
                raise trio.BrokenResourceError(str(self._fault)) from self._fault
            if self._ended:
                return b""
            self._protocol.receive_data(bytes(await self._stream.receive_some(READ_BYTES)) or None)
            self._events.extend(self._protocol.events())
        taken = self._received[:max_bytes]
        self._received = self._received[len(taken) :]
        return taken

    async def aclose(self) -> None:
        """Say goodbye, where that does not take long, and close the link; see `trio.abc.AsyncResource`."""
        goodbye = self._goodbye()
        self._closed = True
        self._received = b""
        self._events.clear()
        try:
            with trio.move_on_after(GOODBYE_S):
                await self._write(goodbye)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # it has ended already
            pass
        finally:
            await self._stream.aclose()

    def _take_events(self) -> None:
        parts = []
        while self._events:
            event = self._events.popleft()
            match event:
                case BytesMessage():
                    parts.append(event.data)
                case Ping() if self._protocol.state is ConnectionState.OPEN:
                    self._pong = self._protocol.send(event.response())
                case TextMessage() if self._fault is None:
                    self._fault = RemoteViolation("a WebSocket message of text, where only binary ones are allowed")
                case CloseConnection() if self._fault is None:
                    self._ended = True
                    self._fault = self._fault_of(event)
        self._received = parts[0] if len(parts) == 1 else b"".join(parts)

    def _fault_of(self, event: CloseConnection) -> RemoteViolation | None:
        if self._protocol.state is ConnectionState.OPEN:
            # so wsproto reports bytes that it cannot read; the end of a link changes its state
            return RemoteViolation(f"no WebSocket frame: {event.reason}")
        if event.code in ORDINARY_ENDS:
            return None
        reason = "".join(c for c in event.reason or "" if c.isprintable())
        return RemoteViolation(f"the WebSocket was closed with code {int(event.code)} {reason}".rstrip())

    @contextmanager
    def _only_sender(self) -> Iterator[None]:
        if self._asked_to_send:
            raise trio.BusyResourceError("another task is sending")
        self._asked_to_send = True
        try:
            yield
        finally:
            self._asked_to_send = False

    def _frame(self, message: BytesMessage) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError
        if self._protocol.state is not ConnectionState.OPEN:
            raise trio.BrokenResourceError("the WebSocket has ended")
        return self._protocol.send(message) if message.data else b""

    def _goodbye(self) -> bytes:
        """The Close frame, where one may still go out."""
        states = (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING)
        if self._sending.locked() or self._protocol.state not in states:
            return b""
        return self._protocol.send(CloseConnection(code=1000 if self._fault is None else 1002))

    async def _write_pong(self) -> None:
        while self._pong:
            pong, self._pong = self._pong, b""
            await self._write(pong)

    async def _write(self, data: bytes) -> None:
        # a cancellation that is already here cuts nothing off
        await trio.lowlevel.checkpoint_if_cancelled()
        if not data:
            return
        if self._torn:
            raise trio.BrokenResourceError("an earlier send was cut off")
        self._torn = True
        await self._stream.send_all(data)
        self._torn = False
