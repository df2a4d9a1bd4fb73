"""Makes a whole database out of the rows that were found in a broken one."""

from __future__ import annotations

import secrets
import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import orjson

from tpxd.spool.damage.scan import Found
from tpxd.spool.database import fresh_meta, insertion
from tpxd.spool.fates import SINCE, row_of
from tpxd.spool.rows import BLOCK, FORMAT, Ahead, CursorRow, Field, Hole, with_crc
from tpxd.spool.state import State

BATCH = 64


class Rebuild:
    """Fills a new database, and knows afterwards what was kept and lost.

    Args:
        floor: see `repair.salvage`.
        leave_out: rows up to this seq are not taken over; nobody waits for them.

    Attributes:
        orphaned: nobody can tell which cursors there were.
    """

    def __init__(self, found: Iterable[Found], floor: int, now_ms: int, leave_out: int = 0) -> None:
        self.kept_count = 0
        self.lost: list[Hole] = []
        self.lost_cursors: list[str] = []
        self.lost_notes = 0
        self.lost_dead_letters = 0
        self.orphaned = False
        self._found = found
        self._floor = floor
        self._leave_out = leave_out
        self._now_ms = now_ms
        self._known_seq = 0
        self._meta: dict[str, str] = {}
        self._meta_numbers: set[int] = set()
        self._cursors: dict[str, CursorRow] = {}
        self._holes: set[Hole] = set()
        self._ahead: defaultdict[tuple[str, int, int], int] = defaultdict(int)
        self._downlinks: dict[int, tuple[Field, ...]] = {}
        self._fates: dict[tuple[str, int], str] = {}

    @property
    def lost_count(self) -> int:
        """How many uplinks are lost that nobody knew to be."""
        return sum(hole.last - hole.first + 1 for hole in self.lost)

    def fill(self, connection: sqlite3.Connection) -> None:
        """Write everything that was found, and what follows from what was not."""
        for table, rows in _batches(self._keep_small(self._found)):
            connection.execute(insertion(table, len(rows)).replace("INSERT", "INSERT OR IGNORE", 1), _flat(rows))
        self._all_or_nothing(connection)
        state = self._state(connection)
        connection.execute("DELETE FROM journal WHERE seq < ?", (state.first_seq,))
        gaps = list(_gaps(connection, state.first_seq, state.last_seq))
        state.holes = tuple(gaps)
        self.lost = _less(gaps, self._holes)
        self.kept_count = state.present(0, state.last_seq)
        self._forget_digests(connection)
        self._write(connection, state)

    def _keep_small(self, found: Iterable[Found]) -> Iterator[tuple[str, tuple[Field, ...]]]:
        """Pass on the rows that are only to be copied; the others come down to one version each."""
        for one in found:
            match one.table, one.fields:
                case (("journal" | "commits"), (int(seq), *_)) if not one.behind:
                    self._known_seq = max(self._known_seq, seq)
            match one.table, one.fields:
                case "journal", (int(seq), *_) if seq <= self._leave_out:
                    pass
                case "journal", fields:
                    yield "journal", _texts(fields, (2, 3, 4) if fields[7] is None else (2, 3, 4, 7))
                case "dead_letters", fields:
                    yield "dead_letters", with_crc("dead_letters", _texts(fields, (1, 4, 5, 6)))
                case "commits", fields:
                    yield "commits", with_crc("commits", fields)
                case "holes", (int(first), int(last)) if not one.weak:
                    self._holes.add(Hole(first, last))
                case "ahead", (_, bytes(id), int(base), int(block), bytes(bits)):
                    # Bits are only ever added until the position has passed them, so every version is right.
                    self._ahead[id.decode(), base, block] |= int.from_bytes(bits, "little")
                case "fates", (_, bytes(id), int(block), bytes(digits)):
                    if not one.weak or (id.decode(), block) not in self._fates:
                        self._fates[id.decode(), block] = digits.hex()
                case "cursors", fields:
                    self._see_cursor(CursorRow(*_all_texts(fields)), weak=one.weak)
                case "commands", (int(id), int(version), *_) as fields:
                    self._see_downlink(id, version, fields, weak=one.weak)
                case "meta", (int(n), bytes(key), bytes(value)):
                    self._see_note(n, key.decode(), value.decode(), weak=one.weak)

    def _see_cursor(self, row: CursorRow, *, weak: bool) -> None:
        known = self._cursors.get(row.id)
        progress = (row.position, row.settled)
        before = (-1, 0) if known is None else (known.position, known.settled)
        if progress > before or (progress == before and not weak):
            self._cursors[row.id] = row

    def _see_downlink(self, id: int, version: int, fields: tuple[Field, ...], *, weak: bool) -> None:
        known = self._downlinks.get(id)
        if known is None or version > int(known[1] or 0) or (version == known[1] and not weak):
            self._downlinks[id] = _texts(fields, tuple(at for at in (2, 4, 7) if fields[at] is not None))

    def _see_note(self, n: int, key: str, value: str, *, weak: bool) -> None:
        self._meta_numbers.add(n)
        if not weak or key not in self._meta:
            self._meta[key] = value

    def _all_or_nothing(self, connection: sqlite3.Connection) -> None:
        """Take out what was found only behind a break of the log, but for commits of which no row is missing."""
        through = self._known_seq
        for last, first in connection.execute(
            "SELECT last_seq, first_seq FROM commits WHERE last_seq > ? ORDER BY last_seq", (through,)
        ).fetchall():
            ((count,),) = connection.execute("SELECT count(*) FROM journal WHERE seq BETWEEN ? AND ?", (first, last))
            if count != last - first + 1:
                connection.execute("DELETE FROM commits WHERE last_seq = ?", (last,))
                continue
            connection.execute("DELETE FROM journal WHERE seq > ? AND seq < ?", (through, first))
            through = last
        connection.execute("DELETE FROM journal WHERE seq > ?", (through,))

    def _forget_digests(self, connection: sqlite3.Connection) -> None:
        """Let no report be taken for one that is lost: where a row is gone, so is what it would be recognised by."""
        for hole in self.lost:
            for last, first, stored_ms, packed, _ in connection.execute(
                "SELECT * FROM commits WHERE last_seq >= ? AND first_seq <= ?", (hole.first, hole.last)
            ).fetchall():
                digests = array("q", packed)
                for seq in range(max(first, hole.first), min(last, hole.last) + 1):
                    digests[seq - first] = secrets.randbits(63)
                row = with_crc("commits", (last, first, stored_ms, digests.tobytes()))
                connection.execute(insertion("commits", 1, replace=True), row)

    def _state(self, connection: sqlite3.Connection) -> State:
        """The seqs, as far as they can be known."""
        self.lost_notes = max(self._meta_numbers, default=0) - len(self._meta_numbers)
        known = self._meta.get("cursors")
        self.orphaned = known is None
        if known is not None:
            ids = orjson.loads(known)
            self._cursors = {id: row for id, row in self._cursors.items() if id in ids}
            self.lost_cursors = [id for id in ids if id not in self._cursors]
        ((oldest, newest, committed, letters),) = connection.execute(
            "SELECT (SELECT min(seq) FROM journal), (SELECT max(seq) FROM journal),"
            " (SELECT max(last_seq) FROM commits), (SELECT max(id) - min(id) + 1 - count(*) FROM dead_letters)"
        ).fetchall()
        self.lost_dead_letters = letters or 0
        positions = [row.position for row in self._cursors.values()]
        state = State()
        settled = [block * BLOCK + bits.bit_length() - 1 for (_, _, block), bits in self._ahead.items()]
        state.last_seq = max(self._floor, newest or 0, committed or 0, *positions, *settled, 0)
        if "first_seq" in self._meta:
            state.first_seq = int(self._meta["first_seq"])
        else:
            state.first_seq = min([oldest or state.last_seq + 1, *(position + 1 for position in positions)])
        state.first_seq = max(state.first_seq, self._leave_out + 1)
        state.last_seq = max(state.last_seq, state.first_seq - 1)
        return state

    def _write(self, connection: sqlite3.Connection, state: State) -> None:
        """Write the small tables, so that every ledger balances."""
        for id in self.lost_cursors:
            self._cursors[id] = CursorRow(0, id, state.first_seq - 1, state.first_seq - 1)
        cursors = [
            self._balanced(replace(row, n=n), state)
            for n, row in enumerate(sorted(self._cursors.values(), key=_id_of), 1)
        ]
        own = {"first_seq": str(state.first_seq), "cursors": orjson.dumps(sorted(self._cursors)).decode()}
        own[SINCE] = str(state.last_seq)
        kept = {row.id: row.n for row in cursors}
        meta = {**fresh_meta(), **self._meta, **own, "format": str(FORMAT)}
        tables: dict[str, list[tuple[Field, ...]]] = {
            "cursors": [row.to_row() for row in cursors],
            "ahead": [row.block_row(block) for row in cursors for block in row.ahead.blocks],
            "fates": [row_of(kept[id], id, block, digits) for (id, block), digits in self._fates.items() if id in kept],
            "holes": [with_crc("holes", (hole.first, hole.last)) for hole in state.holes],
            "commands": [with_crc("commands", fields) for fields in self._downlinks.values()],
            "meta": [with_crc("meta", (n, key, value)) for n, (key, value) in enumerate(meta.items(), 1)],
        }
        for table, rows in tables.items():
            for row in rows:
                connection.execute(insertion(table, 1), row)
        newest = with_crc("commits", (state.last_seq, state.last_seq + 1, self._now_ms, b""))
        connection.execute("DELETE FROM commits WHERE last_seq > ?", (state.last_seq,))
        connection.execute(insertion("commits", 1).replace("INSERT", "INSERT OR IGNORE", 1), newest)

    def _balanced(self, row: CursorRow, state: State) -> CursorRow:
        """The cursor with everything that is neither settled nor there counted as dropped.

        What it settled ahead, where nothing tells any more which it was, is put in again.
        """
        row = replace(row, position=max(row.position, state.first_seq - 1))
        blocks = {block: bits for (id, base, block), bits in self._ahead.items() if (id, base) == (row.id, row.base)}
        ahead = Ahead.of(blocks).without(0, row.position)
        for hole in state.holes:
            ahead = ahead.without(hole.first - 1, hole.last)
        row = state.moved_on(replace(row, ahead=ahead))
        imbalance = state.ledger(row).imbalance
        return replace(row, dropped=row.dropped + max(0, imbalance), retried=row.retried + max(0, -imbalance))


