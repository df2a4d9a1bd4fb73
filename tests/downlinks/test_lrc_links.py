"""What a link to the LRC makes of answers, of halves of them, and of none."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.peers import pki
from tpxd.downlinks.lrc_links import KEPT_BYTES, TOGETHER_S, UNDER_WAY, LrcLinks, NotTaken, Unknown, open_links
from tpxd.lorawan.downlink_request import Meaning

QUEUED = b"<html><body>Request queued by LRC</body></html>"
KEPT_OPEN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(QUEUED), QUEUED)


class Site:
    """A server that gives one answer per connection, or the last one again and again, and keeps the heads it got."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.connections = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        try:
            while head := await self._head(stream):
                self.heads.append(head)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                await stream.send_all(answer)
                if answer != KEPT_OPEN:
                    return
        except trio.BrokenResourceError:
            return

    async def _head(self, stream: trio.abc.Stream) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = await stream.receive_some(4096)
            if not part:
                return b""
            head += part
        return head


@asynccontextmanager
async def linked(site: Site, login: str = "") -> AsyncIterator[LrcLinks]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, site.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with open_links(f"http://{login}127.0.0.1:{port}/downlink") as links:
            yield links
        nursery.cancel_scope.cancel()


async def test_links_stay_open_and_no_more_are_opened_than_are_needed() -> None:
    site = Site(KEPT_OPEN)
    async with linked(site) as links:
        for _ in range(5):
            answer = await links.post("DevEUI=1&Time=09%3A15%2B01")
            assert (answer.meaning, answer.documented) == (Meaning.QUEUED, True)
        assert site.connections == 1
        async with trio.open_nursery() as nursery:
            for _ in range(UNDER_WAY):
                nursery.start_soon(links.post, "DevEUI=1")
        assert site.connections == UNDER_WAY
    assert site.heads[0].startswith(b"POST /downlink?DevEUI=1&Time=09%3A15%2B01 HTTP/1.1\r\n")
    assert b"content-length: 0" in site.heads[0].lower()


async def test_credentials_in_the_address_go_out_as_such() -> None:
    site = Site(KEPT_OPEN)
    async with linked(site, "tpx:s3cret@") as links:
        await links.post("DevEUI=1")
    assert b"Authorization: Basic dHB4OnMzY3JldA==" in site.heads[0]
    assert b"s3cret" not in site.heads[0]


@pytest.mark.parametrize(
    ("answer", "meaning", "cause"),
    [
        (
            b"HTTP/1.1 350 No\r\nContent-Length: 99\r\n\r\n<html><body>Downlink counter",
            Meaning.REFUSED,
            "Downlink counter",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", Meaning.QUEUED, "HTTP 200 without a text"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense", Meaning.QUEUED, "HTTP 200 without a text"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + QUEUED, Meaning.QUEUED, "Request queued by LRC"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", Meaning.REFUSED, "HTTP 302 without a text"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", Meaning.REFUSED, "no"),
    ],
)
async def test_once_there_is_a_status_it_decides(answer: bytes, meaning: Meaning, cause: str) -> None:
    async with linked(Site(answer)) as links:
        found = await links.post("DevEUI=1")
    assert (found.meaning, found.cause) == (meaning, cause)


async def test_a_text_that_nobody_asked_to_be_packed_does_no_harm() -> None:
    packed = gzip.compress(QUEUED)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    site = Site(head + packed)
    async with linked(site) as links:
        found = await links.post("DevEUI=1")
    assert (found.meaning, found.documented) == (Meaning.QUEUED, False)
    assert b"accept-encoding: identity" in site.heads[0].lower()


