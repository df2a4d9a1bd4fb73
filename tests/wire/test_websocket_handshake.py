"""Byte streams over WebSockets: what is asked for, and how servers refuse it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.wire.websocket_link import MQTT, PLACE, accepting, frame, read_frame, read_head, shake_hands
from tpxd.errors import AuthenticationFailed, ConnectFailed
from tpxd.wire.streams import Endpoint, WebSocket, open_stream
from tpxd.wire.websocket import open_link, open_websocket

# ---- in memory


async def test_what_is_asked_for(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, _, _, request = await shake_hands(nursery, accepting)
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


async def test_bytes_that_come_with_the_handshake_are_not_lost(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stream, _, _, _ = await shake_hands(nursery, lambda request: accepting(request) + frame(0x82, b"hello"))
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
async def test_refusals(nursery: trio.Nursery, answer: bytes, kind: type[Exception], message: str, hint: str) -> None:
    with pytest.raises((AuthenticationFailed, ConnectFailed)) as caught:
        await shake_hands(nursery, lambda request: answer)
    assert type(caught.value) is kind
    assert caught.value.message.startswith(f"{PLACE}: ")
    assert caught.value.message.endswith("(WebSocket handshake)")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


SIGNED = WebSocket("/mqtt", "mqtt", query="X-Sign=fAke", login_hint="is the key right?")


async def test_a_query_that_lets_us_in_goes_out(nursery: trio.Nursery) -> None:
    _, _, _, request = await shake_hands(nursery, accepting, SIGNED)
    assert request.startswith(b"GET /mqtt?X-Sign=fAke HTTP/1.1\r\n")


@pytest.mark.parametrize("status", [b"403", b"404", b"500"])
async def test_a_query_that_lets_us_in_never_shows(nursery: trio.Nursery, status: bytes) -> None:
    with pytest.raises((AuthenticationFailed, ConnectFailed)) as caught:
        await shake_hands(nursery, lambda _: b"HTTP/1.1 %b X\r\nContent-Length: 0\r\n\r\n" % status, SIGNED)
    assert "fAke" not in f"{caught.value} {caught.value.hint} {SIGNED}"


async def test_who_asks_knows_best_why_a_server_may_refuse(nursery: trio.Nursery) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        await shake_hands(nursery, lambda _: b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n", SIGNED)
    assert caught.value.hint == "is the key right?"


async def test_a_server_that_chooses_no_subprotocol(nursery: trio.Nursery) -> None:
    with pytest.raises(ConnectFailed, match="not for mqtt") as caught:
        await shake_hands(nursery, lambda request: accepting(request, b""))
    assert "/mqtt?site=1" in (caught.value.hint or "")


async def test_a_server_that_chooses_another_subprotocol(nursery: trio.Nursery) -> None:
    with pytest.raises(ConnectFailed, match="no WebSocket handshake"):
        await shake_hands(nursery, lambda request: accepting(request, b"amqp"))


async def test_a_wrong_proof_of_having_read_the_key(nursery: trio.Nursery) -> None:
    with pytest.raises(ConnectFailed, match="no WebSocket handshake"):
        await shake_hands(nursery, lambda request: accepting(b"Sec-WebSocket-Key: of another\r\n"))


async def test_a_server_that_hangs_up_in_the_handshake(nursery: trio.Nursery) -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await open_websocket(nursery, near, MQTT, PLACE, "broker.example.net")


# ---- by an endpoint, over TCP


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
        async with open_link(Endpoint("127.0.0.1", port, websocket=MQTT), open_stream, 5) as stream:
            await stream.send_all(b"abc")
            assert await stream.receive_some() == b"cba"
        assert hosts == [[b"Host: 127.0.0.1:%d" % port]]


async def test_a_server_that_does_not_answer_the_handshake(autojump_clock: MockClock) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with server_that(serve) as port:
        with pytest.raises(ConnectFailed, match=r"no answer within 5 s \(WebSocket handshake\)"):
            async with open_link(Endpoint("127.0.0.1", port, websocket=MQTT), open_stream, 5):
                pytest.fail("it opened")


async def test_a_server_that_hangs_up_is_told_with_the_phase() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.aclose()

    async with server_that(serve) as port:
        with pytest.raises(ConnectFailed, match=r"closed the connection \(WebSocket handshake\)"):
            async with open_link(Endpoint("127.0.0.1", port, websocket=MQTT), open_stream, 5):
                pytest.fail("it opened")
