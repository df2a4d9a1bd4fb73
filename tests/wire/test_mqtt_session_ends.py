"""An MQTT session with brokers that do not let us in, and with brokers that do not behave."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.wire.mqtt_link import OPTIONS, Script, link_to, messages, only_accept
from tests.wire.scripted_broker import CONNACK, ScriptedBroker, puback, publish
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, Refused
from tpxd.wire.broker_link import MESSAGE_BYTES
from tpxd.wire.mqtt import session as mqtt_session
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.session import open_mqtt


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


FITTING = 130


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many messages of one byte may wait."""
    monkeypatch.setattr(mqtt_session, "UNREAD_BYTES", FITTING * (1 + MESSAGE_BYTES))


@pytest.mark.usefixtures("_narrow")
async def test_receipts_are_read_while_nobody_receives_and_messages_beyond_a_bound_are_dropped() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        for _ in range(FITTING + 7):
            await broker.send(publish("t", b"x"))
        for packet_id in (1, 2):
            await broker.expect("PUBLISH")
            await broker.send(puback(packet_id))
        await broker.expect("DISCONNECT")

    receipts: list[int] = []
    async with trio.open_nursery() as nursery, open_mqtt(link_to(script, nursery), OPTIONS) as session:
        with trio.fail_after(5):
            await session.publish_all(messages("1", "2"), receipts.append, receipt_timeout_s=5)
        assert receipts == [0, 1]
        for _ in range(FITTING):
            await session.receive()
        assert session.dropped == 7
        assert not session._link.has_unread


@pytest.mark.usefixtures("_narrow")
async def test_messages_of_qos_1_that_found_no_place_come_again_over_a_new_link() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        for number in range(1, FITTING + 3):
            await broker.send(publish("t", b"x", number))
        acknowledged = [(await broker.expect("PUBACK")).packet_id for _ in range(FITTING)]
        assert acknowledged == [*range(1, FITTING + 1)]
        await broker.expect("DISCONNECT")

    async with trio.open_nursery() as nursery, open_mqtt(link_to(script, nursery), OPTIONS) as session:
        await wait_all_tasks_blocked()
        for _ in range(FITTING):
            session.acknowledge(await session.receive())
        with pytest.raises(LinkLost, match="2 messages found no place, and come again over a new link"):
            await session.receive()
