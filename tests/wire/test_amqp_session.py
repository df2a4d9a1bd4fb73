"""The session over memory streams, against a broker that behaves, and against brokers that do not."""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
from pamqp.commands import Basic, Channel, Connection, Exchange, Queue
from pamqp.heartbeat import Heartbeat
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.wire.scripted_rabbit import (
    ScriptedRabbit,
    ack,
    closed_channel,
    deliver,
    nack,
    on,
    returned,
)
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, Refused
from tpxd.wire.amqp_declare import bind, consume, declare_exchange, declare_queue, unbind
from tpxd.wire.amqp_events import Delivery, Refusal
from tpxd.wire.amqp_login import AmqpOptions
from tpxd.wire.amqp_session import PREFETCH, AmqpSession, Message, open_amqp

OPTIONS = AmqpOptions("tpxd-1", username="tpx", password="p", connect_timeout_s=5, answer_timeout_s=10)
Script = Callable[[ScriptedRabbit], Awaitable[None]]


def link_to(script: Script, nursery: trio.Nursery) -> trio.abc.Stream:
    """The near end of a link whose far end runs `script`; the nursery waits until it is through."""
    near, far = memory_stream_pair()
    nursery.start_soon(script, ScriptedRabbit(far))
    return near


def messages(*bodies: str) -> list[Message]:
    return [Message("x", "k", body.encode(), f"1-{body}", 1) for body in bodies]


class Fates:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.delivered: list[int] = []
        self.refused: dict[int, Refusal] = {}

    async def publish(self, session: AmqpSession, *bodies: str, receipt_timeout_s: float = 7) -> None:
        await session.publish_all(
            messages(*bodies), self.delivered.append, self.refused.__setitem__, receipt_timeout_s=receipt_timeout_s
        )


async def accept_and_say_goodbye(broker: ScriptedRabbit) -> None:
    await broker.accept()
    await broker.goodbye()


# ---- a broker that behaves


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


async def test_goodbye_also_when_cancelled() -> None:
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_amqp(link_to(accept_and_say_goodbye, nursery), OPTIONS):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught


async def test_a_broker_that_does_not_say_goodbye_is_left(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.accept()
        await broker.expect(Connection.Close)
        await broker.ended()

    begun = trio.current_time()
    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), OPTIONS):
        pass
    assert trio.current_time() - begun == pytest.approx(1)


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


async def test_what_the_body_raises_leaves_as_it_is() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError, match="bug"):
            async with open_amqp(link_to(accept_and_say_goodbye, nursery), OPTIONS):
                raise KeyError("bug")


# ---- brokers that do not let us in


async def turned_away(script: Script, error: type[Exception], match: str) -> str | None:
    """Open a session at this broker, which must fail so; returns the hint."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(error, match=match) as caught:
            async with open_amqp(link_to(script, nursery), OPTIONS):
                pytest.fail("opened")
        assert type(caught.value) is error
    hint: str | None = caught.value.hint  # type: ignore[attr-defined]
    return hint


async def test_wrong_credentials() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        assert (await broker.greet()).response == "\0tpx\0p"
        await broker.say(0, Connection.Close(403, "ACCESS_REFUSED - Login was refused.", 0, 0))
        await broker.expect(Connection.CloseOk)
        await broker.ended()

    assert await turned_away(script, AuthenticationFailed, r"the login: ACCESS_REFUSED - Login was refused \(403\)")


async def test_wrong_credentials_said_by_closing() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.greet()
        await broker.stream.aclose()

    assert await turned_away(script, AuthenticationFailed, "ended the connection during the login")


async def test_external_login() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        credentials = await broker.accept()
        assert (credentials.mechanism, credentials.response) == ("EXTERNAL", "")
        await broker.goodbye()

    async with trio.open_nursery() as nursery, open_amqp(link_to(script, nursery), AmqpOptions("id")):
        pass


async def test_no_virtual_host() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.greet()
        await broker.tune()
        assert (await broker.expect(Connection.Open)).virtual_host == "/"
        await broker.say(0, Connection.Close(530, "NOT_ALLOWED - vhost / not found", 10, 40))
        await broker.expect(Connection.CloseOk)

    hint = await turned_away(script, ConnectFailed, r"NOT_ALLOWED - vhost / not found \(530\)")
    assert hint is not None
    assert "virtualHost" in hint


@pytest.mark.parametrize("stage", [0, 1, 2])
async def test_silence(autojump_clock: MockClock, stage: int) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        if stage:
            await broker.greet()
        if stage > 1:
            await broker.tune()
        await trio.sleep(60)

    begun = trio.current_time()
    assert await turned_away(script, ConnectFailed, "did not let us in within 5 s")
    assert trio.current_time() - begun == pytest.approx(60)


@pytest.mark.parametrize("greeting", [b"", b"\x01\0\0", b"AMQP\3\1\0\0"])
async def test_no_broker_of_ours(greeting: bytes) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.next()
        await broker.send(greeting)
        await broker.stream.aclose()

    assert await turned_away(script, ConnectFailed, r"no greeting from a broker: .* closed|speaks AMQP 1-0-0")


async def test_the_reader_tells_why_the_writer_failed(autojump_clock: MockClock) -> None:
    """TLS 1.3: the server's word about our certificate comes after the handshake, and writing may fail first."""
    near, far = memory_stream_pair()

    async def broken() -> None:
        raise trio.BrokenResourceError

    async def refused() -> None:
        await trio.sleep(0.1)
        alert = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required")
        alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        raise trio.BrokenResourceError from alert

    near.send_stream.send_all_hook = broken
    near.receive_stream.receive_some_hook = refused
    with pytest.raises(ConnectFailed, match=re.escape("the server asks for a client certificate")) as caught:
        async with open_amqp(near, OPTIONS):
            pytest.fail("opened")
    assert caught.value.hint == "set certificate and privateKey"
    await far.aclose()


