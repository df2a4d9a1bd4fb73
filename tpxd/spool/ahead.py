"""Which uplinks a cursor is done with beyond its position. Pure.

One bit for each uplink, in blocks. A whole block takes half a KiB, so that a million uplinks take 128, and a commit
rewrites the blocks it touches, whatever the others hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
