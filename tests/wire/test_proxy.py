"""Tunnels through proxies: what is asked, each refusal with its hop, and TLS inside TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.peers import pki
from tests.peers.ports import free_port
from tpxd.errors import AuthenticationFailed, ConnectFailed
from tpxd.wire.next_steps import NextStep
from tpxd.wire.proxy import Proxy
from tpxd.wire.streams import Endpoint, open_stream
from tpxd.wire.tls import TlsContextCache

CONTEXTS = TlsContextCache()
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
TARGET = "broker.example.net:8883"

Serve = Callable[[trio.abc.Stream], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on loopback, with TLS or without; yields its port."""

    async def serve_one(stream: trio.SocketStream) -> None:
        link = stream if tls is None else trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            await serve(link)
        except trio.BrokenResourceError:
            # the client under test refused us
            pass
        finally:
            await trio.aclose_forcefully(link)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve_one, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(1)
        assert data
        head += data
    return head


def answering(*parts: bytes, heads: list[bytes] | None = None) -> Serve:
    """A proxy that says this, in these parts, and then sends back what it reads."""

    async def serve(stream: trio.abc.Stream) -> None:
        head = await read_head(stream)
        if heads is not None:
            heads.append(head)
        for part in parts:
            await stream.send_all(part)
            await trio.testing.wait_all_tasks_blocked()
        while data := await stream.receive_some():
            await stream.send_all(data)

    return serve


async def relay(stream: trio.abc.Stream) -> None:
    """A proxy that really opens tunnels, to loopback only."""
    head = await read_head(stream)
    port = int(head.split(b" ")[1].rpartition(b":")[2])
    far = await trio.open_tcp_stream("127.0.0.1", port)

    async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        while data := await source.receive_some():
            await sink.send_all(data)
        nursery.cancel_scope.cancel()

    await stream.send_all(OPENED)
    async with far, trio.open_nursery() as nursery:
        nursery.start_soon(copy, stream, far)
        nursery.start_soon(copy, far, stream)


def through(port: int, username: str | None = None, password: str | None = None) -> Endpoint:
    proxy = Proxy("127.0.0.1", port, None, username, password)
    return Endpoint("broker.example.net", 8883, proxy=proxy)


async def failing(endpoint: Endpoint, kind: type[Exception] = ConnectFailed) -> tuple[str, str]:
    with pytest.raises((ConnectFailed, AuthenticationFailed)) as caught:
        await open_stream(endpoint, 5)
    assert type(caught.value) is kind
    return caught.value.message, caught.value.hint or ""


@pytest.mark.parametrize(
    ("login", "authorization"),
    [
        ((None, None), b""),
        # RFC 7617, 2
        (("Aladdin", "open sesame"), b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"),
        # RFC 7617, 2.1
        (("test", "123£"), b"Proxy-Authorization: Basic dGVzdDoxMjPCow==\r\n"),
        (("tpx", None), b"Proxy-Authorization: Basic dHB4Og==\r\n"),
    ],
)
async def test_what_is_asked_for(login: tuple[str | None, str | None], authorization: bytes) -> None:
    heads: list[bytes] = []
    async with listening(answering(OPENED, heads=heads)) as port:
        stream = await open_stream(through(port, *login), 5)
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.aclose()
    assert heads == [
        b"CONNECT broker.example.net:8883 HTTP/1.1\r\nHost: broker.example.net:8883\r\n%b\r\n" % authorization
    ]


async def test_an_ipv6_address_stands_in_brackets() -> None:
    heads: list[bytes] = []
    async with listening(answering(OPENED, heads=heads)) as port:
        endpoint = Endpoint("2001:db8::1", 8883, proxy=Proxy("127.0.0.1", port))
        await trio.aclose_forcefully(await open_stream(endpoint, 5))
    assert heads[0].startswith(b"CONNECT [2001:db8::1]:8883 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "parts",
    [
        (b"HTTP/1.0 200 OK\r\nProxy-Agent: x\r\nContent-Length: 5\r\n\r\n",),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 Fine\r\n\r\n",),
        (b"HTTP/1.1 2", b"00 \r\nX: y\r\n\r", b"\n"),
    ],
)
async def test_answers_that_open_a_tunnel(parts: tuple[bytes, ...]) -> None:
    async with listening(answering(*parts)) as port:
        stream = await open_stream(through(port), 5)
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.aclose()


@pytest.mark.parametrize(
    ("status", "kind", "place", "told", "hint"),
    [
        (407, AuthenticationFailed, "proxy 127.0.0.1:", "407 Proxy Authentication Required", "asks for a user name"),
        (401, AuthenticationFailed, "proxy 127.0.0.1:", "401 Unauthorized", "asks for a user name"),
        (403, ConnectFailed, "proxy 127.0.0.1:", f"refuses a tunnel to {TARGET}: 403 Forbidden", "allow CONNECT"),
        (405, ConnectFailed, "proxy 127.0.0.1:", "405 Method Not Allowed", "allow CONNECT"),
        (302, ConnectFailed, "proxy 127.0.0.1:", "302 Found", "allow CONNECT"),
        (500, ConnectFailed, f"{TARGET}: not reached through proxy 127.0.0.1:", "500 Internal", "may the proxy reach"),
        (502, ConnectFailed, f"{TARGET}: not reached through proxy 127.0.0.1:", "502 Bad Gateway", "may the proxy"),
        (503, ConnectFailed, f"{TARGET}: not reached through proxy 127.0.0.1:", "503 Service", "may the proxy"),
        (504, ConnectFailed, f"{TARGET}: not reached through proxy 127.0.0.1:", "504 Gateway", "may the proxy"),
    ],
)
async def test_refusals_name_the_hop(status: int, kind: type[Exception], place: str, told: str, hint: str) -> None:
    async with listening(answering(b"HTTP/1.1 %d Its own words\r\nContent-Length: 2\r\n\r\nno" % status)) as port:
        message, next_step = await failing(through(port), kind)
    assert message.startswith(place)
    assert f"127.0.0.1:{port}" in message
    assert told in message
    assert "own words" not in message
    assert hint in next_step


async def test_credentials_that_are_refused_are_not_asked_for_again_and_never_shown() -> None:
    async with listening(answering(b"HTTP/1.1 407 No\r\n\r\n")) as port:
        message, hint = await failing(through(port, "tpx", "s3cret"), AuthenticationFailed)
    assert hint == NextStep.PROXY_LOGIN_RIGHT
    assert "s3cret" not in message + repr(through(port, "tpx", "s3cret"))


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ((b"SSH-2.0-OpenSSH_9.2\r\n\r\n",), "its answer is no HTTP"),
        ((b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,), "its answer is no HTTP"),
        ((OPENED + b"too early",), f"something came through the tunnel to {TARGET}"),
    ],
)
async def test_no_proxy(parts: tuple[bytes, ...], told: str) -> None:
    async with listening(answering(*parts)) as port:
        message, _ = await failing(through(port))
    assert len(message) < 400
    assert message.startswith(f"proxy 127.0.0.1:{port}: ")
    assert told in message


