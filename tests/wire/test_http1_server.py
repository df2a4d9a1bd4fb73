"""The HTTP/1.1 server: order, deadlines, limits and endings, on memory streams and a clock that jumps."""

from __future__ import annotations

import logging
import ssl

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from tests.wire.http1_serving import CLOSE, GET, HALF, answer, echo, receive, receive_rest, serving
from tpxd.wire.http.messages import Request, Response
from tpxd.wire.http.server import GRACE_S, TICK_S


async def test_one_connection_serves_many_requests(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        client = serve.connect()
        for path in (b"a", b"b"):
            await client.send_all(GET % path)
            assert await receive(client, 1) == answer(b"/" + path)


async def test_pipelined_requests_are_answered_in_order(autojump_clock: MockClock) -> None:
    async def later_is_faster(request: Request) -> Response:
        await trio.sleep(10 - int(request.path[1:]))
        return await echo(request)

    async with serving(later_is_faster) as serve:
        client = serve.connect()
        await client.send_all(b"".join(GET % b"%d" % n for n in range(5)))
        expected = b"".join(answer(b"/%d" % n) for n in range(5))
        assert await receive(client, len(expected)) == expected


async def test_many_pipelined_requests_leave_others_their_turn(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        busy, other = serve.connect(), serve.connect()
        await busy.send_all(GET % b"busy" * 500)
        await other.send_all(GET % b"other")
        assert await receive(other, 1) == answer(b"/other")
        assert len(await receive(busy, 1)) < len(answer(b"/busy")) * 500


async def test_the_last_request_of_a_connection(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        client = serve.connect()
        await client.send_all(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET % b"ignored")
        assert await receive_rest(client) == answer(b"/a", more=CLOSE)


async def test_http_1_0_and_head(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        client = serve.connect()
        await client.send_all(b"HEAD /abc HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /abc HTTP/1.0\r\n\r\n")
        head = answer(b"/abc", more=b"Connection: keep-alive\r\n").removesuffix(b"/abc")
        assert await receive_rest(client) == head + answer(b"/abc", more=CLOSE)


async def test_a_body_that_waits_for_permission(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        client = serve.connect()
        await client.send_all(
            GET % b"a" + HALF.removesuffix(b"abc").replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        )
        assert await receive(client, 25 + len(answer(b"/a"))) == answer(b"/a") + b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send_all(b"abcdef")
        assert await receive(client, 1) == answer(b"/abcdef")


async def test_what_came_before_nonsense_is_answered(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        client = serve.connect()
        await client.send_all(GET % b"a" + b"\x00nonsense")
        await client.send_eof()
        assert await receive_rest(client) == answer(b"/a") + answer(
            b"this is not HTTP\n", status=b"400 Bad Request", more=CLOSE
        )


@pytest.mark.parametrize("drip", [False, True])
async def test_a_request_has_ten_seconds_from_its_first_byte(autojump_clock: MockClock, drip: bool) -> None:
    async def drop_by_drop(client: trio.abc.Stream) -> None:
        for _ in range(60):
            await trio.sleep(0.5)
            await client.send_all(b"x")

    async with serving(echo) as serve, trio.open_nursery() as nursery:
        client = serve.connect()
        await trio.sleep(8)
        begun = trio.current_time()
        await client.send_all(b"GET /")
        if drip:
            nursery.start_soon(drop_by_drop, client)
        received = await client.receive_some()
        assert 10 <= trio.current_time() - begun <= 10 + TICK_S
        assert received.startswith(b"HTTP/1.1 408 ")
        assert CLOSE in received
        nursery.cancel_scope.cancel()


async def test_each_request_has_its_own_ten_seconds(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        client = serve.connect()
        for part in (HALF, b"abc" + HALF, b"abc" + HALF, b"abc"):
            await client.send_all(part)
            await trio.sleep(8)
        assert (await receive(client, 1)).count(b"200 OK") == 3


async def test_a_silent_connection_is_closed_without_a_word(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        client = serve.connect()
        for silence_s in (9, 70):
            await trio.sleep(silence_s)
            await client.send_all(GET % b"a")
            assert await receive(client, 1) == answer(b"/a")
        begun = trio.current_time()
        assert await receive_rest(client) == b""
        assert 75 <= trio.current_time() - begun <= 75 + TICK_S


async def test_the_first_byte_comes_within_ten_seconds(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        assert await receive_rest(serve.connect()) == b""
        assert 10 <= trio.current_time() <= 10 + TICK_S


async def test_an_answer_that_does_not_come(autojump_clock: MockClock) -> None:
    async def never(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with serving(never) as serve:
        client = serve.connect()
        await client.send_all(GET % b"a")
        received = await client.receive_some()
        assert received.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 5\r\n" in received
        assert trio.current_time() == pytest.approx(30, abs=TICK_S)


async def test_a_peer_that_does_not_take_its_answer(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        client, ours = lockstep_stream_pair()
        serve.take(ours)
        await client.send_all(GET % b"a")
        await trio.sleep(20)
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(GET % b"b")


async def test_a_peer_that_ignores_a_refusal_is_left(autojump_clock: MockClock) -> None:
    async with serving(echo) as serve:
        client = serve.connect()
        await client.send_all(b"\x00")
        await trio.sleep(5)
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"more")


async def test_a_bug_behind_one_request_ends_neither_server_nor_connection(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def sometimes(request: Request) -> Response:
        if request.path == "/bug":
            raise ZeroDivisionError("of course")
        return await echo(request)

    async with serving(sometimes) as serve:
        client = serve.connect()
        await client.send_all(GET % b"bug" + GET % b"a")
        expected = answer(b"internal error, see the log\n", status=b"500 Internal Server Error") + answer(b"/a")
        assert await receive(client, len(expected)) == expected
    (record,) = caplog.records
    assert (record.levelno, record.exc_info and record.exc_info[0]) == (logging.ERROR, ZeroDivisionError)
    assert "GET /bug from 192.0.2.7" in record.message


async def test_stopping_answers_what_was_read_and_leaves_the_rest(autojump_clock: MockClock) -> None:
    async def slowly(request: Request) -> Response:
        await trio.sleep(1)
        return await echo(request)

    async with serving(slowly) as serve:
        silent, half, asked = serve.connect(), serve.connect(), serve.connect()
        await half.send_all(HALF)
        await asked.send_all(GET % b"a" + GET % b"b" + HALF)
        await trio.testing.wait_all_tasks_blocked()
        serve.server.stop()
        begun = trio.current_time()
        assert await receive_rest(silent) == b""
        assert await receive_rest(half) == b""
        assert trio.current_time() == begun
        assert await receive_rest(asked) == answer(b"/a") + answer(b"/b", more=CLOSE)
        assert trio.current_time() == begun + 2


async def test_stopping_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async def never(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with serving(never) as serve:
        client = serve.connect()
        await client.send_all(GET % b"a")
        await trio.testing.wait_all_tasks_blocked()
        serve.server.stop()
        assert await receive_rest(client) == b""
        assert trio.current_time() == pytest.approx(GRACE_S)


async def test_a_handshake_that_never_happens(autojump_clock: MockClock) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with serving(echo) as serve:
        client, ours = memory_stream_pair()
        serve.take(trio.SSLStream(ours, context, server_side=True))
        assert await receive_rest(client) == b""
        assert trio.current_time() == pytest.approx(10, abs=TICK_S)


async def test_plain_http_at_a_tls_port_is_dropped(autojump_clock: MockClock) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with serving(echo) as serve:
        client, ours = memory_stream_pair()
        serve.take(trio.SSLStream(ours, context, server_side=True))
        await client.send_all(GET % b"a")
        assert b"HTTP" not in await receive_rest(client)
        assert trio.current_time() < TICK_S
