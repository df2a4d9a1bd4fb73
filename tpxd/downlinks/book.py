"""Every command that is kept, in memory: found by id, device, fingerprint and CorrelationID, and counted. Pure.

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
from tpxd.lorawan.downlinks import Command, DownlinkError
from tpxd.spool import CommandState, LoadedCommands, StoredCommand


@dataclass(slots=True)
class DownlinkCounts:
    """Commands that came from this connection, by what became of them: received is the sum of the next four.

    Attributes:
        doubtful: how often one was written to the LRC and no answer came; so many may have reached it twice.
        ignored, unrecognised: messages of its downlink side that were no JSON, or no command.
    """

    received: int = 0
    sent: int = 0
    rejected: int = 0
    expired: int = 0
    waiting: int = 0
    doubtful: int = 0
    ignored: int = 0
    unrecognised: int = 0

    def settle(self, state: CommandState) -> None:
        """One that waited has come to its end."""
        self.waiting -= 1
        match state:
            case CommandState.SENT:
                self.sent += 1
            case CommandState.EXPIRED:
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
"""Commands that wait, in all; see `CommandBook.full`. Beyond it the brokers keep theirs, and HTTP gets 503."""

KEPT: Final = 10_000

ON_AIR: Final = "the LRC never answered, but its DevEUI_downlink_Sent came"
"""The cause of a command that is sent although no answer told so."""


def fingerprint(source: str, body: bytes) -> str:
    """By what a message that comes again is recognised: topic and body."""
    return blake2b(body, digest_size=12, key=blake2b(source.encode(), digest_size=16).digest()).hexdigest()


Changed = Callable[[StoredCommand, DownlinkCounts], None]
"""Gets each command that is not on disk as it is now, perhaps more than once, and its connection's counters."""

Forgotten = Callable[[int], None]
"""Gets each id that is not kept any more."""


