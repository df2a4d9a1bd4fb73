"""An AMQP session with a broker that behaves."""

from __future__ import annotations

import pytest
import trio
from pamqp.commands import Connection
from pamqp.heartbeat import Heartbeat
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.wire.amqp_link import OPTIONS, Fates, accept_and_say_goodbye, link_to
from tests.wire.scripted_rabbit import ScriptedRabbit, ack, nack, returned
from tpxd.wire.amqp.content import Refusal
from tpxd.wire.amqp.login import AmqpOptions
from tpxd.wire.amqp.session import open_amqp


async def test_publish_all_reports_each_receipt_as_it_comes() -> None:
    fates = Fates()

    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        bodies = [(await broker.expect_publish()).body for _ in range(4)]
        assert bodies == [b"a", b"b", b"c", b"d"]
        for data, so_far in ((ack(2), [1]), (ack(1), [1, 0]), (ack(4, multiple=True), [1, 0, 2, 3])):
            await broker.send(data)
            await wait_all_tasks_blocked()
            assert fates.delivered == so_far
        await broker.goodbye()

    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS) as session:
        await fates.publish(session, *"abcd")
        assert fates.delivered == [1, 0, 2, 3]


async def test_refused_and_returned() -> None:
    fates = Fates()

    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        published = [await broker.expect_publish() for _ in range(3)]
        await broker.send(returned(published[1]) + nack(1) + ack(2) + ack(3))
        await broker.goodbye()

    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS) as session:
        await fates.publish(session, *"abc")
    assert fates.delivered == [2]
    assert fates.refused[0] == Refusal("the broker could not take it (Basic.Nack)", unroutable=False)
    assert fates.refused[1] == Refusal("NO_ROUTE (312)", unroutable=True)


async def test_a_batch_goes_out_in_one_piece() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        data = await broker.stream.receive_some()
        assert data.count(b"\x00\x3c\x00\x28") == 200
        await broker.send(ack(200, multiple=True))
        await broker.goodbye()

    fates = Fates()
    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS) as session:
        await fates.publish(session, *"x" * 200)
    assert fates.delivered == list(range(200))


async def test_nothing_to_publish() -> None:
    async with (
        trio.open_nursery() as nursery,
        open_amqp(link_to(accept_and_say_goodbye, nursery), OPTIONS) as session,
    ):
        await Fates().publish(session)


async def test_the_window_holds_the_rest_back() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        for last in (2, 4):
            assert len([await broker.expect_publish() for _ in range(2)]) == 2
            await wait_all_tasks_blocked()
            assert not broker._buffer
            await broker.send(ack(last, multiple=True))
        await broker.expect_publish()
        await broker.send(ack(5))
        await broker.goodbye()

    fates = Fates()
    options = AmqpOptions("id", username="u", window=2)
    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), options) as session:
        await fates.publish(session, *"abcde")
    assert fates.delivered == [0, 1, 2, 3, 4]


async def test_two_tasks_publish_side_by_side() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        tags = {(await broker.expect_publish()).body: tag for tag in range(1, 5)}
        for body in (b"d", b"a", b"c", b"b"):
            await broker.send(ack(tags[body]))
        await broker.goodbye()

    first, second = Fates(), Fates()
    async with (
        trio.open_nursery() as nursery,
        open_amqp(link_to(script, nursery), OPTIONS) as session,
        trio.open_nursery() as senders,
    ):
        senders.start_soon(first.publish, session, "a", "b")
        senders.start_soon(second.publish, session, "c", "d")
    assert (first.delivered, second.delivered) == ([0, 1], [1, 0])


async def test_a_cancelled_publish_leaves_the_link_usable() -> None:
    cancelled = trio.Event()

    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        assert [(await broker.expect_publish()).body for _ in range(2)] == [b"a", b"b"]
        await cancelled.wait()
        assert (await broker.expect_publish()).body == b"c"
        await broker.send(ack(3, multiple=True))
        await broker.goodbye()

    abandoned, fates = Fates(), Fates()
    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS) as session:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(abandoned.publish, session, "a", "b")
                await wait_all_tasks_blocked()
                scope.cancel()
        cancelled.set()
        await fates.publish(session, "c")
    assert (abandoned.delivered, fates.delivered) == ([], [0])


async def test_heartbeats_both_ways(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept(heartbeat=20)
        for due in range(10, 100, 10):
            await broker.expect(Heartbeat, 0)
            assert trio.current_time() - begun == pytest.approx(due)
            await broker.say(0, Heartbeat())
        await broker.goodbye()

    begun = trio.current_time()
    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS):
        await trio.sleep(95)


async def test_blocked_messages_wait_and_go_when_they_may(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        await broker.say(0, Connection.Blocked("low on memory"))
        blocked.set()
        await trio.sleep(5)
        assert not broker._buffer
        await broker.say(0, Connection.Unblocked())
        await broker.expect_publish()
        await broker.send(ack(1))
        await broker.goodbye()

    blocked, fates = trio.Event(), Fates()
    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS) as session:
        await blocked.wait()
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        await fates.publish(session, "a")
        assert trio.current_time() - begun == pytest.approx(5)
    assert fates.delivered == [0]


async def test_a_broker_that_does_not_say_goodbye_is_left(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        await broker.expect(Connection.Close)
        await broker.ended()

    begun = trio.current_time()
    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS):
        pass
    assert trio.current_time() - begun == pytest.approx(1)


async def test_external_login() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        credentials = await broker.accept()
        assert (credentials.mechanism, credentials.response) == ("EXTERNAL", "")
        await broker.goodbye()

    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), AmqpOptions("id")):
        pass
