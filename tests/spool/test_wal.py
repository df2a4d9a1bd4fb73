"""The write-ahead log is judged as SQLite writes it, and better than SQLite reads it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tpxd.spool.damage.wal import FRAME_HEADER_BYTES, HEADER_BYTES, check_wal
from tpxd.spool.database import sidecars

PAGE = 512
STEP = FRAME_HEADER_BYTES + PAGE


@pytest.fixture
def log(tmp_path: Path) -> bytes:
    """A log of several commits as SQLite wrote it."""
    path = tmp_path / "any.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in (f"page_size = {PAGE}", "journal_mode = WAL"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("CREATE TABLE numbers(n INTEGER PRIMARY KEY, text)")
        for n in range(6):
            connection.execute("INSERT INTO numbers VALUES (?, ?)", (n, "x" * 300))
        return sidecars(path)[0].read_bytes()


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def test_a_whole_log(log: bytes) -> None:
    check = check_wal(log, 4_096)
    assert (check.page_size, check.problem, list(check.damaged)) == (PAGE, None, [])
    assert len(check.frames) == (len(log) - HEADER_BYTES) // STEP
    assert check.frames[-1].commits
    assert check.frames[-1].content == log[-PAGE:]


def test_nothing_and_a_header_alone_are_no_damage(log: bytes) -> None:
    assert check_wal(b"", PAGE).problem is None
    assert check_wal(log[:HEADER_BYTES], PAGE).problem is None


def test_a_torn_end_is_no_damage_while_nothing_of_it_was_committed(log: bytes) -> None:
    frames = check_wal(log, PAGE).frames
    for count in range(len(frames)):
        for rest in (0, 7, FRAME_HEADER_BYTES, STEP - 1):
            cut = check_wal(log[: HEADER_BYTES + count * STEP + rest], PAGE)
            assert cut.problem is None
            assert len(cut.frames) == count


def test_an_older_generation_behind_the_end_is_no_damage(log: bytes) -> None:
    older = bytearray(log[HEADER_BYTES : HEADER_BYTES + STEP])
    older[8:16] = bytes(byte ^ 0x55 for byte in older[8:16])
    check = check_wal(log + bytes(older) * 3, PAGE)
    assert (check.problem, check.frames) == (None, check_wal(log, PAGE).frames)


def test_a_changed_byte_costs_its_frame_and_no_other(log: bytes) -> None:
    whole = check_wal(log, PAGE).frames
    for at in range(HEADER_BYTES, len(log)):
        number = (at - HEADER_BYTES) // STEP + 1
        check = check_wal(changed(log, at), PAGE)
        assert check.problem is not None
        assert check.problem.startswith(f"the write-ahead log is damaged at frame {number};")
        assert list(check.damaged) == [number]
        assert list(check.frames) == [frame for frame in whole if frame.number != number]


def test_a_changed_header_costs_nothing_but_is_told(log: bytes) -> None:
    whole = check_wal(log, PAGE).frames
    for at in range(HEADER_BYTES):
        check = check_wal(changed(log, at), PAGE)
        assert check.problem is not None
        assert check.frames == whole
