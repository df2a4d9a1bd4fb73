"""The simulated LRC's downlink interface over HTTP: what it answers, when, and what ends a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.simulate.downlinking import DEVICES, PLAIN, lrc, query
from tpxd.simulate import downlink_server
from tpxd.simulate.downlink_lrc import Answering, DownlinkLrc
from tpxd.simulate.downlink_rules import PATH
from tpxd.simulate.downlink_server import SLOW_S, open_listeners, take_downlinks
from tpxd.simulate.lrc import Counters
from tpxd.simulate.post import Target
from tpxd.wire.http import Request, Response, serve_http

TAKEN = b"<html><body>Request queued by LRC</body></html>"


def post(text: str, path: str = PATH, more: str = "") -> bytes:
    return f"POST {path}?{text} HTTP/1.1\r\nHost: lrc\r\n{more}Content-Length: 0\r\n\r\n".encode()


@asynccontextmanager
async def talking(to: DownlinkLrc) -> AsyncIterator[trio.abc.Stream]:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(downlink_server._converse, to, SLOW_S, far)
        yield near
        nursery.cancel_scope.cancel()


async def answers(stream: trio.abc.Stream, count: int = 1) -> list[tuple[int, bytes]]:
    """The status and the body of the next answers."""
    data = b""
    found: list[tuple[int, bytes]] = []
    while len(found) < count:
        part = await stream.receive_some()
        assert part, "the connection ended"
        data += part
        while b"\r\n\r\n" in data:
            head, _, rest = data.partition(b"\r\n\r\n")
            size = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
            if len(rest) < size:
                break
            found.append((int(head.split()[1]), rest[:size]))
            data = rest[size:]
    return found


async def test_answers_are_the_documented_html(autojump_clock: MockClock) -> None:
    async with talking(lrc()) as stream:
        await stream.send_all(post(query()))
        assert await answers(stream) == [(200, TAKEN)]
        await stream.send_all(post(query(DevEUI="<b>")))
        assert await answers(stream) == [(350, b"<html><body>Unknown DevEUI</body></html>")]
        await stream.send_all(post(query(), "/elsewhere"))
        assert (await answers(stream))[0][0] == 404


@pytest.mark.parametrize("cut", [1, 7, 10_000])
async def test_requests_in_any_pieces_and_one_behind_the_other(cut: int, autojump_clock: MockClock) -> None:
    house = lrc()
    data = b"".join(post(query(FPort=str(n))) for n in range(1, 6))
    async with talking(house) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, len(data), cut):
                await stream.send_all(data[start : start + cut])

        nursery.start_soon(send)
        assert await answers(stream, 5) == [(200, TAKEN)] * 5
    assert house.counters.accepted == 5


async def test_dropping_takes_the_downlink_and_says_nothing(autojump_clock: MockClock) -> None:
    house = lrc(answering=Answering.DROP)
    async with talking(house) as stream:
        await stream.send_all(post(query()))
        assert await stream.receive_some() == b""
    assert (house.counters.accepted, house.counters.unanswered) == (1, 1)


async def test_slow_answers_come_late(autojump_clock: MockClock) -> None:
    async with talking(lrc(answering=Answering.SLOW)) as stream:
        begun = trio.current_time()
        await stream.send_all(post(query()))
        assert await answers(stream) == [(200, TAKEN)]
        assert trio.current_time() - begun == pytest.approx(SLOW_S)


async def test_a_client_that_wants_to_close_is_let_go(autojump_clock: MockClock) -> None:
    async with talking(lrc()) as stream:
        await stream.send_all(post(query(), more="Connection: close\r\n"))
        assert await answers(stream) == [(200, TAKEN)]
        assert await stream.receive_some() == b""


@pytest.mark.parametrize("data", [b"\x16\x03\x01 no HTTP\r\n\r\n", b"POST /" + b"a" * 40_000, b"GET / HTTP/1.1\r\nA"])
async def test_what_is_no_request_ends_the_connection(data: bytes, autojump_clock: MockClock) -> None:
    async with talking(lrc()) as stream:
        await stream.send_all(data)
        assert await stream.receive_some() == b""


@pytest.mark.parametrize("address", ["", "here", "127.0.0.1:", ":9000", "127.0.0.1:x", "127.0.0.1:99999"])
async def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(ValueError, match="no host:port"):
        await open_listeners(address)


async def test_what_went_on_air_is_reported_to_the_intake() -> None:
    came, arrived = [], trio.Event()

    async def intake(request: Request) -> Response:
        came.append((request.query, orjson.loads(request.body)))
        arrived.set()
        await trio.lowlevel.checkpoint()
        return Response(200)

    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serve_http, "127.0.0.1:0", intake)
        target, counters = Target.parse(f"http://{address}/uplink"), Counters()
        listeners = await open_listeners("127.0.0.1:0")
        nursery.start_soon(take_downlinks, listeners, lrc(), [target], counters, None)
        async with await trio.open_tcp_stream(*listeners[0].socket.getsockname()) as stream:
            await stream.send_all(post(query(CorrelationID="A1")))
            with trio.fail_after(10):
                assert await answers(stream) == [(200, TAKEN)]
                await arrived.wait()
        nursery.cancel_scope.cancel()
    ((said, document),) = came
    assert said.startswith(f"LrnDevEui={PLAIN}&LrnFPort=5")
    assert document["DevEUI_downlink_Sent"]["CorrelationID"] == "A1"
    assert document["DevEUI_downlink_Sent"]["FCntDn"] == DEVICES[0].f_cnt_dn + 1
