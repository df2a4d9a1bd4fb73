"""A session of ours at a real RabbitMQ."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.peers.rabbitmq import PASSWORD, USER, Rabbit
from tpxd.wire.amqp.content import Refusal
from tpxd.wire.amqp.login import AmqpOptions
from tpxd.wire.amqp.session import AmqpSession, Message, open_amqp
from tpxd.wire.streams import Endpoint, open_stream


@asynccontextmanager
async def session_at(
    rabbit: Rabbit, username: str = USER, password: str = PASSWORD, virtual_host: str = "/"
) -> AsyncIterator[AmqpSession]:
    stream = await open_stream(Endpoint("127.0.0.1", rabbit.port), 5)
    options = AmqpOptions("tpxd-test", virtual_host, username=username, password=password)
    async with open_amqp(stream, options) as session:
        yield session


async def publish(
    session: AmqpSession, exchange: str, bodies: list[bytes], key: str = "a.1.up"
) -> tuple[list[int], dict[int, Refusal]]:
    delivered: list[int] = []
    refused: dict[int, Refusal] = {}
    messages = [Message(exchange, key, body, f"0badcafe-{number}", 1_700_000_000) for number, body in enumerate(bodies)]
    await session.publish_all(messages, delivered.append, refused.__setitem__, receipt_timeout_s=10)
    return delivered, refused
