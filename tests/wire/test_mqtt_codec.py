"""Packets of MQTT 3.1.1: the specification's own examples, damage, and a second implementation as referee."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from amqtt.adapters import BufferReader
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.publish import PublishPacket
from hypothesis import given
from hypothesis import strategies as st

from tpxd.errors import LocalMisuse, RemoteViolation
from tpxd.wire.mqtt import codec
from tpxd.wire.mqtt.codec import ConnAck, Packet, PingResp, PubAck, Publish, SubAck, UnsubAck, decode, split

TOPICS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="+#\0"), min_size=1, max_size=60)
IDS = st.integers(1, 0xFFFF)

# figures 3.8, 3.12 (with a payload), 3.24, 3.27, 3.32, 3.35 and the examples beneath them
VECTORS: list[tuple[str, Packet]] = [
    ("20 02 00 00", ConnAck(session_present=False, return_code=0)),
    ("20 02 01 00", ConnAck(session_present=True, return_code=0)),
    ("20 02 00 05", ConnAck(session_present=False, return_code=5)),
    ("40 02 00 0a", PubAck(10)),
    ("90 05 00 0a 00 02 80", SubAck(10, (0, 2, 0x80))),
    ("b0 02 00 0a", UnsubAck(10)),
    ("d0 00", PingResp()),
    ("32 09 00 03 61 2f 62 00 0a 68 69", Publish("a/b", b"hi", 10, duplicate=False, retained=False)),
    ("3b 07 00 03 61 2f 62 ff ff", Publish("a/b", b"", 0xFFFF, duplicate=True, retained=True)),
    ("31 07 00 03 61 2f 62 68 69", Publish("a/b", b"hi", None, duplicate=False, retained=True)),
    # 1.5.3.1: the letter A, then U+2A6D4
    ("30 07 00 05 41 f0 aa 9b 94", Publish("A\U0002a6d4", b"", None, duplicate=False, retained=False)),
]


def decode_all(buffer: bytearray) -> list[Packet]:
    return [decode(first, rest) for first, rest in split(buffer)[0]]


@pytest.mark.parametrize(("text", "packet"), VECTORS)
def test_vector_whole_byte_by_byte_and_with_a_tail(text: str, packet: Packet) -> None:
    data = bytes.fromhex(text)
    assert decode_all(bytearray(data)) == [packet]

    buffer = bytearray()
    packets: list[Packet] = []
    for byte in data:
        assert not packets, "complete before its last byte"
        buffer.append(byte)
        packets += decode_all(buffer)
    assert packets == [packet]
    assert not buffer

    tail = bytes.fromhex("90 05 00")
    buffer = bytearray(data + data + tail)
    assert decode_all(buffer) == [packet, packet]
    assert buffer == tail


# table 2.4
@pytest.mark.parametrize(
    ("length", "encoded"),
    [(127, "7f"), (128, "80 01"), (16_383, "ff 7f"), (16_384, "80 80 01"), (2_097_151, "ff ff 7f"),
     (2_097_152, "80 80 80 01")],
)  # fmt: skip
def test_remaining_lengths(length: int, encoded: str) -> None:
    body = bytes(length - 3)
    data = codec.encode_publish("t", body, None, retain=False)
    assert data == b"\x30" + bytes.fromhex(encoded) + b"\0\1t" + body
    assert split(bytearray(data), length) == ([(0x30, b"\0\1t" + body)], 0)
    assert split(bytearray(data), length - 1) == ([(0x30, b"\0\1t")], 0)


def test_the_longest_packet_and_one_more() -> None:
    assert codec._length(268_435_455) == b"\xff\xff\xff\x7f"
    with pytest.raises(LocalMisuse, match="longer than MQTT allows"):
        codec._length(268_435_456)


def test_a_length_that_does_not_end() -> None:
    assert split(bytearray(b"\x30\xff\xff\xff")) == ([], 0)
    with pytest.raises(RemoteViolation, match="four bytes"):
        split(bytearray(b"\x30\xff\xff\xff\xff"))


def test_a_long_packet_is_refused_before_its_body_is_there() -> None:
    with pytest.raises(RemoteViolation, match="a SUBACK of 2097152 bytes is longer than allowed"):
        split(bytearray(bytes.fromhex("90 80 80 80 01")))


@pytest.mark.parametrize(("qos", "head"), [(0, "0003612f62"), (1, "0003612f620007")])
def test_of_a_message_that_is_too_long_only_the_head_is_kept(qos: int, head: str) -> None:
    """Whoever may publish could else end the link for ever: a broker sends again what has no PUBACK."""
    data = codec.encode_publish("a/b", bytes(10_000), 7 if qos else None, retain=False) + b"\x40\x02\x00\x09"
    kept = bytes.fromhex(head)
    assert split(bytearray(data), 9_000) == ([(data[0], kept), (0x40, b"\0\x09")], 0)
    begin = 3 + len(kept)
    assert split(bytearray(data[: begin - 1]), 9_000) == ([], 0)
    buffer = bytearray(data[: begin + 100])
    assert split(buffer, 9_000) == ([(data[0], kept)], 10_000 - 100)
    assert buffer == b""
    assert decode(data[0], kept) == Publish("a/b", b"", 7 if qos else None, duplicate=False, retained=False)


def test_a_long_message_whose_topic_lies_about_its_length() -> None:
    data = bytes.fromhex("30 05 ff ff") + b"abc" + b"\xd0\x00"
    assert split(bytearray(data), 4) == ([(0x30, b"\xff\xffabc"), (0xD0, b"")], 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("20 02 02 00", "CONNACK is malformed"),
        ("20 02 01 05", "refuses and claims a session"),
        ("20 01 00", "CONNACK cannot be read"),
        ("20 03 00 00 00", "CONNACK is malformed"),
        ("21 02 00 00", "CONNACK of flags 1"),
        ("40 02 00 00", "identifier 0"),
        ("40 03 00 01 00", "PUBACK of flags 0 and 3 bytes"),
        ("42 02 00 01", "PUBACK of flags 2"),
        ("90 03 00 0a 03", "codes that do not exist"),
        ("90 02 00 0a", "codes that do not exist"),
        ("90 03 00 00 01", "identifier 0"),
        ("b0 03 00 0a 00", "UNSUBACK is malformed"),
        ("d0 01 00", "PINGRESP of flags 0 and 1 bytes"),
        ("36 07 00 03 61 2f 62 00 0a", "QoS 3"),
        ("34 07 00 03 61 2f 62 00 0a", "QoS 2"),
        ("38 05 00 03 61 2f 62", "QoS 0 claims to be sent before"),
        ("32 07 00 03 61 2f 62 00 00", "identifier 0"),
        ("32 05 00 03 61 2f 62", "PUBLISH cannot be read"),
        ("30 04 00 03 61 2f", "PUBLISH cannot be read"),
        ("30 02 00 00", "topic is empty"),
        ("30 03 00 01 23", "PUBLISH cannot be read"),
        ("30 03 00 01 00", "null character"),
        ("30 04 00 02 c3 28", "PUBLISH is malformed"),
        ("30 05 00 03 ed a0 80", "PUBLISH is malformed"),
        ("50 02 00 0a", "PUBREC"),
        ("62 02 00 0a", "PUBREL"),
        ("70 02 00 0a", "PUBCOMP"),
        ("10 00", "CONNECT"),
        ("82 00", "SUBSCRIBE"),
        ("a2 00", "UNSUBSCRIBE"),
        ("c0 00", "PINGREQ"),
        ("e0 00", "DISCONNECT"),
        ("00 00", "RESERVED"),
        ("f0 00", "RESERVED"),
    ],
)
def test_damage(text: str, reason: str) -> None:
    with pytest.raises(RemoteViolation, match=reason):
        decode_all(bytearray(bytes.fromhex(text)))


def test_damage_stays_inside_its_packet() -> None:
    """A topic that is no UTF-8 must not shift the border to the next packet."""
    (damaged, sound), _ = split(bytearray(bytes.fromhex("30 08 00 02 c3 28 40 02 00 07 40 02 00 09")))
    with pytest.raises(RemoteViolation):
        decode(*damaged)
    assert decode(*sound) == PubAck(9)


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    with suppress(RemoteViolation):
        decode_all(bytearray(data))


@given(st.integers(0, 255), st.binary(max_size=80))
def test_random_packets(first: int, rest: bytes) -> None:
    """Any complete packet is either refused or says exactly what its bytes say."""
    try:
        packet = decode(first, rest)
    except RemoteViolation:
        return
    if isinstance(packet, Publish):
        sent = codec.encode_publish(packet.topic, packet.body, packet.packet_id, packet.retained)
        assert split(bytearray(sent))[0][0][1] == rest


@given(TOPICS, st.binary(max_size=400), IDS, st.booleans())
def test_publish_is_what_amqtt_makes_of_it(topic: str, body: bytes, packet_id: int, retain: bool) -> None:
    first = PublishPacket.build(topic, body, packet_id, False, 1, retain).to_bytes()
    assert codec.encode_publish(topic, body, packet_id, retain) == first
    zero = PublishPacket.build(topic, body, None, False, 0, retain).to_bytes()
    assert codec.encode_publish(topic, body, None, retain) == zero


@given(TOPICS, st.binary(max_size=400), st.none() | IDS, st.booleans())
def test_publish_round_trip(topic: str, body: bytes, packet_id: int | None, retain: bool) -> None:
    assert codec.topic_fault(topic) is None
    (packet,) = decode_all(bytearray(codec.encode_publish(topic, body, packet_id, retain)))
    assert packet == Publish(topic, body, packet_id, duplicate=False, retained=retain)


def test_publish_example() -> None:
    """Table 3.1 and figure 3.11: topic a/b, packet identifier 10."""
    assert codec.encode_publish("a/b", b"", 10, retain=False) == bytes.fromhex("32 07 00 03 61 2f 62 00 0a")


def test_subscribe_and_unsubscribe_examples() -> None:
    """Figures 3.23 and 3.31."""
    subscribe = codec.encode_subscribe(10, [("a/b", 1), ("c/d", 2)])
    assert subscribe == bytes.fromhex("82 0e 00 0a 00 03 61 2f 62 01 00 03 63 2f 64 02")
    unsubscribe = codec.encode_unsubscribe(10, ["a/b", "c/d"])
    assert unsubscribe == bytes.fromhex("a2 0c 00 0a 00 03 61 2f 62 00 03 63 2f 64")


def test_short_packets() -> None:
    assert codec.encode_puback(10) == bytes.fromhex("40 02 00 0a")
    assert bytes.fromhex("c0 00") == codec.PINGREQ
    assert bytes.fromhex("e0 00") == codec.DISCONNECT


@pytest.mark.parametrize(
    ("username", "password", "clean", "flags"),
    [(None, None, True, "02"), (None, None, False, "00"), ("u", None, True, "82"), ("u", "p", False, "c0")],
)
def test_connect(username: str | None, password: str | None, clean: bool, flags: str) -> None:
    """Figures 3.2 to 3.6."""
    data = codec.encode_connect("id", clean_session=clean, keep_alive_s=10, username=username, password=password)
    texts = b"".join(b"\0\1" + text.encode() for text in (username, password) if text)
    expected = bytes.fromhex(f"00 04 4d 51 54 54 04 {flags} 00 0a") + b"\0\2id" + texts
    assert data == bytes((0x10, len(expected))) + expected
    assert asyncio.run(ConnectPacket.from_stream(BufferReader(data))).to_bytes() == data


def test_connect_refuses_what_the_protocol_cannot_say() -> None:
    with pytest.raises(LocalMisuse, match="without a user name"):
        codec.encode_connect("id", clean_session=True, keep_alive_s=0, username=None, password="p")
    with pytest.raises(LocalMisuse, match="65535 bytes"):
        codec.encode_connect("i" * 65_536, clean_session=True, keep_alive_s=0, username=None, password=None)


@pytest.mark.parametrize(
    ("topic", "fault"),
    [
        ("plant/70B3D5E75E000001", None),
        ("t" * 65_535, None),
        ("ü" * 32_767, None),
        ("", "is empty"),
        ("a/+/b", "wildcard"),
        ("a/#", "wildcard"),
        ("a\0", "null character"),
        ("t" * 65_536, "65535 bytes"),
        ("ü" * 32_768, "65535 bytes"),
        ("a\ud800", "no valid Unicode"),
    ],
)
def test_topic_fault(topic: str, fault: str | None) -> None:
    found = codec.topic_fault(topic)
    assert found is None if fault is None else found is not None and fault in found
