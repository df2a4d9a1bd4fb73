"""Downlinks over AMQP: what is bound, what not any more, and what a broker keeps while we are away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Queue
from pamqp.header import ContentHeader
from trio.testing import wait_all_tasks_blocked

from tests.connectors.amqp_site import QUEUE, accept, amqp_site, config
from tests.connectors.opening import context
from tests.connectors.traffic import take
from tests.notebook import Notebook
from tests.peers.rabbitmq import PASSWORD, Rabbit
from tests.wire.rabbit_link import publish, session_at
from tests.wire.scripted_rabbit import ScriptedRabbit, closed_channel, deliver
from tpxd.connector import Context, Incoming
from tpxd.connectors.amqp import AmqpConfig, open_amqp_connection
from tpxd.errors import LinkLost, SpoolUnavailable
from tpxd.wire.amqp.declare import bind, declare_exchange, declare_queue

DOWN = config(downlinkTopicPattern="plant.{DevEUI}.down")


async def declare(broker: ScriptedRabbit, queue: str, *changes: tuple[type[Any], str]) -> None:
    """Let the client declare its queue, and bind and unbind these keys, in this order."""
    await accept(broker)
    if queue:
        declared = await broker.grant(Queue.Declare, Queue.DeclareOk(queue, 0, 0))
        assert isinstance(declared, Queue.Declare)
        assert declared.queue == queue
    for kind, key in changes:
        change = await broker.grant(kind, Queue.BindOk() if kind is Queue.Bind else Queue.UnbindOk())
        assert isinstance(change, Queue.Bind | Queue.Unbind)
        assert (change.queue, change.exchange, change.routing_key) == (QUEUE, "IotFlowExchange", key)
    if queue:
        await broker.grant(Basic.Qos, Basic.QosOk())
        await broker.grant(Basic.Consume, Basic.ConsumeOk("tpxd"))


async def test_downlinks() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await declare(broker, QUEUE, (Queue.Bind, "plant.*.down"))
        await broker.send(deliver(9, "plant.1.down", b"go", redelivered=True))
        assert (await broker.expect(Basic.Ack, 2)).delivery_tag == 9
        await broker.goodbye()

    async with (
        trio.open_nursery() as nursery,
        open_amqp_connection(DOWN, amqp_site(nursery, script).context) as transport,
    ):
        incoming = await transport.receive()
        assert incoming == Incoming("plant.1.down", b"go", redelivered=True, receipt=incoming.receipt)
        await transport.acknowledge(incoming)


async def test_a_downlink_that_is_too_long_is_rejected(caplog: pytest.LogCaptureFixture) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await declare(broker, QUEUE, (Queue.Bind, "plant.*.down"))
        head, body = Basic.Deliver("tpxd", 1, False, "x", "plant.1.down"), bytes(100_000)
        parts = [ContentBody(body) for _ in range(11)]
        await broker.say(2, head, ContentHeader(0, 1_100_000), *parts)
        await broker.send(deliver(2, "plant.2.down", b"go"))
        assert (await broker.expect(Basic.Reject, 2)).delivery_tag == 1
        await broker.goodbye()

    async with (
        trio.open_nursery() as nursery,
        open_amqp_connection(DOWN, amqp_site(nursery, script).context) as transport,
    ):
        too_long = await transport.receive()
        assert (too_long.source, too_long.body) == ("plant.1.down", b"")
        await transport.acknowledge(too_long)
        assert (await transport.receive()).body == b"go"
    assert "a downlink of 1100000 bytes is too long" in caplog.text


async def open_once(
    nursery: trio.Nursery, memory: Notebook, settings: AmqpConfig, script: Callable[[ScriptedRabbit], Awaitable[None]]
) -> None:
    async def whole(broker: ScriptedRabbit) -> None:
        await script(broker)
        await broker.goodbye()

    site = amqp_site(nursery, whole)
    site.memory = memory
    async with open_amqp_connection(settings, site.context):
        await wait_all_tasks_blocked()


async def test_bindings_follow_the_file(nursery: trio.Nursery) -> None:
    memory = Notebook()
    other = config(downlinkTopicPattern="plant.downlinks")
    await open_once(nursery, memory, DOWN, lambda b: declare(b, QUEUE, (Queue.Bind, "plant.*.down")))
    await open_once(nursery, memory, DOWN, lambda b: declare(b, QUEUE, (Queue.Bind, "plant.*.down")))
    changed = ((Queue.Bind, "plant.downlinks"), (Queue.Unbind, "plant.*.down"))
    await open_once(nursery, memory, other, lambda b: declare(b, QUEUE, *changed))
    await open_once(nursery, memory, config(), lambda b: declare(b, "", (Queue.Unbind, "plant.downlinks")))
    await open_once(nursery, memory, config(), lambda b: declare(b, ""))


async def test_bindings_are_remembered_before_they_are_made(nursery: trio.Nursery) -> None:
    """A link lost between the two leaves the binding at the broker, where the next version of the file removes it."""
    memory = Notebook()

    async def lost_at_the_binding(broker: ScriptedRabbit) -> None:
        await accept(broker)
        await broker.grant(Queue.Declare, Queue.DeclareOk(QUEUE, 0, 0))
        await broker.expect(Queue.Bind, 2)
        await broker.stream.aclose()

    site = amqp_site(nursery, lost_at_the_binding)
    site.memory = memory
    with pytest.raises(LinkLost):
        async with open_amqp_connection(DOWN, site.context):
            pytest.fail("opened")
    await open_once(nursery, memory, config(), lambda b: declare(b, "", (Queue.Unbind, "plant.*.down")))


async def test_bindings_at_another_broker_are_left_alone(nursery: trio.Nursery) -> None:
    memory = Notebook()
    await open_once(nursery, memory, DOWN, lambda b: declare(b, QUEUE, (Queue.Bind, "plant.*.down")))
    await open_once(nursery, memory, config(hostName="elsewhere"), lambda b: declare(b, ""))


async def test_a_binding_that_cannot_be_removed_is_no_obstacle(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Notebook()
    await open_once(nursery, memory, DOWN, lambda b: declare(b, QUEUE, (Queue.Bind, "plant.*.down")))

    async def refuse(broker: ScriptedRabbit) -> None:
        await accept(broker)
        await broker.expect(Queue.Unbind)
        await broker.send(closed_channel(403, "ACCESS_REFUSED", 2))
        await broker.expect(Channel.CloseOk)

    await open_once(nursery, memory, config(), refuse)
    assert "a binding that is not wanted any more stays" in caplog.text


async def test_a_full_disk_is_no_obstacle(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    class Full(Notebook):
        async def remember(self, key: str, value: str) -> None:
            await trio.lowlevel.checkpoint()
            raise SpoolUnavailable("the disk is full")

    await open_once(nursery, Full(), DOWN, lambda b: declare(b, QUEUE, (Queue.Bind, "plant.*.down")))
    assert "bindings cannot be remembered, so stale ones may stay at the broker: the disk is full" in caplog.text


# ---- against RabbitMQ


def at(rabbit: Rabbit, name: str, **values: Any) -> AmqpConfig:
    """A connection with an exchange of its own."""
    return config(hostName=f"127.0.0.1:{rabbit.port}", password=PASSWORD, exchangeName=name, **values)


def named(name: str, *, downlinks: bool = True) -> Context:
    """A context whose connection, and so its queue, is named as its exchange."""
    return context(connection_id=name, memory=Notebook(), downlinks=downlinks)


async def say(rabbit: Rabbit, exchange: str, key: str, *bodies: bytes) -> list[int]:
    """An application publishes downlinks; returns which of them the exchange routed to no queue."""
    async with session_at(rabbit) as session:
        _, refused = await publish(session, exchange, list(bodies), key)
    assert all(refusal.unroutable for refusal in refused.values())
    return sorted(refused)


@pytest.mark.broker
async def test_rabbitmq_keeps_downlinks_while_we_are_away_and_until_they_are_acknowledged(rabbit: Rabbit) -> None:
    here, settings = named("away"), at(rabbit, "away", downlinkTopicPattern="plant.{DevEUI}.down")
    async with open_amqp_connection(settings, here) as transport:
        assert await say(rabbit, "away", "plant.1.down", b"first") == []
        assert await say(rabbit, "away", "plant.1.2.down", b"too deep") == [0]
        unacknowledged = await transport.receive()
        assert (unacknowledged.body, unacknowledged.redelivered) == (b"first", False)
    assert await say(rabbit, "away", "plant.2.down", b"meanwhile") == []
    async with open_amqp_connection(settings, here) as transport:
        again, meanwhile = await take(transport, 2)
    assert (again.body, again.redelivered) == (b"first", True)
    assert (meanwhile.source, meanwhile.body, meanwhile.redelivered) == ("plant.2.down", b"meanwhile", False)
    async with open_amqp_connection(settings, here) as transport:
        await take(transport, 0)


@pytest.mark.broker
async def test_rabbitmq_routes_nothing_of_a_key_that_was_edited_away(rabbit: Rabbit) -> None:
    here = named("edited")
    async with open_amqp_connection(at(rabbit, "edited", downlinkTopicPattern="old.{DevEUI}"), here) as transport:
        await say(rabbit, "edited", "old.1", b"wanted")
        assert [incoming.body for incoming in await take(transport, 1)] == [b"wanted"]
    new = at(rabbit, "edited", downlinkTopicPattern="new.{DevEUI}")
    async with open_amqp_connection(new, here) as transport:
        assert await say(rabbit, "edited", "old.1", b"unwanted") == [0]
        assert await say(rabbit, "edited", "new.1", b"wanted") == []
        assert [incoming.body for incoming in await take(transport, 1)] == [b"wanted"]
    assert await say(rabbit, "edited", "new.1", b"kept") == []
    off = at(rabbit, "edited", downlinkTopicPattern="new.{DevEUI}", downlinkEnabled=False)
    async with open_amqp_connection(off, here) as transport:
        await take(transport, 0)
        assert await say(rabbit, "edited", "new.1", b"unwanted") == [0]
    async with open_amqp_connection(new, here) as transport:
        assert [incoming.body for incoming in await take(transport, 1)] == [b"kept"]
    # as a connection is opened once whose file was removed
    async with open_amqp_connection(new, context(connection_id="edited", memory=here.memory, downlinks=False)):
        assert await say(rabbit, "edited", "new.1", b"unwanted") == [0]


@pytest.mark.broker
async def test_rabbitmq_and_a_queue_of_an_operator(rabbit: Rabbit) -> None:
    async with session_at(rabbit) as session:
        await declare_exchange(session, "operated")
        await declare_queue(session, "operated.queue")
        await bind(session, "operated.queue", "operated", "operators.own")
    settings = at(rabbit, "operated", downlinkTopicPattern="plant.{DevEUI}.down", downlinkQueue="operated.queue")
    here = named("operated")
    async with open_amqp_connection(settings, here) as transport:
        for key in ("operators.own", "plant.1.down"):
            assert await say(rabbit, "operated", key, b"go") == []
            assert [incoming.source for incoming in await take(transport, 1)] == [key]
    # another queue: the binding of the first is removed, the operator's own stays
    async with open_amqp_connection(at(rabbit, "operated", downlinkTopicPattern="plant.{DevEUI}.down"), here):
        await say(rabbit, "operated", "plant.1.down", b"elsewhere")
    async with open_amqp_connection(settings, context(connection_id="another", memory=Notebook())) as transport:
        await say(rabbit, "operated", "operators.own", b"still")
        assert [incoming.body for incoming in await take(transport, 1)] == [b"still"]
