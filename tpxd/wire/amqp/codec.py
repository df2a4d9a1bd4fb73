"""AMQP 0-9-1 frames as bytes: what a client sends, and what a broker may send to it.

The only file that imports pamqp, the codec under aiormq: its method classes are the vocabulary of the files above, and
its table of reply codes names the errors. aiormq itself would add the SASL mechanisms (two strings, made in `amqp`)
and the same error names again, but importing any part of it takes 60 ms and loads asyncio and yarl.

pamqp reads a text that is cut short as a shorter one, and overlooks bytes too many. So a frame is cut out of the stream
first, only what a broker may say is looked up, and pamqp reads one argument at a time, each of which must end inside
the frame, the last one at its end. Tables and properties of deliveries are skipped: nothing here asks for them, and a
strange header of somebody's command is no reason to end a link.

Basic.Publish with its content, Basic.Ack and Basic.Nack are done here: they come with every uplink, for which pamqp
takes 13 µs and this 2 µs.

Source: AMQP 0-9-1, sections 2.3.5 and 4.2; RabbitMQ's extensions Confirm, Basic.Nack and Connection.Blocked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pamqp import decode as values
from pamqp import frame
from pamqp.base import Frame as Method
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue
from pamqp.constants import DOMAIN_REGEX
from pamqp.exceptions import CLASS_MAPPING

from tpxd.errors import LocalMisuse, RemoteViolation

__all__ = [
    "Basic", "Body", "Channel", "Confirm", "Confirmation", "Connection", "Exchange", "Frame", "Header", "Heartbeat",
    "Method", "Queue",
]  # fmt: skip

PROTOCOL_HEADER = b"AMQP\0\0\x09\x01"
HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"
# both sides must take frames of this size before they have agreed on one
MIN_FRAME_BYTES = 4096
FRAME_OVERHEAD_BYTES = 8
MAX_SHORT_TEXT_BYTES = 255
MAX_NAME_CHARACTERS = 127

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_KINDS = {_METHOD: "method", _HEADER: "content header", _BODY: "content body", _HEARTBEAT: "heartbeat"}
_END = 0xCE
_START = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HHQ")
_CONFIRMATION = struct.Struct(">IQB")
_BASIC = 60
_ACK, _NACK = 0x003C0050, 0x003C0078

_FROM_BROKER: dict[int, type[Method]] = {
    method.index: method
    for method in (
        Connection.Start, Connection.Secure, Connection.Tune, Connection.OpenOk, Connection.Close, Connection.CloseOk,
        Connection.Blocked, Connection.Unblocked, Channel.OpenOk, Channel.Flow, Channel.Close, Channel.CloseOk,
        Exchange.DeclareOk, Queue.DeclareOk, Queue.BindOk, Queue.UnbindOk, Confirm.SelectOk, Basic.QosOk,
        Basic.ConsumeOk, Basic.Cancel, Basic.CancelOk, Basic.Deliver, Basic.Return,
    )
}  # fmt: skip


@dataclass(slots=True)
class Confirmation:
    """Basic.Ack, or Basic.Nack where `refused`, of what was published. Not frozen: one comes with most uplinks."""

    tag: int
    multiple: bool
    refused: bool


@dataclass(frozen=True, slots=True)
class Header:
    """What precedes the bodies of a message; `properties` as they came, see `message_id`."""

    body_bytes: int
    properties: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """A piece of a message."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The broker lives."""


Frame = Confirmation | Method | Header | Body | Heartbeat


def split(buffer: bytearray, max_frame_bytes: int) -> list[tuple[int, int, bytes]]:
    """Cut all complete frames off the front of `buffer`: kind, channel, payload.

    Raises:
        RemoteViolation: a frame is longer than `max_frame_bytes`, of an unknown kind, or not ended as it must be.
    """
    frames: list[tuple[int, int, bytes]] = []
    start, end = 0, len(buffer)
    while end - start >= FRAME_OVERHEAD_BYTES:
        kind, channel, size = _START.unpack_from(buffer, start)
        if kind not in _KINDS:
            raise RemoteViolation(f"a frame of the unknown kind {kind}")
        if size + FRAME_OVERHEAD_BYTES > max_frame_bytes:
            total = size + FRAME_OVERHEAD_BYTES
            raise RemoteViolation(f"a {_KINDS[kind]} of {total} bytes is longer than the {max_frame_bytes} allowed")
        last = start + 7 + size
        if last >= end:
            break
        if buffer[last] != _END:
            raise RemoteViolation(f"a {_KINDS[kind]} ends with {buffer[last]:#04x} instead of 0xce")
        frames.append((kind, channel, bytes(buffer[start + 7 : last])))
        start = last + 1
    del buffer[:start]
    return frames


def decode(kind: int, channel: int, payload: bytes) -> Frame:
    """Read one frame of `split`.

    Raises:
        RemoteViolation: it is damaged, or none that a broker may send.
    """
    if kind == _METHOD:
        if len(payload) == _CONFIRMATION.size:
            index, tag, bits = _CONFIRMATION.unpack(payload)
            if index in (_ACK, _NACK):
                return Confirmation(tag, bool(bits & 1), index == _NACK)
        return _decode_method(payload)
    if kind == _BODY:
        return Body(payload)
    if kind == _HEADER:
        return _decode_header(payload)
    if channel or payload:
        raise RemoteViolation(f"a heartbeat of {len(payload)} bytes on channel {channel}")
    return Heartbeat()


