"""What is in hand outlives its link and its version of the file, but neither its validity nor what that proved."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from tests.engine.doubles import MemoryCursor, Peer, make_live, make_uplink, running
from tpxd.connector import Outgoing, Receipts
from tpxd.engine.connection import context_of
from tpxd.engine.validity import ClockWatch
from tpxd.errors import ConnectFailed, LinkLost
from tpxd.spool import Verdict


async def test_uplinks_that_grow_too_old_in_hand_expire(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        if len(peer.batches) == 1:
            raise LinkLost("reset by peer")
        for index in range(len(batch)):
            receipts.delivered(index)

    begun, then_s = trio.current_time(), 1_700_000_000.0
    peer, cursor = Peer(sending=sending), MemoryCursor()
    peer.opening = lambda: ConnectFailed("away") if 0 < trio.current_time() - begun < 60 else None
    cursor.add(make_uplink(1), make_uplink(2, received_ms=int(then_s + 600) * 1000))
    live = make_live(peer, cursor, uplinkTimeValidity="50s")
    live.outbound.clock = ClockWatch(
        lambda: None, wall=lambda: then_s + trio.current_time() - begun, monotonic=trio.current_time
    )
    async with running(live):
        await trio.sleep(120)
    assert peer.batches == [[1, 2], [2]]
    assert cursor.fates == [(1, Verdict.EXPIRED), (2, Verdict.DELIVERED)]


async def test_each_version_of_the_file_proves_itself(autojump_clock: MockClock) -> None:
    """An HTTP 403 after a new version came is an authentication failure, whatever went out before."""
    cursor = MemoryCursor()
    first, second = (make_live(Peer(), cursor) for _ in range(2))
    second.flight = first.flight
    for live in (first, second):
        async with running(live):
            await trio.sleep(1)
            assert context_of(live).proven() is False
            cursor.add(make_uplink(cursor.newest_seq + 1))
            await trio.sleep(1)
            assert context_of(live).proven() is True


async def test_a_new_version_of_the_file_suspects_no_uplink(autojump_clock: MockClock) -> None:
    """Whoever allows larger messages and tells the file so gets also the one on which the link was closed."""

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        if batch[0].uplink.seq == 1:
            raise LinkLost("closed by the broker")
        await trio.sleep_forever()

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 4)))
    first, second = make_live(peer, cursor), make_live(Peer(), cursor)
    second.flight = first.flight
    async with running(first):
        await trio.sleep(300)
    assert peer.batches[-1] == [2], "the first one is set aside"
    async with running(second):
        await trio.sleep(1)
    assert cursor.fates == [(seq, Verdict.DELIVERED) for seq in (1, 2, 3)]


async def test_health_tells_how_many_are_under_way(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        for index in range(len(batch)):
            await trio.sleep(1)
            receipts.delivered(index)

    cursor = MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 6)))
    async with running(make_live(Peer(sending=sending), cursor)) as live:
        await trio.sleep(2.5)
        assert live.health.to_document()["uplinks"]["inFlight"] == 3
        await trio.sleep(4)
        assert live.health.to_document()["uplinks"]["inFlight"] == 0


@pytest.mark.parametrize("wanted", [True, False])
async def test_debug_mode_logs_what_became_of_each(
    wanted: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tpxd.engine.debug_log")
    cursor = MemoryCursor()
    cursor.add(make_uplink(1), make_uplink(2))
    async with running(make_live(Peer(), cursor, debugMode=wanted)):
        await trio.sleep(1)
    logged = [message for message in caplog.messages if ": delivered; the batch of 2" in message]
    assert [f"debugMode: seq {seq}, " in line for seq, line in enumerate(logged, 1)] == [True] * 2 * wanted
