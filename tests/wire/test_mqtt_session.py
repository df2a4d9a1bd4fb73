"""The session over memory streams, against a broker that behaves, and against brokers that do not."""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.wire.scripted_broker import CONNACK, PINGRESP, ScriptedBroker, puback, publish
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, Refused
from tpxd.wire.mqtt import MqttOptions
from tpxd.wire.mqtt_codec import Publish
from tpxd.wire.mqtt_session import UNREAD, Message, open_mqtt

OPTIONS = MqttOptions("id", connect_timeout_s=5, answer_timeout_s=10, keep_alive_s=60)
Script = Callable[[ScriptedBroker], Awaitable[None]]


def link_to(script: Script, nursery: trio.Nursery) -> trio.abc.Stream:
    """The near end of a link whose far end runs `script`; the nursery waits until it is through."""
    near, far = memory_stream_pair()
    nursery.start_soon(script, ScriptedBroker(far))
    return near


def messages(*bodies: str, qos: int = 1) -> list[Message]:
    return [Message("t", body.encode(), 1 if qos else 0) for body in bodies]


async def only_accept(broker: ScriptedBroker) -> None:
    await broker.accept()


# ---- a broker that behaves


async def test_publish_all_reports_each_receipt_as_it_comes() -> None:
    acknowledged: list[int] = []

    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        packets = [await broker.expect("PUBLISH") for _ in range(3)]
        assert [packet.rest for packet in packets] == [b"a", b"b", b"c"]
        assert [packet.packet_id for packet in packets] == [1, 2, 3]
        for packet_id, so_far in ((2, [1]), (1, [1, 0]), (3, [1, 0, 2])):
            await broker.send(puback(packet_id))
            await wait_all_tasks_blocked()
            assert acknowledged == so_far
        await broker.expect("DISCONNECT")
        await broker.ended()

    async with trio.open_nursery() as nursery, open_mqtt(link_to(script, nursery), OPTIONS) as session:
        assert not session.session_present
        await session.publish_all(messages("a", "b", "c"), acknowledged.append, receipt_timeout_s=10)
        assert acknowledged == [1, 0, 2]


async def test_a_batch_goes_out_in_one_piece() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        data = await broker.stream.receive_some()
        assert data.count(b"\x32\x06\0\1t") == 200
        await broker.send(b"".join(puback(packet_id) for packet_id in range(1, 201)))

    async with trio.open_nursery() as nursery, open_mqtt(link_to(script, nursery), OPTIONS) as session:
        acknowledged: list[int] = []
        await session.publish_all(messages(*"x" * 200), acknowledged.append, receipt_timeout_s=10)
        assert acknowledged == list(range(200))


async def test_nothing_to_publish() -> None:
    async with trio.open_nursery() as nursery, open_mqtt(link_to(only_accept, nursery), OPTIONS) as session:
        await session.publish_all([], lambda _: None, receipt_timeout_s=1)


async def test_the_window_holds_the_rest_back() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        for first in (1, 3):
            assert [(await broker.expect("PUBLISH")).packet_id for _ in range(2)] == [first, first + 1]
            await wait_all_tasks_blocked()
            assert not broker._packets
            await broker.send(puback(first) + puback(first + 1))
        assert (await broker.expect("PUBLISH")).packet_id == 5
        await broker.send(puback(5))

    async with (
        trio.open_nursery() as nursery,
        open_mqtt(link_to(script, nursery), MqttOptions("id", window=2)) as session,
    ):
        acknowledged: list[int] = []
        await session.publish_all(messages(*"abcde"), acknowledged.append, receipt_timeout_s=10)
        assert acknowledged == [0, 1, 2, 3, 4]


