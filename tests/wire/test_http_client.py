"""Links that stay open, are closed by the server, break, hang and are cancelled; all over streams in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tpxd.errors import ConnectFailed, LinkLost
from tpxd.wire.http1_client import BODY_BYTES, Answer, request_head
from tpxd.wire.http_client import IDLE_S, REST_S, HttpClient, open_http_client
from tpxd.wire.streams import Endpoint

ENDPOINT = Endpoint("as.example.net", 80)
HEAD = request_head(b"POST", b"/in", [(b"Host", b"as.example.net")])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUT_S = 10.0

MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class Far:
    """The server's side of all links, in the order in which they were opened."""

    def __init__(self) -> None:
        self.links: list[MemoryStream] = []
        self.ours: list[MemoryStream] = []
        self.refuse: ConnectFailed | None = None

    async def dial(self, endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        assert (endpoint, timeout_s) == (ENDPOINT, 5.0)
        if self.refuse is not None:
            raise self.refuse
        ours, theirs = trio.testing.memory_stream_pair()
        self.links.append(theirs)
        self.ours.append(ours)
        return ours

    async def request(self, link: int) -> bytes:
        """Read one request's body on a link; b"" when the client closed it."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self.links[link].receive_some()
            if not more:
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /in HTTP/1.1\r\nHost: as.example.net\r\nContent-Length: ")
        assert len(body) == int(head.rpartition(b" ")[2])
        return bytes(body)

    async def answer(self, link: int, data: bytes = OK, *, close: bool = False) -> bytes:
        """Read a request on a link and answer it."""
        body = await self.request(link)
        if data:
            await self.links[link].send_all(data)
        if close:
            await self.links[link].aclose()
        return body


@pytest.fixture
def far() -> Far:
    return Far()


@asynccontextmanager
async def opened(far: Far) -> AsyncIterator[HttpClient]:
    async with open_http_client(ENDPOINT, far.dial, connect_timeout_s=5.0, answer_timeout_s=TIMEOUT_S) as client:
        yield client


class Posts:
    """What became of posts that run in the background."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self.outcomes: dict[bytes, Answer | LinkLost] = {}

    async def post(self, body: bytes) -> None:
        try:
            self.outcomes[body] = await self._client.post(HEAD, body)
        except LinkLost as error:
            self.outcomes[body] = error

    def status(self, body: bytes) -> int:
        outcome = self.outcomes[body]
        assert isinstance(outcome, Answer), outcome
        return outcome.status

    def error(self, body: bytes) -> str:
        outcome = self.outcomes[body]
        assert isinstance(outcome, LinkLost)
        return str(outcome)


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
