"""What one cursor hands on becomes durable with what it settles: both or neither, and once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from tests.spool.house import House, report
from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor, Fate, Spool, SpoolLimits


def delivered(*seqs: int) -> list[tuple[int, Fate]]:
    return [(seq, Fate.DELIVERED) for seq in seqs]


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
        assert spool.queue("a").ledger.imbalance == 0
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
        assert spool.queue("a").ledger.imbalance == spool.queue("b").ledger.imbalance == 0


@pytest.mark.parametrize("refuse", [True, False])
async def test_a_full_spool_with_a_chain_drains_by_what_is_settled(house: House, refuse: bool) -> None:
    """What the receipts free is the room for what is handed on, so nobody loses anything."""
    house.limits = SpoolLimits(max_bytes=1 << 20, min_free_bytes=0, refuse_when_full=refuse, page_size=4_096)
    async with house.open() as spool:
        first, last = await spool.cursor("first"), await spool.cursor("last")
        for n in range(1_000 if refuse else 24):
            try:
                await spool.append(report(n, size=20_000))
            except SpoolUnavailable:
                break
        while waiting := await first.next_batch(4, 1 << 20, wait=False):
            await last.commit([(uplink.seq, Fate.FILTERED) for uplink in waiting if uplink.recipient is None])
            handed = [(each.seq, each.handed_on_to("last")) for each in waiting if each.recipient is None]
            await first.commit(delivered(*[uplink.seq for uplink in waiting]), handed)
            await last.commit([(each.seq, Fate.DELIVERED) for each in waiting if each.recipient is not None])
        count = first.ledger.received // 2
        assert count >= 20
        assert (first.ledger.delivered, first.ledger.dropped) == (2 * count, 0)
        assert (last.ledger.dropped, last.ledger.filtered) == (0, count)
        assert (await spool.append(report(5_000, size=20_000))).seq > count


async def test_a_receipt_stands_though_there_is_no_room_for_what_is_handed_on(house: House) -> None:
    house.limits = SpoolLimits(max_bytes=1 << 20, min_free_bytes=0, refuse_when_full=True)
    async with house.open() as spool:
        first, last = await spool.cursor("first"), await spool.cursor("last")
        with pytest.raises(SpoolUnavailable, match="full"):
            await fill(spool)
        stored = first.ledger.received
        uplinks = await take(first)
        handed = [(each.seq, each.handed_on_to(to)) for each in uplinks[:3] for to in ("last", "nobody")]
        await first.commit(delivered(1, 2, 3), handed)
        assert (first.position, first.ledger.delivered, first.ledger.received) == (3, 3, stored)
        assert (last.ledger.received, last.ledger.dropped, last.ledger.waiting) == (stored + 3, 3, stored)
        assert spool.queue("first").ledger.imbalance == spool.queue("last").ledger.imbalance == 0
        await first.commit(delivered(1, 2, 3), handed)
        assert last.ledger.dropped == 3, "once"
        with trio.fail_after(5):
            while len(house.events) < 3:
                await spool.exchange.look(lambda journal: None)
    told = {event.connection: event.more for event in house.events if event.kind == "dropped"}
    assert told == {"last": {"count": 3}, "nobody": {"count": 3}}
    async with house.open() as spool:
        assert spool.queue("last").ledger.imbalance == 0
        assert (await spool.cursor("first")).position == 3


async def test_a_duplicate_that_is_not_handed_on_leaves_memory(house: House) -> None:
    """Neither one that was settled before, nor one that its recipient has, is remembered as under way."""
    async with house.open() as spool:
        cursor = await spool.cursor("a")
        for n in (1, 2):
            await spool.append(report(n))
        first, second = await take(cursor)
        for _ in range(3):
            await cursor.commit(delivered(1), [(1, first.handed_on_to("b")), (2, second.handed_on_to("b"))])
        assert (spool.exchange.underway._pending, spool.exchange.underway._bytes) == ({}, 0)
        await cursor.commit(delivered(2), [(2, second.handed_on_to("b"))])
        assert cursor.ledger.received == 4


async def test_a_new_report_beside_it_is_refused_alone_or_stored(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("a")
        await spool.append(report(1))
        (uplink,) = await take(cursor)
        ring = spool.exchange.writer.ring
        spool.exchange.writer.ring = lambda: None  # type: ignore[method-assign] # so that both are one transaction
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
