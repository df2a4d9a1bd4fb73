"""The SQLite file beneath the spool: how it is made, opened and checked, and what SQLite's errors mean.

A file is made under another name and renamed when it is whole, so that a crash at any moment leaves a file that opens.

After a sync that failed, the kernel takes the pages for written although they are not: what is read looks right, the
next sync succeeds, and what was answered is gone with the page cache. So such an error is never survived by the file:
it is `Distrusted`. A write that was refused for want of room has changed nothing and is an ordinary error.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tpxd.errors import SpoolUnavailable
from tpxd.spool.rows import APPLICATION_ID, COLUMNS, FORMAT, JOURNAL_ADDED, JOURNAL_BEFORE, LATER, SCHEMA, with_crc

CACHE_KIB = 4_096
WAL_BYTES = 16 << 20
"""A log that grew beyond this is cut when it begins anew."""

QUICK_CHECK_BYTES = 8 << 20
"""Smaller files are checked in full when they are opened; it takes under 20 ms."""

DAMAGE = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # our statements are fixed, so one that does not compile means a broken schema
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_NOTADB,
    }
)


_HEADER = {
    0: b"SQLite format 3\0",
    18: b"\2\2\0\x40\x20\x20",  # written and read with a write-ahead log, nothing reserved, fractions of a payload
    44: (4).to_bytes(4, "big"),  # schema format
    56: (1).to_bytes(4, "big"),  # UTF-8
    64: (1).to_bytes(4, "big"),  # incremental vacuum
    68: APPLICATION_ID.to_bytes(4, "big"),
    72: bytes(20),
}


BROKEN_WRITES = frozenset(
    {
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
    }
)
FREE_SPACE = "free some space on this disk"
PROBE_BYTES = 64 << 10
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Distrusted(SpoolUnavailable):
    """A sync or a write failed: what the file seems to hold is perhaps not on disk, and never will be."""


class Displaced(Distrusted):
    """The file that is open is not there any more: with the process it would be gone."""


class Damaged(Exception):
    """The file holds what tpxd did not write; what can be read must be salvaged into a new one."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `Damaged`, `Distrusted` or another `SpoolUnavailable`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code & 0xFF in DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            raise Damaged(str(error)) from error
        if code == sqlite3.SQLITE_IOERR_WRITE and is_full(path):
            code = sqlite3.SQLITE_FULL
        kind = Distrusted if code in BROKEN_WRITES else SpoolUnavailable
        raise kind(f"{path}: {error}", hint=_hint(code & 0xFF)) from error
    except UnicodeDecodeError as error:
        raise Damaged("SQLite complains about something that is no text") from error
    except OSError as error:
        place = path if error.filename is None else os.fsdecode(error.filename)
        raise SpoolUnavailable(f"{place}: {error.strerror or error}", hint=_hint(_like(error))) from error


def is_full(path: Path, size: int = PROBE_BYTES) -> bool:
    """Whether the spool's files cannot grow so much for want of room; SQLite knows only one of the errors that say so.

    A file beside it is asked: to open and close the database itself would end SQLite's lock on it.
    """
    probe = path.with_name(path.name + ".probe")
    try:
        end = max(one.stat().st_size for one in (path, sidecars(path)[0]) if one.exists())
        fd = os.open(probe, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, end, max(size, PROBE_BYTES))
        finally:
            os.close(fd)
            probe.unlink()
    except OSError as error:
        return error.errno in NO_ROOM
    return False


def _like(error: OSError) -> int:
    """What SQLite would have called it."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return sqlite3.SQLITE_PERM
    return sqlite3.SQLITE_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else sqlite3.SQLITE_IOERR


def _hint(code: int) -> str:
    match code:
        case sqlite3.SQLITE_FULL:
            return FREE_SPACE
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return "the directory and its files must be writable for the user that tpxd runs as"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another tpxd, or another program, has this file open"
        case _:
            return "look at the disk and at the kernel's log"


def connect(path: Path, new_page_size: int | None = None) -> sqlite3.Connection:
    """Open the file for this process alone; texts come back as bytes, since damaged ones may not be UTF-8.

    Args:
        new_page_size: for a file that is still empty. Others are only read, so that this works on a full disk.
    """
    begin = ["journal_mode = WAL"]
    if new_page_size is not None:
        # A draft needs no journal: after a crash it is made again. That saves as much disk as the file takes.
        begin = [f"page_size = {new_page_size}", "auto_vacuum = INCREMENTAL", "journal_mode = OFF"]
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=0)
    try:
        connection.text_factory = bytes
        for pragma in (
            "locking_mode = EXCLUSIVE",
            *begin,
            "synchronous = FULL",
            "wal_autocheckpoint = 0",  # SQLite's own checkpoint keeps its errors to itself; see `Journal.checkpoint`
            f"journal_size_limit = {WAL_BYTES}",
            f"cache_size = -{CACHE_KIB}",
            "cell_size_check = ON",
            "trusted_schema = OFF",
            "secure_delete = FAST",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        connection.close()
        raise
    return connection


def build(path: Path, page_size: int, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Make a whole new file at `path`; `fill` writes its first rows in the same transaction."""
    draft = path.with_name(path.name + ".draft")
    journal = draft.with_name(draft.name + "-journal")  # of the step to a write-ahead log; SQLite leaves it there
    for leftover in (draft, journal, *sidecars(draft)):
        leftover.unlink(missing_ok=True)
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with closing(connect(draft, page_size)) as connection:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA.values():
                connection.execute(statement)
            fill(connection)
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        journal.unlink(missing_ok=True)
        sync_file(draft)
        draft.replace(path)
        sync_directory(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)  # what it takes of the disk is needed
        raise


