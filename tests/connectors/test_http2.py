"""`http2 = true`: against hypercorn and nginx, and what the contract suite does not ask."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import h2.connection
import h2.errors
import h2.exceptions
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from trio.testing import MockClock

from tests import pki
from tests.connectors.http2_peer import FallbackPeer, Http2Peer
from tests.connectors.hypercorn_site import Site, hypercorn_site
from tests.connectors.peers import Fate
from tests.connectors.traffic import LANES, Receipts, batch_of, outgoing
from tests.nginx import running_nginx
from tpxd.connector import Outgoing, Transport
from tpxd.connectors.http import HttpConfig, open_http
from tpxd.errors import ConnectFailed, LinkLost
from tpxd.wire import http2_client
from tpxd.wire.http2_links import GOAWAY, MAX_FRAME_BYTES, Goodbyes
from tpxd.wire.http_client import IDLE_S
from tpxd.wire.streams import open_stream


def test_it_needs_tls() -> None:
    with pytest.raises(ValidationError, match="http2 = true needs https://"):
        HttpConfig.model_validate({"destinationURL": "http://as.example.net/in", "http2": True})


def test_who_does_not_ask_for_it_does_not_load_it() -> None:
    program = "import sys, tpxd.connectors.http; sys.exit(not {'httpcore', 'h2'}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True)


# ---- hypercorn


def transport_to(site: Site, **more: Any) -> Any:
    settings = {
        "destinationURL": f"{site.url}/lora/in?site=n",
        "http2": True,
        "trustedCaCertificate": pki.ca().certificate,
        "headers": {"X-Thing": "{DevEUI}"},
    }
    context = replace(Http2Peer(None).context(), dial=open_stream)  # type: ignore[arg-type] # it starts nothing here
    return open_http(HttpConfig.model_validate(settings | more), context)


async def deliver(transport: Transport, batch: list[Outgoing]) -> None:
    receipts = Receipts()
    with trio.fail_after(10):
        await transport.send(batch, receipts)
    assert sorted(receipts.delivered_) == list(range(len(batch)))


async def test_requests_share_one_link_and_arrive_byte_for_byte(tmp_path: Path) -> None:
    async with hypercorn_site(tmp_path) as site, transport_to(site) as transport:
        batch = batch_of(40)
        await deliver(transport, batch)
        assert sorted(seen.body for seen in site.seen) == sorted(item.body for item in batch)
        first = site.seen[0]
        assert {(seen.version, seen.method, seen.path, seen.query) for seen in site.seen} == {
            ("2", "POST", "/lora/in", b"site=n")
        }
        assert {seen.client for seen in site.seen} == {first.client}
        assert first.headers[b"content-type"] == b"application/json"
        assert first.headers[b"content-length"] == b"%d" % len(first.body)
        assert {seen.headers[b"x-thing"].decode() for seen in site.seen} == {item.uplink.lane for item in batch}
        for lane in {item.uplink.lane for item in batch}:
            came = [seen.body for seen in site.seen if seen.headers[b"x-thing"].decode() == lane]
            assert came == [item.body for item in batch if item.uplink.lane == lane]


async def test_bodies_and_answers_larger_than_a_window(tmp_path: Path) -> None:
    async with hypercorn_site(tmp_path) as site, transport_to(site) as transport:
        site.answer = b"x" * 300_000
        large = [replace(item, body=b'"%b"' % (b"x" * 200_000)) for item in batch_of(6)]
        await deliver(transport, large)
        await deliver(transport, batch_of(3))
        assert [len(seen.body) for seen in site.seen] == [200_002] * 6 + [len(item.body) for item in batch_of(3)]


async def test_a_server_that_only_knows_1_1_gets_that(tmp_path: Path) -> None:
    async with hypercorn_site(tmp_path, versions=("http/1.1",)) as site, transport_to(site) as transport:
        await deliver(transport, batch_of(9))
        assert {seen.version for seen in site.seen} == {"1.1"}


async def test_a_certificate_of_another_authority_is_told(tmp_path: Path) -> None:
    stranger = pki.issue("Other CA", is_ca=True).certificate
    async with hypercorn_site(tmp_path) as site:
        with pytest.raises(ConnectFailed, match="TLS") as caught:
            async with transport_to(site, trustedCaCertificate=stranger):
                pytest.fail("it opened")
        assert "trustedCaCertificate" in (caught.value.hint or "")


async def test_a_link_is_left_before_the_far_end_would_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_client, "POSTS_PER_LINK", 18)
    async with hypercorn_site(tmp_path, most_requests=20) as site, transport_to(site) as transport:
        batch = batch_of(180)
        await deliver(transport, batch)
        assert sorted(seen.body for seen in site.seen) == sorted(item.body for item in batch)
        assert len({seen.client for seen in site.seen}) == 10


@pytest.mark.parametrize("kind", [Http2Peer, FallbackPeer])
async def test_a_link_that_is_left_is_closed_also_where_nothing_was_under_way(
    kind: type[Http2Peer], nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_client, "POSTS_PER_LINK", 2)
    closed: list[trio.abc.Stream] = []

    class Watched(kind):  # type: ignore[valid-type, misc] # the class is an argument
        async def serve(self, stream: trio.abc.Stream) -> None:
            try:
                await super().serve(stream)
            finally:
                closed.append(stream)

    peer = Watched(nursery)
    async with opened(peer) as transport:
        for n in range(7):
            await deliver(transport, [outgoing(n)])
        await trio.sleep(1)
        assert (len(peer.near_ends), len(closed)) == (4, 3)


# ---- nginx


@pytest.mark.broker
async def test_nginx_that_ends_links_gets_each_uplink_once(tmp_path: Path) -> None:
    batches = [[outgoing(n, f"70B3D5E75E00A1{n % 20:02X}") for n in range(n, n + 128)] for n in range(0, 1024, 128)]
    async with running_nginx(tmp_path, most_requests=100) as nginx:
        headers = {"X-Thing": "{FCntUp}"}
        async with transport_to(Site(nginx.url), headers=headers) as transport:
            for batch in batches:
                await deliver(transport, batch)
    served = nginx.served()
    assert sorted(int(request.thing) for request in served) == list(range(1024)), "none is missing, none came twice"
    assert {request.protocol for request in served} == {"HTTP/2.0"}
    links = Counter(request.link for request in served)
    assert len(links) == 11
    assert max(links.values()) == 100


# ---- ends of links

PING, DATA = 6, 0


def frame(kind: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, 0]) + bytes(4) + payload


def goodbye(code: h2.errors.ErrorCodes, more: bytes = b"") -> bytes:
    return frame(GOAWAY, (199).to_bytes(4) + int(code).to_bytes(4) + more)


frames = st.one_of(
    st.binary(max_size=300).map(partial(frame, DATA)),
    st.binary(min_size=8, max_size=8).map(partial(frame, PING)),
    st.tuples(st.sampled_from(h2.errors.ErrorCodes), st.binary(max_size=9)).map(lambda parts: goodbye(*parts)),
)


@given(sent=st.lists(frames), cuts=st.lists(st.integers(0, 2_000)))
def test_however_a_link_is_cut_only_friendly_goodbyes_are_taken_out(sent: list[bytes], cuts: list[int]) -> None:
    whole, friendly = b"".join(sent), [each for each in sent if each[3] == GOAWAY and each[13:17] == bytes(4)]
    seen: list[None] = []
    goodbyes = Goodbyes(lambda: seen.append(None))
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    passed = b"".join(goodbyes.without(whole[begin:end]) for begin, end in pairwise(places))
    assert passed == b"".join(each for each in sent if each not in friendly)
    assert len(seen) == len(friendly)


def test_a_frame_longer_than_we_allow_is_not_gathered() -> None:
    head = (MAX_FRAME_BYTES + 1).to_bytes(3) + bytes(6)
    assert Goodbyes(lambda: None).without(head + b"x") == head + b"x"


@asynccontextmanager
async def opened(peer: Http2Peer, **more: Any) -> AsyncIterator[Transport]:
    config = peer.config(**more)
    assert isinstance(config, HttpConfig)
    async with open_http(config, peer.context()) as transport:
        yield transport


@pytest.mark.parametrize("kind", [Http2Peer, FallbackPeer])
async def test_a_link_that_died_while_idle_is_replaced(
    kind: type[Http2Peer], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer = kind(nursery)
    async with opened(peer) as transport:
        for n in range(3):
            await deliver(transport, [outgoing(n)])
            await peer.hang_up()
        assert len(peer.near_ends) == 3


async def test_a_first_link_that_waited_for_too_long_is_not_used(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer = Http2Peer(nursery)
    async with opened(peer) as transport:
        assert len(peer.near_ends) == 1
        await trio.sleep(IDLE_S + 1)
        await deliver(transport, [outgoing(1)])
        assert len(peer.near_ends) == 2


class Goodbye(Http2Peer):
    """Ends the link, or one request, with a word of HTTP/2, once it has taken `patience` uplinks."""

    patience = 0
    word: Callable[[h2.connection.H2Connection, int], None]

    async def serve(self, stream: trio.abc.Stream) -> None:
        """See `Peer`; what still comes after a GOAWAY is of no interest."""
        with suppress(h2.exceptions.ProtocolError):
            await super().serve(stream)

    def _settle(self, link: h2.connection.H2Connection, stream_id: int, body: bytes) -> bool:
        if len(self.taken) < self.patience:
            return super()._settle(link, stream_id, body)
        self.word(link, stream_id)
        return True


class Rotating(Goodbye):
    """Says goodbye on its first link after five requests, and answers no more of them there."""

    def _settle(self, link: h2.connection.H2Connection, stream_id: int, body: bytes) -> bool:
        if len(self.near_ends) == 1 and len(self.taken) == 5:
            link.close_connection()
            return True
        return Http2Peer._settle(self, link, stream_id, body)


async def test_a_goodbye_amid_a_batch_repeats_what_was_under_way_and_nothing_else(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer, batch = Rotating(nursery), batch_of(12)
    async with opened(peer) as transport:
        await deliver(transport, batch)
    assert len(peer.near_ends) == 2
    assert set(peer.taken) == {item.body for item in batch}
    # the answers that went out together with the goodbye may be lost with it: one of each device
    assert len(peer.taken) <= len(batch) + len(LANES)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (lambda link, id: link.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM), "GOAWAY, ENHANCE_YOUR_CALM"),
        (lambda link, id: link.reset_stream(id, h2.errors.ErrorCodes.REFUSED_STREAM), "gave the request up"),
    ],
)
@pytest.mark.parametrize(("patience", "links"), [(0, 1), (1, 2)])
async def test_the_words_of_the_far_end_are_told(
    patience: int,
    links: int,
    word: Callable[[h2.connection.H2Connection, int], None],
    expected: str,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    """A link that carried something before is replaced once; what a new link says is final."""
    peer = Goodbye(nursery)
    peer.patience, peer.word = patience, word
    async with opened(peer) as transport:
        for n in range(patience):
            await deliver(transport, [outgoing(n)])
        with pytest.raises(LinkLost, match=expected):
            await transport.send([outgoing(patience)], Receipts())
    assert len(peer.near_ends) == links


async def test_an_end_without_a_word_is_no_fault_of_http(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    peer = Http2Peer(nursery)
    peer.decide = lambda body: Fate.HANG_UP
    async with opened(peer) as transport:
        with pytest.raises(LinkLost, match="before it answered"):
            await transport.send([outgoing(1)], Receipts())


async def test_an_answer_that_stays_away(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    peer = Goodbye(nursery)
    peer.word = lambda link, id: None
    async with opened(peer, actionTimeout=2_000) as transport:
        begun = trio.current_time()
        with pytest.raises(LinkLost, match="no answer within 2000 ms"):
            await transport.send([outgoing(1)], Receipts())
        assert trio.current_time() - begun == pytest.approx(2, abs=0.1)
