"""Opening streams on loopback: each phase can fail, and says so; and one error out of a nursery."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.peers.ports import free_port
from tests.wire.loopback import Names, echo, echo_server, failing, trusting
from tpxd.errors import LinkLost
from tpxd.wire.streams import Endpoint, explain, one_error, open_stream


def test_an_endpoint_as_text() -> None:
    assert str(Endpoint("broker.example.net", 1883)) == "broker.example.net:1883"
    assert str(Endpoint("2001:db8::1", 1883)) == "[2001:db8::1]:1883"


# ---- name look-up and TCP


async def test_tcp() -> None:
    async with echo_server() as port:
        stream = await open_stream(Endpoint("127.0.0.1", port), 5)
        assert isinstance(stream, trio.SocketStream)
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert await echo(stream, b"hello") == b"hello"
        await stream.aclose()


async def test_refused() -> None:
    port = free_port()
    message, hint = await failing(Endpoint("127.0.0.1", port))
    assert message == f"127.0.0.1:{port}: connection refused (TCP)"
    assert hint == "is the server running there, and is the port right?"


@pytest.mark.parametrize(
    ("error", "reason"), [(socket.EAI_NONAME, "name not found"), (socket.EAI_AGAIN, "the name server does not answer")]
)
async def test_names(error: int, reason: str) -> None:
    trio.socket.set_custom_hostname_resolver(Names(error))
    message, _ = await failing(Endpoint("broker.example.net", 1883))
    assert message == f"broker.example.net:1883: {reason} (name look-up)"


async def test_a_name_that_cannot_be() -> None:
    message, _ = await failing(Endpoint("a" * 64 + ".example", 1883))
    assert "no valid host name (name look-up)" in message


async def test_time_is_up_in_each_phase(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint("broker.example.net", 8883, trusting())
    trio.socket.set_custom_hostname_resolver(Names(hang=True))
    assert (await failing(endpoint))[0].endswith("no answer within 5 s (name look-up)")

    trio.socket.set_custom_hostname_resolver(Names())

    async def silent(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", silent)
    assert (await failing(endpoint, 0.5))[0].endswith("no answer within 0.5 s (TCP)")

    near, far = memory_stream_pair()

    async def connected(*_: object) -> trio.abc.Stream:
        return near

    monkeypatch.setattr(trio, "open_tcp_stream", connected)
    begun = trio.current_time()
    assert (await failing(endpoint))[0].endswith("no answer within 5 s (TLS handshake)")
    assert trio.current_time() - begun == pytest.approx(5)
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")
    await far.aclose()


async def test_of_several_addresses_the_telling_one(monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable = OSError(errno.ENETUNREACH, "Network is unreachable")
    refused = OSError(errno.ECONNREFUSED, "Connection refused")
    causes: list[BaseException] = [ExceptionGroup("attempts", [unreachable, refused]), unreachable]

    async def failing_to_connect(*_: object) -> None:
        raise OSError("all attempts failed") from causes.pop(0)

    monkeypatch.setattr(trio, "open_tcp_stream", failing_to_connect)
    assert (await failing(Endpoint("127.0.0.1", 1)))[0].endswith("connection refused (TCP)")
    assert (await failing(Endpoint("127.0.0.1", 1)))[0].endswith("network is unreachable (TCP)")


# ---- how a stream ended


def test_ends_without_a_reason() -> None:
    assert explain(trio.BrokenResourceError()) == ("the far end closed the connection", None)
    assert explain(ssl.SSLEOFError(8, "EOF"))[0] == "the far end closed the connection"
    assert explain(OSError(errno.ECONNRESET, "x"))[0] == "connection reset by peer"


# ---- one error out of a nursery


LOST, ALSO_LOST, BUG = LinkLost("lost"), LinkLost("also lost"), KeyError("bug")


@pytest.mark.parametrize(
    ("errors", "expected"),
    [([LOST], LOST), ([LOST, ALSO_LOST], LOST), ([BUG], BUG), ([LOST, BUG], BUG)],
)
def test_one_error(errors: list[Exception], expected: Exception) -> None:
    with pytest.raises(type(expected)) as caught, one_error():
        raise ExceptionGroup("nursery", [ExceptionGroup("inner", errors)])
    assert caught.value is expected


def test_several_bugs_stay_together() -> None:
    with pytest.raises(ExceptionGroup) as caught, one_error():
        raise ExceptionGroup("nursery", [BUG, LOST, ValueError("another")])
    assert len(caught.value.exceptions) == 3


async def test_being_cancelled_outweighs_a_lost_link() -> None:
    async def lose() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LOST

    with trio.CancelScope() as scope, one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
