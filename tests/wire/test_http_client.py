"""The HTTP client over streams in memory: opening, posting side by side, answers that come early or late."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.wire.http_far_end import ENDPOINT, HEAD, TIMEOUT_S, Far, Posts, opened
from tpxd.errors import ConnectFailed, LinkLost
from tpxd.wire.http.answer import BODY_BYTES
from tpxd.wire.http.client import REST_S, open_http_client
from tpxd.wire.streams import Endpoint


async def test_opening_opens_the_link_that_the_first_post_uses(far: Far, nursery: trio.Nursery) -> None:
    async with opened(far) as client:
        assert len(far.links) == 1
        posts = Posts(client)
        for body in (b"one", b"two", b"three"):
            nursery.start_soon(posts.post, body)
            assert await far.answer(0) == body
            await trio.testing.wait_all_tasks_blocked()
            assert posts.status(body) == 200
        assert len(far.links) == 1
    assert await far.links[0].receive_some() == b""


async def test_an_opening_that_fails_is_a_plain_error(far: Far) -> None:
    far.refuse = ConnectFailed("as.example.net:80: connection refused (TCP)")
    with pytest.raises(ConnectFailed, match="refused"):
        async with opened(far):
            pytest.fail("it was opened")


async def test_posts_side_by_side_have_a_link_each_and_keep_it(far: Far, nursery: trio.Nursery) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        for round_ in (b"1", b"2"):
            for body in (b"a", b"b", b"c"):
                nursery.start_soon(posts.post, body + round_)
            await trio.testing.wait_all_tasks_blocked()
            for link in (2, 0, 1):
                await far.answer(link)
            await trio.testing.wait_all_tasks_blocked()
        assert len(far.links) == 3
        assert {posts.status(body) for body in posts.outcomes} == {200}
        assert len(posts.outcomes) == 6


async def test_an_answer_that_overtakes_the_end_of_sending_leaves_the_link_open(
    far: Far, nursery: trio.Nursery
) -> None:
    async with opened(far) as client:
        sends = far.ours[0].send_stream
        send_all = sends.send_all

        async def slow_send_all(data: bytes | bytearray | memoryview) -> None:
            await send_all(data)
            await trio.testing.wait_all_tasks_blocked()
            assert answered

        sends.send_all = slow_send_all  # type: ignore[method-assign]
        posts = Posts(client)
        for body in (b"one", b"two", b"three"):
            answered = False
            nursery.start_soon(posts.post, body)
            await far.answer(0)
            answered = True
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert posts.status(body) == 200
        assert len(far.links) == 1


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_server_may_refuse_what_it_does_not_want_to_read(
    autojump_clock: trio.testing.MockClock, keep_alive: bool
) -> None:
    far_ends = []

    async def dial(endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.testing.lockstep_stream_pair()
        far_ends.append(theirs)
        return ours

    close = b"" if keep_alive else b"Connection: close\r\n"
    async with open_http_client(ENDPOINT, dial, connect_timeout_s=5.0, answer_timeout_s=TIMEOUT_S) as client:
        posts = Posts(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(posts.post, b"one")
            await far_ends[0].send_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n%b\r\n" % close)
        assert posts.status(b"one") == 413
        assert trio.current_time() == pytest.approx(REST_S if keep_alive else 0.0, abs=0.1)
        while await far_ends[0].receive_some():
            pass


async def test_a_body_without_end_does_not_keep_the_uplink_waiting(far: Far, nursery: trio.Nursery) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        await far.answer(0, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (3 * BODY_BYTES))
        assert await far.links[0].receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert posts.status(b"one") == 200


async def test_a_failed_dial_in_between_is_told(far: Far) -> None:
    async with opened(far) as client:
        await far.links[0].aclose()
        await trio.testing.wait_all_tasks_blocked()
        far.refuse = ConnectFailed("as.example.net:80: connection refused (TCP)")
        with pytest.raises(ConnectFailed, match="refused"):
            await client.post(HEAD, b"one")


async def test_nothing_stays_open_after_the_block(far: Far) -> None:
    async def use() -> None:
        async with opened(far) as client:
            with trio.move_on_after(0):
                await client.post(HEAD, b"one")
            await client._open()
            raise LinkLost("told by the body")

    tasks = trio.lowlevel.current_statistics().tasks_living
    with pytest.raises(LinkLost, match="told by the body"):
        await use()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert len(far.ours) == 2
    for stream in far.ours:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
