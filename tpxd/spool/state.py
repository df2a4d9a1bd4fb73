"""What the spool knows without reading: the arithmetic of the ledger. Pure.

One journal serves all connections. Each uplink is one row; its key `seq` is dense and ascending. A cursor is a prefix
position: its connection is done with everything up to there, and with what it settled ahead. Rows are only appended at
the end and deleted at the beginning, so every number of the ledger but those of a cursor's own row follows from two
seqs and a few holes:

    received = last_seq - base + retried        waiting = rows after the position that are no holes, nor settled ahead

A hole is a run of rows that damage has destroyed. It is entered once, counted `dropped` at that moment for every cursor
that still waited for it, and counted by nobody afterwards; nothing in it is settled ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tpxd.spool.rows import CursorRow, Hole

REMEMBERED = "remembered."
COUNTS = "downlinks."
"""Before the keys of what connections have the spool remember, among its own notes; see `notes_of`."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of everything that a connection was to carry; `waiting` is what it is not done with."""

    received: int
    delivered: int
    filtered: int
    expired: int
    rejected: int
    dropped: int
    waiting: int

    @property
    def imbalance(self) -> int:
        """`received` less the sum of all the others; anything but 0 is a bug or damage."""
        settled = self.delivered + self.filtered + self.expired + self.rejected + self.dropped
        return self.received - settled - self.waiting


@dataclass(slots=True)
class State:
    """The journal's numbers and everything small beside it.

    Attributes:
        first_seq: rows before this one are gone.
        last_seq: the newest row; counts every uplink ever stored.
        newest_ms: when the newest row was stored.
        orphaned: a repair could not tell which cursors there were: one that is made before the next uplink begins
            at the oldest row.
        dropped: what was dropped to make room and not told yet, by cursor; not on disk, here so that it is undone with
            its transaction.
        not_handed_on: the same for what could not be handed on, by recipient.
    """

    first_seq: int = 1
    last_seq: int = 0
    newest_ms: int = 0
    cursors: dict[str, CursorRow] = field(default_factory=dict)
    holes: tuple[Hole, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
    dead_letters: int = 0
    dead_letter_bytes: int = 0
    last_dead_letter: int = 0
    orphaned: bool = False
    dropped: Mapping[str, int] = field(default_factory=dict)
    not_handed_on: Mapping[str, int] = field(default_factory=dict)

    def copy(self) -> State:
        """A copy that further changes do not reach."""
        return replace(self, cursors=dict(self.cursors), meta=dict(self.meta))

    def present(self, after: int, through: int) -> int:
        """How many rows there are after one seq and up to another."""
        after = max(after, self.first_seq - 1)
        return max(0, through - after) - sum(hole.within(after, through) for hole in self.holes)

    def in_hole(self, seq: int) -> bool:
        """Whether this row is lost."""
        return any(hole.first <= seq <= hole.last for hole in self.holes)

    def waiting(self, row: CursorRow) -> int:
        """How many rows a cursor is not done with."""
        return self.waiting_between(row, row.position, self.last_seq)

    def waiting_between(self, row: CursorRow, after: int, through: int) -> int:
        """How many rows a cursor is not done with, after one seq and up to another; all after its position."""
        rows = self.present(after, through)
        return rows - row.ahead.within(after, through) if row.ahead.count else rows

    def moved_on(self, row: CursorRow) -> CursorRow:
        """The cursor with its position moved over what is settled ahead, or lost, without a gap."""
        position = -1
        while row.ahead.count and position != row.position:
            position = row.position
            end = row.ahead.run_from(position)
            end = next((hole.last for hole in self.holes if hole.first <= end + 1 <= hole.last), end)
            row = replace(row, position=end, ahead=row.ahead.without(0, end))
        return row

    def ledger(self, row: CursorRow) -> Ledger:
        """The whole ledger of one cursor."""
        received = self.last_seq - row.base + row.retried
        return Ledger(received, row.delivered, row.filtered, row.expired, row.rejected, row.dropped, self.waiting(row))


def notes_of(meta: Mapping[str, str], id: str) -> list[str]:
    """The keys of what is kept for one connection: `remembered.WORD/ID`, `remembered.WORD/ID/…` and `downlinks.ID`."""
    return [
        key for key in meta if key == f"{COUNTS}{id}" or (key.startswith(REMEMBERED) and key.split("/", 2)[1:2] == [id])
    ]
