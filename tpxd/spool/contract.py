"""The contract of a spool: what may be asked of it, with what data, and what it promises.

Everybody outside this room depends on these protocols alone. The spool on SQLite inherits them (`JournalSpool`,
`JournalCursor`, `DownlinkTable`), and so do the doubles that tests put in its place. Where nothing else is said, a
method that waits raises `SpoolUnavailable` when the disk refuses, and cancelling it leaves it done or not done.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tpxd.lorawan.uplink import Uplink
from tpxd.spool.downlinks import LoadedDownlinks, StoredDownlink
from tpxd.spool.fates import Outcome
from tpxd.spool.rows import DeadLetter, Settled
from tpxd.spool.state import Ledger


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


class Cursor(Protocol):
    """One connection's queue: takes what comes next, and says what became of it.

    Attributes:
        id: the connection's.
        validity_s: how long its uplinks stay valid; None: for ever. Set by the engine; when the spool is full, what
            has expired for everyone goes before what has not.
    """

    id: str
    validity_s: float | None

    @property
    def position(self) -> int:
        """The connection is done, durably, with everything up to here."""

    def is_done(self, seq: int) -> bool:
        """Whether the connection is done, durably, with this uplink."""

    @property
    def newest_seq(self) -> int:
        """The newest uplink that is stored."""

    @property
    def far_ahead(self) -> bool:
        """So much is settled beyond the position that no more should be before the position has come after."""

    @property
    def ledger(self) -> Ledger:
        """What became of everything so far."""

    @property
    def retired(self) -> bool:
        """Its file was removed; the queue is forgotten after the retention."""

    @property
    def oldest_waiting_ms(self) -> int | None:
        """When the oldest uplink arrived that the connection is not done with; None when nothing waits."""

    async def next_batch(
        self, max_uplinks: int, max_bytes: int, after: int | None = None, *, wait: bool = True
    ) -> list[Uplink]:
        """Wait for uplinks later than `after` (default: the position) and return the oldest, in order.

        Calls with `after` may run ahead of `commit`. What is settled already is left out. Each uplink is shared with
        other connections: read only.

        Args:
            max_bytes: of all bodies together; one uplink is returned however large it is.
            wait: False returns an empty list rather than wait for the next arrival.

        Raises:
            SpoolUnavailable: the disk cannot be read.

        Cancellation: nothing is lost; call again.
        """

    async def newcomers(self, max_uplinks: int, max_bytes: int, after: int) -> list[Uplink]:
        """The uplinks that follow on `after`, however far the position is behind; none when there is none yet.

        Otherwise like `next_batch`, beside which it is called in turns.
        """

    async def lanes_waiting(self, after: int, through: int, besides: Collection[int]) -> dict[str, int]:
        """The lanes of what waits in a part of the journal, and the last uplink of each there.

        It reads the whole part in one go, in which nothing is stored: a thousand uplinks take a few milliseconds.

        Args:
            besides: seqs that do not count.

        Raises:
            SpoolUnavailable: the disk cannot be read.
        """

    async def commit(
        self,
        settled: Sequence[tuple[int, Settled]],
        handed: Sequence[tuple[int, Uplink]] = (),
        *,
        in_order: bool = True,
    ) -> None:
        """Make durable what became of uplinks: the position moves to the last of them, the ledger with it.

        Args:
            settled: (seq, fate) in ascending order, beginning with the first after the position that is not settled.
                What the spool had to drop meanwhile is left out of account.
            handed: (seq, report) what is appended to the journal with it, each unless its seq was settled before; one
                that its recipient got within the duplicate window is not. Where there is no room for them, they count
                as received and dropped there.
            in_order: False takes them in any order; the position moves as far as there is no gap.

        Raises:
            SpoolUnavailable: the disk refuses; nothing has changed.

        Cancellation: it may have been stored or not.
        """


class DownlinkStore(Protocol):
    """Downlinks on disk, and the counters of their connections."""

    async def load(self) -> LoadedDownlinks:
        """Read everything, once; what is damaged is counted and deleted.

        Raises:
            SpoolUnavailable: the disk refuses.
        """

    async def write(
        self,
        downlinks: Sequence[StoredDownlink],
        forgotten: Sequence[int],
        counts: Mapping[str, Mapping[str, int]],
        reports: Sequence[NewReport] = (),
    ) -> None:
        """Store downlinks as they are now, delete others by id, note counters: all or nothing.

        Args:
            reports: go into the journal, in the same transaction.

        Raises:
            SpoolUnavailable: the disk refuses, or has no room for the reports; nothing has changed.

        Cancellation: it may have been stored or not.
        """


class ReportStore(Protocol):
    """The part of a spool that whoever takes reports in needs."""

    async def append(self, report: NewReport) -> Appended:
        """Store a report; it is synced to disk when this returns.

        A report that was stored within the duplicate window is not stored again, unless it is `repeatable`. One that is
        just being stored shares the fate of the first.

        Raises:
            SpoolUnavailable: the disk refuses, the spool is full and may not drop, or too much is under way already.
            UnicodeEncodeError: a text is not Unicode.

        Cancellation: it may have been stored or not.
        """

    def statistics(self) -> SpoolStatistics:
        """How the spool is, as of the last done; whether it stores, as of now."""


class Spool(ReportStore, Protocol):
    """An open spool: the journal of uplinks, a queue for each connection, and what else must outlive the process.

    Attributes:
        downlinks: those that are kept.
    """

    downlinks: DownlinkStore

    def queue(self, id: str) -> Cursor:
        """The queue of a connection; where there is none, what it will be when `cursor` has made it.

        A new one begins at the journal's end as it is now, however long the disk refuses to make it.
        """

    async def cursor(self, id: str) -> Cursor:
        """The queue of a connection, on disk: a new one begins as `queue` says, a retired one goes on where it was.

        Raises:
            SpoolUnavailable: the disk refuses.
        """

    def cursors(self) -> list[str]:
        """The ids of all queues, also of those whose connection's file was removed."""

    def find_cursor(self, id: str) -> Cursor | None:
        """A queue that exists, as it is."""

    def kept_queues(self) -> dict[str, KeptQueue]:
        """The queues whose connections' files were removed, by id."""

    async def retire(self, id: str) -> None:
        """The connection's file was removed: keep its queue and ledger for the retention, in case it comes back."""

    async def forget(self, id: str) -> int:
        """Drop a queue, its ledger and what is remembered for it now; returns how many uplinks waited in it."""

    async def dead_letters(self, connection: str, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters of a connection, newest first."""

    async def uplinks_of(self, lane: str, limit: int) -> list[Uplink]:
        """The newest uplinks of one device that are still kept, newest first; it does not look back for ever.

        Raises:
            SpoolUnavailable: the disk cannot be read.
        """

    async def fates_of(self, seqs: Sequence[int]) -> dict[int, dict[str, Outcome]]:
        """What became of uplinks that are still kept, by seq, then by connection.

        A connection whose queue began later is left out; what is for another connection alone is `filtered`. Removed
        connections are among it as long as their queues are kept.

        Raises:
            SpoolUnavailable: the disk cannot be read.
        """

    async def remember(self, key: str, value: str) -> None:
        """Store a small text under a key, durably."""

    def recall(self, key: str) -> str | None:
        """What was stored under a key; None when nothing was."""

    def round_ended_at(self) -> float:
        """When it last showed that it is alive, by `time.monotonic`; it does so at least every few seconds."""
