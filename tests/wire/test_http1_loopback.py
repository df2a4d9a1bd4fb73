"""The HTTP/1.1 server on real sockets, with h11 and the system as its peers."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import pytest
import trio
import trio.testing

from tests.peers import pki
from tpxd.wire.http import CannotListen, Limits, Request, Respond, Response, serve_http
from tpxd.wire.http.listen import TcpStream, accept_streams, open_listeners

ENOUGH_S = 10.0


async def echo(request: Request) -> Response:
    return Response(200, b"%b %b from %b" % (request.method.encode(), request.body, request.peer.encode()))


@asynccontextmanager
async def serving(
    respond: Respond = echo,
    *,
    address: str = "127.0.0.1:0",
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[list[tuple[str, int]]]:
    """Where a server listens, while it runs."""

    async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve_http(address, respond, limits=limits or Limits(), tls=tls, task_status=task_status)

    with trio.fail_after(ENOUGH_S):
        async with trio.open_nursery() as nursery:
            bound: list[str] = await nursery.start(serve)
            yield [(host.strip("[]"), int(port)) for host, _, port in (each.rpartition(":") for each in bound)]
            nursery.cancel_scope.cancel()


async def ask(
    stream: trio.abc.Stream, client: h11.Connection, method: str, body: bytes, *, chunked: bool = False
) -> tuple[int, bytes]:
    """One request through h11, which is strict about what it gets back."""
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))
    request = h11.Request(method=method, target="/uplink?a=1", headers=[("Host", "x"), framing])
    for part in (request, h11.Data(data=body), h11.EndOfMessage()):
        await stream.send_all(client.send(part) or b"")
    status, received = 0, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            received += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, received
        else:
            raise AssertionError(event)


async def read_all(stream: trio.abc.Stream) -> bytes:
    """What comes until the end, or until the system says that there was more than that."""
    received = b""
    try:
        async for data in stream:
            received += data
    except trio.BrokenResourceError:
        pass
    return received


async def test_h11_understands_every_answer() -> None:
    async with serving() as [(host, port)]:
        stream = await trio.open_tcp_stream(host, port)
        client = h11.Connection(h11.CLIENT)
        for method, body, chunked in (
            ("POST", b"x" * 200_000, False),
            ("GET", b"", False),
            ("PUT", b"y" * 200_000, True),
        ):
            status, received = await ask(stream, client, method, body, chunked=chunked)
            assert (status, received) == (200, method.encode() + b" " + body + b" from 127.0.0.1")
            client.start_next_cycle()
        assert await ask(stream, client, "HEAD", b"") == (200, b"")
        await stream.aclose()


async def test_many_clients_at_once() -> None:
    answers = 0

    async def talk(address: tuple[str, int]) -> None:
        nonlocal answers
        stream = await trio.open_tcp_stream(*address)
        client = h11.Connection(h11.CLIENT)
        for n in range(20):
            body = b"%d" % n
            assert await ask(stream, client, "POST", body) == (200, b"POST %b from 127.0.0.1" % body)
            client.start_next_cycle()
            answers += 1
        await stream.aclose()

    async with serving() as [address], trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(talk, address)
    assert answers == 1000


async def test_an_answer_larger_than_every_buffer_arrives_whole() -> None:
    body = bytes(range(256)) * 16_384

    async def large(request: Request) -> Response:
        return Response(200, body)

    async with serving(large) as [(host, port)]:
        stream = await trio.open_tcp_stream(host, port)
        assert await ask(stream, h11.Connection(h11.CLIENT), "GET", b"") == (200, body)
        await stream.aclose()


@pytest.mark.parametrize("framing", [b"Content-Length: 2097152", b"Transfer-Encoding: chunked"])
async def test_a_refusal_reaches_a_sender_that_is_still_sending(framing: bytes) -> None:
    async with serving() as [(host, port)]:
        stream = await trio.open_tcp_stream(host, port)
        head = b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, head + b"200000\r\n" + b" " * (2 << 20))
            received = await read_all(stream)
        assert received.startswith(b"HTTP/1.1 413 ")
        assert received.endswith(b"\r\n\r\nthe body is larger than 262144 bytes\n")
        await stream.aclose()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"A" * 100_000,
        bytes(100_000),
        b"\r\n" * 50_000,
        b"\xff" * 10,
    ],
    ids=lambda garbage: repr(garbage[:20]),
)
async def test_garbage_is_refused_and_harms_nobody_else(garbage: bytes) -> None:
    async with serving() as [(host, port)]:
        good, bad = await trio.open_tcp_stream(host, port), await trio.open_tcp_stream(host, port)
        await bad.send_all(garbage)
        assert (await read_all(bad))[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5")
        assert await ask(good, h11.Connection(h11.CLIENT), "POST", b"a") == (200, b"POST a from 127.0.0.1")
        await bad.aclose()
        await good.aclose()


async def test_a_sender_that_vanishes_leaves_its_place_to_the_next() -> None:
    async with serving(limits=Limits(connections=1)) as [(host, port)]:
        for part in (b"", b"GE", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"):
            gone = await trio.open_tcp_stream(host, port)
            await gone.send_all(part)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            await gone.aclose()
            while True:
                stream = await trio.open_tcp_stream(host, port)
                status, _ = await ask(stream, h11.Connection(h11.CLIENT), "POST", b"a")
                await stream.aclose()
                if status == 200:
                    break
                assert status == 503, "the other one's end was not seen yet"


async def test_too_many_connections_are_told_so() -> None:
    async with serving(limits=Limits(connections=2)) as [(host, port)]:
        client = h11.Connection(h11.CLIENT)
        first, second = await trio.open_tcp_stream(host, port), await trio.open_tcp_stream(host, port)
        await ask(second, h11.Connection(h11.CLIENT), "GET", b"")
        await ask(first, client, "GET", b"")
        third = await trio.open_tcp_stream(host, port)
        assert await ask(third, h11.Connection(h11.CLIENT), "GET", b"") == (503, b"too many connections\n")
        assert await read_all(third) == b""
        client.start_next_cycle()
        assert (await ask(first, client, "GET", b""))[0] == 200
        for stream in (first, second, third):
            await stream.aclose()


async def test_the_port_is_closed_before_the_last_answer_is_given() -> None:
    asked, release = trio.Event(), trio.Event()

    async def slowly(request: Request) -> Response:
        asked.set()
        await release.wait()
        return await echo(request)

    stop = trio.CancelScope()

    async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:
        with stop:
            await serve_http("127.0.0.1:0", slowly, task_status=task_status)

    with trio.fail_after(ENOUGH_S):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(serve)
            port = int(address.rpartition(":")[2])
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await asked.wait()
            stop.cancel()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream("127.0.0.1", port)
            release.set()
            received = await read_all(stream)
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nConnection: close\r\n" in received
            await stream.aclose()


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0", ":0"])
async def test_addresses(address: str) -> None:
    async with serving(address=address) as bound:
        assert bound
        for host, port in bound:
            stream = await trio.open_tcp_stream({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)
            assert (await ask(stream, h11.Connection(h11.CLIENT), "GET", b""))[0] == 200
            await stream.aclose()


@pytest.mark.parametrize(
    "address", ["8090", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:8090", "1:²"]
)
async def test_texts_that_are_no_address(address: str) -> None:
    with pytest.raises(CannotListen, match="it is no host:port") as caught:
        await open_listeners(address)
    assert "[::1]:8090" in (caught.value.hint or "")


async def test_a_port_that_is_taken_and_a_name_that_is_unknown() -> None:
    async with serving() as [(host, port)]:
        with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            await serve_http(f"{host}:{port}", echo)
    with pytest.raises(CannotListen, match=r"cannot listen on no\.such\.host\.invalid:1: "):
        await serve_http("no.such.host.invalid:1", echo)


class Tired(socket.socket):
    """A listener whose system has had enough, a few times."""

    def __init__(self, listener: socket.socket, *errors: int) -> None:
        super().__init__(fileno=listener.detach())
        self.setblocking(False)
        self.errors = list(errors)

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if self.errors:
            raise OSError(self.errors.pop(0), "injected")
        return super().accept()


async def test_accepting_survives_an_exhausted_system(caplog: pytest.LogCaptureFixture) -> None:
    (listener,) = await open_listeners("127.0.0.1:0")
    tired = Tired(listener, errno.EMFILE, errno.ECONNABORTED, errno.EPROTO)
    address = tired.getsockname()
    send, accepted = trio.open_memory_channel[TcpStream](1)
    with trio.fail_after(ENOUGH_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_streams, tired, lambda stream, peer: send.send_nowait(stream))
            client = await trio.open_tcp_stream(*address)
            stream = await accepted.receive()
            await client.send_all(b"x")
            assert await stream.receive_some() == b"x"
            await stream.aclose()
            await client.aclose()
            nursery.cancel_scope.cancel()
    assert tired.fileno() == -1, "closed with its task"
    assert [
        record.message.startswith("no new connection can be accepted at 127.0.0.1:") for record in caplog.records
    ] == [True]


async def test_accepting_ends_when_the_listener_is_none() -> None:
    (listener,) = await open_listeners("127.0.0.1:0")
    tired = Tired(listener, errno.EBADF)
    async with trio.open_nursery() as nursery:
        client = await trio.open_tcp_stream(*tired.getsockname())
        with pytest.raises(OSError, match="injected"):
            await accept_streams(tired, lambda stream, peer: None)
        await client.aclose()
        nursery.cancel_scope.cancel()


async def test_tls_while_another_peer_never_shakes_hands(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pki.server("127.0.0.1").write(tmp_path, "server"))
    trusting = ssl.create_default_context(cadata=pki.ca().certificate)
    async with serving(tls=context) as [(host, port)]:
        silent = await trio.open_tcp_stream(host, port)
        stream = await trio.open_ssl_over_tcp_stream(host, port, ssl_context=trusting)
        http = h11.Connection(h11.CLIENT)
        for body in (b"a", b"b" * 100_000):
            assert await ask(stream, http, "POST", body) == (200, b"POST " + body + b" from 127.0.0.1")
            http.start_next_cycle()
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b"".join([bytes(data) async for data in stream])
        assert received.endswith(b"\r\n\r\nGET  from 127.0.0.1"), "and ended as TLS ends, else reading raises"
        await stream.aclose()
        await silent.aclose()
