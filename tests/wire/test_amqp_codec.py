"""Frames of AMQP 0-9-1: octets laid out by hand from the specification, damage, and pamqp's coder as referee."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import INDEX_MAPPING
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat as PamqpHeartbeat

from tpxd.errors import LocalMisuse, RemoteViolation
from tpxd.wire.amqp import codec
from tpxd.wire.amqp.codec import (
    Basic,
    Body,
    Channel,
    Confirm,
    Confirmation,
    Connection,
    Exchange,
    Frame,
    Header,
    Heartbeat,
    Method,
    Queue,
    decode,
    split,
)

MAX = 131_072
SHORT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)

# 2.3.5.2 and 4.2.3 give the frame, 1.4 to 1.8 the methods' arguments, RabbitMQ's extensions the rest
VECTORS: list[tuple[str, int, Frame]] = [
    (
        "01 0000 00000020 000a 000a 00 09 00000000 0000000e 504c41494e2045585445524e414c 00000000 ce",
        0,
        Connection.Start(server_properties={}, mechanisms="PLAIN EXTERNAL", locales=""),
    ),
    ("01 0000 0000000c 000a 001e 07ff 00020000 003c ce", 0, Connection.Tune(2047, 131_072, 60)),
    ("01 0000 00000005 000a 0029 00 ce", 0, Connection.OpenOk()),
    (
        "01 0000 00000012 000a 0032 0193 07 52454655534544 0000 0000 ce",
        0,
        Connection.Close(403, "REFUSED", 0, 0),
    ),
    ("01 0000 00000004 000a 0033 ce", 0, Connection.CloseOk()),
    ("01 0000 00000008 000a 003c 03 6c6f77 ce", 0, Connection.Blocked("low")),
    ("01 0000 00000004 000a 003d ce", 0, Connection.Unblocked()),
    ("01 0001 00000009 0014 000b 00000001 30 ce", 1, Channel.OpenOk()),
    ("01 0001 00000005 0014 0014 00 ce", 1, Channel.Flow(active=False)),
    ("01 0002 0000000d 0014 0028 0194 02 4e4f 0032 000a ce", 2, Channel.Close(404, "NO", 50, 10)),
    ("01 0002 00000004 0028 000b ce", 2, Exchange.DeclareOk()),
    ("01 0002 0000000e 0032 000b 01 71 00000007 00000001 ce", 2, Queue.DeclareOk("q", 7, 1)),
    ("01 0002 00000009 003c 0015 04 74707864 ce", 2, Basic.ConsumeOk("tpxd")),
    (
        "01 0002 00000016 003c 003c 04 74707864 0000000000000007 01 01 78 01 6b ce",
        2,
        Basic.Deliver("tpxd", 7, True, "x", "k"),
    ),
    (
        "01 0001 00000013 003c 0032 0138 08 4e4f5f524f555445 01 78 01 6b ce",
        1,
        Basic.Return(312, "NO_ROUTE", "x", "k"),
    ),
    ("01 0001 0000000d 003c 0050 0000000000000009 00 ce", 1, Confirmation(9, multiple=False, refused=False)),
    ("01 0001 0000000d 003c 0050 0000000000000009 01 ce", 1, Confirmation(9, multiple=True, refused=False)),
    ("01 0001 0000000d 003c 0078 0000000000000009 03 ce", 1, Confirmation(9, multiple=True, refused=True)),
    ("01 0001 00000004 0055 000b ce", 1, Confirm.SelectOk()),
    ("02 0002 0000000e 003c 0000 0000000000000002 0000 ce", 2, Header(2, b"\0\0")),
    ("03 0002 00000002 6869 ce", 2, Body(b"hi")),
    ("08 0000 00000000 ce", 0, Heartbeat()),
]


def decode_all(buffer: bytearray, max_bytes: int = MAX) -> list[tuple[int, Frame]]:
    return [(channel, decode(kind, channel, payload)) for kind, channel, payload in split(buffer, max_bytes)]


def plain(frames: list[tuple[int, Frame]]) -> list[object]:
    """Methods of pamqp compare by identity: give their class and arguments."""
    return [(channel, (value.name, dict(value)) if isinstance(value, Method) else value) for channel, value in frames]


@pytest.mark.parametrize(("text", "channel", "expected"), VECTORS)
def test_vector_whole_byte_by_byte_and_with_a_tail(text: str, channel: int, expected: Frame) -> None:
    data = bytes.fromhex(text)
    once = plain([(channel, expected)])
    assert plain(decode_all(bytearray(data))) == once

    buffer = bytearray()
    frames: list[tuple[int, Frame]] = []
    for octet in data:
        assert not frames, "complete before its last byte"
        buffer.append(octet)
        frames += decode_all(buffer)
    assert plain(frames) == once
    assert not buffer

    tail = data[:-1]
    buffer = bytearray(data + data + tail)
    assert plain(decode_all(buffer)) == once * 2
    assert buffer == tail


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("00 0000 00000000 ce", "unknown kind 0"),
        ("04 0000 00000000 ce", "unknown kind 4"),
        ("48545450 2f312e31 20343030", "unknown kind 72"),
        ("08 0000 00000000 cd", "heartbeat ends with 0xcd instead of 0xce"),
        ("03 0001 00000001 61 00", "content body ends with 0x00"),
        ("03 0001 0001fff9 00", "content body of 131073 bytes is longer than the 131072 allowed"),
        ("08 0001 00000000 ce", "a heartbeat of 0 bytes on channel 1"),
        ("08 0000 00000001 00 ce", "a heartbeat of 1 bytes on channel 0"),
        ("01 0000 00000000 ce", "a method 0.0 of 0 bytes"),
        ("01 0000 00000003 000a00 ce", "a method 0.2560 of 3 bytes"),
        ("01 0000 00000004 000a 0028 ce", "a method 10.40 of 4 bytes is none that a broker may send"),
        ("01 0001 00000004 003c 0064 ce", "a method 60.100 of 4 bytes is none"),
        ("01 0001 00000004 0063 0001 ce", "a method 99.1 of 4 bytes is none"),
        ("01 0000 0000000b 000a 001e 07ff 00020000 00 ce", "Connection.Tune cannot be read"),
        ("01 0000 0000000d 000a 001e 07ff 00020000 003c 00 ce", "Connection.Tune is malformed: 8 bytes .* in 9"),
        ("01 0001 0000000c 003c 0050 0000000000000009 ce", "a method 60.80 of 12 bytes is none"),
        ("01 0001 00000004 0014 0014 ce", "Channel.Flow cannot be read"),
        ("01 0000 00000008 000a 003c 04 6c6f77 ce", "Connection.Blocked is malformed"),
        ("01 0000 00000007 000a 003c 02 c328 ce", "Connection.Blocked cannot be read"),
        ("01 0000 00000014 000a 000a 00 09 000000ff 00000000 00000000 0000 ce", "Connection.Start cannot be read"),
        ("02 0002 0000000c 003c 0000 0000000000000002 ce", "a content header of 12 bytes"),
        ("02 0002 0000000e 003d 0000 0000000000000002 0000 ce", "a content header of class 61"),
        ("02 0002 0000000e 003c 0001 0000000000000002 0000 ce", "class 60 and weight 1"),
    ],
)  # fmt: skip
def test_damage(text: str, reason: str) -> None:
    with pytest.raises(RemoteViolation, match=reason):
        decode_all(bytearray(bytes.fromhex(text)))


def test_damage_stays_inside_its_frame() -> None:
    """A text that claims to be longer than its frame must not reach into the next one."""
    damaged, sound = split(bytearray(bytes.fromhex("01000000000005000a003cffce 080000000000 00ce")), MAX)
    with pytest.raises(RemoteViolation):
        decode(*damaged)
    assert decode(*sound) == Heartbeat()


def test_the_longest_frame_and_one_byte_more() -> None:
    for size in (4088, 4089):
        data = frame.marshal(ContentBody(bytes(size)), 1)
        if size == 4088:
            assert decode_all(bytearray(data), 4096) == [(1, Body(bytes(size)))]
        else:
            with pytest.raises(RemoteViolation, match="4097 bytes is longer than the 4096 allowed"):
                split(bytearray(data[:8]), 4096)


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    with suppress(RemoteViolation):
        decode_all(bytearray(data))


@given(st.sampled_from([1, 2, 3, 8]), st.sampled_from([b"", *(i.to_bytes(4, "big") for i in INDEX_MAPPING)]), st.data())
def test_random_arguments(kind: int, index: bytes, data: st.DataObject) -> None:
    """Any frame, above all of a known method, is read or refused, and nothing else is raised."""
    with suppress(RemoteViolation):
        decode(kind, 1, index + data.draw(st.binary(max_size=80)))


@given(st.integers(0, 0x7FFF), st.binary(max_size=60))
def test_random_properties(flags: int, data: bytes) -> None:
    with suppress(RemoteViolation):
        codec.message_id(Header(0, (flags << 1).to_bytes(2, "big") + data))


@given(
    exchange=st.text("abc-_.:@ ", max_size=60), key=SHORT, name=SHORT.filter(bool), body=st.binary(max_size=9_000),
    seconds=st.integers(1, 0xFFFFFFFF), max_bytes=st.sampled_from([4096, 4097, 131_072]),
)  # fmt: skip
def test_publish_is_what_pamqp_makes_of_it(
    exchange: str, key: str, name: str, body: bytes, seconds: int, max_bytes: int
) -> None:
    properties = Basic.Properties(
        content_type="application/json",
        delivery_mode=2,
        message_id=name,
        timestamp=datetime.fromtimestamp(seconds, UTC),
        app_id="tpxd",
    )
    most = max_bytes - 8
    frames: list[frame.FrameTypes] = [
        Basic.Publish(exchange=exchange, routing_key=key, mandatory=True),
        ContentHeader(body_size=len(body), properties=properties),
        *(ContentBody(body[begin : begin + most]) for begin in range(0, len(body), most)),
    ]
    made = codec.encode_publish(1, exchange, key, body, name, seconds, max_bytes)
    assert made == b"".join(frame.marshal(value, 1) for value in frames)
    assert all(len(payload) + 8 <= max_bytes for _, _, payload in split(bytearray(made), max_bytes))


def test_publish_by_hand() -> None:
    assert codec.encode_publish(1, "x", "k", b"{}", "i", 1, 4096) == bytes.fromhex(
        "01 0001 0000000b 003c 0028 0000 01 78 01 6b 01 ce"
        "02 0001 0000002f 003c 0000 0000000000000002 90c8 10 6170706c69636174696f6e2f6a736f6e 02 01 69"
        "0000000000000001 04 74707864 ce"
        "03 0001 00000002 7b7d ce"
    )


def test_publish_refuses_what_the_protocol_cannot_say() -> None:
    assert codec.encode_publish(1, "x", "k" * 255, b"", "i", 1, 4096)
    with pytest.raises(LocalMisuse, match="256 bytes is longer than the 255 allowed"):
        codec.encode_publish(1, "x", "k" * 256, b"", "i", 1, 4096)


@given(SHORT.filter(bool), st.dictionaries(st.text("ab", min_size=1), st.integers(0, 9) | SHORT, max_size=3))
def test_the_message_id_is_found_among_other_properties(name: str, headers: dict[str, int | str]) -> None:
    """A broker may add headers to what it sends back."""
    properties = Basic.Properties(headers=dict(headers), message_id=name, priority=3, app_id="tpxd")
    data = frame.marshal(ContentHeader(body_size=0, properties=properties), 1)
    ((_, header),) = decode_all(bytearray(data))
    assert isinstance(header, Header)
    assert codec.message_id(header) == name


def test_no_message_id() -> None:
    assert codec.message_id(Header(0, b"\0\0")) is None
    with pytest.raises(RemoteViolation, match="properties that do not exist"):
        codec.message_id(Header(0, b"\0\1"))


def test_methods_are_encoded() -> None:
    assert codec.encode(Basic.Ack(7), 2) == bytes.fromhex("01 0002 0000000d 003c 0050 0000000000000007 00 ce")
    assert frame.marshal(PamqpHeartbeat(), 0) == codec.HEARTBEAT
    assert codec.PROTOCOL_HEADER == b"AMQP\x00\x00\x09\x01"
    with pytest.raises(LocalMisuse, match=r"Queue\.Bind cannot be sent"):
        codec.encode(Queue.Bind(queue="q", exchange="x", routing_key="k" * 256), 2)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("IotFlowExchange", None),
        ("amqp.topic", None),
        ("x" * 127, None),
        ("", "is empty"),
        ("x" * 128, "more than 127 characters"),
        ("a*b", "may hold letters"),
        ("a\n", "may hold letters"),
    ],
)
def test_name_fault(name: str, fault: str | None) -> None:
    found = codec.name_fault(name)
    assert found is None if fault is None else found is not None and fault in found


def test_reply_names() -> None:
    assert codec.reply_name(404) == "NOT-FOUND"
    assert codec.reply_name(999) == ""
