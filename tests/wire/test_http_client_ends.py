"""Links of the HTTP client that end: closed, cut off, silent, idle, cancelled."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.wire.http_far_end import ENDPOINT, HEAD, OK, TIMEOUT_S, Far, Posts, opened
from tpxd.errors import LinkLost
from tpxd.wire.http.answer import Answer
from tpxd.wire.http.client import IDLE_S, open_http_client
from tpxd.wire.streams import Endpoint


async def test_connection_close_is_heeded(far: Far, nursery: trio.Nursery) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        await far.answer(0, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        assert await far.links[0].receive_some() == b""
        nursery.start_soon(posts.post, b"two")
        await trio.testing.wait_all_tasks_blocked()
        assert await far.answer(1) == b"two"
        await trio.testing.wait_all_tasks_blocked()
        assert posts.status(b"one") == posts.status(b"two") == 200


async def test_an_answer_may_end_with_the_stream(far: Far, nursery: trio.Nursery) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        await far.answer(0, b"HTTP/1.0 200 OK\r\n\r\nfine", close=True)
        await trio.testing.wait_all_tasks_blocked()
        outcome = posts.outcomes[b"one"]
        assert isinstance(outcome, Answer)
        assert outcome.body == b"fine"


async def test_an_idle_link_that_the_server_closes_is_forgotten_before_the_next_post(
    far: Far, nursery: trio.Nursery
) -> None:
    async with opened(far) as client:
        await far.links[0].aclose()
        await trio.testing.wait_all_tasks_blocked()
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        await trio.testing.wait_all_tasks_blocked()
        assert await far.answer(1) == b"one"
        await trio.testing.wait_all_tasks_blocked()
        assert posts.status(b"one") == 200


@pytest.mark.parametrize("unasked", [OK, b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"\x00"])
async def test_an_idle_link_on_which_something_comes_is_not_used_again(
    far: Far, nursery: trio.Nursery, unasked: bytes
) -> None:
    async with opened(far) as client:
        await far.links[0].send_all(unasked)
        await trio.testing.wait_all_tasks_blocked()
        assert await far.links[0].receive_some() == b""
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        await trio.testing.wait_all_tasks_blocked()
        await far.answer(1)


async def test_a_closing_that_crosses_the_request_costs_one_more_try(far: Far, nursery: trio.Nursery) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        assert await far.answer(0, b"", close=True) == b"one"
        await trio.testing.wait_all_tasks_blocked()
        assert await far.answer(1) == b"one"
        await trio.testing.wait_all_tasks_blocked()
        assert posts.status(b"one") == 200


async def test_a_link_made_for_the_request_is_not_replaced(far: Far, nursery: trio.Nursery) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        await far.answer(0, b"", close=True)
        await trio.testing.wait_all_tasks_blocked()
        await far.answer(1, b"", close=True)
        await trio.testing.wait_all_tasks_blocked()
        assert posts.error(b"one") == "the far end closed the connection before it answered"
        assert "https://" in posts.hint(b"one")
        assert len(far.links) == 2


@pytest.mark.parametrize("part", [OK[:1], OK[:20], OK[:-1], b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_an_answer_that_is_cut_off_is_a_lost_link_and_no_second_try(
    far: Far, nursery: trio.Nursery, part: bytes
) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        await far.answer(0, part, close=True)
        await trio.testing.wait_all_tasks_blocked()
        assert posts.error(b"one") == "the far end closed the connection in the middle of its answer"
        assert "its log" in posts.hint(b"one")
        assert len(far.links) == 1


async def test_what_is_no_http_is_a_lost_link(far: Far, nursery: trio.Nursery) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        await far.answer(0, b"SSH-2.0-OpenSSH_9.2\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert posts.error(b"one").startswith("the far end broke the protocol: the answer is no HTTP")
        assert await far.links[0].receive_some() == b""


async def test_no_answer_in_time_is_a_lost_link_and_the_others_stay(
    far: Far, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        for link, body in enumerate((b"one", b"two")):
            nursery.start_soon(posts.post, body)
            await trio.testing.wait_all_tasks_blocked()
            assert len(far.links) == link + 1
        await far.answer(1)
        await far.answer(0, b"HTTP/1.1 200 OK\r\nContent-Le")
        begun = trio.current_time()
        assert await far.links[0].receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == pytest.approx(begun + TIMEOUT_S, abs=0.1)
        assert posts.error(b"one") == "no answer within 10000 ms"
        nursery.start_soon(posts.post, b"three")
        assert await far.answer(1) == b"three"
        await trio.testing.wait_all_tasks_blocked()
        assert len(far.links) == 2


async def test_a_server_that_reads_nothing_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    async def dial(endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return trio.testing.lockstep_stream_pair()[0]

    async with open_http_client(ENDPOINT, dial, connect_timeout_s=5.0, answer_timeout_s=TIMEOUT_S) as client:
        with pytest.raises(LinkLost, match="no answer within 10000 ms"):
            await client.post(HEAD, b"one")
        assert trio.current_time() == pytest.approx(TIMEOUT_S, abs=0.1)


async def test_an_idle_link_is_closed_after_a_while(
    far: Far, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        nursery.start_soon(posts.post, b"one")
        await far.answer(0)
        await trio.sleep(IDLE_S - 1)
        nursery.start_soon(posts.post, b"two")
        await far.answer(0)
        begun = trio.current_time()
        assert await far.links[0].receive_some() == b""
        assert trio.current_time() == pytest.approx(begun + IDLE_S, abs=0.1)
        nursery.start_soon(posts.post, b"three")
        await trio.testing.wait_all_tasks_blocked()
        assert await far.answer(1) == b"three"


async def test_a_cancelled_post_closes_its_link_and_no_other(far: Far, nursery: trio.Nursery) -> None:
    async with opened(far) as client:
        posts = Posts(client)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as cancelled:
                cancelled.start_soon(posts.post, b"one")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(posts.post, b"two")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert posts.outcomes == {}
        assert await far.request(0) == b"one"
        assert await far.request(0) == b""
        await far.answer(1)
        await trio.testing.wait_all_tasks_blocked()
        assert posts.status(b"two") == 200
