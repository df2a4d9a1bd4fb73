"""The broker's side of an MQTT link, spoken packet by packet by a test."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from tpxd.wire.mqtt.codec import split

NAMES = {1: "CONNECT", 3: "PUBLISH", 4: "PUBACK", 8: "SUBSCRIBE", 10: "UNSUBSCRIBE", 12: "PINGREQ", 14: "DISCONNECT"}
CONNACK = b"\x20\x02\x00\x00"
RESUMED = b"\x20\x02\x01\x00"
"""A CONNACK that tells of a session from before."""
PINGRESP = b"\xd0\x00"


@dataclass(frozen=True, slots=True)
class FromClient:
    """One packet that the client sent; what follows its packet id is `rest`."""

    name: str
    flags: int = 0
    packet_id: int = 0
    topic: str = ""
    rest: bytes = b""


def parse(first: int, rest: bytes) -> FromClient:
    name, flags, topic = NAMES[first >> 4], first & 0x0F, ""
    if name == "PUBLISH":
        size = int.from_bytes(rest[:2], "big")
        topic, rest = rest[2 : 2 + size].decode(), rest[2 + size :]
    has_id = name in ("PUBACK", "SUBSCRIBE", "UNSUBSCRIBE") or (name == "PUBLISH" and flags & 6)
    packet_id = int.from_bytes(rest[:2], "big") if has_id else 0
    return FromClient(name, flags, packet_id, topic, rest[2:] if has_id else rest)


class ScriptedBroker:
    """Reads what the client sends, and says what the test says."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()
        self._packets: list[FromClient] = []

    async def next(self) -> FromClient:
        """The client's next packet."""
        while not self._packets:
            data = await self.stream.receive_some()
            assert data, "the client closed the link"
            self._buffer += data
            self._packets += [parse(first, rest) for first, rest in split(self._buffer)[0]]
        return self._packets.pop(0)

    async def expect(self, name: str) -> FromClient:
        """The client's next packet, which must be of this name."""
        packet = await self.next()
        assert packet.name == name, packet
        return packet

    async def ended(self) -> None:
        """Wait until the client has closed, having said nothing more."""
        assert not self._packets
        assert not await self.stream.receive_some()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def accept(self) -> FromClient:
        """Let the client in; returns its CONNECT."""
        connect = await self.expect("CONNECT")
        await self.send(CONNACK)
        return connect


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def suback(packet_id: int, *codes: int) -> bytes:
    return bytes((0x90, 2 + len(codes))) + packet_id.to_bytes(2, "big") + bytes(codes)


def unsuback(packet_id: int) -> bytes:
    return b"\xb0\x02" + packet_id.to_bytes(2, "big")


def filters_of(packet: FromClient) -> list[str]:
    """The topic filters of a SUBSCRIBE, which must ask for QoS 1, or of an UNSUBSCRIBE."""
    rest, found = packet.rest, []
    while rest:
        end = 2 + int.from_bytes(rest[:2], "big")
        found.append(rest[2:end].decode())
        rest = rest[end:]
        if packet.name == "SUBSCRIBE":
            assert rest[0] == 1
            rest = rest[1:]
    return found


def publish(topic: str, body: bytes, packet_id: int | None = None) -> bytes:
    """A short PUBLISH of QoS 0, or of QoS 1 where it has an id."""
    number = b"" if packet_id is None else packet_id.to_bytes(2, "big")
    rest = len(topic).to_bytes(2, "big") + topic.encode() + number + body
    assert len(rest) < 128
    return bytes((0x30 if packet_id is None else 0x32, len(rest))) + rest
