"""How many downlinks a second go from a connection's messages to the LRC, each kept on disk before either knows.

    python -m tests.benchmarks.queue_bench [--downlinks 5000] [--rounds 3] [--devices 1000,1]

The messages are there at once and the LRC, in a process of its own, answers at once. Each row is the median of the
rounds; the processor time is that of the whole process: event loop, disk and all.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import trio

from tests.downlinks.downlink_doubles import body
from tpxd.config.settings import LrcSettings
from tpxd.connector import Incoming, Outgoing, Receipts
from tpxd.downlinks.inbox import Inbox, receive_downlinks
from tpxd.downlinks.lrc_sender import LrcSender
from tpxd.downlinks.queue import open_downlinks
from tpxd.events import EventLog
from tpxd.lorawan.downlink_request import Signing
from tpxd.spool import SpoolLimits, open_spool

TEXT = b"<html><body>Request queued by LRC</body></html>"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(TEXT), TEXT)
SIGNING = Signing("TWA_100009421.77.AS", "7d1e9a40c3b85f2206e4d7913ab6f85c")


async def _serve(port: Connection) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        unread = b""
        while part := await stream.receive_some():
            *heads, unread = (unread + part).split(b"\r\n\r\n")
            await stream.send_all(ANSWER * len(heads))

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port.send(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(answer, listeners)


def serve(port: Connection) -> None:
    """An LRC that takes every downlink."""
    trio.run(_serve, port)


class Messages:
    """A link over which everything comes at once."""

    def __init__(self, count: int, devices: int) -> None:
        bodies = [body(DevEUI=f"70B3D5E75E{n % devices:06X}", payload_hex=f"{n:08x}") for n in range(count)]
        self._left = iter([Incoming("plant/downlink", content) for content in bodies])

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """Never used."""

    async def receive(self) -> Incoming:
        """See `connector.Transport`."""
        await trio.lowlevel.checkpoint()
        incoming = next(self._left, None)
        return incoming if incoming is not None else await trio.sleep_forever()

    async def acknowledge(self, incoming: Incoming) -> None:
        """See `connector.Transport`."""
        await trio.lowlevel.checkpoint()


async def measure(port: int, count: int, devices: int, directory: Path) -> tuple[float, float]:
    """Downlinks a second, and processor time for each in microseconds."""
    log = EventLog()
    settings = LrcSettings(downlink_url=f"http://127.0.0.1:{port}/downlink", downlink_rate_limiter=None)
    async with (
        open_spool(directory / "spool.db", SpoolLimits(min_free_bytes=0), tell=log.tell) as spool,
        open_downlinks(spool.downlinks, spool.append, log.tell) as downlinks,
        trio.open_nursery() as nursery,
    ):
        sender = LrcSender(settings, downlinks, log.tell, signing=lambda id: SIGNING, now=time.time, grace_s=5.0)
        counts = downlinks.book.counts("plant")
        begun, spent = time.perf_counter(), time.process_time()
        nursery.start_soon(sender.run)
        nursery.start_soon(receive_downlinks, Messages(count, devices), Inbox("plant", downlinks, None))
        while counts.sent < count:
            await downlinks.saving.fewer.park()
        begun, spent = time.perf_counter() - begun, time.process_time() - spent
        await sender.stop()
        nursery.cancel_scope.cancel()
    return count / begun, spent / count * 1e6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--downlinks", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", default="1000,1")
    options = parser.parse_args()
    logging.disable()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    print(f"{options.downlinks} downlinks, median of {options.rounds} rounds")
    for devices in map(int, options.devices.split(",")):
        found = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as directory:
                found.append(trio.run(measure, port, options.downlinks, devices, Path(directory)))
        rate, cost = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{devices:6} devices  {rate:8,.0f}/s  {cost:6.0f} µs of processor time each")
    server.terminate()
    server.join()


if __name__ == "__main__":
    main()
