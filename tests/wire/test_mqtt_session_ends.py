"""An MQTT session with brokers that do not let us in, and with brokers that do not behave."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.wire.mqtt_link import OPTIONS, Script, link_to, messages, only_accept
from tests.wire.scripted_broker import CONNACK, ScriptedBroker, puback, publish
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, Refused
from tpxd.wire.mqtt import MqttOptions
from tpxd.wire.mqtt_session import UNREAD, open_mqtt


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


TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"


@pytest.mark.parametrize("said", [b"", b"\x20\x02", b"HTTP/1.1 400 Bad Request\r\n", TLS_ALERT])
async def test_no_broker_at_all(said: bytes) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(said)
        await broker.stream.aclose()

    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match=r"no CONNACK: the broker closed|broke the protocol") as caught:
            async with open_mqtt(link_to(script, nursery), OPTIONS):
                pytest.fail("opened")
        assert "want TLS" in str(caught.value.hint)


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
        (b"\x90\xff\xff\xff\x7f", "broke the protocol: a SUBACK of 268435455 bytes", []),
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
    assert "another client" in str(lost.hint)
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
