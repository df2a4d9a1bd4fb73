"""Our end of a WebSocket in memory, and the server's half of it made from RFC 6455 alone."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from tpxd.wire.streams import WebSocket, one_error
from tpxd.wire.websocket import WebSocketStream, open_websocket

MemoryStream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]

MQTT = WebSocket("/mqtt?site=1", "mqtt")
PLACE = "broker.example.net:443"


def accepting(request: bytes, subprotocol: bytes = b"mqtt") -> bytes:
    """The server's half of the handshake, made from RFC 6455, 4.2.2 alone."""
    (key,) = [line[19:] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    chosen = b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol if subprotocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, chosen)
    )


async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    return head


async def shake_hands(
    tasks: trio.Nursery, answer: Callable[[bytes], bytes], options: WebSocket = MQTT
) -> tuple[WebSocketStream, MemoryStream, MemoryStream, bytes]:
    """Our stream, our end and the server's end beneath it, and the request that we sent.

    Args:
        tasks: where our stream is read.
    """
    near, far = memory_stream_pair()
    opened: list[WebSocketStream] = []
    request = b""

    async def open_it() -> None:
        opened.append(await open_websocket(tasks, near, options, PLACE, "broker.example.net"))

    with one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_it)
            request = await read_head(far)
            await far.send_all(answer(request))
    return opened[0], near, far, request


async def read_frame(stream: trio.abc.ReceiveStream) -> tuple[int, bytes, bool]:
    """First byte, unmasked payload, and whether it was masked; for payloads under 126 bytes or of two-byte length."""

    async def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = await stream.receive_some(count - len(data))
            assert part, "the client closed"
            data += part
        return data

    first, second = await exactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", await exactly(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", await exactly(8))
    mask = await exactly(4) if second & 0x80 else b"\0\0\0\0"
    payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(await exactly(size)))
    return first, payload, bool(second & 0x80)


def frame(first: int, payload: bytes) -> bytes:
    """A frame as a server sends it: not masked."""
    if len(payload) < 126:
        return bytes([first, len(payload)]) + payload
    if len(payload) < 1 << 16:
        return bytes([first, 126]) + struct.pack(">H", len(payload)) + payload
    return bytes([first, 127]) + struct.pack(">Q", len(payload)) + payload
