"""A byte stream over a WebSocket: binary messages, whose borders mean nothing (MQTT 3.1.1, 6).

trio-websocket speaks the protocol: the handshake, masking, pongs, the words at the end. The stream that it is given
stands between it and the link. What comes is judged and counted there (`websocket_frames`), so that a far end can have
nothing gathered and no flood answered; what goes waits there, so that whoever sends waits for the link and not for a
lock of trio-websocket's, behind which pongs and what comes in would wait too.

Bounds: no message is ever put together. A text message is a violation. Extensions are not offered.

Source: RFC 6455; MQTT 3.1.1, 6.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from operator import index
from typing import Final

import h11
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tpxd.errors import AuthenticationFailed, ConnectFailed, RemoteViolation, TransportError
from tpxd.wire.http.answer import status_text
from tpxd.wire.proxy import host_and_port
from tpxd.wire.streams import Dial, Endpoint, WebSocket, explain, one_error
from tpxd.wire.websocket_frames import CLOSE, PONG, Frames

READ_BYTES: Final = 1 << 16
HEAD_BYTES: Final = 1 << 16
GOODBYE_S: Final = 1.0
ORDINARY_ENDS: Final = (1000, 1001, 1005, 1006)
"""Codes that say nothing but that it is over, 1006 with no Close frame at all (RFC 6455, 7.4.1)."""

NO_WEBSOCKET: Final = "does the server offer WebSockets on this port?"
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r]")


@asynccontextmanager
async def open_link(endpoint: Endpoint, dial: Dial, timeout_s: float) -> AsyncIterator[trio.abc.Stream]:
    """Dial the endpoint, and speak through a WebSocket where it asks for one; the stream is closed in any case.

    Args:
        timeout_s: for all of opening.

    Raises:
        ConnectFailed, AuthenticationFailed: see `streams.open_stream`; the server refuses the WebSocket.
    """
    deadline = trio.current_time() + timeout_s
    stream = await dial(endpoint, timeout_s)
    if endpoint.websocket is None:
        try:
            yield stream
        finally:
            await trio.aclose_forcefully(stream)
        return
    place = endpoint.place
    default_port = 80 if endpoint.tls is None else 443
    host = host_and_port(endpoint.server_name or endpoint.host, endpoint.port).removesuffix(f":{default_port}")
    with one_error():
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_at(deadline):
                    opened = await open_websocket(nursery, stream, endpoint.websocket, place, host)
            except trio.TooSlowError:
                raise _failed(place, f"no answer within {timeout_s:g} s", NO_WEBSOCKET) from None
            except trio.BrokenResourceError as error:
                reason, hint = explain(error)
                raise _failed(place, reason, hint or NO_WEBSOCKET) from error
            try:
                yield opened
            finally:
                await trio.aclose_forcefully(opened)
            nursery.cancel_scope.cancel()


async def open_websocket(
    nursery: trio.Nursery, stream: trio.abc.Stream, options: WebSocket, place: str, host: str
) -> WebSocketStream:
    """Turn the stream into a WebSocket; it is closed where that fails.

    Args:
        nursery: where trio-websocket reads as long as the stream is open.
        place: how errors call the server.
        host: the request's Host header.

    Raises:
        AuthenticationFailed: the server answered 401 or 403.
        ConnectFailed: it refuses otherwise, or speaks no WebSocket.
        trio.BrokenResourceError: the stream broke.
    """
    link = _Link(stream)
    target = f"{options.path}?{options.query}" if options.query else options.path
    try:
        # trio-websocket answers what is no handshake with what only a server may say
        with link.handshake, suppress(h11.LocalProtocolError):
            connection: WebSocketConnection = await nursery.start(_converse, link, host, target, options.subprotocol)
            if connection.subprotocol != options.subprotocol:
                raise _failed(
                    place,
                    f"the server opens a WebSocket, but not for {options.subprotocol}",
                    f"is {options.path} the path of its {options.subprotocol} service?",
                )
            return WebSocketStream(connection, link)
        if link.broke is not None:
            raise trio.BrokenResourceError from link.broke
        raise _refusal(place, options, link.status)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _converse(
    link: _Link, host: str, target: str, subprotocol: str, *, task_status: trio.TaskStatus[WebSocketConnection]
) -> None:
    """Run trio-websocket's task as long as the link is there."""
    with one_error():
        async with trio.open_nursery() as nursery:
            connection = await wrap_client_stream(
                nursery,
                link,  # type: ignore[arg-type] # any stream will do
                host,
                target,
                subprotocols=[subprotocol],
                receive_buffer_size=READ_BYTES,
            )
            task_status.started(connection)


def _failed(place: str, reason: str, hint: str) -> ConnectFailed:
    return ConnectFailed(f"{place}: {reason} (WebSocket handshake)", hint=hint)


def _refusal(place: str, options: WebSocket, status: int) -> TransportError:
    if status in (0, 101):
        return _failed(place, "the answer is no WebSocket handshake", NO_WEBSOCKET)
    said = status_text(status)
    if status in (401, 403):
        return AuthenticationFailed(f"{place}: {said} (WebSocket handshake)", hint=options.login_hint)
    if status == 404:
        return _failed(place, said, f"is the path right? {options.path} was asked for")
    if 300 <= status < 400:
        return _failed(place, said, "redirects are not followed: is the address of the server right, and its path?")
    return _failed(place, said, NO_WEBSOCKET)


