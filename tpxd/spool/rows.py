"""What the spool's file holds: its tables, the rows as Python sees them, and the checksum that each row carries.

Theory of operation: SQLite does not notice when a byte on the disk changes. So every row, of every table, carries a
CRC-32 over all its other columns, its key included. A row whose CRC does not hold is not a row; nobody ever sees it.
Every table is a plain rowid table without an index, so that `damage.scan` can find rows in the pages of a broken file
knowing nothing but the number of columns. Times are milliseconds since the epoch, UTC.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

BLOCK = 4_096

MAX_BLOCKS = 256
"""At so many nobody should settle more beyond the position: see `Cursor.far_ahead`. The ledger takes twice as many."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """A set of seqs; changing it makes another one.

    Attributes:
        blocks: by number, the bits of `BLOCK` seqs each, the lowest bit first; never 0.
        count: how many seqs.
    """

    blocks: Mapping[int, int] = field(default_factory=dict)
    count: int = 0

    @classmethod
    def of(cls, blocks: Mapping[int, int]) -> Ahead:
        """The set with these bits; blocks may be 0."""
        left = {block: bits for block, bits in blocks.items() if bits}
        return cls(left, sum(bits.bit_count() for bits in left.values())) if left else NOTHING

    def __contains__(self, seq: int) -> bool:
        return bool(self.blocks.get(seq // BLOCK, 0) >> seq % BLOCK & 1)

    def within(self, after: int, through: int) -> int:
        """How many of them are later than `after` and not later than `through`."""
        return sum((bits & _between(block, after, through)).bit_count() for block, bits in self.blocks.items())

    def run_from(self, after: int) -> int:
        """The last seq of the unbroken run that follows on `after`; `after` itself where there is none."""
        seq = after + 1
        while (rest := self.blocks.get(seq // BLOCK, 0) >> seq % BLOCK) & 1:
            seq += (~rest & (rest + 1)).bit_length() - 1
        return seq - 1

    def adding(self, seqs: Iterable[int]) -> Ahead:
        """With these too."""
        added: dict[int, int] = {}
        for seq in seqs:
            block = seq // BLOCK
            added[block] = added.get(block, 0) | 1 << seq % BLOCK
        return Ahead.of({**self.blocks, **{block: bits | self.blocks.get(block, 0) for block, bits in added.items()}})

    def without(self, after: int, through: int) -> Ahead:
        """Without those that are later than `after` and not later than `through`."""
        if not self.within(after, through):
            return self
        return Ahead.of({block: bits & ~_between(block, after, through) for block, bits in self.blocks.items()})


NOTHING = Ahead()


def _between(block: int, after: int, through: int) -> int:
    """The bits of a block that stand for seqs later than `after` and not later than `through`."""
    low = max(0, after + 1 - block * BLOCK)
    high = min(BLOCK, through + 1 - block * BLOCK)
    return (1 << high) - (1 << low) if low < high else 0


FORMAT = 3
"""Older ones are made to be this when they are opened: 1 had no table `downlinks`; 1 and 2 had no `fates`, and in the
journal no column for the recipient, which stood in `lrn_infos` instead."""

APPLICATION_ID = 0x74707864
"""`tpxd` in ASCII."""

SCHEMA = {
    "journal": "CREATE TABLE journal(seq INTEGER PRIMARY KEY, received_ms, kind, lane, lrn_infos, crc, body,"
    " recipient, handed_on)",
    "commits": "CREATE TABLE commits(last_seq INTEGER PRIMARY KEY, first_seq, stored_ms, digests, crc)",
    "cursors": "CREATE TABLE cursors(n INTEGER PRIMARY KEY, id, base, position, delivered, filtered, expired, rejected,"
    " dropped, retried, retired_ms, crc)",
    "meta": "CREATE TABLE meta(n INTEGER PRIMARY KEY, key, value, crc)",
    "holes": "CREATE TABLE holes(first_seq INTEGER PRIMARY KEY, last_seq, crc)",
    "dead_letters": "CREATE TABLE dead_letters(id INTEGER PRIMARY KEY, connection, seq, received_ms, kind, lane,"
    " reason, at_ms, body, crc)",
    "commands": "CREATE TABLE commands(id INTEGER PRIMARY KEY, version, connection, received_ms, state, acknowledged,"
    " details, as_key, crc)",
    "ahead": "CREATE TABLE ahead(n INTEGER PRIMARY KEY, id, base, block, bits, crc)",
    "fates": "CREATE TABLE fates(n INTEGER PRIMARY KEY, id, block, digits, crc)",
}

LATER = frozenset({"commands", "ahead", "fates"})
"""Tables that a file of an older format may lack."""

JOURNAL_BEFORE = "CREATE TABLE journal(seq INTEGER PRIMARY KEY, received_ms, kind, lane, lrn_infos, crc, body)"
"""The journal up to format 2."""

JOURNAL_ADDED = ("recipient", "handed_on")
"""Its rows are not rewritten for these: they have no `handed_on`, and their recipient is still in `lrn_infos`."""

JOURNAL_COLUMNS_BEFORE = JOURNAL_BEFORE.count(",") + 1

COLUMNS = {name: text.count(",") + 1 for name, text in SCHEMA.items()}
"""How many columns each table has, the key included."""

BLOCK_BITS = 40
"""Of the key of a row of `ahead`, for the number of the block."""

Field = int | str | bytes | None
"""What a column may hold."""


class Fate(Enum):
    """What became of an uplink, when it did not become a dead letter."""

    DELIVERED = "delivered"
    FILTERED = "filtered"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Rejected:
    """The uplink becomes a dead letter, for this reason; the hint, for people, is not stored."""

    reason: str
    hint: str | None = field(default=None, compare=False)


class Filtered(Enum):
    """Why a connection did not take an uplink, for people; it counts as `Fate.FILTERED`, which says nothing more."""

    FLOW = "its flow does not take it"
    FORMAT = "sendMetadata carries nothing but DevEUI_uplink"
    RECIPIENT = "it is for another connection alone"
    CHAIN = "the connection takes only what others hand on to it"
    TWICE = "it came to the connection straight from the LRC too"
    UNREGISTERED = "its device is not registered, and createDevices is false"


Settled = Fate | Filtered | Rejected
"""The fate of one uplink on one connection."""


@dataclass(frozen=True, slots=True)
class CursorRow:
    """How far one connection has come, and what became of what it passed.

    Attributes:
        n: key of the row.
        base: the journal's last seq when the queue began: `received` counts from here.
        position: the connection is done with everything up to here.
        ahead: what it is done with beyond; never the very next row, never one in a hole.
        retried: what it received beside the journal: dead letters that were put in again, and what was to be handed on
            to it and found no room.
        retired_ms: when the connection's file was removed; None while it is there.
    """

    n: int
    id: str
    base: int
    position: int
    delivered: int = 0
    filtered: int = 0
    expired: int = 0
    rejected: int = 0
    dropped: int = 0
    retried: int = 0
    retired_ms: int | None = None
    ahead: Ahead = NOTHING

    def to_row(self) -> tuple[Field, ...]:
        """The row as it is stored, checksum included; `ahead` has a table of its own."""
        counters = (self.delivered, self.filtered, self.expired, self.rejected, self.dropped, self.retried)
        return with_crc("cursors", (self.n, self.id, self.base, self.position, *counters, self.retired_ms))

    @property
    def settled(self) -> int:
        """Grows with everything that becomes of an uplink: tells an older version of a row from a newer one."""
        return self.delivered + self.filtered + self.expired + self.rejected + self.dropped

    def block_key(self, block: int) -> int:
        """The key of a block of `ahead`; those of one cursor lie together."""
        return self.n << BLOCK_BITS | block

    def block_row(self, block: int) -> tuple[Field, ...]:
        """A block of `ahead` as it is stored. The base tells it from one of an older queue of the same id."""
        bits = self.ahead.blocks[block]
        content = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        return with_crc("ahead", (self.block_key(block), self.id, self.base, block, content))


@dataclass(frozen=True, slots=True)
class Hole:
    """Rows of the journal that are lost: everything from `first` to `last`."""

    first: int
    last: int

    def within(self, after: int, through: int) -> int:
        """How many of them are later than `after` and not later than `through`."""
        return max(0, min(self.last, through) - max(self.first - 1, after))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One uplink that a connection could not deliver for good.

    Attributes:
        seq: its place in the journal.
        reason: one line for people.
        at_ms: when it was set aside.
    """

    id: int
    connection: str
    seq: int
    received_ms: int
    kind: str
    lane: str
    reason: str
    at_ms: int
    body: bytes