def _gaps(connection: sqlite3.Connection, first: int, last: int) -> Iterator[Hole]:
    expected = first
    for (seq,) in connection.execute("SELECT seq FROM journal WHERE seq <= ? ORDER BY seq", (last,)):
        if seq > expected:
            yield Hole(expected, seq - 1)
        expected = seq + 1
    if expected <= last:
        yield Hole(expected, last)


def _less(gaps: Sequence[Hole], known: Iterable[Hole]) -> list[Hole]:
    """What of the gaps is in no hole that was known before."""
    parts = list(gaps)
    for hole in known:
        parts = [
            part
            for gap in parts
            for part in (Hole(gap.first, min(gap.last, hole.first - 1)), Hole(max(gap.first, hole.last + 1), gap.last))
            if part.first <= part.last
        ]
    return parts


def _batches(rows: Iterable[tuple[str, tuple[Field, ...]]]) -> Iterator[tuple[str, list[tuple[Field, ...]]]]:
    waiting: dict[str, list[tuple[Field, ...]]] = {}
    for table, row in rows:
        batch = waiting.setdefault(table, [])
        batch.append(row)
        if len(batch) == BATCH:
            yield table, batch
            waiting[table] = []
    yield from ((table, batch) for table, batch in waiting.items() if batch)


def _flat(rows: Iterable[tuple[Field, ...]]) -> list[Field]:
    return [value for row in rows for value in row]


def _texts(fields: tuple[Field, ...], places: Sequence[int]) -> tuple[Field, ...]:
    """The row with its texts as text again."""
    row: list[Any] = list(fields)
    for place in places:
        row[place] = row[place].decode()
    return tuple(row)


def _all_texts(fields: tuple[Field, ...]) -> list[Any]:
    return [field.decode() if isinstance(field, bytes) else field for field in fields]


def _id_of(row: CursorRow) -> str:
    return row.id
