"""The far end of an HTTP client in memory, link by link, and posts that run in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from tpxd.errors import ConnectFailed, LinkLost
from tpxd.wire.http.answer import Answer, request_head
from tpxd.wire.http.client import HttpClient, open_http_client
from tpxd.wire.streams import Endpoint

ENDPOINT = Endpoint("as.example.net", 80)
HEAD = request_head(b"POST", b"/in", [(b"Host", b"as.example.net")])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUT_S = 10.0
MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class Far:
    """The server's side of all links, in the order in which they were opened."""

    def __init__(self) -> None:
        self.links: list[MemoryStream] = []
        self.ours: list[MemoryStream] = []
        self.refuse: ConnectFailed | None = None

    async def dial(self, endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        assert (endpoint, timeout_s) == (ENDPOINT, 5.0)
        if self.refuse is not None:
            raise self.refuse
        ours, theirs = trio.testing.memory_stream_pair()
        self.links.append(theirs)
        self.ours.append(ours)
        return ours

    async def request(self, link: int) -> bytes:
        """Read one request's body on a link; b"" when the client closed it."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self.links[link].receive_some()
            if not more:
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /in HTTP/1.1\r\nHost: as.example.net\r\nContent-Length: ")
        assert len(body) == int(head.rpartition(b" ")[2])
        return bytes(body)

    async def answer(self, link: int, data: bytes = OK, *, close: bool = False) -> bytes:
        """Read a request on a link and answer it."""
        body = await self.request(link)
        if data:
            await self.links[link].send_all(data)
        if close:
            await self.links[link].aclose()
        return body


@asynccontextmanager
async def opened(far: Far) -> AsyncIterator[HttpClient]:
    async with open_http_client(ENDPOINT, far.dial, connect_timeout_s=5.0, answer_timeout_s=TIMEOUT_S) as client:
        yield client


class Posts:
    """What became of posts that run in the background."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self.outcomes: dict[bytes, Answer | LinkLost] = {}

    async def post(self, body: bytes) -> None:
        try:
            self.outcomes[body] = await self._client.post(HEAD, body)
        except LinkLost as error:
            self.outcomes[body] = error

    def status(self, body: bytes) -> int:
        outcome = self.outcomes[body]
        assert isinstance(outcome, Answer), outcome
        return outcome.status

    def error(self, body: bytes) -> str:
        outcome = self.outcomes[body]
        assert isinstance(outcome, LinkLost)
        return str(outcome)

    def hint(self, body: bytes) -> str:
        outcome = self.outcomes[body]
        assert isinstance(outcome, LinkLost)
        return str(outcome.hint)
