"""What the event loop remembers of uplinks: the newest, digests of all stored lately, those on their way. Pure."""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.uplink import Uplink
from tpxd.spool.contract import NewReport


@dataclass(slots=True, eq=False)
class Pending:
    """One uplink on its way to the disk. Not frozen: made for each report; the writer's round settles it.

    Attributes:
        uplink: has its `seq` from the moment it is stored.
        waiters: the tasks to wake; a duplicate waits for the first one's commit.
    """

    uplink: Uplink
    digest: int
    waiters: list[trio.lowlevel.Task]
    error: SpoolUnavailable | None = None


MAX_UPLINKS = 4_096
MAX_BYTES = 4 << 20
"""Of bodies; a parsed document takes several times as much."""

SPARE = 256
"""After so many more, somebody looks what can go."""


class Newest:
    """A bounded run of the journal's end, without gaps.

    Attributes:
        last_seq: the newest uplink, held or not.
    """

    def __init__(self, last_seq: int) -> None:
        self.last_seq = last_seq
        self._uplinks: list[Uplink] = []
        self._bytes = 0
        self._trim_at = SPARE

    def __len__(self) -> int:
        return len(self._uplinks)

    @property
    def first_seq(self) -> int:
        """The oldest uplink held; one past the newest when there is none."""
        return self.last_seq - len(self._uplinks) + 1

    def add(self, uplinks: Sequence[Uplink]) -> None:
        """Add what was committed; it must follow on what is held."""
        self._uplinks += uplinks
        self._bytes += sum([len(uplink.body) for uplink in uplinks])
        self.last_seq += len(uplinks)

    def is_long(self) -> bool:
        """Whether `trim` may have work to do."""
        return len(self._uplinks) >= self._trim_at or self._bytes > MAX_BYTES

    def trim(self, done_through: int) -> None:
        """Let go of what everyone is done with, and of the oldest beyond the bounds."""
        count = max(0, min(done_through - self.first_seq + 1, len(self._uplinks)), len(self._uplinks) - MAX_UPLINKS)
        size = self._bytes - sum(len(uplink.body) for uplink in self._uplinks[:count])
        while size > MAX_BYTES:
            size -= len(self._uplinks[count].body)
            count += 1
        del self._uplinks[:count]
        self._bytes = size
        self._trim_at = len(self._uplinks) + SPARE

    def get(self, seq: int) -> Uplink | None:
        """One uplink, when it is held."""
        index = seq - self.first_seq
        return self._uplinks[index] if 0 <= index < len(self._uplinks) else None

    def after(self, seq: int, max_uplinks: int, max_bytes: int) -> list[Uplink] | None:
        """The next uplinks after a seq, at least one; None when they are not held."""
        start = seq + 1 - self.first_seq
        if start < 0 or start >= len(self._uplinks):
            return None
        return fitting(self._uplinks[start : start + max_uplinks], max_bytes)


def fitting(uplinks: list[Uplink], max_bytes: int) -> list[Uplink]:
    """The first of them whose bodies are at most `max_bytes` together, but at least one."""
    total = 0
    for index, uplink in enumerate(uplinks):
        total += len(uplink.body)
        if total > max_bytes and index:
            return uplinks[:index]
    return uplinks


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


MAX_PENDING = 4_096
MAX_PENDING_BYTES = 64 << 20


class Underway:
    """Reports on their way to the disk, and by their digests what was stored: equal ones are stored once.

    Attributes:
        recent: what was stored.
        duplicates: reports that were not stored again.
    """

    def __init__(self, recent: Recent) -> None:
        self.recent = recent
        self.duplicates = 0
        self._pending: dict[int, Pending] = {}
        self._bytes = 0

    def digest(self, report: NewReport | Uplink) -> int:
        """By what an equal report is recognised; what is for one connection is not equal to what is for another.

        Raises:
            UnicodeEncodeError: a text is not Unicode.
        """
        if report.recipient is None:
            return self.recent.digest(report.kind, report.lane, report.body)
        # in these words from the first format on, so that what was handed on before an upgrade is known after it
        return self.recent.digest(report.kind, f"{report.lane}\0tpxd:to={report.recipient}", report.body)

    def find(self, digest: int) -> Pending | None:
        """An equal report that is on its way."""
        return self._pending.get(digest)

    def enter(self, report: NewReport, digest: int, now_ms: int) -> Pending:
        """A new report is on its way.

        Raises:
            SpoolUnavailable: too many are.
        """
        if len(self._pending) >= MAX_PENDING or self._bytes >= MAX_PENDING_BYTES:
            raise SpoolUnavailable("too many reports wait for the disk", hint="the disk is slower than the LRC")
        uplink = Uplink(
            0, now_ms, report.kind, report.lane, report.lrn_infos, report.body, report.document, report.recipient
        )
        return self._add(uplink, digest)

    def hand_on(self, handed: Sequence[tuple[int, Uplink]], now_ms: int) -> list[tuple[int, Pending]]:
        """What connections hand on is on its way, but for what its recipient got already within the window."""
        entered = []
        for seq, uplink in handed:
            # what was not a report before is a new one each time: a message of a far end, or a verdict on a downlink
            digest = self.digest(uplink) if uplink.handed_on else secrets.randbits(63)
            if self.recent.find(digest, now_ms) is None and digest not in self._pending:
                entered.append((seq, self._add(uplink, digest)))
        return entered

    def _add(self, uplink: Uplink, digest: int) -> Pending:
        pending = self._pending[digest] = Pending(uplink, digest, [])
        self._bytes += len(uplink.body)
        return pending

    def ended(self, pending: Pending) -> None:
        """It was stored, or refused."""
        del self._pending[pending.digest]
        self._bytes -= len(pending.uplink.body)
