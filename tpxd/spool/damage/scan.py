"""Finds rows in the pages of a broken SQLite file. Pure.

Theory of operation: neither the header, the schema nor any page that only points to others is needed. Every page, of
the file and of the log, in all its versions, is read as a leaf of some table. A row counts when it has the number of
columns of one of our tables and its checksum holds; rows of a journal never change, so it does not matter how often one
turns up. A page whose own directory of cells makes no sense is searched wherever a row may begin: what is found so is
`weak`, since it may be the remains of a row that was deleted or replaced. A row shows itself by two bytes: the size of
its header, and a zero, since the key's own column is NULL. In the text of a large body they are not, so that its pages,
which have no directory, cost next to nothing.

Source: the SQLite file format, sections 1.6 "B-tree Pages" and 2.1 "Record Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tpxd.spool.damage.old_file import Content
from tpxd.spool.damage.wal import Frame
from tpxd.spool.progress import Alive
from tpxd.spool.rows import COLUMNS, JOURNAL_COLUMNS_BEFORE, Field, address_of, checked, journal_crc

LEAF = 0x0D
INTERIOR = 0x05
DATABASE_HEADER_BYTES = 100
MAX_PAYLOAD = 256 << 20
MAX_TRIED = 1 << 24
"""Places where a row may begin in a page without a sound directory: two microseconds each."""

HEADER_BEGINS = re.compile(rb"[\x02-\x7f]\0")
BEFORE_HEADER = 13
"""The size and the key of a row stand before its header: four bytes at most, and nine."""

TABLES: Mapping[int, Sequence[str]] = {
    **{columns: [name for name in COLUMNS if COLUMNS[name] == columns] for columns in COLUMNS.values()},
    JOURNAL_COLUMNS_BEFORE: ["journal"],
}
"""The tables that have so many columns, in this format or an older one; the checksum tells them apart."""


@dataclass(frozen=True, slots=True)
class Found:
    """A row whose checksum holds; texts are bytes, the checksum is left out.

    Attributes:
        weak: perhaps not the newest version.
        behind: it stands in the log behind a break, where SQLite does not come.
    """

    table: str
    fields: tuple[Field, ...]
    weak: bool
    behind: bool = False


def scan(
    database: Content, frames: Sequence[Frame], page_size: int, kept: int = 0, alive: Alive = lambda text: None
) -> Iterator[Found]:
    """Yield every row that can be found, of the file first and then of the log, oldest version first.

    Args:
        kept: the number of the last frame before a break.
        alive: called for each page that is searched; a while may pass until one of them has a row.
    """
    return _Scan(database, frames, page_size, alive).rows(kept)


class _Scan:
    def __init__(self, database: Content, frames: Sequence[Frame], page_size: int, alive: Alive) -> None:
        self._database = database
        self._frames = frames
        self._size = page_size
        self._newest = {frame.page: frame.content for frame in frames}
        self._searched = 0
        self._left = MAX_TRIED
        self._alive = alive

    def rows(self, kept: int) -> Iterator[Found]:
        for start in range(0, len(self._database), self._size):
            page = self._database[start : start + self._size]
            yield from self._page(page.ljust(self._size, b"\0"), DATABASE_HEADER_BYTES if start == 0 else 0)
        for frame in self._frames:
            for found in self._page(frame.content, DATABASE_HEADER_BYTES if frame.page == 1 else 0):
                yield replace(found, behind=True) if frame.number > kept else found

    def _page(self, page: bytes, at: int) -> Iterator[Found]:
        kind = page[at]
        sound = kind == LEAF
        if kind == LEAF:
            count = int.from_bytes(page[at + 3 : at + 5], "big")
            directory = page[at + 8 : at + 8 + 2 * count]
            for place in range(0, len(directory), 2):
                found = self._cell(page, int.from_bytes(directory[place : place + 2], "big"), weak=False)
                if found is None:
                    sound = False
                else:
                    yield found
        if not sound and kind != INTERIOR:
            self._searched += 1
            self._alive(f"damaged pages of the spool are searched: {self._searched}")
            for start in self._beginnings(page, at):
                found = self._cell(page, start, weak=True)
                if found is not None:
                    yield found

    def _beginnings(self, page: bytes, at: int) -> list[int]:
        """Where rows may begin, as far as so many may be tried."""
        headers = [match.start() for match in HEADER_BEGINS.finditer(page, at)]
        found = {start for header in headers for start in range(max(at, header - BEFORE_HEADER), header - 1)}
        tried = sorted(start for start in found if page[start])[: self._left]  # a row begins with its size
        self._left -= len(tried)
        return tried

    def _cell(self, page: bytes, start: int, *, weak: bool) -> Found | None:
        """The row that begins here, if one does."""
        try:
            size, at = _varint(page, start)
            key, at = _varint(page, at)
            if not 0 < size <= MAX_PAYLOAD:
                return None
            head, _ = _varint(page, at)
            if not 1 < head <= size or at + head > len(page) or page[at + 1] != 0:  # the key's own column is NULL
                return None
            local = _local_bytes(size, self._size)
            payload = page[at : at + local]
            if local == size:
                return _row(key, payload, head, weak=weak)
            overflow = int.from_bytes(page[at + local : at + local + 4], "big")
            for newest in (True, False):
                whole = self._chain(payload, size, overflow, newest=newest)
                found = _row(key, whole, head, weak=weak) if whole is not None else None
                if found is not None:
                    return found
        except IndexError:
            pass
        return None

    def _chain(self, payload: bytes, size: int, page_number: int, *, newest: bool) -> bytes | None:
        """A payload with what lies in overflow pages; None when the chain is broken."""
        parts = [payload]
        missing = size - len(payload)
        while missing > 0:
            start = (page_number - 1) * self._size
            page = self._newest.get(page_number) if newest else None
            if page is None:
                if page_number == 0 or start >= len(self._database):
                    return None
                page = self._database[start : start + self._size]
            part = page[4 : 4 + missing]
            if not part:
                return None
            parts.append(part)
            missing -= len(part)
            page_number = int.from_bytes(page[:4], "big")
        return b"".join(parts)


def _row(key: int, payload: bytes, head: int, *, weak: bool) -> Found | None:
    types: list[int] = []
    _, at = _varint(payload, 0)
    while at < head:
        kind, at = _varint(payload, at)
        types.append(kind)
    tables = TABLES.get(len(types))
    if tables is None or types[0] != 0:
        return None
    values: list[Field] = [key]
    at = head
    for kind in types[1:]:
        width = _width(kind)
        if width is None or at + width > len(payload):
            return None
        values.append(_value(kind, payload[at : at + width]))
        at += width
    for table in tables:
        fields = checked_row(table, tuple(values))
        if fields is not None:
            return Found(table, fields, weak)
    return None


def checked_row(table: str, values: tuple[Field, ...]) -> tuple[Field, ...] | None:
    """What a stored row holds, as in `Found`; None when its checksum does not hold.

    A row of the journal from an older format has what it lacks as NULL, as SQLite reads it.
    """
    if table != "journal":
        return checked(table, values)
    whole = (*values, None, None) if len(values) == JOURNAL_COLUMNS_BEFORE else values
    match whole:
        case (int(seq), int(ms), bytes(kind), bytes(lane), bytes(lrn_infos), int(crc), bytes(body), to, handed_on):
            if not isinstance(to, bytes | None) or not isinstance(handed_on, int | None):
                return None
            address = address_of(to, handed_on)
            return whole if journal_crc(seq, ms, kind, lane, lrn_infos, body, address) == crc else None
    return None


def _width(kind: int) -> int | None:
    """Bytes of a value; None for what we never store: fractions and reserved types."""
    if kind >= 12:
        return (kind - 12) // 2
    return {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}.get(kind)


def _value(kind: int, content: bytes) -> Field:
    if kind == 0:
        return None
    if kind >= 12:
        return content
    if kind >= 8:
        return kind - 8
    return int.from_bytes(content, "big", signed=True)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer and the place behind it; raises IndexError at the end of the page."""
    value = 0
    for _ in range(8):
        byte = content[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | content[at], at + 1


def _local_bytes(size: int, usable: int) -> int:
    """How much of a payload lies in the leaf itself."""
    if size <= usable - 35:
        return size
    least = (usable - 12) * 32 // 255 - 23
    most = least + (size - least) % (usable - 4)
    return most if most <= usable - 35 else least
