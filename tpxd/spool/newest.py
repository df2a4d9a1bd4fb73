"""The newest uplinks, in memory, with their parsed documents. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tpxd.lorawan.uplink import Uplink

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
