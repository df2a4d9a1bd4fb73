"""An MQTT session with a broker that behaves."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.wire.mqtt_link import OPTIONS, link_to, messages, only_accept
from tests.wire.scripted_broker import PINGRESP, ScriptedBroker, puback, publish
from tpxd.wire.broker_link import GATHERING_S
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.codec import Publish
from tpxd.wire.mqtt.session import open_mqtt


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


async def test_a_message_that_comes_byte_by_byte_arrives_and_is_gathered(autojump_clock: MockClock) -> None:
    body = b"x" * 100

    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        for byte in publish("t", body):
            await broker.send(bytes((byte,)))
            await wait_all_tasks_blocked()
        await broker.expect("DISCONNECT")

    async with trio.open_nursery() as nursery, open_mqtt(link_to(script, nursery), OPTIONS) as session:
        begun = trio.current_time()
        assert (await session.receive()).body == body
        waited = (trio.current_time() - begun) / GATHERING_S
        assert 0 < waited < len(body)
