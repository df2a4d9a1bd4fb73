"""`backlogShare`: new uplinks go first, the backlog gets its share, and each device's order is kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, delivered, make_connection, make_uplink, running
from tpxd.connection import backlog as module
from tpxd.connection.connection import Connection
from tpxd.connection.in_hand import CONVICTED
from tpxd.connector import Outgoing, Receipts
from tpxd.errors import LinkLost, SpoolUnavailable
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Rejected


class Site:
    """A queue whose backlog is of the devices OLD0 to OLD9, and a far end."""

    def __init__(self, backlog: int) -> None:
        self.peer, self.cursor = Peer(), MemoryCursor()
        self.backlog = backlog
        for n in range(backlog):
            self.arrive(f"OLD{n % 10}")

    def arrive(self, lane: str) -> int:
        """An uplink is stored; its seq."""
        seq = self.cursor.newest_seq + 1
        self.cursor.add(make_uplink(seq, lane))
        return seq

    async def arrive_at(self, per_second: float) -> None:
        """New devices send one uplink each, for ever."""
        for n in count():
            await trio.sleep(1 / per_second)
            self.arrive(f"NEW{n}")

    def connection(self, **configuration: Any) -> Connection:
        return make_connection(self.peer, self.cursor, **{"backlogShare": 0.2, **configuration})

    @property
    def sent(self) -> list[int]:
        return [seq for batch in self.peer.batches for seq in batch]

    def sent_of_backlog(self) -> int:
        return sum(seq <= self.backlog for seq in self.sent)


@pytest.mark.parametrize(("share", "limit"), [(0.2, 10), (0.5, 10), (0.25, 1), (0.05, 40)])
async def test_the_backlog_gets_its_share_while_new_uplinks_wait(
    autojump_clock: MockClock, share: float, limit: int
) -> None:
    site = Site(backlog=1_000)
    async with running(site.connection(backlogShare=share, uplinkRateLimiter=limit)), trio.open_nursery() as nursery:
        await trio.sleep(2)
        nursery.start_soon(site.arrive_at, 2 * limit)
        await trio.sleep(1)
        begun, seconds = len(site.sent), 100 / limit
        before = site.sent_of_backlog()
        await trio.sleep(seconds)
        assert len(site.sent) - begun == pytest.approx(100, abs=limit)
        assert site.sent_of_backlog() - before == pytest.approx(share * 100, abs=2 + share * limit)
        nursery.cancel_scope.cancel()


async def test_the_backlog_gets_all_that_new_uplinks_leave(autojump_clock: MockClock) -> None:
    site = Site(backlog=100)
    async with running(site.connection(uplinkRateLimiter=10)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.arrive_at, 4)
            await trio.sleep(1)
            for _ in range(16):
                await trio.sleep(1)
                assert site.cursor.newest_seq - max(site.sent) <= 2, "new uplinks go at once"
            assert site.sent_of_backlog() == 100
            nursery.cancel_scope.cancel()
        await trio.sleep(1)
    assert sorted(delivered(site.cursor)) == list(range(1, site.cursor.newest_seq + 1))


async def test_a_device_of_the_backlog_waits_for_its_turn_in_it(autojump_clock: MockClock) -> None:
    site = Site(backlog=40)
    async with running(site.connection(uplinkRateLimiter=5)):
        await trio.sleep(1)
        joins, again = site.arrive("OLD3"), site.arrive("OLD3")
        overtakes = site.arrive("NEW")
        await trio.sleep(1.1)
        assert overtakes in site.sent
        assert joins not in site.sent
        await trio.sleep(10)
    assert site.sent[-2:] == [joins, again]


async def test_a_device_whose_backlog_was_sent_overtakes_the_others(autojump_clock: MockClock) -> None:
    site = Site(backlog=0)
    site.arrive("FIRST")
    for _ in range(100):
        site.arrive("REST")
    async with running(site.connection(uplinkRateLimiter=5)):
        await trio.sleep(2)
        seq = site.arrive("FIRST")
        await trio.sleep(0.5)
        assert seq in site.sent


async def test_without_a_share_all_goes_in_order(autojump_clock: MockClock) -> None:
    site = Site(backlog=40)
    async with running(site.connection(backlogShare=None, uplinkRateLimiter=5)):
        await trio.sleep(1)
        site.arrive("NEW")
        await trio.sleep(20)
    assert site.sent == list(range(1, 42))


async def test_after_the_backlog_everything_goes_in_order_again(autojump_clock: MockClock) -> None:
    site = Site(backlog=20)
    async with running(site.connection(uplinkRateLimiter=5)):
        await trio.sleep(1)
        site.arrive("NEW")
        await trio.sleep(10)
        assert site.cursor.position == 21
        later = [site.arrive("OLD1"), site.arrive("NEW"), site.arrive("OLD1")]
        await trio.sleep(2)
    assert site.sent[-3:] == later
    assert len(site.sent) == len(set(site.sent)) == 24


async def test_what_is_in_hand_at_a_loss_goes_again_in_its_order(autojump_clock: MockClock) -> None:
    site = Site(backlog=60)

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        await trio.sleep(1)
        if len(site.peer.batches) == 3:
            receipts.delivered(1)
            raise LinkLost("reset by peer")
        for index in range(len(batch)):
            receipts.delivered(index)

    site.peer.sending = sending
    async with running(site.connection()):
        await trio.sleep(1.5)
        new = [site.arrive("NEW0"), site.arrive("NEW1"), site.arrive("NEW0")]
        await trio.sleep(60)
    lost, *resent = site.peer.batches[2:]
    assert lost == [*new, *range(49, 61)]
    assert [seq for batch in resent for seq in batch] == [seq for seq in lost if seq != new[1]]
    assert sorted(delivered(site.cursor)) == list(range(1, 64))


async def test_a_disk_that_refuses_for_a_while_costs_nothing_of_the_backlog(autojump_clock: MockClock) -> None:
    site, behind_it = Site(backlog=20), trio.Event()

    async def slowly(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        if 21 in site.sent and batch[0].uplink.seq != 21:
            behind_it.set()
        await trio.sleep(5)
        for index in range(len(batch)):
            receipts.delivered(index)

    site.peer.sending = slowly
    async with running(site.connection(uplinkRateLimiter=1)):
        await trio.sleep(12)
        site.cursor.refuses = SpoolUnavailable("the disk refuses")
        site.arrive("NEW")
        await behind_it.wait()
        site.cursor.refuses = None  # the new one has its receipt, the next of the backlog has not
        await trio.sleep(200)
    assert sorted(delivered(site.cursor)) == list(range(1, 22))


async def test_a_poisonous_new_uplink_becomes_a_dead_letter(autojump_clock: MockClock) -> None:
    site = Site(backlog=60)

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        for index, outgoing in enumerate(batch):
            if outgoing.uplink.seq == 61:
                raise LinkLost("closed by the broker")
            receipts.delivered(index)

    site.peer.sending = sending
    async with running(site.connection(uplinkRateLimiter=10)):
        await trio.sleep(1.05)
        site.arrive("NEW")
        await trio.sleep(300)
    assert (61, Rejected(CONVICTED)) in site.cursor.fates
    assert sorted(delivered(site.cursor)) == list(range(1, 61))


async def test_a_link_that_falls_behind_lets_the_newest_go_first_soon(autojump_clock: MockClock) -> None:
    site = Site(backlog=0)
    async with running(site.connection(uplinkRateLimiter=10)):
        await trio.sleep(1)
        for n in range(1_000):
            site.arrive(f"CROWD{n % 10}")
        await trio.sleep(10)
        seq = site.arrive("NEW")
        await trio.sleep(0.5)
        assert seq in site.sent


async def test_batches_stay_short_enough_for_new_uplinks(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        for index in range(len(batch)):
            await trio.sleep(0.1)
            receipts.delivered(index)

    site = Site(backlog=1_000)
    site.peer.sending = sending
    async with running(site.connection()):
        for n in range(20):
            await trio.sleep(3)
            seq = site.arrive(f"NEW{n}")
            await trio.sleep(6.5)
            assert seq in delivered(site.cursor)


async def test_a_file_that_takes_the_share_away_goes_on_in_order(autojump_clock: MockClock) -> None:
    site = Site(backlog=60)
    first = site.connection(uplinkRateLimiter=10)
    async with running(first):
        await trio.sleep(1.05)
        new = [site.arrive("NEW0"), site.arrive("NEW1")]
        await trio.sleep(0.5)
        assert set(new) <= set(site.sent)
    second = site.connection(backlogShare=None, in_hand=first.queue.in_hand)
    async with running(second):
        site.arrive("NEW2")
        await trio.sleep(2)
    assert len(site.sent) == len(set(site.sent)) == 63
    assert site.cursor.position == 63
    assert site.sent[-1] == 63


async def alone_and_again(site: Site, connection: Connection, reason: str) -> None:
    """The backlog goes alone for this reason; once it was sent, new uplinks may overtake again."""
    async with running(connection):
        await trio.sleep(2)
        site.arrive("NEW")
        await trio.sleep(2)
        assert connection.health.to_document()["backlogAlone"] == reason
        assert site.sent == sorted(site.sent)
        site.cursor.far_ahead = False
        await trio.sleep(30)
        assert connection.health.to_document()["backlogAlone"] is None
        assert site.cursor.position == site.cursor.newest_seq


async def test_with_too_many_devices_the_backlog_goes_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LANES", 9)
    site = Site(backlog=50)
    await alone_and_again(site, site.connection(uplinkRateLimiter=5), module.MANY_LANES)


async def test_with_too_much_ahead_the_backlog_goes_alone(autojump_clock: MockClock) -> None:
    site = Site(backlog=50)
    site.cursor.far_ahead = True
    await alone_and_again(site, site.connection(uplinkRateLimiter=5), module.FAR_AHEAD)


async def test_a_disk_that_cannot_be_read_is_asked_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SURVEY_ROWS", 20)
    site = Site(backlog=20)
    for n in range(20):
        site.arrive(f"OTHER{n}")
    look, asked = site.cursor.lanes_waiting, 0

    async def lanes_waiting(*args: Any, **more: Any) -> dict[str, int]:
        nonlocal asked
        asked += 1
        if 2 <= asked <= 4:
            raise SpoolUnavailable("the disk refuses")
        return await look(*args, **more)

    monkeypatch.setattr(site.cursor, "lanes_waiting", lanes_waiting)
    async with running(site.connection(uplinkRateLimiter=5)):
        await trio.sleep(1)
        seq = site.arrive("NEW")
        await trio.sleep(1)
        assert site.sent == list(range(1, len(site.sent) + 1)), "until all are known, the backlog goes alone"
        await trio.sleep(2)
        assert seq in site.sent


async def test_what_was_read_before_a_border_was_drawn_is_read_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SURVEY_ROWS", 2)
    site = Site(backlog=10)
    connection = site.connection()
    queue, in_hand, first = connection.queue.cursor, connection.queue.in_hand, connection.queue.backlog
    assert first is not None
    read, look = site.cursor.newcomers, site.cursor.lanes_waiting

    async def newcomers(*args: Any, **more: Any) -> list[Uplink]:
        found = await read(*args, **more)
        for lane in ("NEW", "OTHER", "OTHER"):
            site.arrive(lane)
        first.draw_border(queue)
        await trio.sleep(1.5)
        return found

    async def lanes_waiting(*args: Any, **more: Any) -> dict[str, int]:
        await trio.sleep(1)
        return await look(*args, **more)

    async with trio.open_nursery() as nursery:
        first.draw_border(queue)
        nursery.start_soon(first.watch, queue, in_hand)
        await trio.sleep(0.9)
        site.arrive("NEW")
        monkeypatch.setattr(site.cursor, "lanes_waiting", lanes_waiting)
        with monkeypatch.context() as slowly:
            slowly.setattr(site.cursor, "newcomers", newcomers)
            await first.take(queue, in_hand, 16)
        await trio.sleep(5)
        in_hand.last_seq = 11
        site.arrive("NEW")
        assert await first.take(queue, in_hand, 16) == [], "it still waits in the backlog, as number 12"
        nursery.cancel_scope.cancel()


async def test_what_is_in_hand_makes_no_backlog_for_the_next_version_of_the_file(autojump_clock: MockClock) -> None:
    site = Site(backlog=60)
    versions = [site.connection(uplinkRateLimiter=10)]
    versions.append(site.connection(uplinkRateLimiter=10, in_hand=versions[0].queue.in_hand))
    for version in versions:
        async with running(version):
            await trio.sleep(0.5)
            site.cursor.refuses = SpoolUnavailable("the disk refuses")
            seq = site.arrive("NEW")
            await trio.sleep(0.5)
            assert seq in site.sent


async def test_what_joined_the_backlog_holds_the_next_of_its_device(autojump_clock: MockClock) -> None:
    """Its last uplink of before the border is sent, and one that came behind it still waits."""
    site = Site(backlog=0)
    for n in range(100):
        site.arrive("JOINS" if n == 19 else "REST")
    async with running(site.connection(uplinkRateLimiter=5)):
        await trio.sleep(1)
        joined = site.arrive("JOINS")
        await trio.sleep(9)
        assert 20 in site.sent
        next_of_it, new = site.arrive("JOINS"), site.arrive("NEW")
        await trio.sleep(2)
        assert new in site.sent
        await trio.sleep(60)
    order = [seq for seq in site.sent if seq in (20, joined, next_of_it)]
    assert order == [20, joined, next_of_it]
