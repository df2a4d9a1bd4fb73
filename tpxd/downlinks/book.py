"""Every downlink that is kept, in memory: found by id, device, fingerprint and CorrelationID, and counted. Pure.

The newest `KEPT` final ones stay, to be shown, and the newest of each device and FPort, so that a message that a broker
retains is recognised however long ago it came; all others wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

from tpxd.downlinks.customers import Customers
from tpxd.downlinks.documents import WRONG, is_unhappy, rejection, transmission
from tpxd.lorawan.downlinks import Downlink, DownlinkError
from tpxd.spool import DownlinkState, LoadedDownlinks, StoredDownlink


@dataclass(slots=True)
class DownlinkCounts:
    """Downlinks that came from this connection, by what became of them: received is the sum of the next four.

    Attributes:
        doubtful: how often one was written to the LRC and no answer came; so many may have reached it twice.
        ignored, unrecognised: messages of its downlink side that were no JSON, or no downlink.
    """

    received: int = 0
    sent: int = 0
    rejected: int = 0
    expired: int = 0
    waiting: int = 0
    doubtful: int = 0
    ignored: int = 0
    unrecognised: int = 0

    def settle(self, state: DownlinkState) -> None:
        """One that waited has come to its end."""
        self.waiting -= 1
        match state:
            case DownlinkState.SENT:
                self.sent += 1
            case DownlinkState.EXPIRED:
                self.expired += 1
            case _:
                self.rejected += 1

    def balance(self) -> None:
        """Make the sum right after damage on the disk: what waited and is lost counts as rejected."""
        known = self.sent + self.rejected + self.expired + self.waiting
        self.rejected += max(0, self.received - known)
        self.received = max(self.received, known)

    def durable(self) -> dict[str, int]:
        """What is kept over a restart: all but `waiting`, which is counted anew from what waits."""
        return {name: count for name, count in asdict(self).items() if name != "waiting"}


MAX_OPEN: Final = 20_000
"""Downlinks that wait, in all; see `DownlinkBook.full`. Beyond it the brokers keep theirs, and HTTP gets 503."""

KEPT: Final = 10_000

ON_AIR: Final = "the LRC never answered, but its DevEUI_downlink_Sent came"
"""The cause of a downlink that is sent although no answer told so."""


def fingerprint(source: str, body: bytes) -> str:
    """By what a message that comes again is recognised: topic and body."""
    return blake2b(body, digest_size=12, key=blake2b(source.encode(), digest_size=16).digest()).hexdigest()


Changed = Callable[[StoredDownlink, DownlinkCounts], None]
"""Gets each downlink that is not on disk as it is now, perhaps more than once, and its connection's counters."""

Forgotten = Callable[[int], None]
"""Gets each id that is not kept any more."""


