"""An AMQP client core at each stage of its life, and what it says, as pamqp reads it."""

from __future__ import annotations

from typing import Any

from pamqp import frame
from pamqp.commands import Basic, Channel, Confirm, Connection

from tests.wire.scripted_rabbit import Published, on, start
from tpxd.wire.amqp.client import AmqpClient
from tpxd.wire.amqp.content import Opened
from tpxd.wire.amqp.login import AmqpOptions

OPTIONS = AmqpOptions("tpxd-1", username="tpx", password="p")
WELCOME = on(0, Connection.OpenOk()) + on(1, Channel.OpenOk(), Confirm.SelectOk())


def said(client: AmqpClient, now: float = 0.0) -> list[Any]:
    """What the client wants to send, as pamqp reads it."""
    data, frames = client.outgoing(now), []
    while data:
        used, _, value = frame.unmarshal(data)
        frames.append(value)
        data = data[used:]
    return frames


def tuned(options: AmqpOptions = OPTIONS, tune: Connection.Tune | None = None) -> AmqpClient:
    client = AmqpClient(options, 0.0)
    client.receive_data(on(0, start()), 0.0)
    client.receive_data(on(0, tune or Connection.Tune(2047, 131_072, 60)), 0.0)
    return client


def connected(options: AmqpOptions = OPTIONS, tune: Connection.Tune | None = None) -> AmqpClient:
    client = tuned(options, tune)
    assert client.receive_data(WELCOME, 0.0) == [Opened()]
    client.outgoing(0.0)
    return client


def publish(client: AmqpClient, *names: str) -> list[int]:
    return [client.publish("x", "k", b"{}", name, 1) for name in names]


def published(client: AmqpClient) -> list[Published]:
    """What the client wants to publish."""
    frames = said(client)
    return [
        Published(method.exchange, method.routing_key, body.value, method.mandatory, header.properties)
        for method, header, body in zip(*[iter(frames)] * 3, strict=True)
    ]


def consuming() -> AmqpClient:
    client = connected()
    client.ask(Channel.Open())
    client.ask(Basic.Consume(queue="q"))
    client.receive_data(on(2, Channel.OpenOk(), Basic.ConsumeOk("tpxd")), 0.0)
    client.outgoing(0.0)
    return client
