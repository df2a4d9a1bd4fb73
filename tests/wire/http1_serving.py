"""An HTTP server on memory streams, and what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from trio.testing import memory_stream_pair

from tpxd.wire.http.messages import Limits, Request, Response
from tpxd.wire.http.server import HttpServer, Places

Stream = trio.abc.HalfCloseableStream

GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc"


async def echo(request: Request) -> Response:
    return Response(200, request.path.encode() + request.body)


def answer(body: bytes, *, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    kind = b"Content-Type: text/plain; charset=utf-8\r\n" if body else b""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n%b\r\n%b" % (status, kind, len(body), more, body)


CLOSE = b"Connection: close\r\n"


class Serving:
    """A server on memory streams."""

    def __init__(self, server: HttpServer, conversations: trio.Nursery) -> None:
        self.server = server
        self._conversations = conversations

    def connect(self) -> Stream:
        client, ours = memory_stream_pair()
        self.take(ours)
        return client

    def take(self, ours: trio.abc.Stream) -> None:
        self._conversations.start_soon(self.server.serve, ours, "192.0.2.7")


@asynccontextmanager
async def serving(
    respond: Callable[[Request], Awaitable[Response]], limits: Limits | None = None, places: Places | None = None
) -> AsyncIterator[Serving]:
    server = HttpServer(respond, limits or Limits(), places=places)
    async with trio.open_nursery() as nursery:
        conversations = await nursery.start(server.keep_conversations)
        try:
            yield Serving(server, conversations)
        finally:
            server.stop()


async def receive(client: trio.abc.Stream, size: int) -> bytes:
    """So many bytes of answers, without their Date, which is checked to be there."""
    received = b""
    while len(received) < size:
        data = await client.receive_some()
        assert data, f"the connection ended after {received!r}"
        received += _undated(bytes(data))
    return received


async def receive_rest(client: trio.abc.Stream) -> bytes:
    received = b""
    async for data in client:
        received += data
    return _undated(received)


def _undated(received: bytes) -> bytes:
    heads = received.split(b"\r\n")
    assert sum(line.startswith(b"Date: ") for line in heads) == received.count(b"HTTP/1.1 ") - received.count(b" 100 ")
    return b"\r\n".join(line for line in heads if not line.startswith(b"Date: "))
