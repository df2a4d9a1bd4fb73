"""Each attack hits what it aims at: a soak among enemies that miss would say nothing."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from tests.control.doubles import ScriptedDaemon, control_plane
from tests.hostile.far_ends import FLOODS, SECURE, identify, serve
from tests.hostile.senders import ATTACKS, Aim
from tests.intake.doubles import MemoryStore
from tests.intake.serving import serving
from tests.peers import pki
from tests.peers.ports import free_port
from tests.wire.amqp_client import OPTIONS as AMQP
from tpxd.errors import TransportError, WireError
from tpxd.wire.amqp.client import AmqpClient
from tpxd.wire.mqtt.client import MqttClient, MqttOptions
from tpxd.wire.streams import Endpoint, WebSocket, open_stream
from tpxd.wire.tls import TlsContextCache
from tpxd.wire.websocket import open_link

ENOUGH_S = 20.0


async def until_hit(aim: Aim, times: int) -> None:
    while aim.count < times:  # noqa: ASYNC110 (it counts, it does not tell)
        await trio.sleep(0.01)


@pytest.mark.parametrize("name", ATTACKS)
async def test_senders(name: str) -> None:
    async with serving(MemoryStore()) as (_, intake), control_plane(ScriptedDaemon()) as (control, *_):
        aim = Aim(int(intake.rpartition(":")[2]), int(control.rpartition(":")[2]))
        with trio.fail_after(ENOUGH_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ATTACKS[name], aim)
                await until_hit(aim, 3)
                nursery.cancel_scope.cancel()


async def opened(name: str, port: int) -> AbstractAsyncContextManager[trio.abc.Stream]:
    if name not in SECURE:
        return await trio.open_tcp_stream("127.0.0.1", port)
    tls = TlsContextCache()(ca=pki.ca().certificate)
    return open_link(Endpoint("127.0.0.1", port, tls, websocket=WebSocket("/mqtt", "mqtt")), open_stream, ENOUGH_S)


async def speak(name: str, stream: trio.abc.Stream) -> None:
    """Be the client that the far end expects, as well as it can be."""
    if name.startswith("http"):
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep_forever()
    client = AmqpClient(AMQP, 0.0) if name.startswith("amqp") else MqttClient(MqttOptions("id"), 0.0)
    while True:
        await stream.send_all(client.outgoing(0.0))
        client.receive_data(await stream.receive_some(), 0.0)


@pytest.mark.parametrize("name", FLOODS)
async def test_far_ends(name: str, tmp_path: Path) -> None:
    aim, port = Aim(0, 0), free_port()
    identify(tmp_path)

    async def connect() -> None:
        while True:
            try:
                async with await opened(name, port) as stream:
                    await speak(name, stream)
            except (OSError, trio.BrokenResourceError, WireError, TransportError):
                await trio.sleep(0.01)

    with trio.fail_after(ENOUGH_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, name, port, aim, tmp_path)
            nursery.start_soon(connect)
            await until_hit(aim, 2)
            nursery.cancel_scope.cancel()
