"""The session against real brokers: Mosquitto, and amqtt's in a process of its own as a second opinion."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.peers.mosquitto import Mosquitto, running_mosquitto
from tests.peers.ports import free_port
from tpxd.errors import LinkLost
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.session import Message, MqttSession, open_mqtt
from tpxd.wire.streams import Endpoint, open_stream

pytestmark = pytest.mark.broker

AMQTT_BROKER = """
import asyncio, sys
from amqtt.broker import Broker

async def main():
    listener = {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = Broker({"listeners": {"default": listener}, "plugins": plugins})
    await broker.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await broker.shutdown()

asyncio.run(main())
"""


@asynccontextmanager
async def session_at(port: int, client_id: str = "tpxd", *, clean: bool = True) -> AsyncIterator[MqttSession]:
    stream = await open_stream(Endpoint("127.0.0.1", port), 5)
    async with open_mqtt(stream, MqttOptions(client_id, clean_session=clean)) as session:
        yield session


async def publish(
    session: MqttSession, bodies: list[bytes], topic: str = "t", receipt_timeout_s: float = 10
) -> list[int]:
    receipts: list[int] = []
    messages = [Message(topic, body) for body in bodies]
    await session.publish_all(messages, receipts.append, receipt_timeout_s=receipt_timeout_s)
    return receipts


async def check_everything_arrives_once_and_in_order(port: int, count: int) -> None:
    bodies = [b"%d " % number + b"x" * (number % 300) for number in range(count)]
    with trio.fail_after(30):
        async with (
            session_at(port, "reader") as reader,
            session_at(port, "writer") as writer,
            trio.open_nursery() as nursery,
        ):
            await reader.subscribe(["plant/+/up"])
            receipts: list[int] = []

            async def write() -> None:
                for begin in range(0, count, 256):
                    receipts.extend(await publish(writer, bodies[begin : begin + 256], "plant/1/up"))

            nursery.start_soon(write)
            for body in bodies:
                message = await reader.receive()
                assert (message.topic, message.body, message.duplicate) == ("plant/1/up", body, False)
                reader.acknowledge(message)
    assert sorted(receipts) == sorted(number % 256 for number in range(count))


async def test_mosquitto(tmp_path: Path) -> None:
    async with running_mosquitto(tmp_path) as broker:
        await check_everything_arrives_once_and_in_order(broker.port, 5_000)


async def test_amqtt() -> None:
    port = free_port()
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_run_amqtt, port)
        with trio.fail_after(20):
            while True:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                except OSError:
                    await trio.sleep(0.05)
                else:
                    await stream.aclose()
                    break
        await check_everything_arrives_once_and_in_order(port, 500)
        # it stops when its standard input ends
        await process.stdin.aclose()


async def _run_amqtt(port: int, *, task_status: trio.TaskStatus[trio.Process]) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", AMQTT_BROKER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        task_status.started(process)
        await process.wait()
    finally:
        process.kill()


async def test_a_session_is_resumed(tmp_path: Path) -> None:
    """What came while we were away is delivered; what was not acknowledged comes again, marked so."""
    async with running_mosquitto(tmp_path) as broker:
        async with session_at(broker.port, clean=False) as session:
            assert not session.session_present
            await session.subscribe(["d"])
            async with session_at(broker.port, "sender") as sender:
                await publish(sender, [b"before"], "d")
            unacknowledged = await session.receive()
            assert unacknowledged.body == b"before"
        async with session_at(broker.port, "sender") as sender:
            await publish(sender, [b"meanwhile"], "d")
        async with session_at(broker.port, clean=False) as session:
            assert session.session_present
            again, meanwhile = await session.receive(), await session.receive()
            assert (again.body, again.duplicate) == (b"before", True)
            assert (meanwhile.body, meanwhile.duplicate) == (b"meanwhile", False)
            session.acknowledge(again)
            session.acknowledge(meanwhile)
            await session.unsubscribe(["d"])
        async with session_at(broker.port, clean=False) as session:
            assert session.session_present
            async with session_at(broker.port, "sender") as sender:
                await publish(sender, [b"unwanted"], "d")
            with trio.move_on_after(0.3) as waiting:
                await session.receive()
            assert waiting.cancelled_caught


async def test_packet_ids_are_used_again(tmp_path: Path) -> None:
    """More messages than there are ids, over one link."""
    async with running_mosquitto(tmp_path) as broker, session_at(broker.port) as session:
        for _ in range(70):
            assert len(await publish(session, [b"x"] * 1_000)) == 1_000


async def test_a_storm_of_cancellations(tmp_path: Path) -> None:
    """Each batch is cancelled at a random moment; the link stays sound, and the last batch gets its own receipts."""
    chance = random.Random(4711)
    async with running_mosquitto(tmp_path) as broker, session_at(broker.port) as session:
        for _ in range(300):
            with trio.move_on_after(chance.random() * 0.004):
                await publish(session, [b"x"] * chance.randrange(1, 50))
        assert await publish(session, [b"last"] * 100) == list(range(100))


async def test_a_broker_that_goes_away(tmp_path: Path) -> None:

    async def lose(broker: Mosquitto) -> None:
        async with session_at(broker.port) as session:
            await publish(session, [b"x"])
            await broker.stop()
            await trio.sleep_forever()

    async with running_mosquitto(tmp_path) as broker:
        with pytest.raises(LinkLost, match="connection lost: the broker closed the connection"):
            await lose(broker)
        await broker.start()
        async with session_at(broker.port) as session:
            assert await publish(session, [b"y"]) == [0]


async def hold(port: int, *rivals: Callable[[int], Awaitable[None]]) -> None:
    """Keep a session open while rivals come."""
    async with session_at(port, "same"), trio.open_nursery() as nursery:
        for rival in rivals:
            nursery.start_soon(rival, port)
        await trio.sleep_forever()


async def test_a_taken_over_client_id(tmp_path: Path) -> None:
    """The broker drops the older of two clients of one name."""
    async with running_mosquitto(tmp_path) as broker:
        with pytest.raises(LinkLost, match="connection lost"):
            await hold(broker.port, hold)
