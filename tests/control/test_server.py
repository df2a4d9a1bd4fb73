"""The server itself: sockets, limits, hostile peers, and a stop that no peer can delay."""

from __future__ import annotations

import random
import socket
import stat
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.control.doubles import ScriptedDaemon, client, control_plane
from tpxd.config.settings import ControlSettings
from tpxd.control import server
from tpxd.control.listening import SEND_S, BoundedStream, bind_unix
from tpxd.control.server import serve_control
from tpxd.wire.http import CannotListen
from tpxd.wire.open_files import CONTROL

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def connect(bound: str) -> trio.SocketStream:
    host, _, port = bound.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def read_head(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        assert more, data
        data += more
    return data


async def test_the_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    daemon = ScriptedDaemon()
    async with control_plane(daemon, socket=str(path)) as bound:
        assert bound[1] == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with client(bound[1], host="whatever") as http:
            assert (await http.post("/reload")).status_code == 202
    assert daemon.asked == ["reload"]
    assert not path.exists()


async def test_the_token_counts_on_the_unix_socket_too(tmp_path: Path) -> None:
    secured = control_plane(ScriptedDaemon(), socket=str(tmp_path / "s"), token="s3cret")
    async with secured as bound, client(bound[1]) as http:
        assert (await http.post("/reload")).status_code == 401


async def test_the_file_of_a_daemon_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with bind_unix(path):
        pass
    assert path.exists()
    async with control_plane(ScriptedDaemon(), socket=str(path)) as bound, client(bound[1]) as http:
        assert (await http.get("/health")).status_code == 200


def test_the_socket_of_a_daemon_that_lives_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with bind_unix(path) as listener:
        with pytest.raises(CannotListen, match="another process listens there"):
            bind_unix(path)
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.connect(str(path))
        listener.accept()[0].close()


def test_a_path_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(CannotListen, match="it is there and no socket"):
        bind_unix(file)
    assert file.read_text() == "precious"
    with pytest.raises(CannotListen, match="no such file or directory"):
        bind_unix(tmp_path / "missing" / "control.sock")
    with pytest.raises(CannotListen, match="too long"):
        bind_unix(tmp_path / ("x" * 120))


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        settings = ControlSettings.model_validate({"listen": bound, "socket": str(tmp_path / "s")})
        with pytest.raises(CannotListen, match="address already in use"):
            await serve_control(settings, ScriptedDaemon())
    assert not (tmp_path / "s").exists()


async def test_many_short_connections_leave_nothing_behind() -> None:
    """Probes open a connection for each request and close it without a word."""
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        for _ in range(CONTROL + 20):
            async with await connect(bound) as stream:
                await stream.send_all(REQUEST)
                assert (await read_head(stream)).startswith(b"HTTP/1.1 200")


async def test_too_many_connections_at_once() -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        streams = [await connect(bound) for _ in range(CONTROL)]
        for stream in streams:
            await stream.send_all(REQUEST)
            await read_head(stream)
        async with await connect(bound) as extra:
            with trio.fail_after(3):
                assert await extra.receive_some() == b""
        await streams[0].aclose()
        for _ in range(50):
            async with await connect(bound) as again:
                await again.send_all(REQUEST)
                try:
                    if (await again.receive_some()).startswith(b"HTTP/1.1 200"):
                        break
                except trio.BrokenResourceError:
                    pass
        else:
            pytest.fail("a place that was left is not given to anyone")
        for stream in streams:
            await stream.aclose()


async def test_the_unix_socket_answers_when_the_port_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with control_plane(ScriptedDaemon(), socket=str(tmp_path / "s")) as bound, trio.open_nursery() as nursery:
        streams = [await connect(bound[0]) for _ in range(CONTROL)]
        for stream in streams:
            await stream.send_all(REQUEST.removesuffix(b"\r\n"))
        for _ in range(3):
            async with await connect(bound[0]) as extra:
                with trio.fail_after(3):
                    assert await extra.receive_some() == b""
        async with client(bound[1]) as http:
            assert (await http.get("/health")).status_code == 200
        for stream in streams:
            nursery.start_soon(stream.aclose)
    assert caplog.text.count("connections to the control plane") == 1


async def test_an_end_of_requests_still_gets_its_answer() -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_), await connect(bound) as stream:
        await stream.send_all(REQUEST)
        await stream.send_eof()
        assert (await read_head(stream)).startswith(b"HTTP/1.1 200")


async def test_a_stop_closes_silent_connections_at_once(autojump_clock: MockClock) -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        stream = await connect(bound)
        await stream.send_all(REQUEST)
        await read_head(stream)
        begun = trio.current_time()
    assert trio.current_time() == begun
    await stream.aclose()


async def test_a_peer_that_does_not_read_delays_the_stop_by_the_grace_only(autojump_clock: MockClock) -> None:
    happened = [{"message": "x" * 10_000, "connection": None}] * 2_000
    async with control_plane(ScriptedDaemon(happened=happened)) as (bound, *_):
        deaf = await connect(bound)
        await deaf.send_all(b"GET /events?count=2000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await deaf.receive_some(20)).startswith(b"HTTP/1.1 200")
        begun = trio.current_time()
    assert trio.current_time() - begun == pytest.approx(server.GRACE_S)
    await deaf.aclose()


async def test_a_peer_that_does_not_read_is_cut_off_under_a_shield_too(autojump_clock: MockClock) -> None:
    near, far = (trio.SocketStream(end) for end in trio.socket.socketpair())
    leaving: list[str] = []

    async def left() -> None:
        leaving.append("left")

    stream = BoundedStream(near, left)
    begun = trio.current_time()
    with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError, match="does not read"):
        await stream.send_all(bytes(8 << 20))
    assert trio.current_time() - begun == pytest.approx(SEND_S)
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some(1)
    assert leaving == ["left"]
    await far.aclose()


FRAGMENTS = (
    REQUEST,
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /reload HTTP/1.1\r\n",
    b"\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: nine\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"5\r\nhello\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    b"HTTP2-Settings: !!!\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"OPTIONS * HTTP/1.0\r\n",
    b"GET http://[bad/ HTTP/1.1\r\n",
    b"\xff\xfe\x00" * 7,
)


async def test_whatever_peers_send_the_server_answers_the_next_one() -> None:
    choices = random.Random(8091)
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        for _ in range(300):
            async with await connect(bound) as hostile:
                try:
                    for fragment in choices.choices(FRAGMENTS, k=choices.randint(1, 9)):
                        await hostile.send_all(fragment)
                    await hostile.send_eof()
                    with trio.fail_after(5):
                        while await hostile.receive_some():
                            pass
                except trio.BrokenResourceError:
                    pass
        async with client(bound) as http:
            assert (await http.get("/health")).status_code == 200


async def test_a_bug_in_the_protocol_ends_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __init__(self, *_: object) -> None:
            """Takes what TCPServer takes."""

        async def run(self) -> None:
            raise LookupError("a bug of the test's making")

    async with control_plane(ScriptedDaemon()) as (bound, *_):
        with monkeypatch.context() as patch:
            patch.setattr(server, "TCPServer", Broken)
            async with await connect(bound) as stream:
                assert await stream.receive_some() == b""
        assert "a bug of the test's making" in caplog.text
        async with client(bound) as http:
            assert (await http.get("/health")).status_code == 200