def fresh_meta() -> dict[str, str]:
    """What a new file knows about itself."""
    return {"format": str(FORMAT), "key": secrets.token_hex(16), "first_seq": "1", "cursors": "[]"}


def meta_rows(meta: dict[str, str]) -> list[tuple[object, ...]]:
    """The rows of the table `meta`, keys numbered in their order."""
    return [with_crc("meta", (n, key, value)) for n, (key, value) in enumerate(meta.items(), 1)]


def sidecars(path: Path) -> tuple[Path, Path]:
    """SQLite's files beside the database: the write-ahead log and the shared memory."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def sync_file(path: Path) -> None:
    """Make everything durable that was ever written to a file, by whomever."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_directory(directory: Path) -> None:
    """Make renames in this directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def header_problem(header: bytes) -> str | None:
    """Look at the first hundred bytes of the file, at what never changes; SQLite itself believes some of it too easily.

    Source: the SQLite file format, section 1.3, "The Database Header".
    """
    page_size = int.from_bytes(header[16:18], "big")
    if page_size != 1 and not (512 <= page_size <= 32_768 and page_size & (page_size - 1) == 0):
        return "its page size is impossible"
    if not 1 <= int.from_bytes(header[60:64], "big") <= FORMAT:
        return "its format is unknown"
    for start, expected in _HEADER.items():
        if header[start : start + len(expected)] != expected:
            return f"its header is wrong at byte {start}"
    return None


def upgrade(connection: sqlite3.Connection) -> None:
    """Give a file of an older format the tables and columns that came later; no row is rewritten."""
    (((version,),), found) = connection.execute("PRAGMA user_version").fetchall(), _tables(connection)
    missing = SCHEMA.keys() - found.keys()
    if version == FORMAT or not missing <= LATER:
        return
    connection.execute("BEGIN IMMEDIATE")
    for name in missing:
        connection.execute(SCHEMA[name])
    if found["journal"] == JOURNAL_BEFORE:
        for column in JOURNAL_ADDED:
            connection.execute(f"ALTER TABLE journal ADD COLUMN {column}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def verify(connection: sqlite3.Connection) -> None:
    """Check that the tables are ours, and the whole structure where the file is small; raises `Damaged`."""
    if _tables(connection) != SCHEMA:
        raise Damaged("the tables are not those of a spool")
    if used_bytes(connection) <= QUICK_CHECK_BYTES:
        answer = connection.execute("PRAGMA quick_check(1)").fetchall()
        if answer != [(b"ok",)]:
            raise Damaged(answer[0][0].decode(errors="replace") if answer else "the check gave no answer")


def _tables(connection: sqlite3.Connection) -> dict[str, str]:
    return {name.decode(): sql.decode() for name, sql in connection.execute("SELECT name, sql FROM sqlite_schema")}


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the pages in use."""
    return page_bytes(connection)[0]


def page_bytes(connection: sqlite3.Connection) -> tuple[int, int]:
    """Bytes of the pages in use, and of those that are free for what comes next."""
    ((pages, free, size),) = connection.execute(
        "SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    )
    return int((pages - free) * size), int(free * size)


def insertion(table: str, rows: int, *, replace: bool = False) -> str:
    """A statement that inserts many whole rows; `replace` lets them take the place of rows with the same keys."""
    one = "(" + ",".join("?" * COLUMNS[table]) + ")"
    verb = "REPLACE" if replace else "INSERT"
    return f"{verb} INTO {table} VALUES " + ",".join([one] * rows)
