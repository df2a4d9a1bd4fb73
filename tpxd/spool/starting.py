"""Opens the spool's file, whatever state it is in."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool.database import build, fresh_meta, insertion, meta_rows, translated
from tpxd.spool.journal import Journal, open_journal

Note = Callable[[Event], None]


def start_journal(path: Path, page_size: int, wall_clock: Callable[[], float], note: Note) -> Journal:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpoolUnavailable(f"{path.parent}: {error.strerror}") from error
    with translated(path):
        if not path.exists():
            build(path, page_size, _fill_fresh)
    return open_journal(path, page_size)


def _fill_fresh(connection: sqlite3.Connection) -> None:
    rows = meta_rows(fresh_meta())
    connection.execute(insertion("meta", len(rows)), [value for row in rows for value in row])


def repair_journal(
    journal: Journal, reason: str, page_size: int, wall_clock: Callable[[], float], note: Note
) -> Journal:
    raise SpoolUnavailable(reason)
