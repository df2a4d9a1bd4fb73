"""The session against a real RabbitMQ, with aiormq in a process of its own as a second opinion."""

from __future__ import annotations

import base64
import itertools
import json
import random
import subprocess
import sys
from typing import Any

import pytest
import trio

from tests.peers.rabbitmq import PASSWORD, PICKY, PICKY_EXCHANGE, READER, USER, Rabbit
from tests.wire.rabbit_link import publish, session_at
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, Refused
from tpxd.wire.amqp.codec import Method, Queue
from tpxd.wire.amqp.content import Refusal
from tpxd.wire.amqp.declare import bind, consume, declare_exchange, declare_queue, unbind
from tpxd.wire.amqp.session import AmqpSession, Message

pytestmark = pytest.mark.broker
CONSUMER = """
import asyncio, base64, json, sys
import aiormq

async def main(url, exchange, key, count):
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
    queue = (await channel.queue_declare(exclusive=True)).queue
    await channel.queue_bind(queue, exchange, routing_key=key)
    received = asyncio.Queue()
    await channel.basic_consume(queue, received.put, no_ack=True)
    print("ready", flush=True)
    for _ in range(int(count)):
        message = await received.get()
        properties = message.header.properties
        print(json.dumps({
            "key": message.delivery.routing_key, "body": base64.b64encode(message.body).decode(),
            "id": properties.message_id, "type": properties.content_type, "mode": properties.delivery_mode,
            "at": properties.timestamp.timestamp(), "app": properties.app_id,
        }))
    await connection.close()

asyncio.run(main(*sys.argv[1:]))
"""


OPERATOR = """
import asyncio, sys
import aiormq
from pamqp.commands import Basic

async def main(url, code):
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    exec("async def act(channel):\\n " + code, scope := {"Basic": Basic})
    await scope["act"](channel)
    await connection.close()

asyncio.run(main(*sys.argv[1:]))
"""


def url(rabbit: Rabbit) -> str:
    return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{rabbit.port}/"


async def operate(rabbit: Rabbit, code: str) -> None:
    """Let aiormq do something at the broker."""
    await trio.run_process([sys.executable, "-c", OPERATOR, url(rabbit), code])


async def prepare(session: AmqpSession, name: str) -> None:
    """An exchange and a queue of this name, bound."""
    await declare_exchange(session, name)
    await declare_queue(session, name)
    await bind(session, name, name, "a.*.up")


async def test_everything_arrives_byte_for_byte(rabbit: Rabbit) -> None:
    chance = random.Random(4711)
    # up to and beyond one frame of 131,072 bytes
    sizes = [0, 1, 600, 131_064, 131_065, 300_000, *(chance.randrange(2_000) for _ in range(1_994))]
    bodies = [chance.randbytes(size) for size in sizes]
    command = [sys.executable, "-c", CONSUMER, url(rabbit), "bytes", "a.*.up", str(len(bodies))]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = bytearray()
    try:
        with trio.fail_after(60):
            while not output.startswith(b"ready\n"):
                output += await process.stdout.receive_some()
            async with session_at(rabbit) as session:
                for begin in range(0, len(bodies), 256):
                    batch = bodies[begin : begin + 256]
                    delivered, refused = await publish(session, "bytes", batch)
                    assert (sorted(delivered), refused) == (list(range(len(batch))), {})
            async for data in process.stdout:
                output += data
            assert await process.wait() == 0
    finally:
        process.kill()
    lines = [json.loads(line) for line in bytes(output).splitlines()[1:]]
    assert [base64.b64decode(line.pop("body")) for line in lines] == bodies
    common = {"key": "a.1.up", "type": "application/json", "mode": 2, "at": 1_700_000_000, "app": "tpxd"}
    assert lines == [{"id": f"0badcafe-{number % 256}", **common} for number in range(len(bodies))]


async def test_commands_come_from_a_queue_and_again_until_they_are_acknowledged(rabbit: Rabbit) -> None:
    async with session_at(rabbit) as session:
        await prepare(session, "commands")
    send = "await channel.basic_publish({body}, exchange='commands', routing_key='a.1.up', properties={properties})"
    properties = "Basic.Properties(headers={'odd': [1, {'x': 2.5}, None], 'at': -7}, priority=3)"
    await operate(rabbit, send.format(body=b"first", properties=properties))
    await operate(rabbit, send.format(body="b'x' * 300_000", properties="Basic.Properties()"))
    async with session_at(rabbit) as session:
        await consume(session, "commands")
        first, second = await session.receive(), await session.receive()
        assert (first.routing_key, first.body, first.redelivered) == ("a.1.up", b"first", False)
        assert second.body == b"x" * 300_000
        session.acknowledge(first)
    async with session_at(rabbit) as session:
        await consume(session, "commands")
        again = await session.receive()
        assert (again.body, again.redelivered) == (second.body, True)
        session.reject(again)
    async with session_at(rabbit) as session:
        await consume(session, "commands")
        with trio.move_on_after(0.3) as waiting:
            await session.receive()
        assert waiting.cancelled_caught


async def test_bindings_come_and_go(rabbit: Rabbit) -> None:
    async with session_at(rabbit) as session:
        await prepare(session, "bindings")
        await bind(session, "bindings", "bindings", "a.*.up")
        assert await publish(session, "bindings", [b"x"]) == ([0], {})
        await unbind(session, "bindings", "bindings", "a.*.up")
        await unbind(session, "bindings", "bindings", "a.*.up")
        _, refused = await publish(session, "bindings", [b"x", b"y"])
    assert refused == {number: Refusal("NO_ROUTE (312)", unroutable=True) for number in (0, 1)}


