"""A spool that can store no more: full by its own limit, too much under way, or on a disk that fails."""

from __future__ import annotations

import sqlite3
import threading

import pytest
import trio

from tests.spool.faults import Faults
from tests.spool.house import House, report, settled, take
from tpxd.errors import SpoolUnavailable
from tpxd.spool import Fate, Ledger, SpoolLimits
from tpxd.spool import memories as underway
from tpxd.spool.journal import Journal


@pytest.mark.parametrize(("limit", "most"), [("MAX_PENDING", 2), ("MAX_PENDING_BYTES", 2 * len(report(0).body))])
async def test_too_much_under_way_is_an_answer(
    limit: str, most: int, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(underway, limit, most)
    async with house.open() as spool:
        await spool.append(report(0))
        ring = spool.exchange.writer.ring
        monkeypatch.setattr(spool.exchange.writer, "ring", lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.append, report(1))
            nursery.start_soon(spool.append, report(2))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(SpoolUnavailable, match="too many reports wait"):
                await spool.append(report(3))
            ring()
        monkeypatch.undo()
        assert (await spool.append(report(3))).seq == 4


async def test_a_full_spool_drops_the_oldest_of_the_laggard(house: House) -> None:
    house.limits = SpoolLimits(max_bytes=400_000)
    async with house.open() as spool:
        fast, slow = await spool.cursor("fast"), await spool.cursor("slow")
        for start in range(0, 1_000, 50):
            async with trio.open_nursery() as nursery:
                for n in range(start, start + 50):
                    nursery.start_soon(spool.append, report(n, 500))
            await fast.commit(settled(await take(fast, 50)))
        assert fast.ledger == Ledger(1_000, 1_000, 0, 0, 0, 0, 0)
        left = slow.ledger
        assert (left.received, left.dropped + left.waiting, left.imbalance) == (1_000, 1_000, 0)
        assert 150 < left.waiting < 400
        uplinks = await take(slow, left.waiting)
        assert [uplink.seq for uplink in uplinks] == list(range(left.dropped + 1, 1_001))


async def test_a_full_spool_that_refuses_says_so_and_recovers(house: House) -> None:
    house.limits = SpoolLimits(max_bytes=400_000, refuse_when_full=True)
    async with house.open() as spool:
        slow = await spool.cursor("slow")
        stored = 0

        async def fill() -> None:
            nonlocal stored
            for n in range(10_000):
                await spool.append(report(n, 500))
                stored += 1

        with pytest.raises(SpoolUnavailable, match="the spool is full"):
            await fill()
        assert (spool.statistics().storing, spool.statistics().last_error) == (False, "the spool is full")
        assert slow.ledger == Ledger(stored, 0, 0, 0, 0, 0, stored)
        await slow.commit(settled(await take(slow, stored)))
        assert (await spool.append(report(stored, 500))).duplicate is False
        assert spool.statistics().storing
    assert [event.kind for event in house.events] == ["spool", "spool"]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY])
async def test_a_failing_disk_is_an_answer(house: House, failing: type[Faults], code: int) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await spool.append(report(1))
        failing.code = code
        for n in (2, 3):
            with pytest.raises(SpoolUnavailable, match="the disk fails") as caught:
                await spool.append(report(n))
            assert caught.value.hint
        with pytest.raises(SpoolUnavailable):
            await cursor.commit([(1, Fate.DELIVERED)])
        assert cursor.ledger == Ledger(1, 0, 0, 0, 0, 0, 1)
        assert not spool.statistics().storing
        assert "the disk fails" in str(spool.statistics().last_error)
        failing.code = None
        assert (await spool.append(report(2))).seq == 2
        assert spool.statistics().storing
        await cursor.commit([(1, Fate.DELIVERED)])
        assert [uplink.seq for uplink in await cursor.next_batch(9, 999)] == [2]
    assert [event.message.partition(":")[0] for event in house.events] == [
        "nothing can be stored",
        "the spool stores again",
    ]


async def test_duplicates_of_what_could_not_be_stored_share_its_fate(house: House, failing: type[Faults]) -> None:
    async with house.open() as spool:
        failing.code = sqlite3.SQLITE_FULL
        refused = 0

        async def append() -> None:
            nonlocal refused
            with pytest.raises(SpoolUnavailable):
                await spool.append(report(1))
            refused += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(append)
            nursery.start_soon(append)
        assert refused == 2
        failing.code = None
        assert await spool.append(report(1)) == (1, False)


async def test_a_disk_that_is_slow_to_take_the_log_into_the_database_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end = threading.Event(), threading.Event()
    checkpoint = Journal.checkpoint

    def slow(journal: Journal) -> None:
        begun.set()
        assert end.wait(10)
        checkpoint(journal)

    monkeypatch.setattr(Journal, "checkpoint", slow)
    monkeypatch.setattr("tpxd.spool.writer.CHECKPOINT_COMMITS", 0.5)
    async with house.open() as spool:
        await spool.append(report(0))
        await trio.to_thread.run_sync(begun.wait)
        monkeypatch.setattr("tpxd.spool.storing.SLOW_S", 0.0)
        hindrance = spool.statistics().last_error
        end.set()
        assert "the disk has not ended a write" in str(hindrance)
