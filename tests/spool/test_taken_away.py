"""The spool's files are removed or replaced while they are open: nothing that was answered is lost, and it is told."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.spool.faults import Faults
from tests.spool.house import House, append_all, report, settled, take
from tpxd.errors import SpoolUnavailable
from tpxd.spool import Ledger, Spool, SpoolLimits
from tpxd.spool.database import sidecars
from tpxd.spool.place import exclusive


def remove_files(path: Path) -> None:
    for one in path.parent.glob("spool.db*"):
        one.unlink()


def remove_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def move_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def replace_directory(path: Path) -> None:
    move_directory(path)
    path.parent.mkdir()


def replace_file(path: Path) -> None:
    path.with_name("other").write_bytes(b"another spool")
    path.with_name("other").rename(path)


def remove_log(path: Path) -> None:
    sidecars(path)[0].unlink()


WAYS = [remove_files, remove_directory, move_directory, replace_directory, replace_file, remove_log]


async def soon(probe: Callable[[], bool]) -> None:
    for _ in range(500):  # the writer is a thread and rings nobody
        if probe():
            return
        await trio.sleep(0.02)
    raise AssertionError("nobody noticed")


async def noticed(house: House, spool: Spool) -> None:
    await soon(lambda: bool(house.events) and spool.statistics().storing)


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_open_file_holds_goes_into_a_new_one(house: House, way: Callable[[Path], None]) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(80))
        await cursor.commit(settled(await take(cursor, 30)))
        way(house.path)
        await noticed(house, spool)
        assert (await spool.append(report(80))).seq == 81
        assert (await spool.append(report(3))).duplicate
        assert cursor.ledger == Ledger(81, 30, 0, 0, 0, 0, 51)
    (event,) = house.events
    assert (event.kind, event.more["salvaged"], event.more["lost"]) == ("damage", 80, 0)
    assert "was taken away while it was open" in event.message
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        assert len(await take(cursor, 51)) == 51
        assert cursor.ledger == Ledger(81, 30, 0, 0, 0, 0, 51)
        assert (await spool.append(report(80))).duplicate
    assert len(house.events) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_answered_out_of_a_file_that_is_gone(house: House, way: Callable[[Path], None]) -> None:
    """Whoever comes before the tick waits for the new file."""
    async with house.open() as spool:
        await append_all(spool, range(5))
        way(house.path)
        assert (await spool.append(report(5))).seq == 6
        shutil.copytree(house.path.parent, house.path.parent.with_name("killed"))
    house.path = house.path.parent.with_name("killed") / house.path.name
    async with house.open() as spool:
        assert spool.exchange.state.last_seq == 6
        assert (await spool.append(report(2))).duplicate


async def test_what_stood_in_its_place_is_kept_beside_it(house: House) -> None:
    async with house.open() as spool:
        await append_all(spool, range(5))
        replace_file(house.path)
        await append_all(spool, range(5, 6))
    (event,) = house.events
    kept = Path(event.more["file"])
    assert kept.read_bytes() == b"another spool"  # noqa: ASYNC240 - nothing else runs


async def test_where_no_new_file_can_be_made_nothing_is_stored_and_what_is_there_is_carried_on(house: House) -> None:
    house.limits = SpoolLimits(min_free_bytes=0)
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(5))
        remove_directory(house.path)
        house.path.parent.write_text("in the way")
        with pytest.raises(SpoolUnavailable):
            await spool.append(report(5))
        assert not spool.statistics().storing
        assert len(await take(cursor, 5)) == 5
        house.path.parent.unlink()
        await noticed(house, spool)
        assert (await spool.append(report(5))).seq == 6
    assert [event.kind for event in house.events] == ["spool", "damage", "spool"]


async def test_what_cannot_be_read_of_a_file_that_is_gone_does_not_cost_the_rest(
    house: House, failing: type[Faults]
) -> None:
    async with house.open() as spool:
        await spool.cursor("plant")
        await append_all(spool, range(5))
        remove_files(house.path)
        failing.code, failing.times, failing.where = sqlite3.SQLITE_CORRUPT, 1, ("SELECT * FROM commits",)
        assert (await spool.append(report(5))).seq == 6
        assert len(await take(await spool.cursor("plant"), 6)) == 6
    assert [event.more["lost"] for event in house.events] == [0]


async def test_the_lock_is_held_also_where_its_file_was_removed(house: House) -> None:
    lock = house.path.with_name("spool.db.lock")
    async with house.open() as spool:
        await append_all(spool, range(5))
        for way in (Path.unlink, lambda lock: remove_directory(lock)):
            way(lock)
            await soon(lock.exists)
            with pytest.raises(SpoolUnavailable, match="another tpxd has it open"), exclusive(house.path):
                pass
