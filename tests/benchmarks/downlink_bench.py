"""Measures downlinks from MQTT to the LRC and prints a table: python -m tests.benchmarks.downlink_bench

The daemon is pinned to one core; a real Mosquitto and this program, which publishes and is the LRC, share the other.
50 devices, signed requests, answers at once. The open loop counts from the moment at which each downlink was due.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from urllib.parse import parse_qs

import orjson
import trio
from rich.console import Console
from rich.table import Table

from tests.benchmarks.daemon_bench import LOAD_CORE, Row, cpu_s, mosquitto, running, scratch
from tests.daemon.harness import Daemon, mqtt_file
from tests.daemon.lrc import AS_ID, AS_KEY
from tests.peers.ports import free_port
from tpxd.wire.http import Request, Response, serve_http
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.session import Message, MqttSession, open_mqtt
from tpxd.wire.streams import Endpoint, open_stream

RATE, SECONDS = 1_000, 10
AT_ONCE = 10_000
DEVICES = [f"70B3D5E75E3{n:05X}" for n in range(50)]
QUEUED = Response(200, b"<html><body>Request queued by LRC</body></html>")


class CountingLrc:
    """Answers at once; when it was told about each downlink, by number."""

    def __init__(self) -> None:
        self.told: dict[int, float] = {}
        self.requests = 0
        self._wanted, self._all = 0, trio.Event()

    async def answer(self, request: Request) -> Response:
        """See `serve_http`."""
        self.requests += 1
        number = int(parse_qs(request.query)["CorrelationID"][0], 16)
        self.told.setdefault(number, trio.current_time())
        if len(self.told) >= self._wanted:
            self._all.set()
        await trio.lowlevel.checkpoint()
        return QUEUED

    async def told_all(self, count: int) -> None:
        """Wait until so many different downlinks came."""
        self._wanted, self._all = count, trio.Event()
        if len(self.told) < count:
            await self._all.wait()


def downlink(number: int) -> Message:
    dev_eui = DEVICES[number % len(DEVICES)]
    fields = {"DevEUI": dev_eui, "FPort": 5, "payload_hex": f"{number:08x}", "CorrelationID": f"{number:016X}"}
    return Message(f"d/{dev_eui}", orjson.dumps({"DevEUI_downlink": fields}))


def nothing(index: int) -> None:
    """A PUBACK of Mosquitto."""


async def open_loop(session: MqttSession, lrc: CountingLrc, first: int) -> list[float]:
    """Publish at the rate; the seconds from due to the LRC of each downlink."""
    due: dict[int, float] = {}
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for n in range(RATE * SECONDS):
            due[first + n] = begun + n / RATE
            await trio.sleep_until(due[first + n])
            nursery.start_soon(publish, session, [downlink(first + n)])
    await lrc.told_all(len(lrc.told.keys() | due.keys()))
    return sorted(lrc.told[number] - at for number, at in due.items())


async def publish(session: MqttSession, messages: list[Message]) -> None:
    await session.publish_all(messages, nothing, receipt_timeout_s=60)


async def measure(daemon: Daemon, mqtt_port: int, lrc_port: int) -> list[Row]:
    """Both figures, with a first second that does not count."""
    lrc = CountingLrc()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, f"127.0.0.1:{lrc_port}", lrc.answer)
        async with open_mqtt(
            await open_stream(Endpoint("127.0.0.1", mqtt_port), 5), MqttOptions("application")
        ) as session:
            await publish(session, [downlink(n) for n in range(RATE)])
            await lrc.told_all(RATE)

            seconds = await open_loop(session, lrc, RATE)

            first, used = len(lrc.told), await trio.to_thread.run_sync(cpu_s, daemon)
            begun = trio.current_time()
            await publish(session, [downlink(first + n) for n in range(AT_ONCE)])
            await lrc.told_all(first + AT_ONCE)
            took_s = trio.current_time() - begun
            used = await trio.to_thread.run_sync(cpu_s, daemon) - used
        nursery.cancel_scope.cancel()
    return [
        (f"downlinks at {RATE:,}/s, MQTT to LRC: p50", f"{statistics.median(seconds) * 1e3:.1f} ms", ""),
        (f"downlinks at {RATE:,}/s, MQTT to LRC: p99", f"{seconds[int(len(seconds) * 0.99)] * 1e3:.1f} ms", ""),
        (f"{AT_ONCE:,} downlinks at once", f"{AT_ONCE / took_s:,.0f}/s", f"{RATE:,}/s"),
        ("processor time per downlink", f"{used / AT_ONCE * 1e6:.0f} µs", "1,000 µs"),
        ("told twice", str(lrc.requests - len(lrc.told)), "0"),
    ]


def downlinks() -> Iterator[Row]:
    """Downlinks from a topic of Mosquitto to an LRC that answers at once."""
    os.sched_setaffinity(0, {LOAD_CORE})
    lrc_port = free_port()
    settings = f'[lrc]\ndownlink_url = "http://127.0.0.1:{lrc_port}/"\ndownlink_rate_limiter = 100000\n'
    settings += f'as_id = "{AS_ID}"\nas_key = "{AS_KEY}"\n'
    with scratch() as where, mosquitto(where) as port:
        file = mqtt_file(port, downlinkTopicPattern="d/{DevEUI}")
        with running(Daemon(where, settings, plant=file)) as daemon:
            daemon.opened("plant")
            yield from trio.run(measure, daemon, port, lrc_port)


def main() -> None:
    """See the module."""
    table = Table("figure", "measured", "to reach")
    for row in downlinks():
        table.add_row(*row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
