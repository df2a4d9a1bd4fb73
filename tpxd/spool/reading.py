"""Reads the journal, each answer in one step of one statement.

Python's sqlite3 gives up the interpreter lock at every row of an answer. A thread that has to win it back from a busy
event loop for each row is twenty times slower than one that does so once, so answers of many rows are put together
inside SQLite, as one text.
"""

from __future__ import annotations

import sqlite3
from array import array
from binascii import unhexlify
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpxd.lorawan.uplink import Uplink
from tpxd.spool.database import Damaged, page_bytes, translated
from tpxd.spool.rows import DeadLetter, Field, address_before, address_of, checked, journal_crc
from tpxd.spool.state import State

PAGE_ROWS = 256
PAGE_BYTES = 1 << 20

_SIZES = """
    SELECT group_concat(coalesce(length(body), 0))
    FROM (SELECT body FROM journal WHERE seq > ? ORDER BY seq LIMIT ?)"""
# A damaged number may be anything; what is cast to an integer at least does not tear the line apart.
_ROWS = """
    SELECT group_concat(
        seq || ' ' || cast(coalesce(received_ms, 0) AS INTEGER) || ' ' || cast(coalesce(crc, 0) AS INTEGER) || ' '
        || iif(handed_on IS NULL, '-', cast(handed_on AS INTEGER)) || ' '
        || iif(recipient IS NULL, '-', hex(recipient)) || ' '
        || hex(kind) || ' ' || hex(lane) || ' ' || hex(lrn_infos) || ' ' || hex(body), char(10))
    FROM (SELECT * FROM journal WHERE seq > ? ORDER BY seq LIMIT ?)"""
_ARRIVALS = """
    SELECT group_concat(seq || ',' || cast(coalesce(received_ms, 0) AS INTEGER) || ',' || coalesce(length(body), 0))
    FROM (SELECT seq, received_ms, body FROM journal WHERE seq > ? ORDER BY seq LIMIT ?)"""
_OF_LANE = "SELECT group_concat(seq) FROM (SELECT seq FROM journal WHERE seq > ? AND seq <= ? AND lane = ?)"
_LANES = """
    SELECT group_concat(seq || ' ' || hex(lane), char(10))
    FROM (SELECT seq, lane FROM journal WHERE seq > ? AND seq <= ?)"""
_LETTERS = "SELECT * FROM dead_letters WHERE connection = ?"
_COMMIT_BEFORE = """
    SELECT coalesce(max(last_seq), 0) || ''
    FROM commits, (SELECT max(last_seq) AS newest FROM commits)
    WHERE stored_ms < ? OR last_seq < newest - ?"""