async def test_of_a_long_answer_the_beginning_counts() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
    async with linked(Site(head + QUEUED + b"x" * 100 * KEPT_BYTES, KEPT_OPEN)) as links:
        assert (await links.post("DevEUI=1")).documented
        assert (await links.post("DevEUI=1")).documented


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"no HTTP at all\r\n\r\n"])
async def test_without_a_status_nobody_knows_and_the_link_is_made_anew(answer: bytes) -> None:
    site = Site(answer, KEPT_OPEN)
    async with linked(site) as links:
        with pytest.raises(Unknown, match="told and did not answer"):
            await links.post("DevEUI=1")
        assert (await links.post("DevEUI=1")).documented
    assert site.connections == 2


@pytest.mark.parametrize(("status", "error"), [(429, NotTaken), (503, NotTaken), (502, Unknown), (504, Unknown)])
async def test_what_stands_in_front_of_the_lrc_says(status: int, error: type[Exception]) -> None:
    async with linked(Site(b"HTTP/1.1 %d No\r\nContent-Length: 4\r\n\r\nbusy" % status)) as links:
        with pytest.raises(error, match=f"{status}.*busy"):
            await links.post("DevEUI=1")


async def test_where_nobody_listens_nothing_was_written() -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        async with open_links(f"http://127.0.0.1:{taken.getsockname()[1]}/") as links:
            for _ in range(3):
                with pytest.raises(NotTaken, match=r"cannot be reached: 127\.0\.0\.1:\d+: connection refused"):
                    await links.post("DevEUI=1")


@pytest.mark.parametrize("host", ["a" * 64, "127.0.0.1:99999", "a..b"])
async def test_an_address_that_leads_nowhere_is_no_bug(host: str) -> None:
    async with open_links(f"http://{host}/") as links:
        with pytest.raises(NotTaken, match="cannot be reached"):
            await links.post("DevEUI=1")


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_system_decides_which_certificates_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    store, key = (pki.ca() if trusted else pki.issue("another", is_ca=True)).write(tmp_path, "store")
    assert key.exists()
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pki.server("localhost").write(tmp_path, "server"))
    site = Site(KEPT_OPEN)

    async def serve(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await site.serve(secured)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with open_links(f"https://localhost:{port}/downlink") as links:
            if trusted:
                assert (await links.post("DevEUI=1")).documented
            else:
                with pytest.raises(NotTaken, match=r"certificate.*this machine's trust store") as caught:
                    await links.post("DevEUI=1")
                assert "trustedCaCertificate" not in str(caught.value)
        nursery.cancel_scope.cancel()
    assert len(site.heads) == trusted


async def test_errors_do_not_show_the_token() -> None:
    async with linked(Site(b"")) as links:
        with pytest.raises(Unknown) as caught:
            await links.post("DevEUI=1&Token=5ecre7")
    assert "5ecre7" not in f"{caught.value} {caught.value!r} {caught.value.hint}"
    assert caught.value.__suppress_context__


# ---- how long it may take


class Trickle(httpx.AsyncByteStream):
    """A byte every few seconds, for ever."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(3)
            yield b"x"


class Slow(httpx.AsyncBaseTransport):
    """Answers with a trickle after a while."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(self._after_s)
        return httpx.Response(350, stream=Trickle())


async def test_a_trickle_is_an_answer_as_far_as_it_came(autojump_clock: MockClock) -> None:
    async with open_links("http://lrc.example/", Slow(0)) as links:
        answer = await links.post("DevEUI=1")
    assert trio.current_time() == TOGETHER_S
    assert (answer.meaning, answer.cause) == (Meaning.REFUSED, "x" * 6)


async def test_without_a_status_the_end_of_the_time_is_a_doubt(autojump_clock: MockClock) -> None:
    async with open_links("http://lrc.example/", Slow(1_000)) as links:
        with pytest.raises(Unknown, match="within 20 s"):
            await links.post("DevEUI=1")


async def test_a_link_that_was_cancelled_can_be_used_again() -> None:
    site = Site(KEPT_OPEN)
    async with linked(site) as links:
        for _ in range(UNDER_WAY + 1):
            with trio.CancelScope() as scope:
                scope.cancel()
                await links.post("DevEUI=1")
        assert (await links.post("DevEUI=1")).documented
