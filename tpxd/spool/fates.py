"""What became of each uplink on each connection, for those who look back.

Most are delivered, and of those nothing is written: an uplink that a connection is done with, and of which nothing is
noted, was delivered. The others are one hexadecimal digit each, in blocks, so that a connection that takes nothing
costs half a byte an uplink. The blocks of all connections for the same uplinks lie together, and go with them.

Of what is older than this table, or than a repair that may have lost a part of it, nobody knows: see `SINCE`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tpxd.spool.rows import Fate, Field, Filtered, Rejected, Settled, checked, with_crc

BLOCK = 512
CURSOR_BITS = 20
"""Of the key of a row, for the number of the cursor."""

HELD = 256
"""Blocks in memory; the newest of each connection are written again and again."""

SINCE = "fates_since"
"""Among the spool's notes: of uplinks up to this one, what is not noted is not known to be delivered."""

NOTHING = "0"
LOST = "f"
REJECTED = "3"
DROPPED = "4"
_DIGITS: Mapping[Fate | Filtered, str] = {
    Fate.FILTERED: "1",
    Fate.EXPIRED: "2",
    Filtered.FLOW: "5",
    Filtered.FORMAT: "6",
    Filtered.RECIPIENT: "7",
    Filtered.CHAIN: "8",
    Filtered.TWICE: "9",
    Filtered.UNREGISTERED: "a",
}
"""What is stored, so these never change."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one uplink on one connection, for people.

    Attributes:
        word: `waiting`, one of the ledger's words, or `unknown`.
        why: where that is known and needs saying.
    """

    word: str
    why: str | None = None


WAITING, DELIVERED, UNKNOWN = Outcome("waiting"), Outcome("delivered"), Outcome("unknown")
OUTCOMES: Mapping[str, Outcome] = {
    **{digit: Outcome(fate.value) for fate, digit in _DIGITS.items() if isinstance(fate, Fate)},
    **{digit: Outcome("filtered", fate.value) for fate, digit in _DIGITS.items() if isinstance(fate, Filtered)},
    REJECTED: Outcome("rejected"),
    DROPPED: Outcome("dropped", "it was passed over"),
}


def digit_of(fate: Settled) -> str:
    """How a fate is noted; not for what was delivered."""
    return REJECTED if isinstance(fate, Rejected) else _DIGITS[fate]


def key_of(n: int, block: int) -> int:
    """The key of the block of one cursor, by the cursor's number."""
    return block << CURSOR_BITS | n


def row_of(n: int, id: str, block: int, digits: str) -> tuple[Field, ...]:
    """A block as it is stored."""
    return with_crc("fates", (key_of(n, block), id, block, bytes.fromhex(digits)))


class Fates:
    """The table of an open journal. What is noted is written at the end of the transaction, see `changed`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._held: dict[int, str] = {}
        self._changed: dict[int, tuple[int, str, int]] = {}
        self._deleted_before = 0

    def note(self, n: int, id: str, digits: Mapping[int, str]) -> None:
        """Note uplinks of one cursor, by seq."""
        for seq, digit in digits.items():
            block, at = divmod(seq, BLOCK)
            key = key_of(n, block)
            held = self._block(key)
            self._held[key] = held[:at] + digit + held[at + 1 :]
            self._changed[key] = n, id, block

    def changed(self) -> list[tuple[Field, ...]]:
        """The rows to be written, once."""
        rows = [row_of(*one, self._held[key]) for key, one in self._changed.items()]
        self._changed.clear()
        if len(self._held) > HELD:
            self._held.clear()
        return rows

    def undo(self) -> None:
        """The transaction failed."""
        self._held.clear()
        self._changed.clear()
        self._deleted_before = 0

    def of(self, n: int, seqs: Iterable[int]) -> dict[int, str]:
        """What is noted of uplinks of one cursor: a digit each."""
        found = {}
        for seq in seqs:
            block, at = divmod(seq, BLOCK)
            found[seq] = self._block(key_of(n, block))[at]
        return found

    def delete_before(self, seq: int) -> None:
        """Delete the blocks of uplinks that are all older than this one."""
        first = key_of(0, seq // BLOCK)
        if first > self._deleted_before:
            self._deleted_before = first
            self._connection.execute("DELETE FROM fates WHERE n < ?", (first,))
            self._drop([key for key in self._held if key < first])

    def delete(self, n: int, id: str) -> None:
        """Forget everything about one cursor."""
        self._connection.execute("DELETE FROM fates WHERE id = ?", (id,))
        self._drop([key for key in self._held if key == key_of(n, key >> CURSOR_BITS)])

    def _drop(self, keys: Sequence[int]) -> None:
        for key in keys:
            del self._held[key]
            self._changed.pop(key, None)

    def _block(self, key: int) -> str:
        if (held := self._held.get(key)) is None:
            held = NOTHING * BLOCK
            for row in self._connection.execute("SELECT * FROM fates WHERE n = ?", (key,)).fetchall():
                match checked("fates", row):
                    case (_, _, _, bytes(content)):
                        held = content.hex()
                    case _:
                        held = LOST * BLOCK
            self._held[key] = held
        return held


def outcome(digit: str, seq: int, since: int) -> Outcome:
    """What became of an uplink that the cursor is done with."""
    if digit == NOTHING:
        return DELIVERED if seq > since else UNKNOWN
    return OUTCOMES.get(digit, UNKNOWN)
