"""What goes into the spool and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(slots=True)
class NewReport:
    """A report that intake accepted. Not frozen: one is made for each report on the hot path.

    Attributes:
        kind, lane, lrn_infos, body, recipient: as in `Uplink`.
        document: the parsed body; connections that are not behind read it without parsing again.
        repeatable: equal ones are different reports, however soon they come.
    """

    kind: str
    lane: str
    lrn_infos: str
    body: bytes
    document: dict[str, Any] | None = None
    repeatable: bool = False
    recipient: str | None = None


class Appended(NamedTuple):
    """Where a report is stored, and whether it was there before."""

    seq: int
    duplicate: bool


class KeptQueue(NamedTuple):
    """The queue of a connection whose file was removed: how many uplinks wait in it, and when it is forgotten."""

    waiting: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """How the spool is.

    Attributes:
        used_bytes: pages in use; measured now and then.
        free_bytes: what the disk has left.
        oldest_ms: arrival of the oldest row; None when there is none.
        newest_ms: when the newest uplink was stored; None when there was none.
        stored_total: uplinks ever stored.
        duplicates_total: reports that were stored before, since the daemon started.
        duplicates_since_ms: every report that was stored since then would be recognised.
        storing: the last write was accepted.
        last_error: why it was not.
    """

    used_bytes: int
    max_bytes: int
    free_bytes: int
    oldest_ms: int | None
    newest_ms: int | None
    stored_total: int
    duplicates_total: int
    duplicates_since_ms: int
    storing: bool
    last_error: str | None
