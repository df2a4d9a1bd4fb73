"""What is in hand outlives its link and its version of the file, but neither its validity nor what that proved."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, make_connection, make_uplink, running
from tpxd.connector import Outgoing, Receipts
from tpxd.errors import ConnectFailed, LinkLost, Throttled
from tpxd.spool import Fate, Filtered, Rejected
from tpxd.timing import ClockWatch


def wall_clock() -> ClockWatch:
    """The epoch was when the test began."""
    begun = trio.current_time()
    return ClockWatch(lambda: None, wall=lambda: trio.current_time() - begun, monotonic=trio.current_time)


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
    connection = make_connection(peer, cursor, uplinkTimeValidity="50s")
    connection.queue.outbound.clock = ClockWatch(
        lambda: None, wall=lambda: then_s + trio.current_time() - begun, monotonic=trio.current_time
    )
    async with running(connection):
        await trio.sleep(120)
    assert peer.batches == [[1, 2], [2]]
    assert cursor.fates == [(1, Fate.EXPIRED), (2, Fate.DELIVERED)]


@pytest.mark.parametrize(("losses", "alone"), [(3, [1]), (4, [2])])
async def test_an_uplink_that_expires_is_suspected_no_more(
    losses: int, alone: list[int], autojump_clock: MockClock
) -> None:
    """Neither does its connection go on sending one uplink at a time, nor is one taken for the second that is first."""

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        if len(peer.batches) <= losses:
            raise LinkLost("closed by the broker")
        for index in range(len(batch)):
            receipts.delivered(index)

    clock = wall_clock()
    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(make_uplink(1, received_ms=0), *(make_uplink(n, received_ms=300_000) for n in range(2, 7)))
    connection = make_connection(peer, cursor, uplinkTimeValidity="200s")
    connection.queue.outbound.clock = clock
    until = trio.current_time() + 250
    peer.opening = lambda: (
        ConnectFailed("away") if len(peer.batches) == losses and trio.current_time() < until else None
    )
    async with running(connection):
        await trio.sleep(400)
    assert peer.batches[losses:] == [[2, 3, 4, 5, 6]], f"and not {alone} alone"
    assert cursor.fates == [(1, Fate.EXPIRED), *((seq, Fate.DELIVERED) for seq in range(2, 7))]


async def test_uplinks_expire_while_the_far_end_asks_for_patience(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        if len(peer.batches) == 1:
            receipts.delivered(0)
            raise Throttled("429 Too Many Requests", retry_after_s=6)
        for index in range(len(batch)):
            receipts.delivered(index)

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n, received_ms=0) for n in range(1, 4)), make_uplink(4, received_ms=60_000))
    connection = make_connection(peer, cursor, uplinkTimeValidity="2s")
    connection.queue.outbound.clock = wall_clock()
    async with running(connection):
        await trio.sleep(5)
        assert connection.health.to_document()["uplinks"]["inFlight"] == 0, "nothing is with the far end while it rests"
        await trio.sleep(5)
    assert peer.batches == [[1, 2, 3, 4], [4]]
    assert [fate for _, fate in cursor.fates] == [
        Fate.DELIVERED, Fate.EXPIRED, Fate.EXPIRED, Fate.DELIVERED
    ]  # fmt: skip


async def test_uplinks_expire_while_those_before_them_wait_for_their_receipts(autojump_clock: MockClock) -> None:
    """After a reopening as many are in hand as go in several batches, each of which may take long."""

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        await trio.sleep(30)
        if len(peer.opens) == 1 and len(peer.batches) == 2:
            raise LinkLost("reset by peer")
        for index in range(len(batch)):
            receipts.delivered(index)

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n, received_ms=0) for n in range(1, 49)))
    connection = make_connection(peer, cursor, uplinkTimeValidity="75s")
    connection.queue.outbound.clock = wall_clock()
    async with running(connection):
        await trio.sleep(200)
    assert [len(batch) for batch in peer.batches] == [16, 32, 16]
    assert [fate for _, fate in cursor.fates] == [Fate.DELIVERED] * 32 + [Fate.EXPIRED] * 16


async def test_each_version_of_the_file_proves_itself(autojump_clock: MockClock) -> None:
    """An HTTP 403 after a new version came is an authentication failure, whatever went out before."""
    cursor = MemoryCursor()
    first = make_connection(Peer(), cursor)
    second = make_connection(Peer(), cursor, in_hand=first.queue.in_hand)
    for connection in (first, second):
        async with running(connection):
            await trio.sleep(1)
            assert connection.far_end.context.proven() is False
            cursor.add(make_uplink(cursor.newest_seq + 1))
            await trio.sleep(1)
            assert connection.far_end.context.proven() is True


async def test_a_new_version_of_the_file_suspects_no_uplink(autojump_clock: MockClock) -> None:
    """Whoever allows larger messages and tells the file so gets also the one on which the link was closed."""

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        if batch[0].uplink.seq == 1:
            raise LinkLost("closed by the broker")
        await trio.sleep_forever()

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 4)))
    first = make_connection(peer, cursor)
    second = make_connection(Peer(), cursor, in_hand=first.queue.in_hand)
    async with running(first):
        await trio.sleep(300)
    assert peer.batches[-1] == [2], "the first one is set aside"
    async with running(second):
        await trio.sleep(1)
    assert cursor.fates == [(seq, Fate.DELIVERED) for seq in (1, 2, 3)]


async def test_health_tells_how_many_are_under_way(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        for index in range(len(batch)):
            await trio.sleep(1)
            receipts.delivered(index)

    cursor = MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 6)))
    async with running(make_connection(Peer(sending=sending), cursor)) as connection:
        await trio.sleep(2.5)
        assert connection.health.to_document()["uplinks"]["inFlight"] == 3
        await trio.sleep(4)
        assert connection.health.to_document()["uplinks"]["inFlight"] == 0


@pytest.mark.parametrize("wanted", [True, False])
async def test_debug_mode_logs_what_became_of_each(
    wanted: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tpxd.connection.debug_log")
    cursor = MemoryCursor()
    cursor.add(make_uplink(1), make_uplink(2))
    async with running(make_connection(Peer(), cursor, debugMode=wanted)):
        await trio.sleep(1)
    logged = [message for message in caplog.messages if ": delivered; the batch of 2" in message]
    assert [f"debugMode: seq {seq}, " in line for seq, line in enumerate(logged, 1)] == [True] * 2 * wanted


async def test_a_second_word_about_an_uplink_is_not_heard(autojump_clock: MockClock) -> None:
    """Late or doubled, it changes neither the fate nor how many are under way."""

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        receipts.delivered(0)
        receipts.rejected(1, "400 Bad Request")
        receipts.filtered(2, "not registered")
        for index in range(3):
            receipts.delivered(index)
            receipts.rejected(index, "too late")
            receipts.filtered(index, "too late")
        assert connection.queue.in_hand.sending == 1
        await trio.sleep(1)
        receipts.delivered(3)

    cursor = MemoryCursor()
    cursor.add(*map(make_uplink, range(1, 5)))
    connection = make_connection(Peer(sending=sending), cursor)
    async with running(connection):
        await trio.sleep(5)
    assert cursor.fates == [
        (1, Fate.DELIVERED),
        (2, Rejected("400 Bad Request")),
        (3, Filtered.UNREGISTERED),
        (4, Fate.DELIVERED),
    ]


@pytest.mark.parametrize("error", [Throttled("busy", retry_after_s=5.0), LinkLost("503 Service Unavailable")])
async def test_debug_mode_logs_where_each_went_and_every_refusal_that_holds(
    error: Exception, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        for index, item in enumerate(batch):
            item.place = f"plant/{item.uplink.seq}\x1b[2J"
            if index == 1 and len(peer.batches) < 3:
                raise error
            receipts.delivered(index)

    caplog.set_level("INFO", "tpxd.connection.debug_log")
    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 4)))
    async with running(make_connection(peer, cursor, debugMode=True)):
        await trio.sleep(120)
    assert peer.batches == [[1, 2, 3], [2, 3], [3]]
    lines = [message.partition("debugMode: ")[2] for message in caplog.messages if "debugMode: " in message]
    lane = make_uplink(1).lane
    shown = [line.partition(" bytes")[2] for line in lines if line.startswith("seq ")]
    assert [line.partition(":")[0] for line in shown] == [f" with plant/{n}\\x1b[2J" for n in (1, 2, 3)]
    assert [line for line in lines if line.startswith("held")] == [
        f"held: {error}; 2 of 3 wait, the oldest is seq 2 of {lane} with plant/2\\x1b[2J",
        f"held: {error}; 1 of 2 wait, the oldest is seq 3 of {lane} with plant/3\\x1b[2J",
    ]