_DONE_BEFORE = """
    SELECT coalesce(max(last_seq), 0) || ''
    FROM (SELECT last_seq, stored_ms FROM commits ORDER BY last_seq LIMIT 256) WHERE stored_ms < ?"""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the journal as it was read.

    Attributes:
        after: the seq that was asked for.
        through: every row up to here is in `uplinks`, or is lost.
        damaged: rows whose checksum does not hold, to be entered as holes.
    """

    after: int
    through: int
    uplinks: list[Uplink]
    damaged: list[int]


class Reader:
    """Reads one open database; every method may raise `Damaged` or `SpoolUnavailable`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def page(self, state: State, after: int, rows: int = PAGE_ROWS) -> Page:
        """Read the next rows after a seq, at most `PAGE_BYTES` of bodies but at least one row.

        Raises:
            Damaged: a row is missing, or out of its place.
        """
        after = max(after, state.first_seq - 1)
        sizes = self._numbers(_SIZES, (after, rows))
        count = total = 0
        for size in sizes:
            total += size
            if count and total > PAGE_BYTES:
                break
            count += 1
        text = self._text(_ROWS, (after, count)) if count else None
        uplinks: list[Uplink] = []
        damaged: list[int] = []
        through = after
        for seq, uplink in sorted(map(_parsed, text.split(b"\n")), key=lambda pair: pair[0]) if text else ():
            lost = state.in_hole(seq)
            if seq <= through or state.present(through, seq) != (not lost):
                raise Damaged(f"row {through + 1} of the journal is missing")
            through = seq
            if uplink is not None and not lost:
                uplinks.append(uplink)
            elif not lost:
                damaged.append(seq)
        if count == len(sizes) < rows:
            if state.present(through, state.last_seq):
                raise Damaged(f"row {through + 1} of the journal is missing")
            through = max(through, state.last_seq)
        return Page(after, through, uplinks, damaged)

    def arrivals(self, after: int, rows: int) -> list[tuple[int, int, int]]:
        """(seq, received_ms, bytes of the body) of the next rows after a seq, oldest first."""
        flat = self._numbers(_ARRIVALS, (after, rows))
        return sorted(zip(flat[::3], flat[1::3], flat[2::3], strict=True))

    def arrivals_after(self, positions: Sequence[int]) -> list[int | None]:
        """For each position, when the next row there arrived; None where there is none."""
        if not positions:
            return []
        marks = ",".join(["(?)"] * len(positions))
        flat = self._numbers(
            "SELECT group_concat(coalesce((SELECT cast(coalesce(received_ms, 0) AS INTEGER) FROM journal"  # noqa: S608
            f" WHERE seq > column1 ORDER BY seq LIMIT 1), -1)) FROM (VALUES {marks})",
            positions,
        )
        return [None if value < 0 else value for value in flat]

    def count(self, after: int, through: int) -> int:
        """Count the rows after one seq and up to another, by walking over them."""
        (count,) = self._numbers("SELECT count(*) || '' FROM journal WHERE seq > ? AND seq <= ?", (after, through))
        return count

    def stored_before(self, at_ms: int) -> int:
        """The last seq of the oldest commits that came before a time; 0 when there is none. A part of them at once."""
        (through,) = self._numbers(_DONE_BEFORE, (at_ms,))
        return through

    def digests(self, since_ms: int, limit: int) -> Iterator[tuple[array[int], int, int]]:
        """(digests, first seq, stored_ms) of the newest commits, oldest first, as far back as a time and some rows.

        Damaged ones are left out: at worst a duplicate is stored again.
        """
        (before,) = self._numbers(_COMMIT_BEFORE, (since_ms, limit))
        with translated(self._path):
            for row in self._connection.execute("SELECT * FROM commits WHERE last_seq > ? ORDER BY 1", (before,)):
                match checked("commits", row):
                    case (int(), int(first_seq), int(stored_ms), bytes(packed)):
                        yield array("q", packed), first_seq, stored_ms

    def dead_letters(self, connection: str, limit: int) -> tuple[list[DeadLetter], int]:
        """The newest dead letters of one connection, newest first, and how many more are damaged."""
        with translated(self._path):
            rows = self._connection.execute(
                "SELECT * FROM dead_letters WHERE connection = ? ORDER BY id DESC LIMIT ?", (connection, limit)
            ).fetchall()
        letters: list[DeadLetter] = []
        for row in rows:
            match checked("dead_letters", row):
                case (
                    int(id),
                    bytes(name),
                    int(seq),
                    int(ms),
                    bytes(kind),
                    bytes(lane),
                    bytes(why),
                    int(at),
                    bytes(body),
                ):
                    texts = (name.decode(), kind.decode(), lane.decode(), why.decode())
                    letters.append(DeadLetter(id, texts[0], seq, ms, texts[1], texts[2], texts[3], at, body))
        return letters, len(rows) - len(letters)

    def reasons(self, connection: str, seqs: Sequence[int]) -> dict[int, str]:
        """Why uplinks became dead letters of one connection, by seq, where those letters are still there."""
        places = ",".join("?" * len(seqs))
        with translated(self._path):
            rows = self._connection.execute(f"{_LETTERS} AND seq IN ({places})", (connection, *seqs)).fetchall()
        found = {}
        for row in rows:
            match checked("dead_letters", row):
                case (_, _, int(seq), _, _, _, bytes(reason), *_):
                    found[seq] = reason.decode()
        return found

    def downlinks(self) -> list[tuple[Any, ...]]:
        """All rows of downlinks as they are stored, oldest first; unchecked."""
        with translated(self._path):
            return self._connection.execute("SELECT * FROM commands ORDER BY id").fetchall()

    def seqs_of(self, lane: str, after: int, through: int) -> list[int]:
        """Seqs of one device's rows after one seq and up to another, newest first."""
        return sorted(self._numbers(_OF_LANE, (after, through, lane)), reverse=True)

    def lanes(self, after: int, through: int) -> list[tuple[int, str]]:
        """(seq, lane) of the rows after one seq and up to another, ascending; their checksums are not looked at."""
        text = self._text(_LANES, (after, through))
        pairs = [line.split(b" ") for line in text.split(b"\n")] if text else []
        return sorted((int(seq), unhexlify(lane).decode(errors="replace")) for seq, lane in pairs)

    def used_bytes(self) -> int:
        """Bytes of the pages in use."""
        return self.page_bytes()[0]

    def page_bytes(self) -> tuple[int, int]:
        """Bytes of the pages in use, and of those that are free for what comes next."""
        with translated(self._path):
            return page_bytes(self._connection)

    def _text(self, statement: str, values: Sequence[Field]) -> bytes | None:
        with translated(self._path):
            ((text,),) = self._connection.execute(statement, values).fetchall()
        assert text is None or isinstance(text, bytes)
        return text

    def _numbers(self, statement: str, values: Sequence[Field]) -> list[int]:
        text = self._text(statement, values)
        return [int(part) for part in text.split(b",")] if text else []


def _parsed(line: bytes) -> tuple[int, Uplink | None]:
    """The seq of a row, and the row unless its checksum does not hold."""
    seq_text, ms_text, crc_text, handed_text, to_text, *hexed = line.split(b" ")
    kind, lane, lrn_infos, body = map(unhexlify, hexed)
    seq, received_ms = int(seq_text), int(ms_text)
    recipient = None if to_text == b"-" else unhexlify(to_text)
    handed_on = None if handed_text == b"-" else int(handed_text)
    address = address_of(recipient, handed_on)
    if journal_crc(seq, received_ms, kind, lane, lrn_infos, body, address) != int(crc_text):
        return seq, None
    if handed_on is None:
        lrn_infos, recipient, handed_on = address_before(lrn_infos)
    to = None if recipient is None else recipient.decode()
    texts = kind.decode(), lane.decode(), lrn_infos.decode()
    return seq, Uplink(seq, received_ms, *texts, body, recipient=to, handed_on=bool(handed_on))
