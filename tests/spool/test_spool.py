"""The spool as the engine and intake use it, over a real file."""

from __future__ import annotations

import sqlite3
import time
from contextlib import AbstractAsyncContextManager, closing

import pytest
import trio

from tests.spool.house import House, append_all, report, settled, take
from tpxd.spool import Fate, Ledger, NewReport, Rejected, Settled


async def test_what_was_appended_is_there_after_a_restart(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        appended = await spool.append(report(1))
        assert appended == (1, False)
        (uplink,) = await cursor.next_batch(10, 1000)
        assert uplink.document == {"DevEUI_uplink": {"FCntUp": 1}}
        assert cursor.oldest_waiting_ms == uplink.received_ms == 1_795_000_000_000
    assert [one.name for one in house.path.parent.iterdir() if "wal" in one.name] == []
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        (uplink,) = await cursor.next_batch(10, 1000)
        expected = report(1)
        assert (uplink.seq, uplink.kind, uplink.lane, uplink.lrn_infos, uplink.body) == (
            1,
            expected.kind,
            expected.lane,
            expected.lrn_infos,
            expected.body,
        )
        assert uplink.fields["FCntUp"] == 1
        assert cursor.oldest_waiting_ms == uplink.received_ms == 1_795_000_000_000
        assert cursor.ledger == Ledger(1, 0, 0, 0, 0, 0, 1)
    assert not house.events


async def test_files_are_for_the_owner_only(house: House) -> None:
    async with house.open() as spool:
        await spool.append(report(1))
        assert house.path.parent.stat().st_mode & 0o777 == 0o700
        assert {one.stat().st_mode & 0o777 for one in house.path.parent.iterdir()} == {0o600}


async def test_each_fate_is_counted_and_rejects_become_dead_letters(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(6))
        uplinks = await take(cursor, 6)
        house.now_s += 5
        early: list[Settled] = [Fate.DELIVERED, Fate.FILTERED, Fate.EXPIRED]
        fates = [*early, Rejected("413"), Fate.DELIVERED]
        await cursor.commit([(uplink.seq, fate) for uplink, fate in zip(uplinks[:5], fates, strict=True)])
        assert (cursor.position, cursor.ledger) == (5, Ledger(6, 2, 1, 1, 1, 0, 1))
        await cursor.commit(settled(uplinks[2:5]))
        assert (cursor.position, cursor.ledger) == (5, Ledger(6, 2, 1, 1, 1, 0, 1))
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        assert (cursor.position, cursor.ledger) == (5, Ledger(6, 2, 1, 1, 1, 0, 1))
        (letter,) = await spool.dead_letters("plant")
        assert (letter.connection, letter.seq, letter.reason, letter.body) == ("plant", 4, "413", uplinks[3].body)
        assert letter.at_ms - letter.received_ms == 5_000
        assert await spool.dead_letters("other") == []
        assert spool.queue("plant").ledger.imbalance == 0


async def test_what_a_commit_skips_is_counted_as_dropped(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(5))
        await cursor.commit([(1, Fate.DELIVERED), (4, Fate.DELIVERED), (99, Fate.DELIVERED)])
        assert (cursor.position, cursor.ledger) == (4, Ledger(5, 2, 0, 0, 0, 2, 1))


async def test_batches_run_ahead_of_commits_and_respect_their_bounds(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(10))
        first = await cursor.next_batch(4, 1 << 20)
        second = await cursor.next_batch(4, 1 << 20, after=first[-1].seq)
        assert [one.seq for one in first + second] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert await cursor.next_batch(4, 1 << 20) == first
        assert len(await cursor.next_batch(4, 1)) == 1
        await cursor.commit(settled(first))
        await cursor.commit(settled(second))
        assert cursor.ledger == Ledger(10, 8, 0, 0, 0, 0, 2)


async def test_a_waiting_cursor_wakes(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        got: list[int] = []

        async def wait() -> None:
            got.extend(uplink.seq for uplink in await cursor.next_batch(10, 1000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not got
            await spool.append(report(1))
        assert got == [1]


@pytest.mark.usefixtures("short_memory")
async def test_a_backlog_comes_from_the_disk_in_order(house: House) -> None:
    async with house.open() as spool:
        fast, slow = await spool.cursor("fast"), await spool.cursor("slow")
        await append_all(spool, range(1_000))
        assert spool.exchange.newest.first_seq > 1
        assert slow.oldest_waiting_ms == 1_795_000_000_000
        for cursor, most in ((fast, 100), (slow, 300)):
            uplinks = await take(cursor, 1_000, most)
            assert [uplink.seq for uplink in uplinks] == list(range(1, 1_001))
            assert len({uplink.body for uplink in uplinks}) == 1_000
            await cursor.commit(settled(uplinks))
            assert cursor.ledger == Ledger(1_000, 1_000, 0, 0, 0, 0, 0)
            assert cursor.oldest_waiting_ms is None


@pytest.fixture
def short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpxd.spool.memories.MAX_UPLINKS", 20)
    monkeypatch.setattr("tpxd.spool.memories.SPARE", 10)


async def test_a_new_queue_begins_at_the_end_and_a_retired_one_goes_on(house: House) -> None:
    async with house.open() as spool:
        early = await spool.cursor("early")
        await append_all(spool, range(3))
        late = await spool.cursor("late")
        assert (early.ledger.waiting, late.ledger.waiting, late.position) == (3, 0, 3)
        await early.commit([(1, Fate.DELIVERED)])
        await spool.retire("early")
        assert early.retired
        await append_all(spool, range(3, 5))
    async with house.open() as spool:
        assert spool.cursors() == ["early", "late"]
        early = await spool.cursor("early")
        assert not early.retired
        assert [uplink.seq for uplink in await take(early, 4)] == [2, 3, 4, 5]
        assert early.ledger == Ledger(5, 1, 0, 0, 0, 0, 4)
        assert await spool.forget("early") == 4
        assert spool.cursors() == ["late"]
        assert (house.events[-1].kind, house.events[-1].more) == ("forgotten", {"waiting": 4})
        assert (await spool.cursor("early")).ledger == Ledger(0, 0, 0, 0, 0, 0, 0)


async def test_duplicates_are_stored_once_also_after_a_restart(house: House) -> None:
    async with house.open() as spool:
        found: list[tuple[int, bool]] = []

        async def append() -> None:
            found.append(await spool.append(report(1)))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(append)
        assert sorted(found) == [(1, False), (1, True), (1, True)]
        assert await spool.append(report(1)) == (1, True)
        assert await spool.append(report(2)) == (2, False)
        assert spool.statistics().duplicates_total == 3
    house.now_s += 599
    async with house.open() as spool:
        assert await spool.append(report(2)) == (2, True)
        house.now_s += 2
        assert await spool.append(report(2)) == (3, False)


async def test_small_texts_are_remembered(house: House) -> None:
    async with house.open() as spool:
        assert spool.recall("instance") is None
        await spool.remember("instance", "0badcafe")
        await spool.remember("first_seq", "no business of the journal")
        assert spool.recall("instance") == "0badcafe"
    async with house.open() as spool:
        await spool.remember("instance", "deadbeef")
    async with house.open() as spool:
        assert spool.recall("instance") == "deadbeef"
        assert spool.recall("first_seq") == "no business of the journal"


async def test_a_cancelled_append_leaves_the_others_alone(house: House) -> None:
    async with house.open() as spool:
        with trio.CancelScope() as scope:
            scope.cancel()
            await spool.append(report(1))
        assert scope.cancelled_caught
        assert (await spool.append(report(2))).duplicate is False
        assert (await spool.append(report(1))).duplicate is True
        with trio.CancelScope() as scope:
            scope.cancel()
            await spool.cursor("plant")
        assert scope.cancelled_caught
        assert (await spool.cursor("plant")).ledger.received == 0


async def test_text_that_is_not_unicode_hurts_its_sender_only(house: House) -> None:
    async with house.open() as spool:
        for broken in (NewReport("k\ud800", "l", "", b"{}"), NewReport("k", "l", "\udfff", b"{}")):
            with pytest.raises(UnicodeEncodeError):
                await spool.append(broken)
        assert (await spool.append(report(1))).seq == 1


async def test_the_writer_shows_that_it_moves(house: House) -> None:
    async with house.open() as spool:
        begun = time.monotonic()
        with trio.fail_after(5):
            while spool.round_ended_at() < begun:
                await spool.append(report(1))


async def test_the_newest_row_counts_though_the_clock_was_ahead_before(house: House) -> None:
    """In memory as after a start: else nothing expires any more until then."""
    async with house.open() as spool:
        house.now_s += 86_400
        await spool.append(report(1))
        house.now_s -= 86_400
        await spool.append(report(2))
        assert spool.statistics().newest_ms == int(house.now_s * 1000)
    async with house.open() as spool:
        assert spool.statistics().newest_ms == int(house.now_s * 1000)


def test_open_is_a_context_manager(house: House) -> None:
    assert isinstance(house.open(), AbstractAsyncContextManager)


async def test_what_is_remembered_for_a_queue_is_forgotten_with_it(house: House) -> None:
    """Also where the last notes take the numbers of those that go, and where the writing fails in between."""
    async with house.open() as spool:
        for id in ("a", "b", "c"):
            await spool.cursor(id)
            for word in ("downlinkUuid", "connector"):
                await spool.remember(f"{word}/{id}" + "/x" * (word == "connector"), f"{word} of {id}")
        await spool.remember("instance", "0badcafe")
        await spool.forget("a")
        await spool.remember("downlinkUuid/d", "new")
    for _ in range(2):
        async with house.open() as spool:
            assert spool.recall("downlinkUuid/a") is None
            assert spool.recall("connector/a/x") is None
            for id in ("b", "c"):
                assert spool.recall(f"downlinkUuid/{id}") == f"downlinkUuid of {id}"
                assert spool.recall(f"connector/{id}/x") == f"connector of {id}"
            assert (spool.recall("instance"), spool.recall("downlinkUuid/d")) == ("0badcafe", "new")
            assert spool.cursors() == ["b", "c"]
    with closing(sqlite3.connect(house.path)) as connection:
        numbers = [n for (n,) in connection.execute("SELECT n FROM meta ORDER BY n")]
    assert numbers == [*range(1, len(numbers) + 1)], "a gap would tell a repair of a note that is lost"
    assert [event.kind for event in house.events] == ["forgotten"]