async def test_qos_0_is_delivered_when_the_system_has_it() -> None:
    near, far = memory_stream_pair()
    broker, gate, acknowledged = ScriptedBroker(far), trio.Event(), list[int]()
    deliver = near.send_stream.send_all_hook
    assert deliver is not None

    async def deliver_later() -> None:
        await gate.wait()
        await deliver()

    async with trio.open_nursery() as nursery:

        async def body() -> None:
            async with open_mqtt(near, OPTIONS) as session:
                near.send_stream.send_all_hook = deliver_later
                await session.publish_all(messages("a", "b", qos=0), acknowledged.append, receipt_timeout_s=10)

        nursery.start_soon(body)
        await broker.accept()
        await wait_all_tasks_blocked()
        assert acknowledged == []
        gate.set()
        assert [(await broker.expect("PUBLISH")).rest for _ in range(2)] == [b"a", b"b"]
        await broker.expect("DISCONNECT")
        assert acknowledged == [0, 1]


async def test_two_tasks_publish_side_by_side() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        by_body = {}
        for _ in range(4):
            packet = await broker.expect("PUBLISH")
            by_body[packet.rest] = packet.packet_id
        for body in (b"d", b"a", b"c", b"b"):
            await broker.send(puback(by_body[body]))

    first, second = list[int](), list[int]()
    async with (
        trio.open_nursery() as nursery,
        open_mqtt(link_to(script, nursery), OPTIONS) as session,
        trio.open_nursery() as senders,
    ):

        async def send(bodies: str, receipts: list[int]) -> None:
            await session.publish_all(messages(*bodies), receipts.append, receipt_timeout_s=10)

        senders.start_soon(send, "ab", first)
        senders.start_soon(send, "cd", second)
    assert (first, second) == ([0, 1], [1, 0])


async def test_a_cancelled_publish_keeps_its_ids_and_the_link() -> None:
    cancelled = trio.Event()

    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        assert [(await broker.expect("PUBLISH")).packet_id for _ in range(2)] == [1, 2]
        await cancelled.wait()
        assert (await broker.expect("PUBLISH")).packet_id == 3
        await broker.send(puback(1) + puback(2) + puback(3))

    async with trio.open_nursery() as nursery, open_mqtt(link_to(script, nursery), OPTIONS) as session:
        abandoned: list[int] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(lambda: session.publish_all(messages("a", "b"), abandoned.append, receipt_timeout_s=9))
                await wait_all_tasks_blocked()
                scope.cancel()
        cancelled.set()
        acknowledged: list[int] = []
        await session.publish_all(messages("c"), acknowledged.append, receipt_timeout_s=10)
        assert (abandoned, acknowledged) == ([], [0])


async def test_subscribe_receive_acknowledge_unsubscribe() -> None:
    async def script(broker: ScriptedBroker) -> None:
        connect = await broker.accept()
        assert connect.rest[7] == 0, "no clean session"
        subscribe = await broker.expect("SUBSCRIBE")
        assert subscribe.rest == b"\0\3a/+\1\0\1b\1"
        await broker.send(b"\x90\x04" + subscribe.packet_id.to_bytes(2, "big") + b"\1\0")
        await broker.send(publish("a/1", b"x", 7) + publish("b", b"y"))
        assert (await broker.expect("PUBACK")).packet_id == 7
        unsubscribe = await broker.expect("UNSUBSCRIBE")
        assert unsubscribe.rest == b"\0\1b"
        await broker.send(b"\xb0\x02" + unsubscribe.packet_id.to_bytes(2, "big"))
        await broker.expect("DISCONNECT")

    async with (
        trio.open_nursery() as nursery,
        open_mqtt(link_to(script, nursery), MqttOptions("id", clean_session=False)) as session,
    ):
        await session.subscribe([])
        await session.subscribe(["a/+", "b"])
        first, second = await session.receive(), await session.receive()
        assert first == Publish("a/1", b"x", 7, duplicate=False, retained=False)
        assert second == Publish("b", b"y", None, duplicate=False, retained=False)
        session.acknowledge(first)
        session.acknowledge(second)
        await session.unsubscribe(["b"])


