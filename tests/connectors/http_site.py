"""A web server in memory whose every answer is left to the test, and a batch on its way to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.connectors.opening import context
from tests.connectors.traffic import Receipts
from tpxd.connector import Context, Outgoing, Transport
from tpxd.connectors.http.connector import HttpConfig, open_http
from tpxd.errors import TransportError
from tpxd.wire.streams import Endpoint

URL = "http://as.example.net/lora/in"


def config(**values: Any) -> HttpConfig:
    """A configuration that posts to `URL`, with these values besides or instead."""
    return HttpConfig.model_validate({"destinationURL": URL} | values)


class Server:
    """A web server over streams in memory that leaves each answer to the test."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.dialled: list[tuple[Endpoint, float]] = []
        self.requests: list[bytes] = []
        self.under_way: dict[int, trio.abc.Stream] = {}
        self.proven = False
        self._nursery = nursery

    async def dial(self, endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        """See `connector.Dial`."""
        self.dialled.append((endpoint, timeout_s))
        near, far = memory_stream_pair()
        self._nursery.start_soon(self._read, far)
        await trio.lowlevel.checkpoint()
        return near

    async def _read(self, stream: trio.abc.Stream) -> None:
        while data := await stream.receive_some():
            self.under_way[len(self.requests)] = stream
            self.requests.append(bytes(data))

    async def answer(self, number: int, status: str, *headers: str, body: str = "") -> None:
        """Answer a request by its number."""
        await wait_all_tasks_blocked()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
        await self.under_way.pop(number).send_all("\r\n".join(lines).encode())
        await wait_all_tasks_blocked()

    def bodies(self) -> list[bytes]:
        """Of the requests so far."""
        return [request.partition(b"\r\n\r\n")[2] for request in self.requests]

    @property
    def context(self) -> Context:
        """What a connector gets, so that it dials this server."""
        return context(connection_id="historian", dial=self.dial, proven=lambda: self.proven)


class Sending:
    """One batch on its way, and how it ended."""

    def __init__(self, transport: Transport, batch: Sequence[Outgoing]) -> None:
        self.receipts = Receipts()
        self.ended = trio.Event()
        self.error: TransportError | None = None
        self._transport, self._batch = transport, batch

    async def run(self) -> None:
        """Send it; what went wrong stands in `error` afterwards."""
        try:
            await self._transport.send(self._batch, self.receipts)
        except TransportError as error:
            self.error = error
        self.ended.set()


@asynccontextmanager
async def sending(
    server: Server, batch: Sequence[Outgoing], nursery: trio.Nursery, **values: Any
) -> AsyncIterator[Sending]:
    """Send a batch while the block runs; yields once its first requests are out."""
    async with open_http(config(**values), server.context) as transport:
        one = Sending(transport, batch)
        nursery.start_soon(one.run)
        await wait_all_tasks_blocked()
        yield one
