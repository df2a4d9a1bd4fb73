"""A sync or a write has failed: nothing is stored until what the file held is in a new one."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

import pytest
import trio

from tests.spool.faults import Faults
from tests.spool.house import House, append_all, report, settled, take
from tests.spool.journals import store
from tpxd.errors import SpoolUnavailable
from tpxd.spool import Ledger, SpoolLimits
from tpxd.spool.damage.repair import distrusted_mark
from tpxd.spool.database import Damaged, sidecars
from tpxd.spool.journal import Journal
from tpxd.spool.starting import start_journal

BROKEN = [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE]


def fail_once(failing: type[Faults], code: int = sqlite3.SQLITE_IOERR_FSYNC) -> None:
    failing.code, failing.times, failing.where = code, 1, ("COMMIT",)


@pytest.mark.parametrize("code", BROKEN)
async def test_a_new_file_takes_the_place_of_one_that_is_not_trusted(
    house: House, failing: type[Faults], code: int
) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(5))
        await cursor.commit(settled(await take(cursor, 2)))
        before = house.path.stat().st_ino
        fail_once(failing, code)
        assert (await spool.append(report(5))).seq == 6
        assert house.path.stat().st_ino != before
        assert cursor.ledger == Ledger(6, 2, 0, 0, 0, 0, 4)
        assert (await spool.append(report(3))).duplicate
    (event,) = house.events
    assert (event.kind, event.more["lost"], event.more["file"]) == ("damage", 0, None)
    assert sorted(one.name for one in house.path.parent.iterdir()) == ["spool.db", "spool.db.lock"]
    async with house.open() as spool:
        assert (await spool.append(report(5))).duplicate
        assert [uplink.seq for uplink in await take(await spool.cursor("plant"), 4)] == [3, 4, 5, 6]


async def test_without_room_for_it_nothing_is_stored_dropped_or_trusted_again(
    house: House, failing: type[Faults]
) -> None:
    house.limits = SpoolLimits(min_free_bytes=0)
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(50))
        house.free = 1_000
        fail_once(failing)
        for n in (50, 51):
            with pytest.raises(SpoolUnavailable, match=r"\d+ bytes are missing"):
                await spool.append(report(n))
        assert "bytes are missing" in str(spool.statistics().last_error)
        assert len(await take(cursor, 50)) == 50, "what is there is carried on"
        assert cursor.ledger == Ledger(50, 0, 0, 0, 0, 0, 50)
    with pytest.raises(SpoolUnavailable, match="bytes are missing"):
        async with house.open():
            pass
    house.free = 1 << 40
    async with house.open() as spool:
        assert (await spool.cursor("plant")).ledger == Ledger(50, 0, 0, 0, 0, 0, 50)
        assert (await spool.append(report(50))).seq == 51
    assert not distrusted_mark(house.path).exists()
    assert [event.more.get("lost") for event in house.events if event.kind == "damage"] == [0]


async def test_it_is_tried_again_each_second(house: House, failing: type[Faults]) -> None:
    house.limits = SpoolLimits(min_free_bytes=0)
    async with house.open() as spool:
        await append_all(spool, range(5))
        house.free = 1_000
        fail_once(failing)
        with pytest.raises(SpoolUnavailable):
            await spool.append(report(5))
        house.free = 1 << 40
        for _ in range(500):  # the writer is a thread and rings nobody
            if spool.statistics().storing:
                break
            await trio.sleep(0.02)
        assert (await spool.append(report(5))).seq == 6
    assert [event.kind for event in house.events] == ["spool", "damage", "spool"]


async def test_what_everyone_is_done_with_is_left_out_where_there_is_no_room(
    house: House, failing: type[Faults]
) -> None:
    house.limits = SpoolLimits(min_free_bytes=0)
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        for n in range(60):
            await spool.append(report(n, 2_000))
        await cursor.commit(settled(await take(cursor, 50)))
        house.free = await spool.exchange.look(lambda journal: journal.reader.used_bytes()) // 2
        fail_once(failing)
        assert (await spool.append(report(60))).seq == 61
        assert spool.exchange.state.first_seq == 51
        assert cursor.ledger == Ledger(61, 50, 0, 0, 0, 0, 11)
    async with house.open() as spool:
        assert (await spool.append(report(7, 2_000))).duplicate, "its digest is kept"
        assert len(await take(await spool.cursor("plant"), 11)) == 11


async def test_what_sqlite_cannot_read_any_more_is_looked_for_in_the_pages(house: House, failing: type[Faults]) -> None:
    async with house.open() as spool:
        await spool.cursor("plant")
        await append_all(spool, range(5))

        def unreadable(journal: Journal) -> None:
            failing.code, failing.times, failing.where = sqlite3.SQLITE_IOERR_READ, 1, ("SELECT * FROM journal",)
            error = sqlite3.OperationalError("the disk fails")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            journal.put_meta("remembered.last", "words")
            raise error

        with pytest.raises(SpoolUnavailable, match="still after a repair"):
            await spool.exchange.write(unreadable)
        failing.code = None
        assert (await spool.append(report(5))).seq == 6
        assert len(await take(await spool.cursor("plant"), 6)) == 6
    assert {event.more.get("lost") for event in house.events if event.kind == "damage"} == {0}


async def test_a_start_that_cannot_sync_what_it_finds_makes_a_new_file(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house.open() as spool:
        await spool.cursor("plant")
        await append_all(spool, range(5))
    before = house.path.stat().st_ino

    def failed(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tpxd.spool.starting.sync_file", failed)
    async with house.open() as spool:
        assert (await spool.cursor("plant")).ledger == Ledger(5, 0, 0, 0, 0, 0, 5)
    assert house.path.stat().st_ino != before
    assert [event.kind for event in house.events] == ["damage"]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR])
def test_the_log_is_cut_after_a_transaction_that_failed(tmp_path: Path, failing: type[Faults], code: int) -> None:
    path = tmp_path / "spool.db"
    journal = start_journal(path, 4_096, lambda: 1_795_000_000.0, lambda event: None)
    store(journal, [10] * 3)
    salts = sidecars(path)[0].read_bytes()[16:24]
    store(journal, [10] * 3)
    assert sidecars(path)[0].read_bytes()[16:24] == salts
    fail_once(failing, code)
    with pytest.raises(SpoolUnavailable):
        store(journal, [20_000])
    store(journal, [10])
    log = sidecars(path)[0].read_bytes()
    assert log[16:24] != salts
    assert journal.state.last_seq == 7
    journal.close()


def test_the_log_is_cut_after_a_kill(tmp_path: Path) -> None:
    """What a killed process left behind the last commit would else lie behind the next one, and look like damage."""
    killed, path = tmp_path / "killed.db", tmp_path / "spool.db"
    journal = start_journal(killed, 4_096, lambda: 1_795_000_000.0, lambda event: None)
    store(journal, [10] * 3)
    for one, copy in zip((killed, *sidecars(killed)), (path, *sidecars(path)), strict=True):
        if one.exists():
            shutil.copy(one, copy)
    journal.close()
    salts = sidecars(path)[0].read_bytes()[16:24]
    journal = start_journal(path, 4_096, lambda: 1_795_000_000.0, lambda event: None)
    store(journal, [10])
    assert sidecars(path)[0].read_bytes()[16:24] != salts
    assert journal.state.last_seq == 4
    journal.close()


async def test_damage_that_a_repair_does_not_end_is_an_error_for_its_caller_alone(house: House) -> None:
    async with house.open() as spool:
        await append_all(spool, range(3))

        def damaged(journal: Journal) -> None:
            raise Damaged("for ever")

        for repairs, work in enumerate((spool.exchange.write, spool.exchange.look), 1):
            with pytest.raises(SpoolUnavailable, match="still after a repair: for ever"):
                await work(damaged)
            assert (await spool.append(report(repairs + 9))).seq == repairs + 3
            assert [event.kind for event in house.events].count("damage") == repairs
        assert spool.statistics().storing
