"""How many uplinks a second the HTTP connector posts, against a server that answers at once in a process of its own.

    python -m tests.benchmarks.http_connector_bench [--uplinks 20000] [--rounds 3]

Each row is the median of the rounds. httpx posts the same bodies from as many tasks, for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import httpx
import orjson
import trio

from tests.notebook import Notebook
from tpxd.connector import Context, Outgoing
from tpxd.connectors.http.connector import HttpConfig, open_http
from tpxd.lorawan.uplink import Uplink
from tpxd.wire.streams import open_stream
from tpxd.wire.tls import TlsContextCache

BATCH = 256
LANES = 20
BODY_BYTES = 700
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class AnswersAtOnce(asyncio.Protocol):
    """The least that can be called a web server: it counts bodies by their Content-Length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end].lower()
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._unread) < end + 4 + size:
                return
            self._unread = self._unread[end + 4 + size :]
            self._transport.write(ANSWER)


async def _serve(port: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(AnswersAtOnce, "127.0.0.1", 0)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve(port: Connection) -> None:
    """Run the server; tells its port through the pipe."""
    asyncio.run(_serve(port))


class Counted:
    """Counts receipts; see `connector.Receipts`."""

    def __init__(self) -> None:
        self.count = 0

    def delivered(self, index: int) -> None:
        """See `connector.Receipts`."""
        self.count += 1

    def filtered(self, index: int, reason: str) -> None:
        """Not expected here."""
        raise AssertionError(reason)

    def rejected(self, index: int, reason: str, hint: str | None = None) -> None:
        """Not expected here."""
        raise AssertionError(reason)


def make_batch() -> list[Outgoing]:
    """Uplinks of `LANES` devices, taking turns."""
    batch = []
    for seq in range(BATCH):
        lane = f"70B3D5E75E00{seq % LANES:04X}"
        fields = {"DevEUI": lane, "FPort": 2, "FCntUp": seq, "payload_hex": "00" * (BODY_BYTES // 2 - 40)}
        body = orjson.dumps({"DevEUI_uplink": fields})
        batch.append(Outgoing(Uplink(seq, 0, "DevEUI_uplink", lane, "", body), body))
    return batch


async def by_connector(url: str, uplinks: int, **settings: Any) -> int:
    """Send batch after batch, as the engine does."""
    context = Context(
        connection_id="bench",
        instance="00000000",
        log=logging.LoggerAdapter(logging.getLogger(__name__)),
        dial=open_stream,
        tls=TlsContextCache(),
        memory=Notebook(),
        authenticating=lambda: None,
        proven=lambda: True,
        troubled=lambda error: None,
        tell=lambda event: None,
    )
    config = HttpConfig.model_validate({"destinationURL": url} | settings)
    batch, receipts = make_batch(), Counted()
    async with open_http(config, context) as transport:
        while receipts.count < uplinks:
            await transport.send(batch, receipts)
    return receipts.count


async def by_httpx(url: str, uplinks: int, parallel: int) -> int:
    """Post the same bodies with httpx as it comes."""
    batch = make_batch()
    count = 0

    async def work(client: httpx.AsyncClient) -> None:
        nonlocal count
        while count < uplinks:
            body = batch[count % BATCH].body
            count += 1
            (await client.post(url, content=body, headers={"Content-Type": "application/json"})).raise_for_status()

    limits = httpx.Limits(max_connections=parallel, max_keepalive_connections=parallel)
    async with httpx.AsyncClient(limits=limits) as client, trio.open_nursery() as nursery:
        for _ in range(parallel):
            nursery.start_soon(work, client)
    return count


def measure(post: Callable[[], Awaitable[int]], rounds: int) -> tuple[float, float]:
    """Uplinks per second and microseconds of our CPU per uplink, medians."""
    rates, costs = [], []
    for _ in range(rounds):
        begun, cpu = time.perf_counter(), time.process_time()
        count = trio.run(post)
        rates.append(count / (time.perf_counter() - begun))
        costs.append((time.process_time() - cpu) / count * 1e6)
    return statistics.median(rates), statistics.median(costs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uplinks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    near, far = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(far,))
    server.start()
    try:
        url = f"http://127.0.0.1:{near.recv()}/in"
        few = max(arguments.uplinks // 10, 1)
        rows: dict[str, Callable[[], Awaitable[int]]] = {
            "connector, 16 devices side by side": lambda: by_connector(url, arguments.uplinks),
            "connector, 16, one header per uplink": lambda: by_connector(
                url, arguments.uplinks, headers={"Authorization": "Bearer x", "X-Thing": "{DevEUI}"}
            ),
            "connector, 1": lambda: by_connector(url, arguments.uplinks, maxParallel=1),
            "httpx, 16 tasks": lambda: by_httpx(url, few, 16),
            "httpx, 1 task": lambda: by_httpx(url, few, 1),
        }
        print(f"batches of {BATCH} over {LANES} devices, {BODY_BYTES} bytes each, median of {arguments.rounds} rounds")
        print(f"{'':<40}{'uplinks/s':>12}{'CPU µs each':>14}")
        for name, post in rows.items():
            rate, cost = measure(post, arguments.rounds)
            print(f"{name:<40}{rate:>12,.0f}{cost:>14.0f}")
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