class CommandBook:
    """See the module.

    Args:
        changed, forgotten: see `Changed`, `Forgotten`; in the daemon, `Saving.mark` and `Saving.forget`.
        customers: whose the devices are.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        loaded: LoadedCommands,
        changed: Changed,
        forgotten: Forgotten,
        customers: Customers,
        wall: Callable[[], float],
    ) -> None:
        self._tell_changed = changed
        self._tell_forgotten = forgotten
        self._customers = customers
        self._wall = wall
        self._commands: dict[int, StoredCommand] = {}
        self._counts = {id: DownlinkCounts(**counts) for id, counts in loaded.counts.items()}
        self._open: dict[int, StoredCommand] = {}
        self._by_device: dict[str, dict[int, StoredCommand]] = {}
        self._last_id = 0
        self._final: deque[StoredCommand] = deque()
        self._newest: dict[tuple[str, str, int | None], int] = {}
        self._marks: dict[tuple[str, str], int] = {}
        self._unacknowledged: dict[tuple[str, str], list[StoredCommand]] = {}
        self._by_correlation: dict[tuple[str, int], StoredCommand] = {}
        for command in loaded.commands:
            self._add(command)
        for counts in self._counts.values():
            counts.balance()

    def _add(self, command: StoredCommand) -> None:
        self._last_id = max(self._last_id, command.id)
        self._commands[command.id] = command
        self._by_device.setdefault(command.dev_eui, {})[command.id] = command
        if command.correlation_id and command.command is not None:
            self._by_correlation[_correlation(command)] = command
        if command.mark:
            self._note_newest(command)
            key = (command.connection, command.mark)
            self._marks[key] = self._marks.get(key, 0) + 1
            if not command.acknowledged:
                self._unacknowledged.setdefault(key, []).append(command)
        if command.state.final:
            self._final.append(command)
        else:
            self._open[command.id] = command
            self.counts(command.connection).waiting += 1

    def _note_newest(self, command: StoredCommand) -> None:
        place = _place(command)
        self._newest.pop(place, None)
        self._newest[place] = command.id
        if len(self._newest) > KEPT:
            del self._newest[next(iter(self._newest))]

    def counts(self, connection: str) -> DownlinkCounts:
        """The counters of one connection's commands: always the same object, so that health may keep it."""
        return self._counts.setdefault(connection, DownlinkCounts())

    @property
    def open(self) -> list[StoredCommand]:
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

    def find(self, id: int) -> StoredCommand | None:
        """A command that is still kept."""
        return self._commands.get(id)

    def of_device(self, dev_eui: str, limit: int) -> list[StoredCommand]:
        """The newest commands of a device, newest first."""
        return list(islice(reversed(self._by_device.get(dev_eui, {}).values()), limit))

    def of_report(self, dev_eui: str, fields: dict[str, Any]) -> StoredCommand | None:
        """The command that a report is about: by CorrelationID, else a DevEUI_downlink_Sent by device and counter."""
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
            if stored.command is not None and used in (stored.command.f_cnt_dn, stored.command.af_cnt_dn):
                return stored
        return None

    def redelivered(self, connection: str, mark: str, met: Container[int]) -> StoredCommand | None:
        """The command that a message marked as redelivered repeats: equal, kept, and not acknowledged yet.

        Args:
            met: ids of commands that came over this link already; what is equal to them is another message.
        """
        unacknowledged = self._unacknowledged.get((connection, mark), ())
        return next((command for command in unacknowledged if command.id not in met), None)

    def taken_before(self, connection: str, mark: str) -> bool:
        """Whether an equal message was taken from there."""
        return (connection, mark) in self._marks

    def enter(self, connection: str, wanted: Command | DownlinkError, mark: str, refusal: str | None) -> StoredCommand:
        """A new command, or a wrong one, which is over at once.

        Args:
            mark: its `fingerprint`; "" where it cannot come again.
            refusal: why even a right one is over at once.
        """
        now_ms = int(self._wall() * 1000)
        command = StoredCommand(
            self._last_id + 1,
            connection,
            now_ms,
            mark,
            wanted.dev_eui,
            wanted.f_port,
            wanted.correlation_id or "",
            wanted if isinstance(wanted, Command) else None,
            changed_ms=now_ms,
        )
        self._add(command)
        self.counts(connection).received += 1
        reason = wanted.message if isinstance(wanted, DownlinkError) else refusal
        if reason is not None:
            self.end(command, CommandState.REJECTED, reason, WRONG)
        self._changed(command)
        return command

    def withdraw(self, command: StoredCommand) -> None:
        """As if it had never been entered."""
        counts = self.counts(command.connection)
        counts.received -= 1
        if command.state.final:
            counts.rejected -= 1
            self._final.remove(command)
        else:
            counts.waiting -= 1
            del self._open[command.id]
        self._drop(command)

    def acknowledge(self, command: StoredCommand) -> None:
        """Whoever sent it was told that it is kept: from now on an equal message is a new command."""
        command.acknowledged = True
        self._settle_mark(command)
        self._changed(command)

    def begin(self, command: StoredCommand) -> None:
        """The LRC is told next."""
        self._turn(command, CommandState.SENDING, command.cause)
        command.tries += 1
        self._changed(command)

    def hold(self, command: StoredCommand, cause: str) -> None:
        """The LRC certainly did not take it; it waits."""
        self._turn(command, CommandState.WAITING, cause)
        self._changed(command)

    def doubt(self, command: StoredCommand, cause: str) -> None:
        """It was written, and nobody knows whether the LRC took it; it waits, unless its DevEUI_downlink_Sent came."""
        self._turn(command, CommandState.WAITING, cause)
        command.doubts += 1
        self.counts(command.connection).doubtful += 1
        self._changed(command)
        self._end_doubt(command)

    def end(self, command: StoredCommand, state: CommandState, cause: str, status: int | None) -> None:
        """It is over; where it came to nothing, it gets a verdict for the connection that it came from."""
        self._turn(command, state, cause)
        command.status = status
        if command.command is not None and command.command.as_key is not None:
            command.command = replace(command.command, as_key=None)
        self.counts(command.connection).settle(state)
        del self._open[command.id]
        self._final.append(command)
        if is_unhappy(state) and command.connection and command.dev_eui:
            command.verdict = rejection(command, self._wall(), self._customers.of(command.dev_eui))
        self._changed(command)
        self._forget()

    def transmit(self, command: StoredCommand, fields: dict[str, Any]) -> None:
        """A report told what became of it on the air."""
        command.transmitted = transmission(fields)
        self._changed(command)
        self._end_doubt(command)

    def _changed(self, command: StoredCommand) -> None:
        if self._commands.get(command.id) is command:  # else it made room for newer ones
            command.version += 1
            self._tell_changed(command, self.counts(command.connection))

    def _turn(self, command: StoredCommand, state: CommandState, cause: str) -> None:
        command.state, command.cause, command.changed_ms = state, cause, int(self._wall() * 1000)

    def _end_doubt(self, command: StoredCommand) -> None:
        """A command of which a DevEUI_downlink_Sent tells is with the LRC, which need not be told again.

        Only where the report names its CorrelationID, and no other command that is kept has the same: else the report
        may be about that one.
        """
        told = command.transmitted is not None and "CorrelationID" in command.transmitted
        if not (told and command.doubts and command.tries and command.state is CommandState.WAITING):
            return
        correlation = _correlation(command)
        others = (other for other in self._by_device[command.dev_eui].values() if other.command is not None)
        if [_correlation(other) for other in others].count(correlation) == 1:
            self.end(command, CommandState.SENT, ON_AIR, None)

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

    def _settle_mark(self, command: StoredCommand) -> None:
        key = (command.connection, command.mark)
        unacknowledged = self._unacknowledged.get(key, [])
        if command in unacknowledged:
            unacknowledged.remove(command)
            if not unacknowledged:
                del self._unacknowledged[key]

    def _drop(self, command: StoredCommand) -> None:
        del self._commands[command.id]
        of_device = self._by_device[command.dev_eui]
        del of_device[command.id]
        if not of_device:
            del self._by_device[command.dev_eui]
        if command.correlation_id and self._by_correlation.get(_correlation(command)) is command:
            del self._by_correlation[_correlation(command)]
        if command.mark:
            if self._newest.get(_place(command)) == command.id:
                del self._newest[_place(command)]
            key = (command.connection, command.mark)
            self._settle_mark(command)
            self._marks[key] -= 1
            if not self._marks[key]:
                del self._marks[key]


def _place(command: StoredCommand) -> tuple[str, str, int | None]:
    """What stands for the topic that a command came by; commands of equal topics have equal ones."""
    return command.connection, command.dev_eui, command.f_port


def _correlation(command: StoredCommand) -> tuple[str, int]:
    return command.dev_eui, int(command.correlation_id, 16)
