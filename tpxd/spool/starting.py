"""Opens the spool's file, whatever state it is in: absent, whole, left by a crash, damaged, or newer than this tpxd."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tpxd.errors import SpoolUnavailable, SpoolVersionError
from tpxd.events import Event
from tpxd.spool.damage.old_file import OldFile, old_file
from tpxd.spool.damage.rebuild import Rebuild
from tpxd.spool.damage.repair import (
    copy_out,
    distrust,
    finish,
    is_distrusted,
    read_wal,
    salvage,
    salvaged_path,
    told,
)
from tpxd.spool.damage.scan import scan
from tpxd.spool.damage.wal import WalCheck
from tpxd.spool.database import (
    Damaged,
    Displaced,
    Distrusted,
    build,
    fresh_meta,
    header_problem,
    insertion,
    meta_rows,
    sidecars,
    sync_directory,
    sync_file,
    translated,
)
from tpxd.spool.journal import Journal, open_journal
from tpxd.spool.keeping import free_bytes
from tpxd.spool.progress import Alive
from tpxd.spool.rows import FORMAT

Note = Callable[[Event], None]


def start_journal(
    path: Path,
    page_size: int,
    wall_clock: Callable[[], float],
    note: Note,
    measure_free: Callable[[Path], int] = free_bytes,
    alive: Alive = lambda text: None,
) -> Journal:
    """Open the journal at `path`, making or repairing it where needed; `exclusive` must hold.

    After a kill or a power cut that is ordinary: what SQLite's own recovery keeps is kept. It is synced here first,
    since what a killed process wrote was perhaps not, and answers are given for it from now on.

    Raises:
        SpoolVersionError: a newer tpxd wrote it; it is left as it is.
        SpoolUnavailable: the disk refuses.
    """
    now_ms = int(wall_clock() * 1000)
    if salvaged_path(path).exists():
        kept = finish(path, now_ms)
        text = "a repair of the spool that was cut short is finished"
        if kept is not None:
            text += f"; the damaged file is {kept}"
        note(Event("damage", text, level=logging.WARNING))
    _check_access(path)
    doubt = _synced(path)
    wal = read_wal(path, page_size)
    problem = None
    if path.exists():
        problem = _log_problem(path, wal) or _header_problem(path, page_size)
    elif wal.frames:
        problem = "only its write-ahead log is there"
    else:
        with translated(path):
            sidecars(path)[0].unlink(missing_ok=True)
            build(path, page_size, _fill_fresh)
    if problem is not None:
        return _repaired(path, page_size, Damaged(problem), 0, now_ms, note, alive)
    try:
        journal = open_journal(path)
    except Damaged as damaged:
        return _repaired(path, page_size, damaged, 0, now_ms, note, alive)
    except Distrusted as distrusted:
        distrust(path)
        return _repaired(path, page_size, distrusted, 0, now_ms, note, alive)
    if doubt is None:
        return journal
    try:
        return renew_journal(
            journal, doubt, alive, page_size=page_size, wall_clock=wall_clock, note=note, measure_free=measure_free
        )
    except SpoolUnavailable:
        with suppress(Damaged, SpoolUnavailable):
            journal.close()
        raise


def renew_journal(
    journal: Journal,
    why: Damaged | Distrusted,
    alive: Alive,
    *,
    page_size: int,
    wall_clock: Callable[[], float],
    note: Note,
    measure_free: Callable[[Path], int],
    hold: Callable[[], None] = lambda: None,
) -> Journal:
    """Put a new file in place of one that is damaged, not trusted any more or gone; returns it open.

    It may take a minute: `alive` is called all the time.

    Args:
        hold: keeps every other tpxd away, also where the directory is another one than before.

    Raises:
        SpoolUnavailable: the disk refuses, or has no room; to be tried again. The journal can still be read, unless it
            is closed.
    """
    path, now_ms = journal.path, int(wall_clock() * 1000)
    hold()
    if journal.closed:  # the last try ended with the new file made, and the old one going out of its way
        again = start_journal(path, page_size, wall_clock, note, measure_free, alive)
    else:
        rebuild = _made_anew(journal, why, page_size, now_ms, measure_free, alive)
        keep = isinstance(why, Damaged) or rebuild.lost_count > 0 or journal.is_replaced()
        if not isinstance(why, Displaced):
            _close(journal)
        again = _moved_in(path, rebuild, why, now_ms, note, keep=keep)
        if isinstance(why, Displaced):  # until now nothing else held what is in it
            _close(journal)
    again.evicted = journal.evicted
    again.touched |= journal.touched | set(journal.state.cursors)
    return again


def _close(journal: Journal) -> None:
    with suppress(Damaged, SpoolUnavailable):  # everything in it is in the new file
        journal.close()


def _made_anew(
    journal: Journal,
    why: Damaged | Distrusted,
    page_size: int,
    now_ms: int,
    measure_free: Callable[[Path], int],
    alive: Alive,
) -> Rebuild:
    if isinstance(why, Displaced):
        return copy_out(journal, page_size, now_ms, measure_free, alive, whole=False)
    if isinstance(why, Distrusted):
        distrust(journal.path)
        with suppress(Damaged):  # where not all of it can be read, its pages are looked through
            return copy_out(journal, page_size, now_ms, measure_free, alive)
    return salvage(journal.path, page_size, journal.state.last_seq, now_ms, alive)


def _repaired(
    path: Path, page_size: int, why: Damaged | Distrusted, floor: int, now_ms: int, note: Note, alive: Alive
) -> Journal:
    rebuild = salvage(path, page_size, floor, now_ms, alive)
    keep = isinstance(why, Damaged) or rebuild.lost_count > 0
    return _moved_in(path, rebuild, why, now_ms, note, keep=keep)


def _moved_in(
    path: Path, rebuild: Rebuild, why: Damaged | Distrusted, now_ms: int, note: Note, *, keep: bool
) -> Journal:
    """Put the new file in the place of the old one; `keep` that where it may hold more."""
    note(told(rebuild, why, finish(path, now_ms, keep=keep)))
    try:
        journal = open_journal(path)
    except Damaged as damaged:
        raise SpoolUnavailable(f"{path}: damaged, and still after a repair: {damaged}") from damaged
    journal.state.orphaned = rebuild.orphaned
    return journal


def _check_access(path: Path) -> None:
    """Leave alone what may not be opened or cannot be read at all: that is no damage, and can be mended."""
    with translated(path):
        for one in (path, sidecars(path)[0]):
            if not one.exists():
                continue
            if not os.access(one, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), one)
            with old_file(one) as content:
                if isinstance(content, OldFile) and not content.readable:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), one)


def _synced(path: Path) -> Distrusted | None:
    """Sync what an earlier process left, and say whether it can be trusted."""
    if is_distrusted(path):
        return Distrusted("a write or a sync failed before the last start")
    try:
        for one in (path, sidecars(path)[0]):
            if one.exists():
                sync_file(one)
        sync_directory(path.parent)
    except OSError as error:
        distrust(path)
        return Distrusted(f"{path}: {error.strerror}")
    return None


def _log_problem(path: Path, wal: WalCheck) -> str | None:
    """What is wrong with the log. One that holds nothing new may be anything: its header was perhaps just rewritten."""
    with translated(path), old_file(path) as database:
        return wal.problem if wal.problem and wal.adds_to(database) else None


def _header_problem(path: Path, page_size: int) -> str | None:
    """What is wrong with the header; raises `SpoolVersionError` where it is only too new.

    Two places state the format, so that a changed bit in one of them does not lock a spool away.
    """
    with translated(path), old_file(path) as content:
        stated = int.from_bytes(content[60:64], "big")
        header = content[:100]
        problem = header_problem(header)
        only_newer = header_problem(header[:60] + FORMAT.to_bytes(4, "big") + header[64:]) is None
        if problem is None or stated < FORMAT or not only_newer:
            return problem
        notes = [found.fields for found in scan(content, (), page_size) if found.table == "meta" and not found.weak]
    noted = [int(value) for _, key, value in notes if key == b"format" and isinstance(value, bytes)]
    if not noted or max(noted) > FORMAT:
        raise SpoolVersionError(
            f"{path}: a newer tpxd wrote this spool (format {stated}, this one reads up to {FORMAT})",
            hint="install that version again, or move the file away to begin an empty spool",
        )
    return problem


def _fill_fresh(connection: sqlite3.Connection) -> None:
    rows = meta_rows(fresh_meta())
    connection.execute(insertion("meta", len(rows)), [value for row in rows for value in row])
