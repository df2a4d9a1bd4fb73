"""Files that are damaged, foreign, newer, in use, or cannot be made at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.spool.house import House, append_all, report, settled, take
from tpxd.errors import SpoolUnavailable, SpoolVersionError
from tpxd.spool import Ledger


async def test_a_damaged_row_is_dropped_and_told(house: House) -> None:
    async with house.open() as spool:
        await spool.cursor("plant")
        await append_all(spool, range(5))
    house.sql("UPDATE journal SET body = replace(body, 'FCntUp', 'FCntDn') WHERE seq = 2")
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        uplinks = await take(cursor, 4)
        assert [uplink.seq for uplink in uplinks] == [1, 3, 4, 5]
        assert cursor.ledger == Ledger(5, 0, 0, 0, 0, 1, 4)
        await cursor.commit(settled(uplinks))
        assert cursor.ledger == Ledger(5, 4, 0, 0, 0, 1, 0)
        (event,) = house.events
        assert (event.kind, event.more) == ("damage", {"seq": 2})
    async with house.open() as spool:
        assert (await spool.cursor("plant")).ledger == Ledger(5, 4, 0, 0, 0, 1, 0)


async def test_a_missing_row_is_found_while_running_and_the_file_repaired(house: House) -> None:
    async with house.open() as spool:
        await spool.cursor("plant")
        await append_all(spool, range(5))
    house.sql("DELETE FROM journal WHERE seq = 3")
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        assert [uplink.seq for uplink in await take(cursor, 4)] == [1, 2, 4, 5]
        assert cursor.ledger == Ledger(5, 0, 0, 0, 0, 1, 4)
        assert (await spool.append(report(7))).seq == 6
        (event,) = house.events
        assert (event.kind, event.more["lost"], event.more["lostRanges"]) == ("damage", 1, [[3, 3]])
    assert len(list(house.path.parent.glob("spool.db.damaged-*"))) == 1


async def test_garbage_in_place_of_the_file_is_set_aside(house: House) -> None:
    house.path.parent.mkdir()
    for _ in range(5):
        house.path.write_bytes(b"no database at all " * 1_000)
        house.now_s += 1
        async with house.open() as spool:
            cursor = await spool.cursor("plant")
            assert (await spool.append(report(1))).seq == 1
            assert cursor.ledger.waiting == 1
        assert house.events.pop().kind == "damage"
    assert len(list(house.path.parent.glob("spool.db.damaged-*"))) == 1


async def test_a_newer_file_is_refused_untouched(house: House) -> None:
    async with house.open() as spool:
        await spool.append(report(1))
    house.sql("PRAGMA user_version = 4")
    house.sql("DELETE FROM meta WHERE key = 'format'")
    before = house.path.read_bytes()
    with pytest.raises(SpoolVersionError, match="a newer tpxd wrote this spool"):
        async with house.open():
            pass
    assert house.path.read_bytes() == before


async def test_a_second_daemon_is_kept_out(house: House) -> None:
    async with house.open() as spool:
        with pytest.raises(SpoolUnavailable, match="another tpxd"):
            async with house.open():
                pass
        assert (await spool.append(report(1))).seq == 1


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpoolUnavailable):
        async with House(tmp_path / "file" / "spool.db").open():
            pass


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("why", [errno.EIO, errno.EACCES])
async def test_what_cannot_be_read_at_all_is_left_alone_and_told(
    house: House, monkeypatch: pytest.MonkeyPatch, suffix: str, why: int
) -> None:
    """A disk that is away for a moment, or files of another user, is no reason to begin an empty spool."""
    async with house.open() as spool:
        await spool.cursor("plant")
        await append_all(spool, range(3))
        files = {path.name: path.read_bytes() for path in house.path.parent.glob("spool.db*")}
    for name, content in files.items():  # as a kill leaves them
        (house.path.parent / name).write_bytes(content)
    away = os.fspath(house.path) + suffix

    def refuse(fd: int, *place: int) -> bytes:
        if os.fspath(Path(f"/proc/self/fd/{fd}").readlink()) == away:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, *place)

    pread, access = os.pread, os.access
    with monkeypatch.context() as patched:
        if why == errno.EIO:
            patched.setattr(os, "pread", refuse)
        else:
            patched.setattr(os, "access", lambda path, mode: os.fspath(path) != away and access(path, mode))
        with pytest.raises(SpoolUnavailable) as caught:
            async with house.open():
                pass
    assert caught.value.message == f"{away}: {os.strerror(why)}"
    assert caught.value.hint is not None
    assert ("kernel's log" if why == errno.EIO else "must be writable for the user") in caught.value.hint
    assert sorted(path.name for path in house.path.parent.glob("spool.db*")) == sorted(files)
    async with house.open() as spool:
        assert (await spool.cursor("plant")).ledger.waiting == 3
    assert house.events == []