async def test_a_proxy_that_hangs_up() -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await read_head(stream)

    async with listening(hang_up) as port:
        message, hint = await failing(through(port))
    assert message == f"proxy 127.0.0.1:{port}: it closed the connection instead of opening a tunnel to {TARGET}"
    assert "HTTP proxy" in str(hint)


async def test_a_proxy_that_stays_silent(autojump_clock: MockClock) -> None:
    async def stay_silent(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with listening(stay_silent) as port:
        message, _ = await failing(through(port))
    assert message == f"proxy 127.0.0.1:{port}: no answer within 5 s (CONNECT)"


async def test_a_proxy_that_is_away() -> None:
    port = free_port()
    message, hint = await failing(through(port))
    assert message == f"proxy 127.0.0.1:{port}: connection refused (TCP)"
    assert hint == "is the server running there, and is the port right?"


async def test_what_fails_behind_the_proxy_names_both() -> None:
    async with listening(answering(OPENED)) as port:
        endpoint = Endpoint(
            "broker.example.net", 8883, CONTEXTS(ca=pki.ca().certificate), proxy=Proxy("127.0.0.1", port)
        )
        message, _ = await failing(endpoint)
    assert message.startswith(f"{TARGET} through proxy 127.0.0.1:{port}: ")
    assert message.endswith("(TLS handshake)")


def server_context(directory: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.server(name).write(directory, name))
    return context


async def test_tls_to_the_proxy_and_tls_within_the_tunnel(tmp_path: Path) -> None:
    async def echo(stream: trio.abc.Stream) -> None:
        while data := await stream.receive_some():
            await stream.send_all(data)

    trusted = CONTEXTS(ca=pki.ca().certificate)
    async with (
        listening(echo, server_context(tmp_path, "localhost")) as port,
        listening(relay, server_context(tmp_path, "127.0.0.1")) as proxy_port,
    ):
        proxy = Proxy("127.0.0.1", proxy_port, trusted)
        stream = await open_stream(Endpoint("localhost", port, trusted, proxy=proxy), 5)
        sent = b"x" * 100_000
        received = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, sent)
            while len(received) < len(sent):
                received += await stream.receive_some()
        assert received == sent
        await stream.aclose()


async def test_a_proxy_whose_certificate_is_not_trusted(tmp_path: Path) -> None:
    async with listening(relay, server_context(tmp_path, "127.0.0.1")) as port:
        endpoint = Endpoint("broker.example.net", 8883, proxy=Proxy("127.0.0.1", port, CONTEXTS()))
        message, hint = await failing(endpoint)
    assert message.startswith(f"proxy 127.0.0.1:{port}: the server's certificate was issued by a CA")
    assert "trust " in hint


async def test_a_cancelled_opening_leaves_nothing_open() -> None:
    ended = trio.Event()

    async def wait_for_the_end(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        assert await stream.receive_some() == b""
        ended.set()

    async with listening(wait_for_the_end) as port:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_stream, through(port), 60)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await ended.wait()