def _decode_method(payload: bytes) -> Method:
    index = int.from_bytes(payload[:4], "big")
    method_class = _FROM_BROKER.get(index)
    if method_class is None or len(payload) < 4:
        number = f"{index >> 16}.{index & 0xFFFF}"
        raise RemoteViolation(f"a method {number} of {len(payload)} bytes is none that a broker may send")
    method = method_class()
    kinds = [(name, method_class.amqp_type(name)) for name in method_class.attributes()]
    for name, value in _read(method_class.name, kinds, payload[4:]).items():
        setattr(method, name, value)
    return method


def _decode_header(payload: bytes) -> Header:
    if len(payload) < _CONTENT.size + 2:
        raise RemoteViolation(f"a content header of {len(payload)} bytes")
    class_id, weight, body_bytes = _CONTENT.unpack_from(payload)
    if class_id != _BASIC or weight:
        raise RemoteViolation(f"a content header of class {class_id} and weight {weight}")
    return Header(body_bytes, payload[_CONTENT.size :])


def message_id(header: Header) -> str | None:
    """The message id among the properties of a returned message, or None.

    Raises:
        RemoteViolation: the properties are damaged.
    """
    flags = int.from_bytes(header.properties[:2], "big")
    if flags & 3:
        raise RemoteViolation("a content header with properties that do not exist")
    properties = Basic.Properties
    kinds = [(name, properties.amqp_type(name)) for name in properties.attributes() if flags & properties.flags[name]]
    found: str | None = _read("content header", kinds, header.properties[2:]).get("message_id")
    return found


def _read(what: str, kinds: Iterable[tuple[str, str]], data: bytes) -> dict[str, Any]:
    """Read arguments of these AMQP types, to the last byte."""
    arguments: dict[str, Any] = {}
    at = bits = 0
    try:
        for name, kind in kinds:
            if kind == "bit":
                # neighbours share an octet; no method of a broker has more than eight
                at += not bits
                arguments[name] = bool(data[at - 1] >> bits & 1)
                bits += 1
                continue
            bits = 0
            if kind == "table":
                size, arguments[name] = 4 + int.from_bytes(data[at : at + 4], "big"), {}
            else:
                size, arguments[name] = values.by_type(data[at:], kind)
            at += size
    except (ValueError, IndexError, OverflowError, OSError) as error:
        raise RemoteViolation(f"a {what} cannot be read: {error}") from error
    if at != len(data):
        raise RemoteViolation(f"a {what} is malformed: {at} bytes of arguments in {len(data)} bytes")
    return arguments


def reply_name(code: int) -> str:
    """What AMQP calls a reply code, such as NOT-FOUND for 404; "" where it has no name."""
    name: str = getattr(CLASS_MAPPING.get(code), "name", "")
    return name


def name_fault(name: str) -> str | None:
    """Say what makes `name` none that an exchange or a queue can have, or None when it is fine.

    Source: AMQP 0-9-1, domains exchange-name and queue-name, as widened by brokers.
    """
    if not name:
        return "is empty"
    if len(name) > MAX_NAME_CHARACTERS:
        return f"has more than {MAX_NAME_CHARACTERS} characters"
    if not DOMAIN_REGEX["exchange-name"].fullmatch(name):
        return "may hold letters, digits, blanks and - _ . : @ # , / + only"
    return None


def encode(method: Method, channel: int) -> bytes:
    """Make the frame of a method.

    Raises:
        LocalMisuse: an argument is longer than the protocol allows, or no legal name.
    """
    try:
        return frame.marshal(method, channel)
    except (ValueError, TypeError, struct.error) as error:
        raise LocalMisuse(f"{method.name} cannot be sent: {error}") from error


# Basic.Publish, section 1.8.3.7, up to its exchange; then mandatory, and the content header up to the body's size
_PUBLISH = struct.Struct(">BHIIH")
_MANDATORY_THEN_HEADER = struct.Struct(">BBBHIHHQ")
# content-type, delivery-mode, message-id, timestamp, app-id
_PROPERTIES = b"\x90\xc8\x10application/json\x02"
_APP_ID = b"\x04tpxd\xce"


def encode_publish(
    channel: int, exchange: str, routing_key: str, body: bytes, message_id: str, timestamp_s: int, max_frame_bytes: int
) -> bytes:
    """Make the frames of a persistent, mandatory message of JSON; the body is cut to the frames' size.

    Raises:
        LocalMisuse: a text has more than `MAX_SHORT_TEXT_BYTES`.
    """
    place, key, name = exchange.encode(), routing_key.encode(), message_id.encode()
    size, most = len(body), max_frame_bytes - FRAME_OVERHEAD_BYTES
    try:
        parts = [
            _PUBLISH.pack(_METHOD, channel, 9 + len(place) + len(key), 0x003C0028, 0),
            _SHORT[len(place)],
            place,
            _SHORT[len(key)],
            key,
            _MANDATORY_THEN_HEADER.pack(1, _END, _HEADER, channel, 46 + len(name), _BASIC, 0, size),
            _PROPERTIES,
            _SHORT[len(name)],
            name,
            timestamp_s.to_bytes(8, "big"),
            _APP_ID,
        ]
    except IndexError:
        longest = max(map(len, (place, key, name)))
        raise LocalMisuse(f"a text of {longest} bytes is longer than the {MAX_SHORT_TEXT_BYTES} allowed") from None
    for begin in range(0, size, most):
        piece = body if size <= most else body[begin : begin + most]
        parts += (_START.pack(_BODY, channel, len(piece)), piece, _END_OCTET)
    return b"".join(parts)


_SHORT = [bytes((length,)) for length in range(MAX_SHORT_TEXT_BYTES + 1)]
_END_OCTET: Literal[b"\xce"] = b"\xce"
