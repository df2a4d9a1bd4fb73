"""POSTs over HTTP/2, for servers that want it: one link for many requests, by httpcore, the transport of httpx.

The far end chooses by ALPN; one that chooses HTTP/1.1 gets that, over as many links as there are requests at once. The
links are dialled as all others of tpxd are, so that proxies, certificates and error texts are the same. This is slower
than `http_client`, which is made for the many small requests of uplinks.

Source: RFC 9113; RFC 7301 (ALPN).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import h2.errors
import h2.events
import httpcore
import trio

from tpxd.errors import LinkLost
from tpxd.wire.http1_client import KEPT_BYTES, Answer
from tpxd.wire.http2_links import Links
from tpxd.wire.http_client import IDLE_S, Dial
from tpxd.wire.streams import Endpoint, explain

Headers = list[tuple[bytes, bytes]]

POSTS_PER_LINK: Final = 900
"""A link is left after so many, below the 1,000 at which nginx and others end it."""


@dataclass(slots=True)
class _Turn:
    """A pool with the one link that it opens, or with a few where the far end chose HTTP/1.1."""

    pool: httpcore.AsyncConnectionPool
    posts: int = 0
    under_way: int = 0


class Http2Client:
    """What the body of `open_http2_client` posts through."""

    def __init__(
        self,
        links: Links,
        new_pool: Callable[[], httpcore.AsyncConnectionPool],
        origin: str,
        answer_timeout_s: float,
    ) -> None:
        self._links = links
        self._new_pool = new_pool
        self._turn = _Turn(new_pool())
        self._origin = origin
        self._answer_timeout_s = answer_timeout_s

    async def post(self, head: bytes, body: bytes) -> Answer:
        """Send one request and wait for its answer.

        A request that finds the link dead that carried others before is sent once more, over a new link. It is not
        known whether such a request was served.

        Args:
            head: from `http1_client.request_head`, with further `header_lines` or without.

        Raises:
            ConnectFailed: no link could be opened.
            LinkLost: the link ended before the answer was complete, or no answer came in time.

        Cancellation: the request may have been served; the link stays.
        """
        target, headers = _read_head(head)
        headers.append((b"Content-Length", b"%d" % len(body)))
        with trio.move_on_after(self._answer_timeout_s):
            turn = await self._turn_with_room()
            is_first = turn.posts == 0
            try:
                return await self._exchange(turn, target, headers, body)
            except (httpcore.ProtocolError, httpcore.NetworkError) as error:
                if is_first:
                    raise _lost(error) from error
            try:
                return await self._exchange(await self._turn_with_room(), target, headers, body)
            except (httpcore.ProtocolError, httpcore.NetworkError) as error:
                raise _lost(error) from error
        raise LinkLost(
            f"no answer within {self._answer_timeout_s * 1000:.0f} ms",
            hint="is the server overloaded, or actionTimeout too short for it?",
        )

    async def aclose(self) -> None:
        """Close what is open; nothing is under way any more."""
        await self._turn.pool.aclose()

    async def _turn_with_room(self) -> _Turn:
        turn = self._turn
        if turn.posts >= POSTS_PER_LINK or self._links.is_closing:
            self._turn = _Turn(self._new_pool())
            self._links.is_closing = False
            await self._close_unused(turn)
        return self._turn

    async def _close_unused(self, turn: _Turn) -> None:
        """Close a turn that was left and has nothing under way; waits for nothing, so being cancelled does no harm."""
        if turn is not self._turn and not turn.under_way:
            await turn.pool.aclose()

    async def _exchange(self, turn: _Turn, target: str, headers: Headers, body: bytes) -> Answer:
        url, content = self._origin + target, _Content(body)
        turn.posts += 1
        turn.under_way += 1
        try:
            async with turn.pool.stream("POST", url, headers=headers, content=content) as response:
                kept = b""
                # to its end, however long it is: httpcore keeps a link in order only then, and the time is limited
                async for part in response.aiter_stream():
                    kept += part[: KEPT_BYTES - len(kept)]
                return Answer(response.status, {name.lower(): value for name, value in response.headers}, kept)
        except (httpcore.ProtocolError, httpcore.NetworkError):
            if turn is self._turn:
                self._turn = _Turn(self._new_pool())
            raise
        finally:
            turn.under_way -= 1
            await self._close_unused(turn)


class _Content:
    """A body in one piece. httpcore would make a generator of it, and leave that lying around when a link ends."""

    def __init__(self, body: bytes) -> None:
        self._left = [body]

    def __aiter__(self) -> _Content:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def _read_head(head: bytes) -> tuple[str, Headers]:
    """Take apart what `request_head` made: the target, and the headers."""
    request, *lines = head.split(b"\r\n")
    headers = [line.split(b": ", 1) for line in lines if line]
    return request.split(b" ")[1].decode("ascii"), [(name, value) for name, value in headers]


def _lost(error: Exception) -> LinkLost:
    match error.args[:1]:
        case (h2.events.ConnectionTerminated() as event,):
            return LinkLost(f"the far end ended the link: GOAWAY, {_code(event.error_code)}")
        case (h2.events.StreamReset() as event,):
            return LinkLost(f"the far end gave the request up: {_code(event.error_code)}")
    if isinstance(error, httpcore.ProtocolError) and str(error) != "Server disconnected":
        return LinkLost(f"HTTP went wrong: {error}", hint="does an HTTP server listen on this port?")
    reason, hint = explain(error)
    return LinkLost(f"{reason} before it answered", hint=hint)


def _code(code: h2.errors.ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, h2.errors.ErrorCodes) else f"error {code}"


@asynccontextmanager
async def open_http2_client(
    endpoint: Endpoint, dial: Dial, *, connect_timeout_s: float, answer_timeout_s: float, links: int
) -> AsyncIterator[Http2Client]:
    """Open a first link, which the first post uses, and yield what posts.

    Args:
        endpoint: with a TLS context that offers h2 and http/1.1 (ALPN).
        answer_timeout_s: how long a post may take, each time, opening a link included.
        links: the most links at once, to a server that chooses HTTP/1.1.

    Raises:
        ConnectFailed: the first link could not be opened.

    Cancellation: all links are closed.
    """
    backend = Links(lambda: dial(endpoint, connect_timeout_s))
    # never used: the links come with their TLS
    unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def new_pool() -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=unused, max_connections=links, keepalive_expiry=IDLE_S, http2=True, network_backend=backend
        )

    origin = f"https://{endpoint.host if ':' not in endpoint.host else f'[{endpoint.host}]'}:{endpoint.port}"
    await backend.prepare()
    try:
        async with aclosing(Http2Client(backend, new_pool, origin, answer_timeout_s)) as client:
            yield client
    finally:
        await backend.forget()
