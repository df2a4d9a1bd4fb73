"""What one cursor hands on becomes durable with what it settles: both or neither, and once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from tests.spool.house import House, report
from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor, Spool, SpoolLimits, Verdict


def delivered(*seqs: int) -> list[tuple[int, Verdict]]:
    return [(seq, Verdict.DELIVERED) for seq in seqs]


async def take(cursor: Cursor) -> list[Uplink]:
    with trio.move_on_after(0.2):
        return await cursor.next_batch(100, 1 << 20)
    return []


async def fill(spool: Spool) -> None:
    for n in range(100):
        await spool.append(report(n, size=20_000))


async def test_it_follows_in_the_journal_and_survives(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("a")
        for n in (1, 2):
            await spool.append(report(n))
        first, second = await take(cursor)
        await cursor.commit(delivered(1), [(1, first.handed_on_to("b"))])
        assert (await spool.append(report(3))).seq == 4
        assert [uplink.recipient for uplink in await take(cursor)] == [None, "b", None]
        assert cursor.ledger.received == 4
        assert spool.imbalance("a") == 0
    async with house.open() as spool:
        cursor = await spool.cursor("a")
        assert [(uplink.seq, uplink.body) for uplink in await take(cursor)] == [
            (2, second.body), (3, first.body), (4, report(3).body),
        ]  # fmt: skip


async def test_what_is_settled_twice_is_handed_on_once(house: House) -> None:
    house.limits = replace(house.limits, duplicate_window_s=0.0)
    async with house.open() as spool:
        cursor = await spool.cursor("a")
        await spool.append(report(1))
        (uplink,) = await take(cursor)
        for _ in range(2):
            await cursor.commit(delivered(1), [(1, uplink.handed_on_to("b"))])
            house.now_s += 1
        assert [each.seq for each in await take(cursor)] == [2]


async def test_two_cursors_hand_one_report_on_once_to_each(house: House) -> None:
    async with house.open() as spool:
        cursors = [await spool.cursor("a"), await spool.cursor("b")]
        await spool.append(report(1))
        (uplink,) = await take(cursors[0])
        async with trio.open_nursery() as nursery:
            for cursor in cursors:
                nursery.start_soon(cursor.commit, delivered(1), [(1, uplink.handed_on_to(to)) for to in ("y", "z")])
        assert [each.recipient for each in await take(cursors[0])] == ["y", "z"]
        assert (await spool.append(report(1))).duplicate
        assert spool.imbalance("a") == spool.imbalance("b") == 0


async def test_without_room_nothing_is_settled_and_it_works_later(house: House) -> None:
    house.limits = SpoolLimits(max_bytes=1 << 20, min_free_bytes=0, refuse_when_full=True)
    async with house.open() as spool:
        cursor = await spool.cursor("a")
        with pytest.raises(SpoolUnavailable, match="full"):
            await fill(spool)
        stored = cursor.ledger.received
        uplinks = await take(cursor)
        with pytest.raises(SpoolUnavailable, match="full"):
            await cursor.commit(delivered(1), [(1, uplinks[0].handed_on_to("b"))])
        assert (cursor.position, cursor.ledger.delivered) == (0, 0)
        await cursor.commit(delivered(*range(1, 5)))
        await cursor.commit(delivered(5), [(5, uplinks[4].handed_on_to("b"))])
        assert (cursor.position, cursor.ledger.received) == (5, stored + 1)
        assert spool.imbalance("a") == 0


async def test_a_new_report_beside_it_is_refused_alone_or_stored(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("a")
        await spool.append(report(1))
        (uplink,) = await take(cursor)
        ring = spool.writer.ring
        spool.writer.ring = lambda: None  # type: ignore[method-assign] # so that both are one transaction
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.append, report(2))
            nursery.start_soon(cursor.commit, delivered(1), [(1, uplink.handed_on_to("b"))])
            await trio.testing.wait_all_tasks_blocked()
            ring()
        assert [(each.seq, each.recipient) for each in await take(cursor)] == [(2, "b"), (3, None)]


async def test_a_cursor_that_is_gone_hands_nothing_on(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("a")
        other = await spool.cursor("b")
        await spool.append(report(1))
        (uplink,) = await take(cursor)
        await spool.forget("a")
        await cursor.commit(delivered(1), [(1, uplink.handed_on_to("b"))])
        assert [each.seq for each in await take(other)] == [1]


async def test_equal_messages_are_different_when_they_may_repeat(house: House) -> None:
    async with house.open() as spool:
        message = replace(report(1), repeatable=True)
        assert [(await spool.append(message)).seq for _ in range(3)] == [1, 2, 3]