async def test_an_acknowledgement_just_before_the_end_still_goes_out() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        await broker.send(publish("t", b"x", 7))
        await broker.expect("PUBACK")
        await broker.expect("DISCONNECT")

    async with trio.open_nursery() as nursery, open_mqtt(link_to(script, nursery), OPTIONS) as session:
        session.acknowledge(await session.receive())


async def test_keep_alive(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        for due in (60, 120, 180):
            await broker.expect("PINGREQ")
            assert trio.current_time() - begun == pytest.approx(due)
            await broker.send(PINGRESP)
        await broker.expect("DISCONNECT")

    begun = trio.current_time()
    async with trio.open_nursery() as nursery, open_mqtt(link_to(script, nursery), OPTIONS):
        await trio.sleep(200)


async def test_disconnect_also_when_cancelled() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        await broker.expect("DISCONNECT")
        await broker.ended()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_mqtt(link_to(script, nursery), OPTIONS):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught


async def test_what_the_body_raises_leaves_as_it_is() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError, match="bug"):
            async with open_mqtt(link_to(only_accept, nursery), OPTIONS):
                raise KeyError("bug")


# ---- brokers that do not behave


@pytest.mark.parametrize(
    ("code", "error"), [(1, ConnectFailed), (2, ConnectFailed), (3, ConnectFailed), (4, AuthenticationFailed)]
)
async def test_refused_connack(code: int, error: type[Exception]) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(bytes((0x20, 2, 0, code)))

    async with trio.open_nursery() as nursery:
        with pytest.raises(error, match=f"CONNACK {code}"):
            async with open_mqtt(link_to(script, nursery), OPTIONS):
                pytest.fail("opened")


async def test_no_connack(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")

    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed, match="no CONNACK within 5 s") as caught:
            async with open_mqtt(link_to(script, nursery), OPTIONS):
                pytest.fail("opened")
        assert caught.value.hint


@pytest.mark.parametrize("said", [b"", b"\x20\x02", b"HTTP/1.1 400 Bad Request\r\n"])
async def test_no_broker_at_all(said: bytes) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(said)
        await broker.stream.aclose()

    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match=r"no CONNACK: the broker closed|broke the protocol"):
            async with open_mqtt(link_to(script, nursery), OPTIONS):
                pytest.fail("opened")


async def lose(script: Script, *, options: MqttOptions = OPTIONS) -> tuple[LinkLost, list[int]]:
    """Publish three messages to this broker; returns how the link was lost, and which receipts had come."""
    acknowledged: list[int] = []

    async def body(stream: trio.abc.Stream) -> None:
        async with open_mqtt(stream, options) as session:
            await session.publish_all(messages("a", "b", "c"), acknowledged.append, receipt_timeout_s=7)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost) as caught:
            await body(link_to(script, nursery))
        assert type(caught.value) is LinkLost
    return caught.value, acknowledged


async def accept_and_read(broker: ScriptedBroker) -> None:
    await broker.accept()
    for _ in range(3):
        await broker.expect("PUBLISH")


@pytest.mark.parametrize(
    ("said", "reason", "receipts"),
    [
        (puback(1) + puback(9), "broke the protocol: PubAck 9 acknowledges nothing", []),
        (puback(1) + puback(1), "broke the protocol: PubAck 1 acknowledges nothing", []),
        (b"\x90\x03\0\2\1", "broke the protocol: SubAck 2 acknowledges nothing", []),
        (CONNACK, "broke the protocol: a second CONNACK", []),
        (b"\xff\xff\xff\xff\xff", "broke the protocol: the length", []),
        (b"\x30\xff\xff\xff\x7f", "broke the protocol: a PUBLISH of 268435455 bytes", []),
        (publish("a", b"")[:-1] + b"+", "broke the protocol: a PUBLISH cannot be read", []),
    ],
)
async def test_violations(said: bytes, reason: str, receipts: list[int]) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await accept_and_read(broker)
        await broker.send(said)

    lost, acknowledged = await lose(script)
    assert reason in str(lost)
    assert acknowledged == receipts


