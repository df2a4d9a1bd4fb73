"""Byte streams over WebSockets: the handshake and its refusals, frames byte by byte, and what hostile servers send."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MemorySendStream, MockClock, check_two_way_stream, memory_stream_pair

from tests.wire.websocket_server import accept_websocket
from tpxd.errors import AuthenticationFailed, ConnectFailed, RemoteViolation
from tpxd.wire.streams import Endpoint, explain, one_error, open_stream
from tpxd.wire.websocket import READ_BYTES, WebSocket, WebSocketStream, open_websocket

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
    answer: Callable[[bytes], bytes], options: WebSocket = MQTT
) -> tuple[WebSocketStream, trio.abc.Stream, bytes]:
    """Our stream, the server's end beneath it, and the request that we sent."""
    near, far = memory_stream_pair()
    opened: list[WebSocketStream] = []
    request = b""

    async def open_it() -> None:
        opened.append(await open_websocket(near, options, PLACE, "broker.example.net"))

    with one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_it)
            request = await read_head(far)
            await far.send_all(answer(request))
    return opened[0], far, request


async def opened() -> tuple[WebSocketStream, trio.abc.Stream]:
    stream, far, _ = await shake_hands(accepting)
    return stream, far


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


@contextmanager
def slow(stream: WebSocketStream, wait: Callable[[], Awaitable[object]]) -> Iterator[None]:
    """Whatever the stream writes while the block lasts waits for `wait` first."""
    assert isinstance(stream._stream, trio.StapledStream)
    sender = stream._stream.send_stream
    assert isinstance(sender, MemorySendStream)
    hand_over = sender.send_all_hook
    assert hand_over is not None

    async def waiting() -> None:
        await wait()
        await hand_over()

    sender.send_all_hook = waiting
    yield
    sender.send_all_hook = hand_over


# ---- the handshake


async def test_what_is_asked_for() -> None:
    stream, _, request = await shake_hands(accepting)
    lines = request.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ") for line in lines[1:-2])}
    assert lines[0] == "GET /mqtt?site=1 HTTP/1.1"
    assert headers.pop("sec-websocket-key")
    assert {name: value.lower() for name, value in headers.items()} == {
        "host": "broker.example.net",
        "upgrade": "websocket",
        "connection": "upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "mqtt",
    }
    await stream.aclose()


async def test_bytes_that_come_with_the_handshake_are_not_lost() -> None:
    stream, _, _ = await shake_hands(lambda request: accepting(request) + frame(0x82, b"hello"))
    assert await stream.receive_some() == b"hello"
    await stream.aclose()