ADDRESSED = b"tpxd:to="
"""Began the `lrn_infos` of what was for one connection alone, up to format 2."""

_HANDED_ON = b";"

TO_ALL = b"-"
"""The address of what is for all connections; see `address_of`."""

UNADDRESSED = b""
"""The address of a row of format 2 or before."""


def address_of(recipient: bytes | None, handed_on: int | None) -> bytes:
    """How the checksum of a row covers whom it is for."""
    if recipient is None and not handed_on:
        return UNADDRESSED if handed_on is None else TO_ALL
    mark = -1 if handed_on is None else handed_on
    return b"=%d - " % mark if recipient is None else b"=%d %d %b" % (mark, len(recipient), recipient)


def address_before(lrn_infos: bytes) -> tuple[bytes, bytes | None, bool]:
    """The LRC's `lrn_infos`, the recipient, and whether it was handed on, out of a row of format 2 or before."""
    if not lrn_infos.startswith(ADDRESSED):
        return lrn_infos, None, False
    recipient, mark, sender_infos = lrn_infos.removeprefix(ADDRESSED).partition(_HANDED_ON)
    return sender_infos, recipient, bool(mark)


def journal_crc(
    seq: int, received_ms: int, kind: bytes, lane: bytes, lrn_infos: bytes, body: bytes, address: bytes = TO_ALL
) -> int:
    """The checksum of one row of the journal; the texts as UTF-8.

    The lengths are part of it, so that no byte can move from one column to the next unnoticed.
    """
    head = b"%d %d %d %d %d " % (seq, received_ms, len(kind), len(lane), len(lrn_infos))
    return zlib.crc32(body, zlib.crc32(head + kind + lane + lrn_infos + address))


def with_crc(table: str, fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """A row of any other table as it is stored: its checksum comes last; text and its UTF-8 bytes count as the same."""
    plain = tuple(field.encode() if isinstance(field, str) else field for field in fields)
    return (*fields, zlib.crc32(repr((table, plain)).encode()))


def checked(table: str, row: tuple[Field, ...]) -> tuple[Field, ...] | None:
    """The fields of a stored row without the checksum, or None when it does not hold."""
    fields = row[:-1]
    return fields if with_crc(table, fields) == row else None