class DownlinkBook:
    """See the module.

    Args:
        changed, forgotten: see `Changed`, `Forgotten`; in the daemon, `Saving.mark` and `Saving.forget`.
        customers: whose the devices are.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        loaded: LoadedDownlinks,
        changed: Changed,
        forgotten: Forgotten,
        customers: Customers,
        wall: Callable[[], float],
    ) -> None:
        self._tell_changed = changed
        self._tell_forgotten = forgotten
        self._customers = customers
        self._wall = wall
        self._downlinks: dict[int, StoredDownlink] = {}
        self._counts = {id: DownlinkCounts(**counts) for id, counts in loaded.counts.items()}
        self._open: dict[int, StoredDownlink] = {}
        self._by_device: dict[str, dict[int, StoredDownlink]] = {}
        self._last_id = 0
        self._final: deque[StoredDownlink] = deque()
        self._newest: dict[tuple[str, str, int | None], int] = {}
        self._marks: dict[tuple[str, str], int] = {}
        self._unacknowledged: dict[tuple[str, str], list[StoredDownlink]] = {}
        self._by_correlation: dict[tuple[str, int], StoredDownlink] = {}
        for downlink in loaded.downlinks:
            self._add(downlink)
        for counts in self._counts.values():
            counts.balance()

    def _add(self, downlink: StoredDownlink) -> None:
        self._last_id = max(self._last_id, downlink.id)
        self._downlinks[downlink.id] = downlink
        self._by_device.setdefault(downlink.dev_eui, {})[downlink.id] = downlink
        if downlink.correlation_id and downlink.downlink is not None:
            self._by_correlation[_correlation(downlink)] = downlink
        if downlink.mark:
            self._note_newest(downlink)
            key = (downlink.connection, downlink.mark)
            self._marks[key] = self._marks.get(key, 0) + 1
            if not downlink.acknowledged:
                self._unacknowledged.setdefault(key, []).append(downlink)
        if downlink.state.final:
            self._final.append(downlink)
        else:
            self._open[downlink.id] = downlink
            self.counts(downlink.connection).waiting += 1

    def _note_newest(self, downlink: StoredDownlink) -> None:
        place = _place(downlink)
        self._newest.pop(place, None)
        self._newest[place] = downlink.id
        if len(self._newest) > KEPT:
            del self._newest[next(iter(self._newest))]

    def counts(self, connection: str) -> DownlinkCounts:
        """The counters of one connection's downlinks: always the same object, so that health may keep it."""
        return self._counts.setdefault(connection, DownlinkCounts())

    @property
    def connections(self) -> list[str]:
        """Those that have counters."""
        return list(self._counts)

    def begin_anew(self, connection: str) -> DownlinkCounts:
        """Its queue is forgotten, and what it counted with it, but for what still waits; see `counts`."""
        waiting = self.counts(connection).waiting
        self._counts[connection] = DownlinkCounts(received=waiting, waiting=waiting)
        return self._counts[connection]

    def forget_all_but(self, connections: Container[str]) -> None:
        """Of all others, the control plane's excepted, no counters are kept once nothing waits."""
        gone = [id for id, counts in self._counts.items() if id and id not in connections and not counts.waiting]
        for id in gone:
            del self._counts[id]

    @property
    def open(self) -> list[StoredDownlink]:
        """Everything that is not final, oldest first."""
        return list(self._open.values())

    @property
    def open_count(self) -> int:
        """How many are not final."""
        return len(self._open)

    def full(self, connection: str) -> bool:
        """So many of this connection wait that no further one is taken: as many as there is room left for others.

        So one that floods leaves half of the room, a second one half of that, and there is always some for a newcomer.
        """
        return self.counts(connection).waiting >= MAX_OPEN - len(self._open)

    def find(self, id: int) -> StoredDownlink | None:
        """A downlink that is still kept."""
        return self._downlinks.get(id)

    def of_device(self, dev_eui: str, limit: int) -> list[StoredDownlink]:
        """The newest downlinks of a device, newest first."""
        return list(islice(reversed(self._by_device.get(dev_eui, {}).values()), limit))

    def of_report(self, dev_eui: str, fields: dict[str, Any]) -> StoredDownlink | None:
        """The downlink that a report is about: by CorrelationID, else a DevEUI_downlink_Sent by device and counter."""
        correlation_id = fields.get("CorrelationID")
        try:
            if correlation_id:
                return self._by_correlation.get((dev_eui, int(str(correlation_id)[:17], 16)))
            if "TransmissionStatus" in fields:
                return None  # of a DevEUI_multicast_summary nobody says whose counter it has
            used = int(fields["FCntDn"]) - 1  # the report has the counter to use next
        except (KeyError, TypeError, ValueError):
            return None
        for stored in self.of_device(dev_eui, KEPT):
            if stored.downlink is not None and used in (stored.downlink.f_cnt_dn, stored.downlink.af_cnt_dn):
                return stored
        return None

    def redelivered(self, connection: str, mark: str, met: Container[int]) -> StoredDownlink | None:
        """The downlink that a message marked as redelivered repeats: equal, kept, and not acknowledged yet.

        Args:
            met: ids of downlinks that came over this link already; what is equal to them is another message.
        """
        unacknowledged = self._unacknowledged.get((connection, mark), ())
        return next((downlink for downlink in unacknowledged if downlink.id not in met), None)

    def taken_before(self, connection: str, mark: str) -> bool:
        """Whether an equal message was taken from there."""
        return (connection, mark) in self._marks

    def enter(
        self, connection: str, wanted: Downlink | DownlinkError, mark: str, refusal: str | None
    ) -> StoredDownlink:
        """A new downlink, or a wrong one, which is over at once.

        Args:
            mark: its `fingerprint`; "" where it cannot come again.
            refusal: why even a right one is over at once.
        """
        now_ms = int(self._wall() * 1000)
        downlink = StoredDownlink(
            self._last_id + 1,
            connection,
            now_ms,
            mark,
            wanted.dev_eui,
            wanted.f_port,
            wanted.correlation_id or "",
            wanted if isinstance(wanted, Downlink) else None,
            changed_ms=now_ms,
        )
        self._add(downlink)
        self.counts(connection).received += 1
        reason = wanted.message if isinstance(wanted, DownlinkError) else refusal
        if reason is not None:
            self.end(downlink, DownlinkState.REJECTED, reason, WRONG)
        self._changed(downlink)
        return downlink

    def withdraw(self, downlink: StoredDownlink) -> None:
        """As if it had never been entered."""
        counts = self.counts(downlink.connection)
        counts.received -= 1
        if downlink.state.final:
            counts.rejected -= 1
            self._final.remove(downlink)
        else:
            counts.waiting -= 1
            del self._open[downlink.id]
        self._drop(downlink)

    def acknowledge(self, downlink: StoredDownlink) -> None:
        """Whoever sent it was told that it is kept: from now on an equal message is a new downlink."""
        downlink.acknowledged = True
        self._settle_mark(downlink)
        self._changed(downlink)

    def begin(self, downlink: StoredDownlink) -> None:
        """The LRC is told next."""
        self._turn(downlink, DownlinkState.SENDING, downlink.cause)
        downlink.tries += 1
        self._changed(downlink)

    def hold(self, downlink: StoredDownlink, cause: str) -> None:
        """The LRC certainly did not take it; it waits."""
        self._turn(downlink, DownlinkState.WAITING, cause)
        self._changed(downlink)

    def doubt(self, downlink: StoredDownlink, cause: str) -> None:
        """It was written, and nobody knows whether the LRC took it; it waits, unless its DevEUI_downlink_Sent came."""
        self._turn(downlink, DownlinkState.WAITING, cause)
        downlink.doubts += 1
        self.counts(downlink.connection).doubtful += 1
        self._changed(downlink)
        self._end_doubt(downlink)

    def end(self, downlink: StoredDownlink, state: DownlinkState, cause: str, status: int | None) -> None:
        """It is over; where it came to nothing, it gets a verdict for the connection that it came from."""
        self._turn(downlink, state, cause)
        downlink.status = status
        if downlink.downlink is not None and downlink.downlink.as_key is not None:
            downlink.downlink = replace(downlink.downlink, as_key=None)
        self.counts(downlink.connection).settle(state)
        del self._open[downlink.id]
        self._final.append(downlink)
        if is_unhappy(state) and downlink.connection and downlink.dev_eui:
            downlink.verdict = rejection(downlink, self._wall(), self._customers.of(downlink.dev_eui))
        self._changed(downlink)
        self._forget()

    def transmit(self, downlink: StoredDownlink, fields: dict[str, Any]) -> None:
        """A report told what became of it on the air."""
        downlink.transmitted = transmission(fields)
        self._changed(downlink)
        self._end_doubt(downlink)

    def _changed(self, downlink: StoredDownlink) -> None:
        if self._downlinks.get(downlink.id) is downlink:  # else it made room for newer ones
            downlink.version += 1
            self._tell_changed(downlink, self.counts(downlink.connection))

    def _turn(self, downlink: StoredDownlink, state: DownlinkState, cause: str) -> None:
        downlink.state, downlink.cause, downlink.changed_ms = state, cause, int(self._wall() * 1000)

    def _end_doubt(self, downlink: StoredDownlink) -> None:
        """A downlink of which a DevEUI_downlink_Sent tells is with the LRC, which need not be told again.

        Only where the report names its CorrelationID, and no other downlink that is kept has the same: else the report
        may be about that one.
        """
        told = downlink.transmitted is not None and "CorrelationID" in downlink.transmitted
        if not (told and downlink.doubts and downlink.tries and downlink.state is DownlinkState.WAITING):
            return
        correlation = _correlation(downlink)
        others = (other for other in self._by_device[downlink.dev_eui].values() if other.downlink is not None)
        if [_correlation(other) for other in others].count(correlation) == 1:
            self.end(downlink, DownlinkState.SENT, ON_AIR, None)

    def _forget(self) -> None:
        """Let the oldest final ones go, but for those that are still needed: they count as new ones.

        Needed are those whose sender does not know yet, and the newest of their place, which may be retained there.
        """
        for _ in range(1 + len(self._final) - KEPT):
            if len(self._final) <= KEPT:
                return
            oldest = self._final.popleft()
            if oldest.verdict is not None or self._newest.get(_place(oldest)) == oldest.id:
                self._final.append(oldest)
            else:
                self._drop(oldest)
                self._tell_forgotten(oldest.id)

    def _settle_mark(self, downlink: StoredDownlink) -> None:
        key = (downlink.connection, downlink.mark)
        unacknowledged = self._unacknowledged.get(key, [])
        if downlink in unacknowledged:
            unacknowledged.remove(downlink)
            if not unacknowledged:
                del self._unacknowledged[key]

    def _drop(self, downlink: StoredDownlink) -> None:
        del self._downlinks[downlink.id]
        of_device = self._by_device[downlink.dev_eui]
        del of_device[downlink.id]
        if not of_device:
            del self._by_device[downlink.dev_eui]
        if downlink.correlation_id and self._by_correlation.get(_correlation(downlink)) is downlink:
            del self._by_correlation[_correlation(downlink)]
        if downlink.mark:
            if self._newest.get(_place(downlink)) == downlink.id:
                del self._newest[_place(downlink)]
            key = (downlink.connection, downlink.mark)
            self._settle_mark(downlink)
            self._marks[key] -= 1
            if not self._marks[key]:
                del self._marks[key]


def _place(downlink: StoredDownlink) -> tuple[str, str, int | None]:
    """What stands for the topic that a downlink came by; downlinks of equal topics have equal ones."""
    return downlink.connection, downlink.dev_eui, downlink.f_port


def _correlation(downlink: StoredDownlink) -> tuple[str, int]:
    return downlink.dev_eui, int(downlink.correlation_id, 16)
