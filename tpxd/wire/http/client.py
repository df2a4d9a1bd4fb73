"""HTTP/1.1 POSTs to one server over links that stay open; `answer` reads and writes the bytes.

Each link has a task that always reads, also while the link is idle: a link that the server closes is forgotten at
once instead of being found dead by the next request. One deadline per link ends it when an answer stays away, and
when it was idle for too long.

httpx's client costs 67 µs per request before it reaches a transport, which is more than everything here (see
`tests/benchmarks/http_connector_bench.py`); what it adds, redirects and cookies, is not wanted for uplinks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from tpxd.errors import LinkLost, RemoteViolation
from tpxd.wire.http.answer import Answer, AnswerParser, end_of_head
from tpxd.wire.next_steps import NextStep
from tpxd.wire.streams import Dial, Endpoint, explain, one_error

READ_BYTES = 4 * 1024
"""Most answers are shorter; of one that is made to be costly, others may go on after so much."""
IDLE_S = 50.0
"""An idle link is closed after so long: sooner than the 60 s after which many routers forget one without a word."""

REST_S = 1.0
"""A server that answers before it has read the whole request gets so long to read the rest."""

WHY_NO_ANSWER = "does this port want https://, and does the server take such requests? its log may tell"
WHY_CUT = "did the server, or a gateway before it, end in the middle? its log may tell"


class _Unanswered(LinkLost):
    """The link ended before any byte of the answer came."""


@dataclass(slots=True, eq=False)
class _Exchange:
    """One request under way, and what became of it."""

    settled: trio.Event = field(default_factory=trio.Event)
    sent: bool = False
    answer: Answer | None = None
    error: LinkLost | None = None

    def settle(self, outcome: Answer | LinkLost) -> None:
        if isinstance(outcome, Answer):
            self.answer = outcome
        else:
            self.error = outcome
        self.settled.set()

    def result(self) -> Answer:
        if self.answer is None:
            assert self.error is not None
            raise self.error
        return self.answer


@dataclass(slots=True, eq=False)
class _Link:
    """One stream, and the request that it carries at the moment.

    Attributes:
        answered: the answer came while the request was still being sent, which often happens within the last step of
            sending; who sends puts the link aside.
    """

    stream: trio.abc.Stream
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    parser: AnswerParser = field(default_factory=AnswerParser)
    exchange: _Exchange | None = None
    answered: bool = False


class HttpClient:
    """What the body of `open_http_client` posts through; there are as many links as there were posts at once."""

    def __init__(
        self,
        dial: Callable[[], Awaitable[trio.abc.Stream]],
        start: Callable[[Callable[[_Link], Awaitable[None]], _Link], None],
        answer_timeout_s: float,
    ) -> None:
        self._dial = dial
        self._start = start
        self._answer_timeout_s = answer_timeout_s
        self._idle: list[_Link] = []

    async def post(self, head: bytes, body: bytes) -> Answer:
        """Send one request and wait for its answer.

        A link that was idle and that the server closes without a byte of an answer is replaced once: servers do that
        to idle links, and the request may cross the closing. It is not known whether such a request was served.

        Args:
            head: from `answer.request_head`, with further `header_lines` or without.

        Raises:
            ConnectFailed: no link could be opened.
            LinkLost: the link ended before the answer was complete, or no answer came in time.

        Cancellation: the request may have been served; its link is closed, the others stay.
        """
        message = b"%b%b%b" % (head, end_of_head(len(body)), body)
        link = self._take_idle()
        if link is not None:
            try:
                return await self._exchange(link, message)
            except _Unanswered:
                pass
        return await self._exchange(await self._open(), message)

    async def prepare(self) -> None:
        """Open a link that waits for the first post.

        Raises:
            ConnectFailed: it cannot be opened.
        """
        self._put_aside(await self._open())

    async def _open(self) -> _Link:
        link = _Link(await self._dial())
        self._start(self._read, link)
        return link

    def _take_idle(self) -> _Link | None:
        """The link that was used last, so that superfluous ones grow old."""
        while self._idle:
            link = self._idle.pop()
            # one that was idle for too long may be here still, until its task runs
            if not link.scope.cancel_called:
                return link
        return None

    def _put_aside(self, link: _Link) -> None:
        link.answered = False
        link.scope.deadline = trio.current_time() + IDLE_S
        self._idle.append(link)

    async def _exchange(self, link: _Link, message: bytes) -> Answer:
        exchange = link.exchange = _Exchange()
        link.parser.begin()
        link.scope.deadline = trio.current_time() + self._answer_timeout_s
        try:
            try:
                await link.stream.send_all(message)
                exchange.sent = True
                if link.answered:
                    self._put_aside(link)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # the reader knows why, or has the answer all the same: servers refuse what they do not want to read
                pass
            await exchange.settled.wait()
        finally:
            if link.exchange is exchange or not exchange.sent:
                link.scope.cancel()
        return exchange.result()

    async def _read(self, link: _Link) -> None:
        """Read one link until its end; the task that every link has."""
        outcome: Answer | LinkLost = LinkLost(
            f"no answer within {self._answer_timeout_s * 1000:.0f} ms",
            hint=NextStep.SERVER_TIME,
        )
        try:
            with link.scope:
                outcome = await self._read_to_the_end(link)
        finally:
            link.answered = False
            if link in self._idle:
                self._idle.remove(link)
            if link.exchange is not None:
                link.exchange.settle(outcome)
                link.exchange = None
            await trio.aclose_forcefully(link.stream)

    async def _read_to_the_end(self, link: _Link) -> Answer | LinkLost:
        """Settle exchanges until the link cannot carry another one; returns what becomes of an unsettled one."""
        reason, hint = "the far end closed the connection", None
        try:
            while data := await link.stream.receive_some(READ_BYTES):
                exchange = link.exchange
                if exchange is None:
                    return LinkLost("the far end sent something unasked")
                answer = link.parser.receive_data(data)
                if answer is None:
                    continue
                if not link.parser.keep_alive or link.scope.cancel_called:
                    return answer
                exchange.settle(answer)
                link.exchange = None
                if exchange.sent:
                    self._put_aside(link)
                else:
                    link.answered = True
                    link.scope.deadline = trio.current_time() + REST_S
        except RemoteViolation as error:
            return LinkLost(f"the far end broke the protocol: {error}", hint="does an HTTP server listen on this port?")
        except trio.BrokenResourceError as error:
            reason, hint = explain(error)
        if not link.parser.begun:
            return _Unanswered(f"{reason} before it answered", hint=hint or WHY_NO_ANSWER)
        return link.parser.receive_eof() or LinkLost(f"{reason} in the middle of its answer", hint=hint or WHY_CUT)


@asynccontextmanager
async def open_http_client(
    endpoint: Endpoint, dial: Dial, *, connect_timeout_s: float, answer_timeout_s: float
) -> AsyncIterator[HttpClient]:
    """Open a first link, which the first post uses, and yield what posts.

    Args:
        answer_timeout_s: how long sending a request and reading its answer may take, each time.

    Raises:
        ConnectFailed: the first link could not be opened.

    Cancellation: all links are closed.
    """
    with one_error():
        async with trio.open_nursery() as nursery:
            client = HttpClient(lambda: dial(endpoint, connect_timeout_s), nursery.start_soon, answer_timeout_s)
            await client.prepare()
            yield client
            nursery.cancel_scope.cancel()