async def test_a_full_queue_refuses(rabbit: Rabbit) -> None:
    async with session_at(rabbit) as session:
        await declare_exchange(session, "full")
        limits: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
        assert isinstance(await session.ask(Queue.Declare(queue="full", durable=True, arguments=limits)), Method)
        # one that an operator made with other properties is used as it is
        await declare_queue(session, "full")
        await bind(session, "full", "full", "#")
        assert await publish(session, "full", [b"x"]) == ([0], {})
        delivered, refused = await publish(session, "full", [b"y"])
    assert delivered == []
    assert not refused[0].unroutable


@pytest.mark.parametrize(
    ("login", "error", "text"),
    [
        ({"password": "wrong"}, AuthenticationFailed, "ACCESS_REFUSED"),
        ({"username": "nobody"}, AuthenticationFailed, "ACCESS_REFUSED"),
        ({"virtual_host": "missing"}, ConnectFailed, "vhost missing not found"),
        ({"username": READER, "virtual_host": "plant"}, ConnectFailed, "access to vhost 'plant' refused"),
    ],
)
async def test_turned_away(rabbit: Rabbit, login: dict[str, str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        async with session_at(rabbit, **login):
            pytest.fail("opened")


async def test_another_virtual_host(rabbit: Rabbit) -> None:
    async with session_at(rabbit, virtual_host="plant") as session:
        await prepare(session, "elsewhere")
        assert await publish(session, "elsewhere", [b"x"]) == ([0], {})


async def _demand(rabbit: Rabbit, exchange: str) -> None:
    async with session_at(rabbit, READER) as session:
        await declare_exchange(session, exchange)


async def test_no_right_to_make_an_exchange(rabbit: Rabbit) -> None:
    await _demand(rabbit, "amq.topic")
    with pytest.raises(Refused, match="refuses the exchange forbidden: ACCESS_REFUSED"):
        await _demand(rabbit, "forbidden")


async def _publish_as(rabbit: Rabbit, username: str, exchange: str, key: str) -> tuple[list[int], dict[int, Refusal]]:
    async with session_at(rabbit, username) as session:
        return await publish(session, exchange, [b"x"], key)


async def test_no_right_to_publish(rabbit: Rabbit) -> None:
    with pytest.raises(LinkLost, match=r"closed the channel: ACCESS_REFUSED .* exchange 'amq\.topic'"):
        await _publish_as(rabbit, READER, "amq.topic", "k")
    _, refused = await _publish_as(rabbit, PICKY, PICKY_EXCHANGE, "plant.1.up")
    assert refused[0].unroutable
    with pytest.raises(LinkLost, match=r"closed the channel: ACCESS_REFUSED .*topic 'other\.1\.up'"):
        await _publish_as(rabbit, PICKY, PICKY_EXCHANGE, "other.1.up")
    with pytest.raises(LinkLost, match=r"closed the channel: NOT_FOUND - no exchange 'nowhere'"):
        await _publish_as(rabbit, USER, "nowhere", "k")


async def _consume_until_deleted(rabbit: Rabbit) -> None:
    async with session_at(rabbit) as session:
        await declare_queue(session, "doomed")
        await consume(session, "doomed")
        await operate(rabbit, "await channel.queue_delete('doomed')")
        await trio.sleep_forever()


async def test_a_deleted_queue_ends_the_link(rabbit: Rabbit) -> None:
    with trio.fail_after(20), pytest.raises(LinkLost, match="cancelled the consumer"):
        await _consume_until_deleted(rabbit)


async def test_a_storm_of_cancellations(rabbit: Rabbit) -> None:
    """Each batch is cancelled at a random moment; the link stays sound, and the last batch gets its own receipts."""
    chance = random.Random(4711)
    async with session_at(rabbit) as session:
        await prepare(session, "storm")
        for _ in range(200):
            with trio.move_on_after(chance.random() * 0.004):
                await publish(session, "storm", [b"x"] * chance.randrange(1, 50))
        delivered, _ = await publish(session, "storm", [b"last"] * 100)
    assert sorted(delivered) == list(range(100))


async def test_what_was_confirmed_survives_a_broker_that_is_killed_in_traffic(rabbit: Rabbit) -> None:
    confirmed: list[bytes] = []

    async def pour(session: AmqpSession, enough: trio.Event) -> None:
        for first in itertools.count(0, 64):
            bodies = [b"%d" % number for number in range(first, first + 64)]
            messages = [Message("killed", "a.1.up", body, body.decode(), 1) for body in bodies]

            def delivered(index: int, first: int = first) -> None:
                confirmed.append(b"%d" % (first + index))

            await session.publish_all(messages, delivered, lambda *_: None, receipt_timeout_s=9)
            if first > 1_000:
                enough.set()

    async def lose() -> None:
        async with session_at(rabbit) as session, trio.open_nursery() as nursery:
            await prepare(session, "killed")
            enough = trio.Event()
            nursery.start_soon(pour, session, enough)
            await enough.wait()
            await trio.to_thread.run_sync(rabbit.kill)
            await trio.sleep_forever()

    try:
        with trio.fail_after(60), pytest.raises(LinkLost, match="connection lost"):
            await lose()
    finally:
        await trio.to_thread.run_sync(rabbit.start)
    kept: list[bytes] = []
    with trio.fail_after(60):
        async with session_at(rabbit) as session:
            await consume(session, "killed")
            while confirmed[-1] not in kept[-256:] or len(kept) < len(confirmed):
                message = await session.receive()
                session.acknowledge(message)
                kept.append(message.body)
            await prepare(session, "killed")
            assert await publish(session, "killed", [b"again"]) == ([0], {})
    assert len(confirmed) > 900
    assert set(confirmed) <= set(kept)
    numbers = [int(body) for body in kept]
    assert numbers == sorted(numbers)