# ---- brokers that do not behave


async def lose(script: Script) -> tuple[LinkLost, Fates]:
    """Publish three messages to this broker; returns how the link was lost, and which receipts had come."""
    fates = Fates()

    async def body(stream: trio.abc.Stream) -> None:
        async with open_amqp(stream, OPTIONS) as session:
            await fates.publish(session, *"abc")
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost) as caught:
            await body(link_to(script, nursery))
        assert type(caught.value) is LinkLost
    return caught.value, fates


async def accept_and_read(broker: ScriptedRabbit) -> None:
    await broker.accept()
    for _ in range(3):
        await broker.expect_publish()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (ack(9), "broke the protocol: a confirmation of 9"),
        (ack(1) + ack(1), "broke the protocol: a confirmation of 1"),
        (on(1, Channel.OpenOk()), "broke the protocol: Channel.OpenOk answers nothing"),
        (on(0, Connection.OpenOk()), "broke the protocol: Connection.OpenOk while CONNECTED"),
        (b"\x01\0\0\0\0\0\x04\x00\x63\0\1\xce", "broke the protocol: a method 99.1"),
        (ack(1)[:-1] + b"\0", "broke the protocol: a method ends with 0x00"),
        (b"\xff" * 20, "broke the protocol: a frame of the unknown kind 255"),
    ],
)
async def test_violations(autojump_clock: MockClock, said: bytes, reason: str) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(said)

    lost, fates = await lose(script)
    assert reason in str(lost)
    assert fates.delivered == []


async def test_closed_in_the_middle_of_a_frame() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(ack(2) + ack(3)[:-4])
        await broker.stream.aclose()

    lost, fates = await lose(script)
    assert str(lost) == "connection lost: the broker closed the connection"
    assert fates.delivered == [1]


async def test_closed_with_a_reason() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(ack(1) + on(0, Connection.Close(320, "CONNECTION_FORCED - shutdown", 0, 0)))
        await broker.expect(Connection.CloseOk)
        await broker.ended()

    lost, fates = await lose(script)
    assert str(lost) == "the broker closed the connection: CONNECTION_FORCED - shutdown (320)"
    assert fates.delivered == [0]


@pytest.mark.parametrize(
    ("code", "text"), [(404, "NOT_FOUND - no exchange 'x' in vhost '/'"), (403, "ACCESS_REFUSED - topic k")]
)
async def test_a_channel_error_on_a_message(code: int, text: str) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(ack(1) + closed_channel(code, text, 1))
        await broker.expect(Channel.CloseOk)
        await broker.goodbye()

    lost, fates = await lose(script)
    assert str(lost) == f"the broker closed the channel: {text} ({code})"
    assert fates.delivered == [0]


async def test_receipts_stay_away(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await trio.sleep(6)
        await broker.send(ack(1))
        await broker.goodbye()

    begun = trio.current_time()
    lost, fates = await lose(script)
    assert "confirmed nothing for 7 s" in str(lost)
    assert lost.hint
    assert fates.delivered == [0]
    assert trio.current_time() - begun == pytest.approx(13)


async def test_slow_receipts_are_no_loss(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        for tag in (1, 2, 3):
            await trio.sleep(6)
            await broker.send(ack(tag))
        await broker.stream.aclose()

    lost, fates = await lose(script)
    assert "closed" in str(lost)
    assert fates.delivered == [0, 1, 2]


async def test_blocked_for_too_long(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.say(0, Connection.Blocked("low on disk"))
        await broker.goodbye()

    lost, fates = await lose(script)
    assert str(lost) == "the broker takes no messages for 7 s: low on disk"
    assert lost.hint is not None
    assert fates.delivered == []


async def test_two_heartbeats_are_missed(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(ack(3, multiple=True))
        while True:
            _, value = await broker.next()
            if isinstance(value, Connection.Close):
                return

    begun = trio.current_time()
    lost, fates = await lose(script)
    assert str(lost) == "the broker was silent for 120 s, the time of two heartbeats"
    assert fates.delivered == [0, 1, 2]
    assert trio.current_time() - begun == pytest.approx(120, abs=2)


async def test_a_broker_that_reads_nothing_any_more(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    broker = ScriptedRabbit(far)

    async def body() -> None:
        async with open_amqp(near, OPTIONS) as session:
            near.send_stream.send_all_hook = trio.sleep_forever
            await Fates().publish(session, "a")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.accept)
        with pytest.raises(LinkLost, match="confirmed nothing for 7 s"):
            await body()


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


async def test_the_stream_is_closed_in_any_case() -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    with pytest.raises(ConnectFailed):
        async with open_amqp(near, OPTIONS):
            pytest.fail("opened")
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")
