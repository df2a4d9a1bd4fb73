"""The shell around `parser`: sockets, deadlines, and the order in which things end.

Theory of operation. One task per connection, no further task and no timer per request. A conversation writes down
until when its present wait may last, which costs nothing; a tick, once a second, cancels those that are overdue. A
wait may therefore last up to a second longer than its limit.

The conversations live in a nursery that is shielded, because a request that was read is answered even when the
server is told to stop; from that moment the shield has a deadline.
"""

from __future__ import annotations

import contextlib
import logging
import math
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum, auto
from functools import partial
from typing import Protocol

import trio

from tpxd.errors import behind_barrier
from tpxd.wire.http.listen import RECEIVE_BYTES, TcpStream, accept_streams, bound_address, open_listeners
from tpxd.wire.http.messages import Limits, Request, Response, format_response
from tpxd.wire.http.parser import RequestParser

logger = logging.getLogger(__name__)

Respond = Callable[[Request], Awaitable[Response]]
"""Makes the answer to one request; cancelled when that takes longer than `Limits.answer_s`."""

TICK_S = 1.0
GRACE_S = 3.0
LINGER_S = 2.0
FAIR_SHARE = 16
TURNED_AWAY_AT_ONCE = 64
QUOTED = 200

BUSY = Response(503, b"too many connections\n", headers=((b"Retry-After", b"5"),))
LATE = Response(503, b"no answer in time\n", headers=((b"Retry-After", b"5"),))
SLOW = Response(408, b"the request did not arrive in time\n")
BROKEN = Response(500, b"internal error, see the log\n")

_DEFAULT_LIMITS = Limits()


