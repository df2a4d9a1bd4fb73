"""Recognises a report that was stored already: the same kind, lane and body within a window of time. Pure.

Theory of operation: digests lie in buckets, by their lowest 16 bits. A bucket is one run of bytes, nine for each
digest: its other six bytes, then three of the seq, oldest first. All of a bucket is searched in one step of C. Digests
go in the order in which they came, so what goes is always the beginning of its bucket; which bucket that is, two bytes
a digest remember. So a million take 19 MiB, where a dictionary would take 200.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Sequence

CAPACITY = 1_000_000
"""How many digests are kept; at higher rates the window becomes shorter."""

BUCKETS = 1 << 16
DIGEST, ENTRY = 6, 9
LOW = (1 << 24) - 1

STEP_MS = 1_000
"""Commits that come so close together leave together, so that the times of many small ones take no room."""

CUT = 65_536
"""After so many have gone, the order is cut."""


class Recent:
    """The digests of the newest rows, and the seq of each.

    A digest is 64 bits of a keyed hash: who does not know the key cannot make two reports meet on purpose.
    """

    def __init__(self, key: bytes, window_s: float, capacity: int = CAPACITY) -> None:
        self._key = key
        self._window_ms = int(window_s * 1000)
        self._capacity = capacity
        self._buckets: list[bytes] = [b""] * BUCKETS
        self._order = array("H")
        """The buckets of the digests, in the order in which they came; the first `_gone` have left."""
        self._gone = 0
        self._times: deque[list[int]] = deque()
        """[stored_ms of the first, how many] of the commits that came close together, oldest first."""
        self._newest_seq = 0
        self._forgot_ms: int | None = None

    def __len__(self) -> int:
        return len(self._order) - self._gone

    def digest(self, kind: str, lane: str, body: bytes) -> int:
        """The signed 64-bit digest of a report; raises UnicodeEncodeError for text that is not Unicode."""
        hashed = hashlib.blake2b(f"{kind}\0{lane}\0".encode() + body, digest_size=8, key=self._key).digest()
        return int.from_bytes(hashed, "little", signed=True)

    def find(self, digest: int, now_ms: int) -> int | None:
        """The seq under which this digest was stored within the window."""
        self._expire(now_ms)
        packed = digest.to_bytes(8, "little", signed=True)
        bucket = self._buckets[packed[0] | packed[1] << 8]
        at = bucket.rfind(packed[2:])
        while at >= 0 and at % ENTRY:
            at = bucket.rfind(packed[2:], 0, at + DIGEST - 1)
        if at < 0:
            return None
        return self._newest_seq - (self._newest_seq - int.from_bytes(bucket[at + DIGEST : at + ENTRY], "little") & LOW)

    def add(self, digests: Sequence[int], first_seq: int, stored_ms: int) -> None:
        """A commit stored rows with these digests, numbered from `first_seq`."""
        buckets, order = self._buckets, self._order
        for seq, digest in enumerate(digests, first_seq):
            packed = digest.to_bytes(8, "little", signed=True)
            number = packed[0] | packed[1] << 8
            buckets[number] += packed[2:] + (seq & LOW).to_bytes(ENTRY - DIGEST, "little")
            order.append(number)
        self._newest_seq = first_seq + len(digests) - 1
        if self._times and 0 <= stored_ms - self._times[-1][0] < STEP_MS:
            self._times[-1][1] += len(digests)
        else:
            self._times.append([stored_ms, len(digests)])
        while len(self) > self._capacity:
            self._forgot_ms = self._times[0][0] + STEP_MS
            self._drop(min(self._times[0][1], len(self) - self._capacity))

    def since_ms(self, now_ms: int) -> int:
        """Every report since then would be recognised: the window's beginning, or later where there were too many."""
        self._expire(now_ms)
        begin = now_ms - self._window_ms
        return begin if self._forgot_ms is None else max(begin, self._forgot_ms)

    def _expire(self, now_ms: int) -> None:
        # Either way: a clock that was set back must not make the window longer.
        while self._times and abs(now_ms - self._times[0][0]) > self._window_ms:
            self._drop(self._times[0][1])

    def _drop(self, count: int) -> None:
        """Let the oldest go, so many of those that came together."""
        self._times[0][1] -= count
        if self._times[0][1] == 0:
            self._times.popleft()
        for number in self._order[self._gone : self._gone + count]:
            self._buckets[number] = self._buckets[number][ENTRY:]
        self._gone += count
        if self._gone >= CUT:
            del self._order[: self._gone]
            self._gone = 0
