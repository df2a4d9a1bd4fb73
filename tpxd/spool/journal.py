"""The spool's tables, open. Synchronous; one thread at a time.

What changes goes into `state`, inside `transaction()`, and reaches the disk at its end in a few statements of many rows
each, for the reason that `reading` gives.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.uplink import Uplink
from tpxd.spool.database import (
    Damaged,
    Displaced,
    Distrusted,
    connect,
    insertion,
    sidecars,
    sync_directory,
    translated,
    upgrade,
    verify,
)
from tpxd.spool.fates import SINCE, Fates
from tpxd.spool.place import places
from tpxd.spool.reading import Reader
from tpxd.spool.rows import (
    FORMAT,
    NOTHING,
    TO_ALL,
    Ahead,
    CursorRow,
    Field,
    Hole,
    address_of,
    checked,
    journal_crc,
    with_crc,
)
from tpxd.spool.state import State

CHUNK = 64
"""Rows in one statement."""

MAX_DEAD_LETTERS = 10_000
MAX_DEAD_LETTER_BYTES = 64 << 20


class Journal:
    """An open journal. Every method may raise `Damaged` or `SpoolUnavailable`; those that write need a transaction.

    Attributes:
        state: for everyone to read; it changes inside a transaction only.
        evicted: dead letters that had to make room for newer ones, ever.
        fates: what became of each uplink.
        touched: cursors that changed, or may have; whoever publishes them empties it.
        closed: nothing can be done with it any more.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.reader = Reader(path, connection)
        self.state = State()
        self.evicted = 0
        self.touched: set[str] = set()
        self.fates = Fates(connection)
        self._connection = connection
        self._places = places(path)
        self._before = self.state
        self._changed_cursors: set[str] = set()
        self._changed_meta: set[str] = set()
        self._changed_ids = False
        self._unclean = True
        self.closed = False

    def close(self) -> None:
        """Move everything into the database file itself and close it."""
        self.closed = True
        with translated(self.path):
            self._connection.close()

    def must_be_in_place(self) -> None:
        """Raise `Displaced` where what is open is not what stands under its name."""
        change = places(self.path).change(self._places)
        if change is not None:
            raise Displaced(f"{self.path}: {change}", hint="only with tpxd stopped may anything be done to its files")

    def is_replaced(self) -> bool:
        """Whether another file stands under its name."""
        return places(self.path).file not in (None, self._places.file)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside becomes durable together at the end or, after an error, nothing of it.

        What a failed transaction has left in the log, or a killed process, may bear the mark of a commit. The log is
        cut before the next one is written over it, so that no part of it ever comes back, or looks like damage.
        """
        self.must_be_in_place()
        if self._unclean:
            self.cut_log()
        before = self._before = self.state.copy()
        self._changed_cursors.clear()
        self._changed_meta.clear()
        self._changed_ids = False
        committed = False
        try:
            with translated(self.path):
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._write_changes()
                self._connection.execute("COMMIT")
            committed = True
        finally:
            if not committed:
                self.state = before
                self._unclean = True
                self.fates.undo()
                with translated(self.path):
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")

    def _write_changes(self) -> None:
        state = self.state
        self._insert("cursors", [state.cursors[id].to_row() for id in self._changed_cursors if id in state.cursors])
        for id in self._changed_cursors:
            self._write_ahead(id)
        self._insert("fates", self.fates.changed())
        if self._changed_ids:
            # A second place for the ids, in another page, tells a repair which cursors are missing.
            self.put_meta("cursors", orjson.dumps(sorted(state.cursors)).decode())
        numbers = {key: n for n, key in enumerate(state.meta, 1)} if self._changed_meta else {}
        self._insert("meta", [with_crc("meta", (numbers[key], key, state.meta[key])) for key in self._changed_meta])

    def _write_ahead(self, id: str) -> None:
        """Write the blocks of what a cursor settled ahead that are not as they were before this transaction."""
        row, before = self.state.cursors.get(id), self._before.cursors.get(id)
        if row is None or row.ahead is (NOTHING if before is None else before.ahead):
            return
        old, new = {} if before is None else before.ahead.blocks, row.ahead.blocks
        for block in old.keys() - new.keys():
            self._connection.execute("DELETE FROM ahead WHERE n = ?", (row.block_key(block),))
        self._insert("ahead", [row.block_row(block) for block in new if new[block] != old.get(block)])

    def _insert(self, table: str, rows: Sequence[tuple[Field, ...]]) -> None:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            flat = [value for row in chunk for value in row]
            self._connection.execute(insertion(table, len(chunk), replace=True), flat)

    def append(self, uplinks: Sequence[Uplink], digests: Sequence[int], stored_ms: int) -> int:
        """Add uplinks at the end, whatever `seq` they have; returns the seq of the first."""
        state = self.state
        first = seq = state.last_seq + 1
        for start in range(0, len(uplinks), CHUNK):
            chunk = uplinks[start : start + CHUNK]
            flat: list[Field] = []
            for uplink in chunk:
                kind, lane, lrn_infos = uplink.kind, uplink.lane, uplink.lrn_infos
                received_ms, body, recipient = uplink.received_ms, uplink.body, uplink.recipient
                address = TO_ALL if recipient is None else address_of(recipient.encode(), uplink.handed_on)
                crc = journal_crc(seq, received_ms, kind.encode(), lane.encode(), lrn_infos.encode(), body, address)
                flat += (seq, received_ms, kind, lane, lrn_infos, crc, body, recipient, int(uplink.handed_on))
                seq += 1
            self._connection.execute(_INSERT_UPLINKS[len(chunk)], flat)
        packed = array("q", digests).tobytes()
        self._connection.execute(_INSERT_COMMIT, with_crc("commits", (seq - 1, first, stored_ms, packed)))
        state.last_seq = seq - 1
        state.newest_ms = stored_ms  # also where the clock was ahead before: as the next start will find it
        state.orphaned = False
        return first

    def put_cursor(self, row: CursorRow) -> None:
        """Store a cursor, new or changed."""
        if row.id not in self.state.cursors:
            self._changed_ids = True
        self.state.cursors[row.id] = row
        self._changed_cursors.add(row.id)
        self.touched.add(row.id)

    def delete_cursor(self, id: str) -> None:
        """Forget a cursor and its ledger."""
        row = self.state.cursors.pop(id)
        self.touched.add(id)
        self._connection.execute("DELETE FROM cursors WHERE n = ?", (row.n,))
        blocks = (row.block_key(0), replace(row, n=row.n + 1).block_key(0))
        self._connection.execute("DELETE FROM ahead WHERE n >= ? AND n < ?", blocks)
        self.fates.delete(row.n, id)
        self._changed_ids = True

    def put_meta(self, key: str, value: str) -> None:
        """Remember a text under a key."""
        self.state.meta[key] = value
        self._changed_meta.add(key)

    def delete_meta(self, keys: Collection[str]) -> None:
        """Forget texts; the last ones take the numbers that become free, since a gap tells a repair of a lost one."""
        order = list(self.state.meta)
        for key in keys:
            at, last = order.index(key), order.pop()
            if last != key:
                order[at] = last
                self._changed_meta.add(last)
            self._changed_meta.discard(key)
        self.state.meta = {key: self.state.meta[key] for key in order}
        self._connection.execute("DELETE FROM meta WHERE n > ?", (len(order),))

    def add_hole(self, hole: Hole) -> None:
        """Enter rows that are lost, and count them `dropped` for everyone who waited for them."""
        state = self.state
        for row in list(state.cursors.values()):
            lost = state.present(row.position, hole.last) - state.present(row.position, hole.first - 1)
            settled = row.ahead.within(hole.first - 1, hole.last)
            if lost > 0:
                ahead = row.ahead.without(hole.first - 1, hole.last)
                self.put_cursor(replace(row, dropped=row.dropped + lost - settled, ahead=ahead))
        state.holes = tuple(sorted((*state.holes, hole), key=lambda hole: hole.first))
        for row in list(state.cursors.values()):
            if (moved := state.moved_on(row)) != row:
                self.put_cursor(moved)
        self._insert("holes", [with_crc("holes", (hole.first, hole.last))])

    def delete_through(self, seq: int) -> None:
        """Delete the oldest rows up to this one; every cursor must be past it."""
        state = self.state
        self._connection.execute("DELETE FROM journal WHERE seq <= ?", (seq,))
        # The newest commit stays, so that the number of the last row outlives the last row.
        self._connection.execute("DELETE FROM commits WHERE last_seq <= ?", (min(seq, state.last_seq - 1),))
        if any(hole.last <= seq for hole in state.holes):
            self._connection.execute("DELETE FROM holes WHERE last_seq <= ?", (seq,))
            state.holes = tuple(hole for hole in state.holes if hole.last > seq)
        state.first_seq = seq + 1
        self.fates.delete_before(state.first_seq)
        self.put_meta("first_seq", str(state.first_seq))

    def add_dead_letters(self, id: str, reasons: dict[int, str], at_ms: int) -> None:
        """Copy uplinks, by seq, into the dead letters of one connection; the oldest dead letters make room."""
        state = self.state
        rows: list[tuple[Field, ...]] = []
        for seq, reason in reasons.items():
            for uplink in self.reader.page(state, seq - 1, 1).uplinks:
                state.last_dead_letter += 1
                state.dead_letters += 1
                state.dead_letter_bytes += len(uplink.body)
                fields = (state.last_dead_letter, id, seq, uplink.received_ms, uplink.kind, uplink.lane, reason, at_ms)
                rows.append(with_crc("dead_letters", (*fields, uplink.body)))
        self._insert("dead_letters", rows)
        while state.dead_letters > MAX_DEAD_LETTERS or state.dead_letter_bytes > MAX_DEAD_LETTER_BYTES:
            ((oldest, size),) = self._connection.execute(_OLDEST_DEAD_LETTER).fetchall()
            self._connection.execute("DELETE FROM dead_letters WHERE id = ?", (oldest,))
            state.dead_letters -= 1
            state.dead_letter_bytes -= size
            self.evicted += 1

    def put_downlinks(self, rows: Sequence[tuple[Field, ...]]) -> None:
        """Store whole rows of downlinks, checksums included; a row takes the place of the one with the same id."""
        self._insert("commands", rows)

    def delete_downlinks(self, ids: Sequence[int]) -> None:
        """Delete downlinks."""
        for id in ids:
            self._connection.execute("DELETE FROM commands WHERE id = ?", (id,))

    def log_bytes(self) -> int:
        """What the write-ahead log takes on the disk."""
        log, _ = sidecars(self.path)
        return log.stat().st_size if log.exists() else 0

    def give_back(self, pages: int) -> None:
        """Return free pages to the file system; outside a transaction."""
        with translated(self.path):
            # One page per step, and no columns: only a script is stepped to its end.
            self._connection.executescript(f"PRAGMA incremental_vacuum({pages:d})")
        self.cut_log()

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database; outside a transaction. The next one begins it anew."""
        with translated(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def cut_log(self) -> None:
        """Move the log into the database and cut it to nothing; outside a transaction."""
        with translated(self.path):
            ((busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise SpoolUnavailable(f"{self.path}: another program reads this file", hint="let go of the spool's files")
        self._unclean = False

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """All rows of a table as they are stored, in the order of their keys; unchecked."""
        with translated(self.path):
            yield from self._connection.execute(f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608 - own words

    def sizes(self, after: int) -> tuple[int, int, int]:
        """Bytes, roughly: of rows after a seq, of all rows, of everything else."""
        with translated(self.path):
            ((some, every, other),) = self._connection.execute(_SIZES, (after,)).fetchall()
        return int(some), int(every), int(other)


def open_journal(path: Path) -> Journal:
    """Open a file that exists and read everything small in it; one of an older format gets what it lacks.

    Raises:
        Damaged: something in it is not as tpxd wrote it.
        SpoolUnavailable: the disk refuses.
    """
    with translated(path):
        connection = connect(path)
    try:
        with translated(path):
            upgrade(connection)
            verify(connection)
            journal = Journal(path, connection)
            journal.state = _load(connection)
            journal.touched.update(journal.state.cursors)
        _sync_names(path.parent)
        if journal.state.meta["format"] != str(FORMAT):
            with journal.transaction():
                journal.put_meta("format", str(FORMAT))
                journal.put_meta(SINCE, str(journal.state.last_seq))
    except (Damaged, SpoolUnavailable):
        connection.close()
        raise
    return journal


def _sync_names(directory: Path) -> None:
    """Sync the name of the log, which is there now; where that fails, SQLite does not tell."""
    try:
        sync_directory(directory)
    except OSError as error:
        raise Distrusted(f"{directory}: {error.strerror}", hint="look at the disk and at the kernel's log") from error


def _load(connection: sqlite3.Connection) -> State:
    """Read the state, without walking over the journal."""
    state = State()
    state.meta = {key: value for _, key, value in _texts(_all(connection, "meta"))}
    if not {"format", "key", "first_seq", "cursors"} <= state.meta.keys():
        raise Damaged("the spool's own notes are incomplete")
    state.first_seq = int(state.meta["first_seq"])
    rows = [CursorRow(*fields) for fields in _texts(_all(connection, "cursors"))]
    state.cursors = {row.id: row for row in rows}
    if sorted(state.cursors) != orjson.loads(state.meta["cursors"]):
        raise Damaged("a cursor is missing")
    state.holes = tuple(Hole(first, last) for first, last in _all(connection, "holes"))
    _load_ahead(connection, state)
    for row in connection.execute("SELECT * FROM commits ORDER BY last_seq DESC LIMIT 1"):
        match checked("commits", row):
            case (int(last_seq), _, int(stored_ms), _):
                state.last_seq, state.newest_ms = last_seq, stored_ms
            case _:
                raise Damaged("the checksum of the newest commit does not hold")
    ((oldest, newest),) = connection.execute(
        "SELECT (SELECT min(seq) FROM journal), (SELECT max(seq) FROM journal)"
    ).fetchall()
    oldest, newest = (oldest, newest) if oldest is not None else (state.last_seq + 1, state.first_seq - 1)
    if state.present(0, oldest - 1) or state.present(newest, state.last_seq) or newest > state.last_seq:
        raise Damaged("the journal does not begin or end where it should")
    ((state.dead_letters, state.dead_letter_bytes, state.last_dead_letter),) = connection.execute(
        "SELECT count(*), coalesce(sum(length(body)), 0), coalesce(max(id), 0) FROM dead_letters"
    ).fetchall()
    for row in state.cursors.values():
        if state.ledger(row).imbalance < 0:
            raise Damaged(f"more is settled for {row.id} than is known which")
    return state


def _load_ahead(connection: sqlite3.Connection, state: State) -> None:
    blocks: dict[str, dict[int, int]] = {}
    for key, id, base, block, content in _texts(_all(connection, "ahead"), (1,)):
        row = state.cursors.get(id)
        if row is None or row.base != base or row.block_key(block) != key:
            raise Damaged("something is settled ahead for a cursor that is not there")
        blocks.setdefault(id, {})[block] = int.from_bytes(content, "little")
    for id, held in blocks.items():
        row = state.cursors[id]
        state.cursors[id] = replace(row, ahead=Ahead.of(held).without(0, row.position))


def _all(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1"):  # noqa: S608 - own words
        fields = checked(table, row)
        if fields is None:
            raise Damaged(f"a checksum in the table {table} does not hold")
        yield fields


def _texts(rows: Iterator[tuple[Any, ...]], places: Collection[int] = range(99)) -> Iterator[list[Any]]:
    for row in rows:
        yield [field.decode() if isinstance(field, bytes) and at in places else field for at, field in enumerate(row)]


_INSERT_UPLINKS = [insertion("journal", rows) for rows in range(CHUNK + 1)]
_INSERT_COMMIT = insertion("commits", 1)
_SIZES = """
    SELECT coalesce(sum((seq > ?) * size), 0), coalesce(sum(size), 0),
        (SELECT total(length(body) + 200) FROM dead_letters) + (SELECT total(length(digests) + 40) FROM commits)
    FROM (SELECT seq, length(body) + length(lrn_infos) + 80 AS size FROM journal)"""
_OLDEST_DEAD_LETTER = "SELECT id, length(body) FROM dead_letters ORDER BY id LIMIT 1"