async def test_closed_in_the_middle_of_a_packet() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await accept_and_read(broker)
        await broker.send(puback(2) + b"\x40\x02\x00")
        await broker.stream.aclose()

    lost, acknowledged = await lose(script)
    assert str(lost) == "connection lost: the broker closed the connection"
    assert acknowledged == [1]


async def test_receipts_stay_away(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await accept_and_read(broker)
        await trio.sleep(6)
        await broker.send(puback(1))

    begun = trio.current_time()
    lost, acknowledged = await lose(script)
    assert "acknowledged nothing for 7 s" in str(lost)
    assert lost.hint
    assert acknowledged == [0]
    assert trio.current_time() - begun == pytest.approx(13)


async def test_slow_receipts_are_no_loss(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await accept_and_read(broker)
        for packet_id in (1, 2, 3):
            await trio.sleep(6)
            await broker.send(puback(packet_id))
        await broker.stream.aclose()

    lost, acknowledged = await lose(script)
    assert "closed" in str(lost)
    assert acknowledged == [0, 1, 2]


async def test_pings_stay_without_answer(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await accept_and_read(broker)
        await broker.send(puback(1) + puback(2) + puback(3))
        await broker.expect("PINGREQ")

    lost, acknowledged = await lose(script)
    assert "did not answer a ping within 10 s" in str(lost)
    assert acknowledged == [0, 1, 2]


async def test_a_broker_that_reads_nothing_any_more(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    broker = ScriptedBroker(far)

    async def body() -> None:
        async with open_mqtt(near, OPTIONS) as session:
            near.send_stream.send_all_hook = trio.sleep_forever
            await session.publish_all(messages("a"), lambda _: None, receipt_timeout_s=7)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.accept)
        with pytest.raises(LinkLost, match="acknowledged nothing for 7 s"):
            await body()


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
    with pytest.raises(
        ConnectFailed, match=re.escape("no CONNACK: the server asks for a client certificate")
    ) as caught:
        async with open_mqtt(near, OPTIONS):
            pytest.fail("opened")
    assert caught.value.hint == "set certificate and privateKey"
    await far.aclose()


async def test_a_refused_subscription() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        await broker.expect("SUBSCRIBE")
        await broker.send(b"\x90\x04\0\1\1\x80")

    async with trio.open_nursery() as nursery:
        with pytest.raises(Refused, match="refuses the subscription to b") as caught:
            async with open_mqtt(link_to(script, nursery), OPTIONS) as session:
                await session.subscribe(["a", "b"])
        assert caught.value.hint


async def test_more_answers_than_subscriptions() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        await broker.expect("SUBSCRIBE")
        await broker.send(b"\x90\x04\0\1\1\1")

    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match="2 answers to 1 subscriptions"):
            async with open_mqtt(link_to(script, nursery), OPTIONS) as session:
                await session.subscribe(["a"])


async def test_questions_stay_without_answer(autojump_clock: MockClock) -> None:
    for what in ("SUBSCRIBE", "UNSUBSCRIBE"):
        async with trio.open_nursery() as nursery:
            with pytest.raises(LinkLost, match=f"did not answer a {what} within 10 s"):
                async with open_mqtt(link_to(only_accept, nursery), OPTIONS) as session:
                    await (session.subscribe(["a"]) if what == "SUBSCRIBE" else session.unsubscribe(["a"]))


async def test_messages_that_nobody_receives_are_bounded(autojump_clock: MockClock) -> None:
    """The link is read no further, so the broker keeps them; without reading, no answer to a ping is seen."""

    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        for _ in range(UNREAD * 3):
            await broker.send(publish("t", b"x"))
            await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match="did not answer a ping"):
            async with open_mqtt(link_to(script, nursery), OPTIONS) as session:
                await trio.sleep_forever()
    assert session._link._unread.statistics().current_buffer_used == UNREAD


async def test_the_stream_is_closed_in_any_case() -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    with pytest.raises(ConnectFailed):
        async with open_mqtt(near, OPTIONS):
            pytest.fail("opened")
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")
