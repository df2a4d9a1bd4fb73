"""The client core, fed with bytes: commands, acknowledgements, refusals, time."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, LocalMisuse, RemoteViolation
from tpxd.lorawan.downlinks import MAX_BODY_BYTES
from tpxd.wire.mqtt.client import MqttClient, MqttOptions, State
from tpxd.wire.mqtt.codec import ConnAck, PubAck, Publish, SubAck, UnsubAck, encode_publish

ACCEPTED = b"\x20\x02\x00\x00"
OPTIONS = MqttOptions("id", keep_alive_s=60, answer_timeout_s=10)


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def connected(options: MqttOptions = OPTIONS) -> MqttClient:
    client = MqttClient(options, 0.0)
    assert client.outgoing(0.0).startswith(b"\x10")
    client.receive_data(ACCEPTED, 0.0)
    return client


def test_connect_is_there_from_the_beginning() -> None:
    client = MqttClient(OPTIONS, 0.0)
    assert client.state is State.CONNECTING
    assert client.outgoing(0.0) == b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id"
    assert not client.has_outgoing
    assert client.receive_data(ACCEPTED, 0.0) == [ConnAck(session_present=False, return_code=0)]
    assert client.state.name == "CONNECTED"


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (1, ConnectFailed, "does not speak MQTT 3.1.1"),
        (2, ConnectFailed, "client id"),
        (3, ConnectFailed, "not available"),
        (4, AuthenticationFailed, "user name or password"),
        (5, AuthenticationFailed, "not authorized"),
        (6, ConnectFailed, "without a known reason"),
    ],
)
def test_refused(code: int, error: type[Exception], text: str) -> None:
    client = MqttClient(OPTIONS, 0.0)
    with pytest.raises(error, match=text):
        client.receive_data(bytes((0x20, 2, 0, code)), 0.0)


def test_session_present() -> None:
    client = MqttClient(MqttOptions("id", clean_session=False), 0.0)
    assert client.receive_data(b"\x20\x02\x01\x00", 0.0) == [ConnAck(session_present=True, return_code=0)]
    with pytest.raises(RemoteViolation, match="clean one was asked for"):
        MqttClient(OPTIONS, 0.0).receive_data(b"\x20\x02\x01\x00", 0.0)


def test_nothing_may_come_before_connack_and_only_one() -> None:
    with pytest.raises(RemoteViolation, match="before CONNACK"):
        MqttClient(OPTIONS, 0.0).receive_data(b"\xd0\x00", 0.0)
    with pytest.raises(RemoteViolation, match="second CONNACK"):
        connected().receive_data(ACCEPTED, 0.0)


def test_commands_need_a_connection() -> None:
    fresh, gone = MqttClient(OPTIONS, 0.0), connected()
    gone.disconnect()
    for client in (fresh, gone):
        for command in (
            lambda c=client: c.publish("t", b""),
            lambda c=client: c.subscribe(["t"]),
            lambda c=client: c.unsubscribe(["t"]),
            lambda c=client: c.acknowledge(1),
            client.disconnect,
        ):
            with pytest.raises(LocalMisuse, match="no command is possible while"):
                command()


def test_publish_in_order_and_acknowledge_out_of_order() -> None:
    client = connected()
    assert [client.publish("t", b"a"), client.publish("t", b"b"), client.publish("t", b"c", qos=0)] == [1, 2, None]
    assert client.outgoing(0.0) == b"\x32\x06\0\1t\0\1a" + b"\x32\x06\0\1t\0\2b" + b"\x30\x04\0\1tc"
    assert client.receive_data(puback(2) + puback(1), 0.0) == [PubAck(2), PubAck(1)]


def test_retain() -> None:
    client = connected()
    client.publish("t", b"a", retain=True)
    assert client.outgoing(0.0)[0] == 0x33


@pytest.mark.parametrize("data", [puback(2), b"\x90\x03\x00\x01\x01", b"\xb0\x02\x00\x01", puback(1) + puback(1)])
def test_an_acknowledgement_of_nothing(data: bytes) -> None:
    client = connected()
    client.publish("t", b"a")
    with pytest.raises(RemoteViolation, match="acknowledges nothing that was sent"):
        client.receive_data(data, 0.0)


def test_ids_stay_reserved_until_their_acknowledgement() -> None:
    client = connected()
    assert [client.publish("t", b"") for _ in range(65_535)] == list(range(1, 65_536))
    assert client.free_ids == 0
    with pytest.raises(LocalMisuse, match="in use"):
        client.publish("t", b"")
    client.receive_data(puback(4711), 0.0)
    assert client.publish("t", b"") == 4711
    client.receive_data(puback(5) + puback(65_535), 0.0)
    assert [client.subscribe(["t"]), client.unsubscribe(["t"])] == [65_535, 5]


def test_subscribe_and_unsubscribe() -> None:
    client = connected()
    assert client.subscribe(["a/+", "b"]) == 1
    assert client.unsubscribe(["c"]) == 2
    assert client.outgoing(0.0) == b"\x82\x0c\0\1\0\3a/+\1\0\1b\1" + b"\xa2\x05\0\2\0\1c"
    assert client.receive_data(b"\x90\x04\0\1\1\x80" + b"\xb0\x02\0\2", 0.0) == [SubAck(1, (1, 0x80)), UnsubAck(2)]


def test_incoming_is_acknowledged_on_command_and_once() -> None:
    client = connected()
    assert client.receive_data(b"\x32\x06\0\1t\0\7x\x30\x04\0\1ty", 0.0) == [
        Publish("t", b"x", 7, duplicate=False, retained=False),
        Publish("t", b"y", None, duplicate=False, retained=False),
    ]
    assert not client.has_outgoing
    client.acknowledge(7)
    client.acknowledge(7)
    client.acknowledge(8)
    assert client.outgoing(0.0) == puback(7)


def test_disconnect_is_the_last_packet() -> None:
    client = connected()
    client.publish("t", b"", qos=0)
    client.disconnect()
    assert client.outgoing(0.0) == b"\x30\x03\0\1t\xe0\x00"


class TestKeepAlive:
    def test_ping_after_silence(self) -> None:
        client = connected()
        assert client.next_deadline() == 60
        client.tick(59.9)
        assert not client.has_outgoing
        client.tick(60)
        assert client.outgoing(60) == b"\xc0\x00"
        assert client.next_deadline() == 70
        assert client.receive_data(b"\xd0\x00", 61) == []
        assert client.next_deadline() == 120

    def test_an_answer_to_no_ping_is_a_violation(self) -> None:
        client = connected()
        client.tick(60)
        with pytest.raises(RemoteViolation, match="PINGRESP answers nothing"):
            client.receive_data(2 * b"\xd0\x00", 61)

    def test_sending_alone_proves_nothing(self) -> None:
        client = connected()
        client.publish("t", b"", qos=0)
        client.outgoing(50)
        assert client.next_deadline() == 60

    def test_receiving_alone_keeps_no_promise(self) -> None:
        client = connected()
        client.receive_data(b"\x30\x03\0\1t", 50)
        assert client.next_deadline() == 60

    def test_no_answer(self) -> None:
        client = connected()
        client.tick(60)
        client.tick(69.9)
        with pytest.raises(LinkLost, match="did not answer a ping within 10 s"):
            client.tick(70)

    def test_other_packets_show_life_while_the_ping_waits(self) -> None:
        client = connected()
        client.publish("t", b"")
        client.tick(60)
        client.receive_data(puback(1), 65)
        client.tick(70)
        with pytest.raises(LinkLost):
            client.tick(75)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_random_bytes_raise_nothing_else(chunks: list[bytes]) -> None:
    client = connected()
    client.publish("t", b"")
    with suppress(RemoteViolation):
        for chunk in chunks:
            client.receive_data(chunk, 0.0)


@given(st.lists(st.integers(1, 7), max_size=40), st.integers(1, 30))
def test_a_cut_stream_gives_the_same_packets(cuts: list[int], count: int) -> None:
    client = connected()
    ids = [client.publish("t", b"") for _ in range(count)]
    data = b"".join(puback(packet_id or 0) for packet_id in ids)
    packets = []
    for cut in cuts:
        packets += client.receive_data(data[:cut], 0.0)
        data = data[cut:]
    packets += client.receive_data(data, 0.0)
    assert packets == [PubAck(packet_id or 0) for packet_id in ids]
    assert client.free_ids == 65_535


def test_by_default_the_longest_command_comes_whole() -> None:
    topic, body = "t" * 0xFFFF, bytes(MAX_BODY_BYTES)
    (message,) = connected().receive_data(encode_publish(topic, body, 7, retain=False), 0.0)
    assert message == Publish(topic, body, 7, duplicate=False, retained=False)
    (message,) = connected().receive_data(encode_publish("t", bytes(1 << 20), 7, retain=False), 0.0)
    assert message == Publish("t", b"", 7, duplicate=False, retained=False)


@given(st.lists(st.integers(1, 40), max_size=60), st.sampled_from([0, 1]))
def test_a_message_that_is_too_long_comes_without_its_body(cuts: list[int], qos: int) -> None:
    client = connected(MqttOptions("id", max_incoming_bytes=100))
    packet_id = 7 if qos else None
    data = encode_publish("a/b", bytes(1_000), packet_id, retain=False) + encode_publish("c", b"x", None, retain=False)
    seen = []
    for cut in cuts:
        seen += client.receive_data(data[:cut], 0.0)
        data = data[cut:]
    seen += client.receive_data(data, 0.0)
    long = Publish("a/b", b"", packet_id, duplicate=False, retained=False)
    assert seen == [long, Publish("c", b"x", None, duplicate=False, retained=False)]
    if packet_id is not None:
        client.outgoing(0.0)
        client.acknowledge(packet_id)
        assert client.outgoing(0.0) == puback(packet_id)
