"""Hostile far ends: each is a server that a connection of the daemon goes to, and floods it.

A flood begins once the connection is open, and goes on over every link that is opened again.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio
from pamqp.commands import Channel, Confirm, Connection
from pamqp.heartbeat import Heartbeat

from tests.daemon.harness import connection_file, http_file, mqtt_file
from tests.hostile.senders import Aim
from tests.peers import pki
from tests.wire.scripted_rabbit import on, start
from tests.wire.websocket_server import accept_websocket

Flood = Callable[[trio.abc.Stream, Aim], Awaitable[None]]
SWALLOWED_AT_ONCE: Final = 65_536


async def _swallow(stream: trio.abc.Stream) -> None:
    while await stream.receive_some(SWALLOWED_AT_ONCE):
        pass


async def _beside_reading(stream: trio.abc.Stream, aim: Aim, flood: bytes, pause_s: float = 0.0) -> None:
    """Send this again and again, and read whatever comes."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_swallow, stream)
        while True:
            await stream.send_all(flood)
            aim.count += 1
            await trio.sleep(pause_s)


async def mqtt_pingresp(stream: trio.abc.Stream, aim: Aim) -> None:
    """PINGRESP that nobody asked for."""
    await stream.receive_some()
    await stream.send_all(b"\x20\x02\x00\x00")
    await _beside_reading(stream, aim, b"\xd0\x00" * 8_192)


async def mqtt_one_byte(stream: trio.abc.Stream, aim: Aim) -> None:
    """A message for us of a megabyte, byte by byte."""
    await stream.receive_some()
    await stream.send_all(b"\x20\x02\x00\x00\x30\xc0\x84\x3d\x00\x01t")
    await _beside_reading(stream, aim, b"x")


async def mqtt_publishes(stream: trio.abc.Stream, aim: Aim) -> None:
    """Messages for us that are no downlinks."""
    await stream.receive_some()
    await stream.send_all(b"\x20\x02\x00\x00")
    await _beside_reading(stream, aim, b"\x30\x05\x00\x01t{}" * 2_000)


async def mqtt_websocket_pings(stream: trio.abc.Stream, aim: Aim) -> None:
    """Pings of a WebSocket over TLS, each of which wants its pong."""
    broker = await accept_websocket(stream)
    await broker.receive_some()
    await broker.send_all(b"\x20\x02\x00\x00")
    await _beside_reading(stream, aim, b"\x89\x00" * 4_096)


async def amqp_heartbeats(stream: trio.abc.Stream, aim: Aim) -> None:
    """Heartbeats without end, from a broker that opened everything."""
    await stream.receive_some()
    await stream.send_all(on(0, start()))
    await stream.receive_some()
    await stream.send_all(on(0, Connection.Tune(2047, 131_072, 60)))
    await stream.receive_some()
    await stream.send_all(on(0, Connection.OpenOk()))
    await stream.receive_some()
    await stream.send_all(on(1, Channel.OpenOk(), Confirm.SelectOk()))
    await _beside_reading(stream, aim, on(0, Heartbeat()) * 4_096)


async def http_one_byte(stream: trio.abc.Stream, aim: Aim) -> None:
    """An answer in chunks of one byte."""
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await _beside_reading(stream, aim, b"1\r\nx\r\n" * 1_000)


async def http_head(stream: trio.abc.Stream, aim: Aim) -> None:
    """An answer whose head never ends."""
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\n")
    await _beside_reading(stream, aim, b"H: v\r\n", 0.001)


FLOODS: Final[dict[str, Flood]] = {
    flood.__name__: flood
    for flood in (
        mqtt_pingresp, mqtt_one_byte, mqtt_publishes, mqtt_websocket_pings, amqp_heartbeats, http_one_byte, http_head,
    )
}  # fmt: skip

SECURE: Final = frozenset({mqtt_websocket_pings.__name__})
"""Those that speak TLS; see `identify`."""


def identify(directory: Path) -> None:
    """Put down there what `serve` shows as its certificate to whoever has the file that `file_for` makes."""
    pki.server("127.0.0.1").write(directory, "far-end")


def file_for(name: str, port: int) -> str:
    """The connection file of the daemon that goes there."""
    if name in SECURE:
        return mqtt_file(port, protocol="WSS", trustedCaCertificate=pki.ca().certificate)
    match name.partition("_")[0]:
        case "mqtt":
            return mqtt_file(port, downlinkTopicPattern="d/{DevEUI}")
        case "amqp":
            basis = {"hostName": f"127.0.0.1:{port}", "protocol": "TCP", "username": "guest", "password": "guest"}
            topics = {"exchangeName": "x", "uplinkTopicPattern": "u.{DevEUI}"}
            return connection_file("actility-amqp-0.9.1-iot", basis | topics)
        case _:
            return http_file(f"http://127.0.0.1:{port}/")


async def serve(name: str, port: int, aim: Aim, identity: Path) -> None:
    """Flood whoever connects, until cancelled.

    Args:
        identity: the directory that `identify` was given.
    """
    tls = None
    if name in SECURE:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(identity / "far-end.crt", identity / "far-end.key")

    async def meet(tcp: trio.SocketStream) -> None:
        stream = tcp if tls is None else trio.SSLStream(tcp, tls, server_side=True, https_compatible=True)
        try:
            await FLOODS[name](stream, aim)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    await trio.serve_tcp(meet, port, host="127.0.0.1")
