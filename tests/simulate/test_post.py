"""The client keeps its connection, opens another when it must, and says in a few words what went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from tpxd.simulate.post import NotAnswered, Poster, Target, open_poster

Serve = Callable[[trio.SocketStream, bytes], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request with the next script; counts connections."""

    def __init__(self, *answers: bytes, closes_after: int = 1_000) -> None:
        self.answers = list(answers)
        self.closes_after = closes_after
        self.requests: list[bytes] = []
        self.connections = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            for _ in range(self.closes_after):
                request = b""
                while b"\r\n\r\n{}" not in request:
                    chunk = await stream.receive_some()
                    if not chunk:
                        return
                    request += chunk
                self.requests.append(bytes(request))
                answer = self.answers.pop(0)
                for part in (answer[:7], answer[7:]):
                    await stream.send_all(part)


async def listen(nursery: trio.Nursery, server: Server) -> Target:
    listeners = await nursery.start(lambda task_status: serve_tcp(server, task_status))
    return Target.parse(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/in?x=1")


async def serve_tcp(server: Server, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
    await trio.serve_tcp(server.serve, 0, host="127.0.0.1", task_status=task_status)


async def failure(poster: Poster) -> str:
    with pytest.raises(NotAnswered) as caught:
        await poster.post("a=1", b"{}")
    return str(caught.value)


async def test_requests_share_a_connection_and_look_like_an_lrc(nursery: trio.Nursery) -> None:
    server = Server(OK, b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n")
    target = await listen(nursery, server)
    async with open_poster(target, 5) as poster:
        assert await poster.post("a=1", b"{}") == 200
        assert await poster.post("a=2", b"{}") == 401
    assert server.connections == 1
    assert server.requests[1] == (
        b"POST /in?x=1&a=2 HTTP/1.1\r\nHost: " + target.authority.encode() + b"\r\n"
        b"User-Agent: ACTILITY-LRCLRN-DEVICE-AGENT/1.0\r\nAccept: */*\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


async def test_a_kept_connection_that_was_closed_is_replaced(nursery: trio.Nursery) -> None:
    server = Server(OK, OK, closes_after=1)
    async with open_poster(await listen(nursery, server), 5) as poster:
        assert [await poster.post("a=1", b"{}") for _ in range(2)] == [200, 200]
    assert server.connections == 2


async def test_connection_close_is_obeyed(nursery: trio.Nursery) -> None:
    closing = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    server = Server(closing, OK)
    async with open_poster(await listen(nursery, server), 5) as poster:
        assert [await poster.post("a=1", b"{}") for _ in range(2)] == [204, 200]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "reason"), [(b"SSH-2.0-OpenSSH\r\n", "no HTTP answer"), (b"HTTP/1.1 200", "connection closed")]
)
async def test_what_is_no_answer_is_named(nursery: trio.Nursery, answer: bytes, reason: str) -> None:
    async with open_poster(await listen(nursery, Server(answer, closes_after=1)), 5) as poster:
        assert await failure(poster) == reason


async def test_silence_is_named(nursery: trio.Nursery) -> None:
    async with open_poster(await listen(nursery, Server(b"")), 0.05) as poster:
        assert await failure(poster) == "no answer in time"


async def test_a_closed_port_is_named() -> None:
    with trio.socket.socket() as holder:
        await holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        async with open_poster(Target.parse(f"http://127.0.0.1:{port}"), 5) as poster:
            assert await failure(poster) == "connection refused"


@pytest.mark.parametrize(
    ("answer", "reason"), [(b"HTTP/1.1 400\r\n\r\n", "TLS: WRONG_VERSION_NUMBER"), (b"", "no answer in time")]
)
async def test_tls_that_is_none_is_named(nursery: trio.Nursery, answer: bytes, reason: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)
            await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, listeners)
    secured = Target.parse(f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
    async with open_poster(secured, 0.2) as poster:
        assert await failure(poster) == reason


async def test_cancellation_closes_the_connection(nursery: trio.Nursery) -> None:
    server = Server(b"", OK)
    async with open_poster(await listen(nursery, server), 5) as poster:
        with trio.move_on_after(0.05) as scope:
            await poster.post("a=1", b"{}")
        assert scope.cancelled_caught
        assert await poster.post("a=2", b"{}") == 200
    assert server.connections == 2


def test_a_url_without_a_path_means_uplink() -> None:
    assert Target.parse("http://localhost:8090").path == "/uplink?"
    assert Target.parse("http://localhost/in").path == "/in?"
    assert Target.parse("http://localhost/in").port == 80
    secured = Target.parse("https://[::1]/in")
    assert (secured.host, secured.port, secured.authority) == ("::1", 443, "[::1]")
    assert secured.tls is not None


@pytest.mark.parametrize(
    "url", ["localhost:8090", "ftp://localhost", "http://", "http://u:p@localhost/", "http://h:x/"]
)
def test_what_is_no_url_of_an_lrc_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Target.parse(url)
    assert "u:p" not in str(caught.value)
