"""A cursor that settles uplinks ahead of others, over a real file and thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor, Fate, Ledger, NewReport, Spool, SpoolLimits, open_spool

DELIVERED = Fate.DELIVERED


@asynccontextmanager
async def plant(path: Path) -> AsyncIterator[tuple[Spool, Cursor]]:
    """The spool, and the queue of `plant` in it."""
    with trio.fail_after(30):
        async with open_spool(path, SpoolLimits(), tell=print) as spool:
            yield spool, await spool.cursor("plant")


async def append(spool: Spool, numbers: range) -> None:
    """One uplink for each number, of five devices in turn."""
    for n in numbers:
        await spool.append(NewReport("DevEUI_uplink", f"LANE{n % 5}", "", b'{"DevEUI_uplink":{"FCntUp":%d}}' % n))


def seqs(uplinks: list[Uplink]) -> list[int]:
    return [uplink.seq for uplink in uplinks]


@pytest.mark.parametrize("kept", [4_096, 3])
async def test_what_is_settled_ahead_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr("tpxd.spool.memories.MAX_UPLINKS", kept)
    monkeypatch.setattr("tpxd.spool.memories.SPARE", 1)
    path = tmp_path / "state" / "spool.db"
    async with plant(path) as (spool, cursor):
        await append(spool, range(1, 11))
        assert seqs(await cursor.newcomers(3, 1 << 20, after=6)) == [7, 8, 9]
        await cursor.commit([(9, DELIVERED), (7, DELIVERED), (8, DELIVERED)], in_order=False)
        assert (cursor.position, cursor.ledger) == (0, Ledger(10, 3, 0, 0, 0, 0, 7))
        assert [seq for seq in range(1, 12) if cursor.is_done(seq)] == [7, 8, 9]
        assert seqs(await cursor.next_batch(4, 1 << 20, after=4)) in ([5, 6, 10], [5, 6])
        assert seqs(await cursor.newcomers(9, 1 << 20, after=10)) == []
    async with plant(path) as (spool, cursor):
        assert seqs(await cursor.next_batch(9, 1 << 20)) in ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 10])
        assert seqs(await cursor.next_batch(9, 1 << 20, after=6)) == [10]
        assert await cursor.next_batch(9, 1 << 20, after=10, wait=False) == []
        await cursor.commit([(10, DELIVERED)], in_order=False)
        assert await cursor.next_batch(9, 1 << 20, after=6, wait=False) == []
        assert cursor.oldest_waiting_ms is not None
        await cursor.commit([(seq, DELIVERED) for seq in range(1, 7)])
        assert (cursor.position, cursor.ledger) == (10, Ledger(10, 10, 0, 0, 0, 0, 0))
        assert cursor.oldest_waiting_ms is None


async def test_a_reader_whose_every_uplink_is_settled_waits_for_the_next(tmp_path: Path) -> None:
    async with plant(tmp_path / "state" / "spool.db") as (spool, cursor):
        await append(spool, range(1, 5))
        await cursor.commit([(3, DELIVERED), (4, DELIVERED)], in_order=False)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                assert seqs(await cursor.next_batch(9, 1 << 20, after=2)) == [5]

            await trio.testing.wait_all_tasks_blocked()
            await append(spool, range(5, 6))


async def test_the_lanes_of_what_still_waits_are_found_by_looking(tmp_path: Path) -> None:
    async with plant(tmp_path / "state" / "spool.db") as (spool, cursor):
        await append(spool, range(1, 11))
        await cursor.commit([(6, DELIVERED), (9, DELIVERED)], in_order=False)
        found = await cursor.lanes_waiting(3, 9, besides=frozenset({7}))
        assert found == {"LANE0": 5, "LANE3": 8, "LANE4": 4}


async def test_it_says_when_too_much_is_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpxd.spool.cursor.MAX_BLOCKS", 1)
    async with plant(tmp_path / "state" / "spool.db") as (spool, cursor):
        await append(spool, range(1, 4))
        said = []
        for seq in (3, 2, 1):
            await cursor.commit([(seq, DELIVERED)], in_order=False)
            said.append(cursor.far_ahead)
        assert said == [True, True, False]


async def test_what_is_settled_ahead_is_handed_on_once(tmp_path: Path) -> None:
    async with plant(tmp_path / "state" / "spool.db") as (spool, cursor):
        await append(spool, range(1, 4))
        taken = await cursor.next_batch(9, 1 << 20)
        for _ in range(2):
            await cursor.commit([(3, DELIVERED)], [(3, taken[2].handed_on_to("next"))], in_order=False)
        handed = await cursor.newcomers(9, 1 << 20, after=3)
        assert [(uplink.seq, uplink.recipient, uplink.body) for uplink in handed] == [(4, "next", taken[2].body)]