class WebSocketStream(trio.abc.Stream):
    """The bytes of a WebSocket's binary messages; each `send_all` is one message.

    As with every stream of trio, one task may send while another one receives. A send that was cancelled may have cut
    a frame in half, so nothing can be sent after it.
    """

    def __init__(self, connection: WebSocketConnection, link: _Link) -> None:
        self._connection = connection
        self._link = link
        self._received: bytes = b""
        self._busy: set[str] = set()
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send one message; see `trio.abc.SendStream`."""
        with self._alone("sending"):
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                if data:
                    await self._connection.send_message(bytes(data))
            except ConnectionClosed:
                raise trio.BrokenResourceError("the WebSocket has ended") from self._link.broke
            await self._link.flush()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        with self._alone("sending"):
            await self._link.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for the next bytes; see `trio.abc.ReceiveStream`.

        Raises:
            trio.BrokenResourceError: the link broke, or the server ended it with a reason or against the protocol,
                which is its cause.
        """
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._alone("receiving"):
            if self._received:
                await trio.lowlevel.checkpoint()
            else:
                try:
                    message = await self._connection.get_message()
                except ConnectionClosed as error:
                    await trio.lowlevel.checkpoint()
                    return self._end(error)
                assert isinstance(message, bytes)  # text is refused beneath
                self._received = message
        taken = self._received[:max_bytes]
        self._received = self._received[len(taken) :]
        return taken

    def _end(self, end: ConnectionClosed) -> bytes:
        """What the end means for who receives."""
        if self._closed:
            raise trio.ClosedResourceError from None
        cause = self._link.frames.fault or self._link.broke
        if cause is None and end.reason is not None and end.reason.code not in ORDINARY_ENDS:
            reason = "".join(c for c in end.reason.reason or "" if c.isprintable())
            cause = RemoteViolation(f"the WebSocket was closed with code {int(end.reason.code)} {reason}".rstrip())
        if cause is not None:
            raise trio.BrokenResourceError(str(cause)) from cause
        return b""

    async def aclose(self) -> None:
        """Say goodbye, where that does not take long, and close the link; see `trio.abc.AsyncResource`."""
        self._closed = True
        self._received = b""
        try:
            with trio.move_on_after(GOODBYE_S):
                await self._connection.aclose(1000 if self._link.frames.fault is None else 1002)
        finally:
            await self._link.aclose()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if self._closed:
            raise trio.ClosedResourceError
        if what in self._busy:
            raise trio.BusyResourceError(f"another task is {what}")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.remove(what)


class _NoHandshake(trio.BrokenResourceError):
    """The server's answer opens no WebSocket."""


class _Link(trio.abc.Stream):
    """The link as trio-websocket sees it; see the module.

    Attributes:
        handshake: cancelled when it comes to nothing, of which trio-websocket would tell nobody.
        status: what the server answered.
        broke: how the link ended against our will.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.handshake = trio.CancelScope()
        self.status = 0
        self.broke: BaseException | None = None
        self.frames = Frames()
        self._stream = stream
        self._head: bytearray | None = bytearray()
        self._unsent = bytearray()
        self._pong = b""
        self._sending = trio.Lock()
        self._torn = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Take what trio-websocket has to say; only Close waits until it is sent, and the newest pong is enough."""
        if data[0] & 0x0F == PONG and self._head is None:
            self._pong = bytes(data)
            return
        self._unsent += data
        if data[0] & 0x0F == CLOSE and self._head is None:
            self.frames.closing = True
            await self.flush()

    async def flush(self) -> None:
        """Send all that waits."""
        async with self._sending:
            while data := bytes(self._unsent) + self._pong:
                self._unsent.clear()
                self._pong = b""
                await self._write(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        async with self._sending:
            await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Answer what there is to answer, and wait for whole frames; see `trio.abc.ReceiveStream`."""
        try:
            while True:
                if (self._unsent or self._pong) and not self._sending.locked():
                    await self.flush()
                if self.frames.fault is not None:
                    raise trio.BrokenResourceError from self.frames.fault
                data = await self._stream.receive_some(max_bytes)
                if not data and self._head is not None:
                    raise trio.BrokenResourceError("the server closed the connection during the handshake")
                if (passed := self._passed(data)) or not data:
                    return passed
        except trio.BrokenResourceError as error:
            self.broke = None if isinstance(error, _NoHandshake) else error
            self.handshake.cancel()
            raise

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        self.handshake.cancel()
        await self._stream.aclose()

    def _passed(self, data: bytes | bytearray) -> bytes:
        """What trio-websocket gets of what came: the head of an answer that it can make something of, then frames."""
        if self._head is None:
            return self.frames.hand_on(data, trio.current_time())
        searched = max(0, len(self._head) - 3)
        self._head += data
        end = self._head.find(b"\r\n\r\n", searched) + 4
        if end < 4:
            if len(self._head) > HEAD_BYTES or self._head[:7] != b"HTTP/1."[: len(self._head)]:
                raise _NoHandshake
            return b""
        head, rest, self._head = bytes(self._head[:end]), self._head[end:], None
        found = _STATUS.match(head)
        self.status = int(found[1]) if found else 0
        if self.status != 101:
            raise _NoHandshake
        return head + self.frames.hand_on(rest, trio.current_time())

    async def _write(self, data: bytes) -> None:
        # a cancellation that is already here cuts nothing off
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._torn:
            raise trio.BrokenResourceError("an earlier send was cut off")
        self._torn = True
        await self._stream.send_all(data)
        self._torn = False
