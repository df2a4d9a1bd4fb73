"""Recognises a report that was stored already: the same kind, lane and body within a window of time. Pure."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence

CAPACITY = 262_144
"""How many digests are kept; at higher rates the window becomes shorter."""


class Recent:
    """The digests of the newest rows, and the seq of each.

    A digest is 64 bits of a keyed hash: who does not know the key cannot make two reports meet on purpose.
    """

    def __init__(self, key: bytes, window_s: float, capacity: int = CAPACITY) -> None:
        self._key = key
        self._window_ms = int(window_s * 1000)
        self._capacity = capacity
        self._seqs: dict[int, int] = {}
        self._order: deque[tuple[int, int, Sequence[int]]] = deque()
        """(stored_ms, first seq, digests) of each commit, oldest first."""
        self._count = 0

    def digest(self, kind: str, lane: str, body: bytes) -> int:
        """The signed 64-bit digest of a report; raises UnicodeEncodeError for text that is not Unicode."""
        hashed = hashlib.blake2b(f"{kind}\0{lane}\0".encode() + body, digest_size=8, key=self._key).digest()
        return int.from_bytes(hashed, "little", signed=True)

    def find(self, digest: int, now_ms: int) -> int | None:
        """The seq under which this digest was stored within the window."""
        self._expire(now_ms)
        return self._seqs.get(digest)

    def add(self, digests: Sequence[int], first_seq: int, stored_ms: int) -> None:
        """A commit stored rows with these digests, numbered from `first_seq`."""
        self._order.append((stored_ms, first_seq, digests))
        self._count += len(digests)
        self._seqs.update(zip(digests, range(first_seq, first_seq + len(digests)), strict=True))
        while self._count > self._capacity:
            self._drop_oldest()

    def _expire(self, now_ms: int) -> None:
        # Either way: a clock that was set back must not make the window longer.
        while self._order and abs(now_ms - self._order[0][0]) > self._window_ms:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, seq, digests = self._order.popleft()
        self._count -= len(digests)
        for digest in digests:
            if self._seqs.get(digest) == seq:
                del self._seqs[digest]
            seq += 1
