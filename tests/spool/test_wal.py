"""The write-ahead log is judged as SQLite reads it; what it does not keep counts only where it proves damage."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tpxd.spool.damage.wal import FRAME_HEADER_BYTES, HEADER_BYTES, WalCheck, check_wal
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


def last_commit(check: WalCheck) -> int:
    """The number of the first frame of the last commit."""
    ends = [frame.number for frame in check.frames if frame.pages]
    return ends[-2] + 1


def kept_by_sqlite(log: bytes, directory: Path) -> int:
    """How many frames SQLite itself finds in a log."""
    path = directory / "asked.db"
    for old in (path, *sidecars(path)):
        old.unlink(missing_ok=True)
    sidecars(path)[0].write_bytes(log)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        sidecars(path)[0].write_bytes(log)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        ((_, frames, _),) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return int(frames)


def test_a_whole_log(log: bytes) -> None:
    check = check_wal(log, 4_096)
    assert (check.page_size, check.problem) == (PAGE, None)
    assert len(check.frames) == check.kept == (len(log) - HEADER_BYTES) // STEP
    assert check.frames[-1].pages
    assert check.frames[-1].content == log[-PAGE:]


def test_nothing_and_a_header_alone_are_no_damage(log: bytes) -> None:
    assert check_wal(b"", PAGE).problem is None
    assert check_wal(log[:HEADER_BYTES], PAGE).problem is None


def test_a_torn_end_is_no_damage_and_its_commit_never_happened(log: bytes) -> None:
    frames = check_wal(log, PAGE).frames
    for count in range(len(frames)):
        ends = [frame.number for frame in frames[:count] if frame.pages]
        for rest in (0, 7, FRAME_HEADER_BYTES, STEP - 1):
            cut = check_wal(log[: HEADER_BYTES + count * STEP + rest], PAGE)
            assert cut.problem is None
            assert len(cut.frames) == cut.kept == max(ends, default=0)


def test_an_older_generation_behind_the_end_is_no_damage(log: bytes) -> None:
    older = bytearray(log[HEADER_BYTES : HEADER_BYTES + STEP])
    older[8:16] = bytes(byte ^ 0x55 for byte in older[8:16])
    check = check_wal(log + bytes(older) * 3, PAGE)
    assert (check.problem, check.frames) == (None, check_wal(log, PAGE).frames)


def test_a_changed_byte_costs_its_frame_and_no_other(log: bytes) -> None:
    whole = check_wal(log, PAGE).frames
    last = last_commit(check_wal(log, PAGE))
    for at in range(HEADER_BYTES, HEADER_BYTES + (last - 1) * STEP):
        number = (at - HEADER_BYTES) // STEP + 1
        check = check_wal(changed(log, at), PAGE)
        assert check.problem is not None
        assert check.problem.startswith(f"the write-ahead log is damaged at frame {number};")
        assert list(check.frames) == [frame for frame in whole if frame.number != number]
        assert check.kept < number


def test_a_last_commit_that_does_not_hold_never_happened(log: bytes) -> None:
    """It may be torn, and nobody can tell; nothing of it is used. Only a mark in the midst of it tells."""
    last = last_commit(check_wal(log, PAGE))
    for at in range(HEADER_BYTES + (last - 1) * STEP, len(log)):
        check = check_wal(changed(log, at), PAGE)
        assert check.kept == last - 1
        marked = (at - HEADER_BYTES) % STEP in range(4, 8) and at < len(log) - STEP
        assert (check.problem is not None) == marked
        assert marked or len(check.frames) == last - 1


def test_a_changed_header_costs_nothing_but_is_told(log: bytes) -> None:
    whole = check_wal(log, PAGE).frames
    for at in range(HEADER_BYTES):
        check = check_wal(changed(log, at), PAGE)
        assert check.problem is not None
        assert (check.frames, check.kept) == (whole, 0)
        assert check.adds_to(b"")


def test_a_log_that_was_moved_into_the_database_whole_adds_nothing_to_it(log: bytes) -> None:
    check = check_wal(changed(log, 9), PAGE)
    newest = {frame.page: frame.content for frame in check.frames}
    database = b"".join(newest[page] for page in sorted(newest))
    assert not check.adds_to(database)
    assert check.adds_to(changed(database, 3 * PAGE - 1))


@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
    left=st.floats(0.0, 1.0),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_what_is_kept_is_what_sqlite_keeps(
    log: bytes, tmp_path: Path, changes: list[tuple[float, int]], left: float
) -> None:
    torn = bytearray(log[: int(left * len(log))])
    for place, byte in changes:
        if torn:
            torn[int(place * len(torn))] = byte
    assert check_wal(bytes(torn), PAGE).kept == kept_by_sqlite(bytes(torn), tmp_path)


def test_a_header_that_was_torn_when_the_log_began_anew_is_no_damage(tmp_path: Path) -> None:
    """All that the log held is in the database, though older generations of it lie behind the newest one."""
    path = tmp_path / "any.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in (f"page_size = {PAGE}", "journal_mode = WAL"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("CREATE TABLE numbers(n INTEGER PRIMARY KEY, text)")
        for rows in (8, 1):
            for n in range(rows):
                connection.execute("REPLACE INTO numbers VALUES (?, ?)", (n, f"{rows}" * 200))
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        database, before = path.read_bytes(), sidecars(path)[0].read_bytes()
        connection.execute("REPLACE INTO numbers VALUES (3, 'new')")
        after = sidecars(path)[0].read_bytes()
    for torn in range(HEADER_BYTES + 1):
        check = check_wal(after[:torn] + before[torn:], PAGE)
        assert check.problem is None or not check.adds_to(database), torn
