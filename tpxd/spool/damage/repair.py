"""Sets a damaged database aside and puts what can be read into a new one.

Order of the files, so that a crash at any moment loses nothing: the new file is made whole under the name `.salvaged`;
then the old ones get their names; then the new one gets its own. Whoever finds a `.salvaged` goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tpxd.events import Event
from tpxd.spool.damage.old_file import Content, old_file
from tpxd.spool.damage.rebuild import Rebuild
from tpxd.spool.damage.scan import Found, scan
from tpxd.spool.damage.wal import WalCheck, check_wal
from tpxd.spool.database import build, sidecars, sync_directory, translated

KEPT = 3
"""Damaged files that are kept."""

SAMPLE_PAGES = 256
TELL_EVERY = 1_000


def read_wal(path: Path, page_size: int) -> WalCheck:
    """Judge the write-ahead log beside a database; an absent one is empty."""
    wal, _ = sidecars(path)
    with translated(path):
        return check_wal(wal.read_bytes(), page_size) if wal.exists() else WalCheck(page_size)


def repair(
    path: Path, page_size: int, reason: str, floor: int, now_ms: int, alive: Callable[[], None]
) -> tuple[Event, Rebuild]:
    """Put everything that can be read into a new file at `path`, and keep the old one under another name.

    Args:
        reason: what was found to be wrong, for the event.
        floor: seqs up to this one were stored, as far as is known; those that are missing are reported as lost.
        alive: called now and then.

    Raises:
        SpoolUnavailable: the disk refuses; everything is as it was.
    """
    wal = read_wal(path, page_size)
    with translated(path), old_file(path) as database:
        size = likely_page_size(database, wal, page_size)
        rebuild = Rebuild(_telling(scan(database, wal.frames, size, wal.kept), alive), floor, now_ms)
        build(salvaged_path(path), page_size, rebuild.fill)
    kept = finish(path, now_ms)
    lost = rebuild.lost_count
    text = (
        f"the spool was damaged ({reason}): {rebuild.kept_count} uplinks were salvaged, {lost} are lost;"
        f" the damaged file is {kept}"
    )
    more = {
        "salvaged": rebuild.kept_count,
        "lost": lost,
        "lostRanges": [[hole.first, hole.last] for hole in rebuild.lost[:100]],
        "cursorsLost": rebuild.lost_cursors,
        "notesLost": rebuild.lost_notes,
        "deadLettersLost": rebuild.lost_dead_letters,
        "file": str(kept),
    }
    return Event("damage", text, level=logging.ERROR, more=more), rebuild


def likely_page_size(database: Content, wal: WalCheck, configured: int) -> int:
    """The page size with which most rows are found at the beginning."""
    stated = int.from_bytes(database[16:18], "big")
    candidates = {wal.page_size, configured, 65_536 if stated == 1 else stated}
    valid = [size for size in candidates if 512 <= size <= 65_536 and size & (size - 1) == 0]

    def rows(size: int) -> int:
        return sum(not found.weak for found in scan(database[: SAMPLE_PAGES * size], (), size))

    return max(valid, key=rows) if len(valid) > 1 else valid[0]


def salvaged_path(path: Path) -> Path:
    """Where the new file stands, whole, until the old one is out of its way."""
    return path.with_name(path.name + ".salvaged")


def finish(path: Path, now_ms: int) -> Path:
    """Move the damaged files out of the way, and the new one into its place; also after a crash in between."""
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now_ms / 1000))
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    with translated(path):
        for old, new in zip((path, *sidecars(path)), (kept, *sidecars(kept)), strict=True):
            if old.exists():
                old.replace(new)
        salvaged_path(path).replace(path)
        sync_directory(path.parent)
        every = sorted(path.parent.glob(f"{path.name}.damaged-{'[0-9]' * len(stamp)}"))
        for old in every[:-KEPT]:
            for one in (old, *sidecars(old)):
                one.unlink(missing_ok=True)
    return kept


def _telling(found: Iterator[Found], alive: Callable[[], None]) -> Iterator[Found]:
    for count, one in enumerate(found):
        if count % TELL_EVERY == 0:
            alive()
        yield one
