"""What the engine relies on where downlinks come over a connection's links, asked of every connector that has such."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connectors.peers import FURTHER_PEERS, PEERS, Peer
from tests.connectors.traffic import Receipts, batch_of
from tests.downlinks.downlink_doubles import Disk, body
from tests.intake.doubles import MemoryStore
from tpxd import connectors
from tpxd.connector import REGISTRY, Incoming, Transport
from tpxd.downlinks.inbox import Inbox, receive_downlinks
from tpxd.downlinks.queue import open_downlinks
from tpxd.errors import LinkLost
from tpxd.events import EventLog

connectors.load()

DOWNLINKING = {id: peer for id, peer in (PEERS | FURTHER_PEERS).items() if peer.can_downlink}


@pytest.fixture(params=DOWNLINKING)
def peer(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Peer:
    return DOWNLINKING[request.param](nursery)


@asynccontextmanager
async def opened(
    peer: Peer, *, downlinks: bool = True, enabled: bool = True, port: int | None = None
) -> AsyncIterator[Transport]:
    """A connection whose file names a topic for downlinks, or one for those of a port."""
    separator = "." if "amqp" in peer.connector_id else "/"
    names: dict[str, Any] = {"downlinkTopicPattern": separator.join(("plant", "{DevEUI}", "down"))}
    if port is not None:
        names = {"topics": [{"fPort": port, **names}]}
    settings = peer.config(**names, downlinkEnabled=enabled)
    async with REGISTRY[peer.connector_id].open(settings, peer.context(downlinks=downlinks)) as transport:
        yield transport


async def receive(transport: Transport, count: int) -> list[Incoming]:
    with trio.fail_after(60):
        return [await transport.receive() for _ in range(count)]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


async def test_a_downlink_arrives_and_is_acknowledged_when_it_is_told(peer: Peer, autojump_clock: MockClock) -> None:
    async with opened(peer) as transport:
        await peer.outbox.put(b"go")
        (incoming,) = await receive(transport, 1)
        assert (incoming.body, incoming.redelivered, incoming.retained) == (b"go", False, False)
        assert incoming.source.replace(".", "/") == "plant/1/down"
        await trio.sleep(5)
        assert peer.outbox.acknowledged == []
        await transport.acknowledge(incoming)
        await wait_all_tasks_blocked()
        assert peer.outbox.acknowledged == [b"go"]


@pytest.mark.parametrize("port", [None, 7])
async def test_a_downlink_by_the_topic_of_a_port_has_that_port(
    peer: Peer, autojump_clock: MockClock, port: int | None
) -> None:
    async with opened(peer, port=port) as transport:
        await peer.outbox.put(b"go")
        (incoming,) = await receive(transport, 1)
    assert incoming.f_port == port


async def test_what_was_not_acknowledged_comes_again_and_is_marked(peer: Peer, autojump_clock: MockClock) -> None:
    async with opened(peer) as transport:
        await peer.outbox.put(*numbered(3))
        first, *_ = await receive(transport, 3)
        await transport.acknowledge(first)
        await wait_all_tasks_blocked()
    await peer.outbox.put(b"meanwhile")
    async with opened(peer) as transport:
        again = await receive(transport, 3)
        assert [(one.body, one.redelivered) for one in again] == [
            (b"1", True), (b"2", True), (b"meanwhile", False),
        ]  # fmt: skip
        for incoming in again:
            await transport.acknowledge(incoming)
    assert peer.outbox.acknowledged == [b"0", b"1", b"2", b"meanwhile"]


async def test_an_acknowledgement_after_the_link_was_lost_is_no_acknowledgement(
    peer: Peer, autojump_clock: MockClock
) -> None:
    async def lose() -> None:
        async with opened(peer) as transport:
            await peer.outbox.put(b"go")
            (incoming,) = await receive(transport, 1)
            await peer.hang_up()
            await transport.acknowledge(incoming)
            await trio.sleep_forever()

    with trio.fail_after(60), pytest.RaisesGroup(LinkLost, allow_unwrapped=True, flatten_subgroups=True):
        await lose()
    assert peer.outbox.acknowledged == []
    async with opened(peer) as transport:
        (again,) = await receive(transport, 1)
        assert (again.body, again.redelivered) == (b"go", True)


async def test_downlinks_keep_their_order_however_many_come(peer: Peer, autojump_clock: MockClock) -> None:
    many = numbered(peer.window * 3)
    await peer.outbox.put(*many)
    async with opened(peer) as transport:
        for body in many:
            (incoming,) = await receive(transport, 1)
            assert incoming.body == body
            await transport.acknowledge(incoming)
    assert peer.outbox.acknowledged == many


async def test_downlinks_that_nobody_takes_hold_no_uplink_back(peer: Peer, autojump_clock: MockClock) -> None:
    many = numbered(peer.window * 2)
    await peer.outbox.put(*many)
    async with opened(peer) as transport:
        for _ in range(3):
            await trio.sleep(100)
            receipts = Receipts()
            with trio.fail_after(5):
                await transport.send(batch_of(256), receipts)
            assert sorted(receipts.delivered_) == list(range(256))
        assert [incoming.body for incoming in await receive(transport, peer.window)] == many[: peer.window]


async def test_waiting_that_is_cancelled_loses_no_downlink(peer: Peer, autojump_clock: MockClock) -> None:
    many = numbered(30)
    received: list[bytes] = []
    async with opened(peer) as transport, trio.open_nursery() as nursery:
        nursery.start_soon(peer.outbox.put, *many)
        with trio.fail_after(60):
            while len(received) < len(many):
                with trio.CancelScope() as scope:
                    nursery.start_soon(_cancel_soon, scope, len(received) % 4)
                    incoming = await transport.receive()
                    received.append(incoming.body)
                    scope.shield = True
                    await transport.acknowledge(incoming)
    assert received == many
    assert peer.outbox.acknowledged == many


async def _cancel_soon(scope: trio.CancelScope, after: int) -> None:
    for _ in range(after):
        await trio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.parametrize(("downlinks", "enabled"), [(False, True), (True, False)])
async def test_where_no_downlinks_are_wanted_none_come(
    peer: Peer, autojump_clock: MockClock, downlinks: bool, enabled: bool
) -> None:
    await peer.outbox.put(b"go")
    async with opened(peer, downlinks=downlinks, enabled=enabled) as transport:
        with trio.move_on_after(60) as waiting:
            await transport.receive()
        assert waiting.cancelled_caught
    assert peer.outbox.acknowledged == []


@pytest.mark.parametrize(("downlinks", "enabled"), [(False, True), (True, False)])
async def test_opening_without_downlinks_removes_what_was_left_for_them(
    peer: Peer, autojump_clock: MockClock, downlinks: bool, enabled: bool
) -> None:
    for _ in range(2):
        async with opened(peer):
            pass
        assert peer.outbox.routed, "kept while we are away"
        async with opened(peer, downlinks=downlinks, enabled=enabled):
            pass
        assert not peer.outbox.routed


async def test_nothing_is_acknowledged_before_it_is_on_disk(peer: Peer, autojump_clock: MockClock) -> None:
    disk = Disk()
    disk.failing = True
    messages = [body(), b"no JSON", body(FPort=0), body(FPort=7)]
    async with (
        open_downlinks(disk, MemoryStore().append, EventLog().tell) as downlinks,
        opened(peer) as transport,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(receive_downlinks, transport, Inbox("plant", downlinks, None))
        await peer.outbox.put(*messages)
        await trio.sleep(30)
        assert peer.outbox.acknowledged == []
        disk.failing = False
        await trio.sleep(5)
        assert peer.outbox.acknowledged == messages
        assert len(disk.rows) == 3
        nursery.cancel_scope.cancel()