@pytest.mark.parametrize(
    ("answer", "kind", "message", "hint"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", AuthenticationFailed, "401 Unauthorized", "client certificate"),
        (b"HTTP/1.1 403 Nope\r\nContent-Length: 4\r\n\r\nNope", AuthenticationFailed, "403 Forbidden", "gateway"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", ConnectFailed, "404 Not Found", "path right? /mqtt?site=1 was asked for"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", ConnectFailed, "302 Found", "redirects are not followed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ConnectFailed, "200 OK", "does the server offer WebSockets"),
        (b"HTTP/1.1 799 Odd\r\n\r\n", ConnectFailed, "799 (", "does the server offer WebSockets"),
        (b"\x20\x02\x00\x00", ConnectFailed, "no WebSocket handshake", "does the server offer WebSockets"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", ConnectFailed, "no WebSocket handshake", "WebSockets"),
        (b"X" * 70_000, ConnectFailed, "no WebSocket handshake", "WebSockets"),
    ],
)
async def test_refusals(answer: bytes, kind: type[Exception], message: str, hint: str) -> None:
    with pytest.raises((AuthenticationFailed, ConnectFailed)) as caught:
        await shake_hands(lambda request: answer)
    assert type(caught.value) is kind
    assert caught.value.message.startswith(f"{PLACE}: ")
    assert caught.value.message.endswith("(WebSocket handshake)")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


SIGNED = WebSocket("/mqtt", "mqtt", query="X-Sign=fAke", login_hint="is the key right?")


async def test_a_query_that_lets_us_in_goes_out() -> None:
    _, _, request = await shake_hands(accepting, SIGNED)
    assert request.startswith(b"GET /mqtt?X-Sign=fAke HTTP/1.1\r\n")


@pytest.mark.parametrize("status", [b"403", b"404", b"500"])
async def test_a_query_that_lets_us_in_never_shows(status: bytes) -> None:
    with pytest.raises((AuthenticationFailed, ConnectFailed)) as caught:
        await shake_hands(lambda _: b"HTTP/1.1 %b X\r\nContent-Length: 0\r\n\r\n" % status, SIGNED)
    assert "fAke" not in f"{caught.value} {caught.value.hint} {SIGNED}"


async def test_who_asks_knows_best_why_a_server_may_refuse() -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        await shake_hands(lambda _: b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n", SIGNED)
    assert caught.value.hint == "is the key right?"


async def test_a_server_that_chooses_no_subprotocol() -> None:
    with pytest.raises(ConnectFailed, match="not for mqtt") as caught:
        await shake_hands(lambda request: accepting(request, b""))
    assert "/mqtt?site=1" in (caught.value.hint or "")


async def test_a_server_that_chooses_another_subprotocol() -> None:
    with pytest.raises(ConnectFailed, match="no WebSocket handshake"):
        await shake_hands(lambda request: accepting(request, b"amqp"))


async def test_a_wrong_proof_of_having_read_the_key() -> None:
    with pytest.raises(ConnectFailed, match="no WebSocket handshake"):
        await shake_hands(lambda request: accepting(b"Sec-WebSocket-Key: of another\r\n"))


async def test_a_server_that_hangs_up_in_the_handshake() -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await open_websocket(near, MQTT, PLACE, "broker.example.net")


# ---- frames


async def test_each_send_is_one_masked_binary_message() -> None:
    stream, far = await opened()
    for size in (1, 125, 126, 70_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"\x5a" * size)
            assert await read_frame(far) == (0x82, b"\x5a" * size, True)
    await stream.aclose()


async def test_borders_of_messages_and_fragments_mean_nothing() -> None:
    stream, far = await opened()
    await far.send_all(frame(0x82, b"ab") + frame(0x02, b"c") + frame(0x00, b"d") + frame(0x80, b"e") + b"\x82")
    assert await stream.receive_some(3) == b"abc"
    assert await stream.receive_some() == b"de"
    await far.send_all(b"\x01f")
    assert await stream.receive_some() == b"f"
    await stream.aclose()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_bytes_arrive_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    async def main() -> None:
        stream, far = await opened()
        wire = b"".join(frame(0x82, message) for message in messages) + frame(0x88, struct.pack(">H", 1000))

        async def send() -> None:
            rest, number = wire, 0
            while rest:
                cut = cuts[number % len(cuts)]
                await far.send_all(rest[:cut])
                rest, number = rest[cut:], number + 1

        received = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while data := await stream.receive_some():
                received += data
        assert received == b"".join(messages)
        assert await stream.receive_some() == b""
        await stream.aclose()

    trio.run(main)


async def test_a_message_of_any_length_is_handed_on_piece_by_piece() -> None:
    stream, far = await opened()
    await far.send_all(b"\x82\x7f" + struct.pack(">Q", 1 << 40))
    await far.send_all(b"x" * 20 * READ_BYTES)
    total = 0
    while total < 20 * READ_BYTES:
        received = await stream.receive_some()
        assert len(received) <= READ_BYTES
        total += len(received)
    await stream.aclose()


async def test_pings_are_answered_while_bytes_are_waited_for() -> None:
    stream, far = await opened()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await far.send_all(frame(0x89, b"are you there"))
        assert await read_frame(far) == (0x8A, b"are you there", True)
        await far.send_all(frame(0x8A, b"unasked") + frame(0x82, b"x"))
    await stream.aclose()


async def test_a_flood_of_pings_gets_one_answer_when_there_is_room() -> None:
    stream, far = await opened()
    room = trio.Event()
    with slow(stream, room.wait):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"uplink")
            await trio.testing.wait_all_tasks_blocked()
            await far.send_all(b"".join(frame(0x89, b"%d" % n) for n in range(500)) + frame(0x82, b"x"))
            assert await stream.receive_some() == b"x"
            room.set()
    assert await read_frame(far) == (0x82, b"uplink", True)
    assert await read_frame(far) == (0x8A, b"499", True)
    await stream.aclose()


@pytest.mark.parametrize(
    ("wire", "told"),
    [
        (frame(0x81, b"text"), "a WebSocket message of text"),
        (frame(0x82, b"x")[:1] + b"\x81\0\0\0\0x", "no WebSocket frame: "),
        (b"\x83\x00", "no WebSocket frame: "),
        (b"\xc2\x00", "no WebSocket frame: "),
        (frame(0x80, b"a continuation of nothing"), "no WebSocket frame: "),
        (b"\x89\x7e\x00\x7e" + b"x" * 126, "no WebSocket frame: "),
        (b"\x88\x01x", "no WebSocket frame: "),
        (frame(0x88, struct.pack(">H", 1008) + b"not\nwelcome"), "closed with code 1008 notwelcome"),
        (frame(0x88, struct.pack(">H", 1011)), "closed with code 1011"),
    ],
)
async def test_what_the_server_may_not_send(wire: bytes, told: str) -> None:
    stream, far = await opened()
    await far.send_all(frame(0x82, b"before") + wire)
    assert await stream.receive_some() == b"before"
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        assert isinstance(caught.value.__cause__, RemoteViolation)
        assert told in explain(caught.value)[0]
    await stream.aclose()


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_an_ordinary_end(code: int | None) -> None:
    stream, far = await opened()
    await far.send_all(frame(0x82, b"last") + frame(0x88, struct.pack(">H", code) if code else b""))
    assert [await stream.receive_some() for _ in range(3)] == [b"last", b"", b""]
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"too late")
    await stream.aclose()
    first, _, masked = await read_frame(far)
    assert (first, masked) == (0x88, True)
    assert await far.receive_some() == b""


async def test_an_end_without_a_close_frame() -> None:
    stream, far = await opened()
    await far.send_all(frame(0x82, b"last"))
    await far.aclose()
    assert [await stream.receive_some() for _ in range(3)] == [b"last", b"", b""]
    await stream.aclose()


async def test_closing_says_goodbye() -> None:
    stream, far = await opened()
    await stream.aclose()
    assert await read_frame(far) == (0x88, struct.pack(">H", 1000), True)
    assert await far.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    await stream.aclose()


async def test_closing_does_not_wait_for_a_server_that_reads_nothing(autojump_clock: MockClock) -> None:
    stream, _ = await opened()
    with slow(stream, trio.sleep_forever), trio.fail_after(1.5):
        await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream._stream.send_all(b"x")


async def test_nothing_follows_a_frame_that_was_cut_off(autojump_clock: MockClock) -> None:
    stream, far = await opened()
    with slow(stream, trio.sleep_forever), trio.move_on_after(1):
        await stream.send_all(b"cut off")
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"more")
    await far.send_all(frame(0x89, b"ping") + frame(0x82, b"x"))
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    await stream.aclose()