async def serve_http(
    address: str,
    respond: Respond,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    tls: ssl.SSLContext | None = None,
    places: Places | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer HTTP/1.1 requests at `address` until cancelled.

    Args:
        address: `host:port`, see `open_listeners`; `task_status` gets the list of what was really bound.
        respond: called once per request, for one connection's requests one after the other. What it raises is
            logged and answered with 500.
        tls: a server's context; without it the port speaks plain HTTP.
        places: who is closed out for the next one when there are too many; without it the next one is turned away.

    Raises:
        CannotListen: nothing can be bound at this address.

    Cancellation: the listeners close first, then silent connections; requests that were read completely get their
        answers if those are there within `GRACE_S` seconds.
    """
    listeners = await open_listeners(address)
    server = HttpServer(respond, limits, tls, places)
    try:
        async with trio.open_nursery() as nursery:
            conversations = await nursery.start(server.keep_conversations)
            try:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(
                            accept_streams, listener, partial(conversations.start_soon, server.welcome)
                        )
                    task_status.started([bound_address(listener) for listener in listeners])
            finally:
                server.stop()
    finally:
        for listener in listeners:
            listener.close()


class Phase(Enum):
    """What a conversation waits for."""

    READING = auto()
    ANSWERING = auto()
    WRITING = auto()


@dataclass(slots=True, eq=False)
class Conversation:
    """What the tick needs to know of a connection. Not frozen, as it changes thrice in each request."""

    parser: RequestParser
    phase: Phase = Phase.READING
    deadline: float = 0.0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    closed_out: bool = False

    def wait(self, phase: Phase, deadline: float) -> None:
        """What comes next, and until when (trio's clock)."""
        self.phase = phase
        self.deadline = deadline

    def close_out(self) -> None:
        """Another one gets its place: it ends at once, without a last word."""
        self.closed_out = True
        self.scope.cancel()


class Places(Protocol):
    """Decides whose connection is closed when there are too many; see `tpxd.intake.places`."""

    def opened(self, connection: Conversation, address: str, /) -> Conversation | None:
        """A peer connected; returns whom to close out for it."""

    def byte(self, connection: Conversation, /) -> None:
        """Something arrived over it."""

    def posted(self, connection: Conversation, /) -> None:
        """A POST over it was answered with 2xx."""

    def closed(self, connection: Conversation, /) -> None:
        """It ended."""


class NoPlaces:
    """Closes nobody out."""

    def opened(self, connection: Conversation, address: str, /) -> Conversation | None:
        """See `Places`."""
        return None

    def byte(self, connection: Conversation, /) -> None:
        """See `Places`."""

    posted = closed = byte


class HttpServer:
    """Everything of `serve_http` but the listening: tests hand it memory streams."""

    def __init__(
        self, respond: Respond, limits: Limits, tls: ssl.SSLContext | None = None, places: Places | None = None
    ) -> None:
        self._respond = respond
        self._limits = limits
        self._tls = tls
        self._most = limits.connections if places is None else math.inf
        self._places = places or NoPlaces()
        self._conversations: set[Conversation] = set()
        self._turned_away = 0
        self._stopped = trio.Event()
        self._shield = trio.CancelScope(shield=True)
        self._date = b""

    async def keep_conversations(self, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Hold the nursery of the conversations, and end what is overdue, until after `stop`."""
        with self._shield:
            async with trio.open_nursery() as nursery:
                self._tick()
                task_status.started(nursery)
                while not self._stopped.is_set():
                    with trio.move_on_after(TICK_S):
                        await self._stopped.wait()
                    self._tick()

    def stop(self) -> None:
        """Let silent connections go at once and the others after their answer, `GRACE_S` seconds from now at last."""
        self._stopped.set()
        self._shield.deadline = trio.current_time() + GRACE_S
        for conversation in self._conversations:
            if conversation.phase is Phase.READING:
                conversation.scope.cancel()

    def _tick(self) -> None:
        self._date = formatdate(usegmt=True).encode()
        now = trio.current_time()
        for conversation in self._conversations:
            if conversation.deadline < now:
                conversation.scope.cancel()

    async def welcome(self, tcp: TcpStream, peer: str) -> None:
        """Serve a connection that was just accepted, or turn it away when there are too many."""
        if len(self._conversations) >= self._most:
            await self._turn_away(tcp)
        elif self._tls is None:
            await self.serve(tcp, peer)
        else:
            await self.serve(trio.SSLStream(tcp, self._tls, server_side=True), peer)

    async def _turn_away(self, tcp: TcpStream) -> None:
        """Say why in plain HTTP; a TLS handshake, or many of these at once, would cost more than there is to give."""
        self._turned_away += 1
        try:
            if self._tls is None and self._turned_away <= TURNED_AWAY_AT_ONCE:
                with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(LINGER_S):
                    await self._part(tcp, BUSY)
        finally:
            self._turned_away -= 1
            await tcp.aclose()

    async def serve(self, stream: trio.abc.Stream, peer: str) -> None:
        """Serve one connection to its end and close it; a peer that vanishes is the peer's own business."""
        conversation = Conversation(RequestParser(self._limits, peer))
        self._conversations.add(conversation)
        closed_out = self._places.opened(conversation, peer)
        if closed_out is not None:
            closed_out.close_out()
        try:
            with contextlib.suppress(trio.BrokenResourceError):
                with conversation.scope:
                    await self._converse(conversation, stream)
                if not conversation.closed_out:
                    last_word = self._last_word(conversation)
                    conversation.wait(Phase.WRITING, math.inf)
                    with trio.move_on_after(LINGER_S) as conversation.scope:
                        await self._part(stream, last_word)
        finally:
            self._conversations.discard(conversation)
            self._places.closed(conversation)
            await trio.aclose_forcefully(stream)

    async def _converse(self, conversation: Conversation, stream: trio.abc.Stream) -> None:
        parser, limits, now = conversation.parser, self._limits, trio.current_time
        if isinstance(stream, trio.SSLStream):
            conversation.wait(Phase.READING, now() + limits.request_s)
            await stream.do_handshake()
        deadline = now() + limits.first_byte_s
        while not (parser.ended or self._stopped.is_set()):
            conversation.wait(Phase.READING, deadline)
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data or conversation.scope.cancel_called:
                return
            self._places.byte(conversation)
            begun = parser.mid_request
            requests = parser.receive(data)
            for count, request in enumerate(requests, 1):
                conversation.wait(Phase.ANSWERING, now() + limits.answer_s)
                response = await self._answer(request)
                if request.method == "POST" and response.status < 300:
                    self._places.posted(conversation)
                conversation.wait(Phase.WRITING, now() + limits.request_s)
                close = count == len(requests) and self._stopped.is_set()
                await stream.send_all(format_response(request, response, close=close, date=self._date))
                if count % FAIR_SHARE == 0:
                    await trio.lowlevel.checkpoint()
            if interim := parser.interim():
                await stream.send_all(interim)
            if not parser.mid_request:
                deadline = now() + limits.idle_s
            elif requests or not begun:
                deadline = now() + limits.request_s

    async def _answer(self, request: Request) -> Response:
        """The crash barrier of one request: a bug that one sender's bytes can reach must not end the server."""
        answer = await behind_barrier(
            lambda: self._respond(request), "%s %s from %s", request.method, request.path[:QUOTED], request.peer
        )
        return BROKEN if isinstance(answer, Exception) else answer

    def _last_word(self, conversation: Conversation) -> Response | None:
        """What the peer still has to be told before the connection is closed."""
        if conversation.scope.cancel_called and not self._stopped.is_set():
            if conversation.phase is Phase.ANSWERING:
                return LATE
            if conversation.phase is Phase.READING and conversation.parser.mid_request:
                return SLOW
        return conversation.parser.refusal

    async def _part(self, stream: trio.abc.Stream, last_word: Response | None) -> None:
        """Close in a way that lets the last word arrive: a system that closes over unread bytes takes it back."""
        if last_word is not None:
            await stream.send_all(format_response(None, last_word, date=self._date))
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            while await stream.receive_some(RECEIVE_BYTES):
                pass
        await stream.aclose()
