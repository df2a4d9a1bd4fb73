"""Declaring, binding and consuming: what brokers grant, refuse, leave unanswered and take back."""

from __future__ import annotations

import pytest
import trio
from pamqp.commands import Basic, Channel, Connection, Exchange, Queue
from trio.testing import MockClock

from tests.wire.amqp_link import OPTIONS, Fates, link_to
from tests.wire.scripted_rabbit import ScriptedRabbit, ack, closed_channel, deliver, on
from tpxd.errors import LinkLost, Refused
from tpxd.wire.amqp.content import Delivery
from tpxd.wire.amqp.declare import bind, consume, declare_exchange, declare_queue, unbind
from tpxd.wire.amqp.session import PREFETCH, open_amqp


async def test_declare_bind_consume() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        exchange = await broker.grant(Exchange.Declare, Exchange.DeclareOk())
        assert isinstance(exchange, Exchange.Declare)
        assert (exchange.exchange, exchange.passive) == ("x", True)
        queue = await broker.grant(Queue.Declare, Queue.DeclareOk("q", 0, 0))
        assert isinstance(queue, Queue.Declare)
        assert (queue.queue, queue.passive) == ("q", True)
        bound = await broker.grant(Queue.Bind, Queue.BindOk())
        assert isinstance(bound, Queue.Bind)
        assert (bound.queue, bound.exchange, bound.routing_key) == ("q", "x", "a.*")
        unbound = await broker.grant(Queue.Unbind, Queue.UnbindOk())
        assert isinstance(unbound, Queue.Unbind)
        assert (unbound.queue, unbound.exchange, unbound.routing_key) == ("q", "x", "b")
        qos = await broker.grant(Basic.Qos, Basic.QosOk())
        assert isinstance(qos, Basic.Qos)
        assert qos.prefetch_count == PREFETCH
        consumed = await broker.grant(Basic.Consume, Basic.ConsumeOk("tpxd"))
        assert isinstance(consumed, Basic.Consume)
        assert (consumed.queue, consumed.no_ack, consumed.exclusive) == ("q", False, False)
        await broker.send(deliver(1, "a.1", b"go") + deliver(2, "a.2", b"no", redelivered=True))
        assert (await broker.expect(Basic.Ack, 2)).delivery_tag == 1
        rejected = await broker.expect(Basic.Reject, 2)
        assert (rejected.delivery_tag, rejected.requeue) == (2, False)
        await broker.goodbye()

    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS) as session:
        await declare_exchange(session, "x")
        await declare_queue(session, "q")
        await bind(session, "q", "x", "a.*")
        await unbind(session, "q", "x", "b")
        await consume(session, "q")
        first, second = await session.receive(), await session.receive()
        assert first == Delivery(1, "a.1", b"go", 2, redelivered=False)
        assert second == Delivery(2, "a.2", b"no", 2, redelivered=True)
        session.acknowledge(first)
        session.reject(second)


async def miss(broker: ScriptedRabbit) -> None:
    """Refuse a passive declaration, and open the channel that this closed again."""
    await broker.send(closed_channel(404, "NOT_FOUND - it is not there", 2))
    await broker.expect(Channel.CloseOk, 2)
    await broker.expect(Channel.Open, 2)
    await broker.say(2, Channel.OpenOk())


async def test_what_is_missing_is_made_on_a_new_channel() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        await broker.expect(Channel.Open, 2)
        await broker.say(2, Channel.OpenOk())
        assert (await broker.expect(Exchange.Declare, 2)).passive
        await miss(broker)
        exchange = await broker.expect(Exchange.Declare, 2)
        assert (exchange.passive, exchange.durable, exchange.exchange_type) == (False, True, "topic")
        await broker.say(2, Exchange.DeclareOk())
        assert (await broker.expect(Queue.Declare, 2)).passive
        await miss(broker)
        queue = await broker.expect(Queue.Declare, 2)
        assert (queue.passive, queue.durable, queue.exclusive, queue.auto_delete) == (False, True, False, False)
        await broker.say(2, Queue.DeclareOk("q", 0, 0))
        await broker.expect_publish()
        await broker.send(ack(1))
        await broker.goodbye()

    fates = Fates()
    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS) as session:
        await declare_exchange(session, "x")
        await declare_queue(session, "q")
        await fates.publish(session, "a")
    assert fates.delivered == [0]


async def test_an_acknowledgement_just_before_the_end_still_goes_out() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        await broker.grant(Basic.Qos, Basic.QosOk())
        await broker.grant(Basic.Consume, Basic.ConsumeOk("tpxd"))
        await broker.send(deliver(1, "k", b"x"))
        await broker.expect(Basic.Ack)
        await broker.goodbye()

    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS) as session:
        await consume(session, "q")
        session.acknowledge(await session.receive())


async def ask_and_be_refused(nursery: trio.Nursery, code: int) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        await broker.expect(Channel.Open)
        await broker.say(2, Channel.OpenOk())
        await broker.expect(Exchange.Declare)
        await broker.send(closed_channel(code, "ACCESS_REFUSED - no", 2))

    async with open_amqp(link_to(script, nursery), OPTIONS) as session:
        await declare_exchange(session, "x")


async def test_a_refused_declaration(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(Refused, match=r"refuses the exchange x: ACCESS_REFUSED - no \(403\)") as caught:
            await ask_and_be_refused(nursery, 403)
        assert caught.value.hint


async def test_a_question_stays_without_answer(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        await broker.expect(Channel.Open)
        await broker.goodbye()

    async def body(nursery: trio.Nursery) -> None:
        async with open_amqp(link_to(script, nursery), OPTIONS) as session:
            await declare_queue(session, "q")

    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match=r"did not answer Channel\.Open within 10 s"):
            await body(nursery)


async def consume_and(said: bytes, nursery: trio.Nursery) -> None:
    """Consume at a broker that then says this; waits for what it means."""

    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        await broker.grant(Basic.Qos, Basic.QosOk())
        await broker.grant(Basic.Consume, Basic.ConsumeOk("tpxd"))
        await broker.send(said)
        while True:
            _, value = await broker.next()
            if isinstance(value, Connection.Close):
                return

    async with open_amqp(link_to(script, nursery), OPTIONS) as session:
        await consume(session, "q")
        await trio.sleep_forever()


async def test_a_cancelled_consumer_ends_the_link(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match="cancelled the consumer") as caught:
            await consume_and(on(2, Basic.Cancel("tpxd", nowait=True)), nursery)
        assert caught.value.hint


async def test_a_closed_channel_of_the_consumer_ends_the_link(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match=r"closed the channel: PRECONDITION_FAILED \(406\)"):
            await consume_and(closed_channel(406, "PRECONDITION_FAILED", 2), nursery)


async def test_messages_that_nobody_receives_are_bounded(autojump_clock: MockClock) -> None:
    """A broker that ignores the prefetch count is read no further, and its silence tells in the end."""
    async with trio.open_nursery() as nursery:
        flood = b"".join(deliver(tag, "k", b"x") for tag in range(1, PREFETCH * 3))
        with pytest.raises(LinkLost, match="was silent for 120 s"):
            await consume_and(flood, nursery)
