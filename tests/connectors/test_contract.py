"""What the engine relies on, asked of every connector in the registry.

A connector without a peer in `peers.PEERS` fails here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import tpxd.connectors
from tests.connectors.peers import FURTHER_PEERS, PEERS, Fate, Peer
from tests.connectors.traffic import LANES, Receipts, batch_of, outgoing
from tpxd.connector import REGISTRY, Outgoing
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, TransportError, leaves

for _module in pkgutil.iter_modules(tpxd.connectors.__path__, "tpxd.connectors."):
    importlib.import_module(_module.name)

FAR_TOO_LONG_S = 300.0


@pytest.fixture(params=[*sorted(REGISTRY), *FURTHER_PEERS])
def peer(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Peer:
    peers = PEERS | FURTHER_PEERS
    assert request.param in peers, f"tests/connectors/peers.py has no peer for the connector {request.param}"
    return peers[request.param](nursery)


@contextmanager
def fails_with(kind: type[TransportError], hint: str = "") -> Iterator[None]:
    """The block ends with this error, alone or in a group of transport errors, and not by waiting for ever."""
    try:
        with trio.fail_after(FAR_TOO_LONG_S):
            yield
    except (TransportError, BaseExceptionGroup) as error:
        found = list(leaves(error))
        assert all(isinstance(leaf, TransportError) for leaf in found), found
        assert isinstance(found[0], kind), found
        assert hint in (found[0].hint or ""), found[0].hint
    else:
        pytest.fail(f"it ended without {kind.__name__}")


async def open_and_send(peer: Peer, batch: Sequence[Outgoing], receipts: Receipts) -> None:
    async with REGISTRY[peer.connector_id].open(peer.config(), peer.context()) as transport:
        await transport.send(batch, receipts)


async def assert_nothing_is_left(peer: Peer, tasks: int) -> None:
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    for stream in peer.near_ends:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


def tasks_now() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_it_opens_and_closes(peer: Peer, autojump_clock: MockClock) -> None:
    tasks = tasks_now()
    async with REGISTRY[peer.connector_id].open(peer.config(), peer.context()):
        assert len(peer.near_ends) == 1
    await assert_nothing_is_left(peer, tasks)


async def test_opening_fails_when_the_far_end_is_away(peer: Peer, autojump_clock: MockClock) -> None:
    tasks = tasks_now()
    peer.away = True
    with fails_with(ConnectFailed):
        await open_and_send(peer, [], Receipts())
    await assert_nothing_is_left(peer, tasks)


@pytest.mark.parametrize("size", [0, 1, 3, 256])
async def test_a_batch_gets_its_receipts_and_each_lane_stays_in_order(
    peer: Peer, autojump_clock: MockClock, size: int
) -> None:
    batch, receipts = batch_of(size), Receipts()
    with trio.fail_after(FAR_TOO_LONG_S):
        await open_and_send(peer, batch, receipts)
    assert sorted(receipts.delivered_) == list(range(size))
    assert receipts.rejected_ == {}
    for lane in LANES:
        bodies = [item.body for item in batch if item.uplink.lane == lane]
        assert [body for body in peer.taken if body in bodies] == bodies
        assert [batch[index].body for index in receipts.delivered_ if batch[index].uplink.lane == lane] == bodies


async def test_a_second_batch_goes_over_the_same_connection(peer: Peer, autojump_clock: MockClock) -> None:
    first, second = Receipts(), Receipts()
    async with REGISTRY[peer.connector_id].open(peer.config(), peer.context()) as transport:
        await transport.send(batch_of(2, lanes=1), first)
        await transport.send(batch_of(2, lanes=1), second)
    assert first.delivered_ == second.delivered_ == [0, 1]
    assert len(peer.near_ends) == 1


@pytest.mark.parametrize("lanes", [1, 3])
async def test_a_link_lost_in_mid_batch_is_told_and_only_receipts_were_reported(
    peer: Peer, autojump_clock: MockClock, lanes: int
) -> None:
    tasks = tasks_now()
    batch, receipts = batch_of(9, lanes), Receipts()
    peer.decide = lambda body: Fate.HANG_UP if body == batch[3].body else Fate.TAKE
    with fails_with(LinkLost):
        await open_and_send(peer, batch, receipts)
    assert 3 not in receipts.delivered_
    assert {batch[index].body for index in receipts.delivered_} <= set(peer.taken)
    assert receipts.rejected_ == {}
    if lanes == 1:
        assert receipts.delivered_ == [0, 1, 2]
    await assert_nothing_is_left(peer, tasks)


async def test_a_link_lost_between_batches_is_told_or_mended(peer: Peer, autojump_clock: MockClock) -> None:
    first, second = Receipts(), Receipts()
    with trio.fail_after(FAR_TOO_LONG_S):
        try:
            async with REGISTRY[peer.connector_id].open(peer.config(), peer.context()) as transport:
                await transport.send(batch_of(2, lanes=1), first)
                await peer.hang_up()
                await wait_all_tasks_blocked()
                await transport.send(batch_of(2, lanes=1), second)
        except* LinkLost:
            assert second.delivered_ == []
        else:
            assert second.delivered_ == [0, 1]
    assert first.delivered_ == [0, 1]


async def test_wrong_credentials_are_told_as_such(peer: Peer, autojump_clock: MockClock) -> None:
    tasks = tasks_now()
    peer.credentials_wrong = True
    receipts = Receipts()
    with fails_with(AuthenticationFailed):
        await open_and_send(peer, batch_of(6), receipts)
    assert receipts.delivered_ == []
    assert receipts.rejected_ == {}
    await assert_nothing_is_left(peer, tasks)


async def test_an_uplink_without_what_a_pattern_names_is_rejected_and_the_others_go(
    peer: Peer, autojump_clock: MockClock
) -> None:
    batch, receipts = batch_of(6), Receipts()
    batch[2] = outgoing(2, LANES[2], DevEUI=None)
    with trio.fail_after(FAR_TOO_LONG_S):
        await open_and_send(peer, batch, receipts)
    assert sorted(receipts.delivered_) == [0, 1, 3, 4, 5]
    assert "DevEUI" in receipts.rejected_[2]
    assert batch[2].body not in peer.taken


async def test_a_refused_uplink_is_rejected_where_the_protocol_can_refuse(
    peer: Peer, autojump_clock: MockClock
) -> None:
    batch, receipts = batch_of(6), Receipts()
    peer.decide = lambda body: Fate.REFUSE if body == batch[2].body else Fate.TAKE
    if peer.can_refuse:
        with trio.fail_after(FAR_TOO_LONG_S):
            await open_and_send(peer, batch, receipts)
        assert sorted(receipts.delivered_) == [0, 1, 3, 4, 5]
        assert receipts.rejected_[2]
    else:
        # no answer is all that such a peer has to say
        with fails_with(LinkLost):
            await open_and_send(peer, batch, receipts)
        assert 2 not in receipts.delivered_
        assert receipts.rejected_ == {}


async def test_silence_is_a_lost_link(peer: Peer, autojump_clock: MockClock) -> None:
    tasks = tasks_now()
    batch, receipts = batch_of(6), Receipts()
    peer.decide = lambda body: Fate.STAY_SILENT
    begun = trio.current_time()
    with fails_with(LinkLost, "actionTimeout too short"):
        await open_and_send(peer, batch, receipts)
    assert trio.current_time() - begun == pytest.approx(peer.config().actionTimeout / 1000, abs=1.0)
    assert receipts.delivered_ == []
    await assert_nothing_is_left(peer, tasks)


async def test_a_cancelled_send_leaves_the_connection_usable_or_lost_and_never_silent(
    peer: Peer, autojump_clock: MockClock
) -> None:
    cancelled, receipts = Receipts(), Receipts()
    peer.decide = lambda body: Fate.STAY_SILENT
    with trio.fail_after(FAR_TOO_LONG_S):
        try:
            async with REGISTRY[peer.connector_id].open(peer.config(), peer.context()) as transport:
                with trio.move_on_after(1):
                    await transport.send(batch_of(6), cancelled)
                peer.decide = lambda body: Fate.TAKE
                await transport.send(batch_of(6), receipts)
        except* LinkLost:
            assert len(receipts.delivered_) < 6
        else:
            assert sorted(receipts.delivered_) == list(range(6))
    assert cancelled.delivered_ == []
    assert cancelled.rejected_ == {}


async def test_a_connection_that_is_cancelled_leaves_nothing(peer: Peer, autojump_clock: MockClock) -> None:
    tasks = tasks_now()
    peer.decide = lambda body: Fate.STAY_SILENT
    with trio.move_on_after(1) as scope:
        await open_and_send(peer, batch_of(6), Receipts())
    assert scope.cancelled_caught
    await assert_nothing_is_left(peer, tasks)


async def test_waiting_for_a_downlink_can_be_cancelled(peer: Peer, autojump_clock: MockClock) -> None:
    receipts = Receipts()
    async with REGISTRY[peer.connector_id].open(peer.config(), peer.context()) as transport:
        with trio.move_on_after(1) as scope:
            await transport.receive()
        assert scope.cancelled_caught
        await transport.send(batch_of(3), receipts)
    assert sorted(receipts.delivered_) == [0, 1, 2]