async def test_a_send_that_was_cancelled_before_it_began_harms_nothing() -> None:
    stream, far = await opened()
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.send_all(b"never")
    await stream.send_all(b"second")
    assert await read_frame(far) == (0x82, b"second", True)
    await stream.aclose()


# ---- as a stream of trio, over TCP


async def both_ends() -> tuple[WebSocketStream, WebSocketStream]:
    near, far = memory_stream_pair()
    found: list[WebSocketStream] = []

    async def open_near() -> None:
        found.append(await open_websocket(near, MQTT, PLACE, "broker.example.net"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_near)
        accepted = await accept_websocket(far)
    return found[0], accepted


async def test_it_keeps_trios_rules_for_streams() -> None:
    await check_two_way_stream(both_ends, None)


@asynccontextmanager
async def server_that(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_an_endpoint_may_ask_for_a_websocket() -> None:
    hosts = []

    async def serve(stream: trio.SocketStream) -> None:
        request = await read_head(stream)
        hosts.append([line for line in request.split(b"\r\n") if line.lower().startswith(b"host")])
        await stream.send_all(accepting(request))
        _, payload, _ = await read_frame(stream)
        await stream.send_all(frame(0x82, payload[::-1]))

    async with server_that(serve) as port:
        stream = await open_stream(Endpoint("127.0.0.1", port, websocket=MQTT), 5)
        await stream.send_all(b"abc")
        assert await stream.receive_some() == b"cba"
        await stream.aclose()
        assert hosts == [[b"Host: 127.0.0.1:%d" % port]]


async def test_a_server_that_does_not_answer_the_handshake(autojump_clock: MockClock) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with server_that(serve) as port:
        with pytest.raises(ConnectFailed, match=r"no answer within 5 s \(WebSocket handshake\)"):
            await open_stream(Endpoint("127.0.0.1", port, websocket=MQTT), 5)


async def test_a_server_that_hangs_up_is_told_with_the_phase() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.aclose()

    async with server_that(serve) as port:
        with pytest.raises(ConnectFailed, match=r"closed the connection \(WebSocket handshake\)"):
            await open_stream(Endpoint("127.0.0.1", port, websocket=MQTT), 5)
