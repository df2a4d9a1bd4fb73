"""Puts what can be read of a spool's file into a new one, where bytes have changed or the disk has failed.

Order of the files, so that a crash at any moment loses nothing: the new file is made whole under the name `.salvaged`;
then the old ones are moved or deleted; then the new one gets its own name. Whoever finds a `.salvaged` goes on from
there. A file that is not trusted any more is marked by another beside it until the new one is in its place, so that a
restart does not trust it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool.damage.old_file import old_file
from tpxd.spool.damage.rebuild import Rebuild
from tpxd.spool.damage.scan import Found, checked_row, scan
from tpxd.spool.damage.wal import WalCheck, check_wal
from tpxd.spool.database import (
    FREE_SPACE,
    Damaged,
    Displaced,
    Distrusted,
    build,
    sidecars,
    sync_directory,
    translated,
)
from tpxd.spool.journal import Journal
from tpxd.spool.progress import Alive
from tpxd.spool.rows import SCHEMA

TELL_EVERY = 1_000


def read_wal(path: Path, page_size: int) -> WalCheck:
    """Judge the write-ahead log beside a database; an absent one is empty."""
    wal, _ = sidecars(path)
    with translated(path):
        return check_wal(wal.read_bytes(), page_size) if wal.exists() else WalCheck(page_size)


def salvage(path: Path, page_size: int, floor: int, now_ms: int, alive: Alive) -> Rebuild:
    """Make the new file, under its first name, of every row that can be found in the pages of the old ones.

    Args:
        floor: seqs up to this one were stored, as far as is known; those that are missing are reported as lost.
        alive: called now and then.

    Raises:
        SpoolUnavailable: the disk refuses; everything is as it was.
    """
    wal = read_wal(path, page_size)
    with translated(path), old_file(path) as database:
        drop_copies(path)
        found = _telling(scan(database, wal.frames, page_size, wal.kept, alive), alive)
        rebuild = Rebuild(found, floor, now_ms)
        build(salvaged_path(path), page_size, rebuild.fill)
    return rebuild


def copy_out(
    journal: Journal,
    page_size: int,
    now_ms: int,
    measure_free: Callable[[Path], int],
    alive: Alive,
    *,
    whole: bool = True,
) -> Rebuild:
    """Make the new file, under its first name, of what an open journal holds.

    What every queue is done with is left out where there is no room for it.

    Args:
        whole: False takes what can be read, where nothing else is left to look at.

    Raises:
        Damaged: not all of it can be read.
        SpoolUnavailable: the disk refuses, or has no room; everything is as it was.
    """
    path, state = journal.path, journal.state
    with translated(path):
        drop_copies(path)
        done = min((row.position for row in state.cursors.values()), default=state.last_seq)
        used = journal.reader.used_bytes()
        waiting, every, other = journal.sizes(done)
        least = used * (waiting + other) // max(1, every + other)
        free = measure_free(path.parent)
        if least > free:
            missing = least - free
            raise SpoolUnavailable(
                f"{path}: before anything is stored, what it held must go into a new file, for which {missing} bytes"
                " are missing",
                hint=FREE_SPACE,
            )
        leave_out = 0 if used <= free else done
        rebuild = Rebuild(_telling(_rows(journal, whole=whole), alive), state.last_seq, now_ms, leave_out)
        build(salvaged_path(path), page_size, rebuild.fill)
    return rebuild


def _rows(journal: Journal, *, whole: bool) -> Iterator[Found]:
    """Every row whose checksum holds; `whole` raises `Damaged` where a table cannot be read to its end."""
    for table in SCHEMA:
        try:
            for row in journal.rows(table):
                fields = checked_row(table, row)
                if fields is not None:
                    yield Found(table, fields, weak=False)
        except (Damaged, SpoolUnavailable) as error:
            if whole:
                raise Damaged(str(error)) from error


def distrust(path: Path) -> None:
    """Mark the file, so that the next start does not trust it either."""
    with suppress(OSError):  # the disk has failed: perhaps this fails too
        distrusted_mark(path).touch(mode=0o600)
        sync_directory(path.parent)


def is_distrusted(path: Path) -> bool:
    """Whether a new file must take its place."""
    return distrusted_mark(path).exists()


def distrusted_mark(path: Path) -> Path:
    """It stands beside a file that is not trusted."""
    return path.with_name(path.name + ".distrusted")


def salvaged_path(path: Path) -> Path:
    """Where the new file stands, whole, until the old one is out of its way."""
    return path.with_name(path.name + ".salvaged")


def finish(path: Path, now_ms: int, *, keep: bool = True) -> Path | None:
    """Move the old files out of the way, or delete them, and the new one into its place; also after a crash in between.

    Returns:
        Where the old file is kept; None where it is not, or there was none.
    """
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now_ms / 1000))
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    with translated(path):
        for old, new in zip((path, *sidecars(path)), (kept, *sidecars(kept)), strict=True):
            if not keep:
                old.unlink(missing_ok=True)
            elif old.exists():
                old.replace(new)
        sync_directory(path.parent)  # the old log must never meet the new file
        salvaged_path(path).replace(path)
        sync_directory(path.parent)
        distrusted_mark(path).unlink(missing_ok=True)
    return kept if kept.exists() else None


def drop_copies(path: Path) -> None:
    """Delete the damaged files of earlier repairs: there is room for one, and it is needed now."""
    for old in _copies(path):
        old.unlink(missing_ok=True)


def copies_bytes(path: Path) -> int:
    """What the damaged files of earlier repairs take on the disk."""
    return sum(old.stat().st_size for old in _copies(path))


def _copies(path: Path) -> Iterator[Path]:
    return path.parent.glob(f"{path.name}.damaged-*")


def told(rebuild: Rebuild, why: Damaged | Distrusted, kept: Path | None) -> Event:
    """What happened, for people."""
    lost = rebuild.lost_count
    old = "the damaged file"
    if isinstance(why, Displaced):
        old = "what stood in its place"
        text = (
            f"the spool was taken away while it was open ({why}): what it held is in a new file;"
            f" {rebuild.kept_count} uplinks, {lost} are lost"
        )
    elif isinstance(why, Distrusted):
        text = (
            f"the disk failed ({why}): what the spool's file held is in a new one;"
            f" {rebuild.kept_count} uplinks, {lost} are lost"
        )
    else:
        text = f"the spool was damaged ({why}): {rebuild.kept_count} uplinks were salvaged, {lost} are lost"
    if kept is not None:
        text += f"; {old} is {kept}"
    more = {
        "salvaged": rebuild.kept_count,
        "lost": lost,
        "lostRanges": [[hole.first, hole.last] for hole in rebuild.lost[:100]],
        "cursorsLost": rebuild.lost_cursors,
        "notesLost": rebuild.lost_notes,
        "deadLettersLost": rebuild.lost_dead_letters,
        "file": None if kept is None else str(kept),
    }
    return Event("damage", text, level=logging.ERROR, more=more)


def _telling(found: Iterator[Found], alive: Alive) -> Iterator[Found]:
    for count, one in enumerate(found):
        if count % TELL_EVERY == 0:
            alive(f"the spool is moved into a new file: {count} rows so far")
        yield one
