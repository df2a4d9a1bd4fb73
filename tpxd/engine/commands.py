"""Commands that survive: the book in memory, and one task that keeps the disk up with it.

Whatever changes is marked; everything that is marked goes to disk in one transaction of the spool, and then what was
marked meanwhile: a crowd of commands shares its commits. A command goes to the sender, and a verdict on its way back,
only when the disk has it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, Protocol

import orjson
import trio

from tpxd.engine.command_book import CommandBook
from tpxd.engine.verdicts import WRONG
from tpxd.errors import SpoolUnavailable
from tpxd.events import Event, Report
from tpxd.lorawan.downlinks import Command, DownlinkError
from tpxd.lorawan.reports import DOWNLINK_REJECTED
from tpxd.lorawan.uplink import addressed_to
from tpxd.spool import Appended, CommandState, LoadedCommands, NewReport, StoredCommand

RETRY_S: Final = 1.0
LAST_SAVE_S: Final = 2.0
AT_ONCE: Final = 256
"""Verdicts that share a transaction."""

MAX_VERDICTS: Final = 20_000
"""Verdicts that wait for the disk; beyond it no further command is taken."""

CRASHED: Final = "the daemon ended while the LRC was being told"


class Store(Protocol):
    """The disk; see `tpxd.spool.CommandStore`."""

    async def load(self) -> LoadedCommands:
        """Read everything."""

    async def write(
        self,
        rows: Sequence[tuple[Any, ...]],
        forgotten: Sequence[int],
        counts: Mapping[str, Mapping[str, int]],
        reports: Sequence[NewReport] = (),
    ) -> None:
        """Store, delete, count and put reports into the journal in one transaction."""


Publish = Callable[[NewReport], Awaitable[Appended]]
"""How a report gets into the journal; see `Spool.append`."""


@dataclass(slots=True, eq=False)
class Batch:
    """What one transaction takes along; `done` when it has ended."""

    commands: dict[int, StoredCommand] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)
    counted: set[str] = field(default_factory=set)
    done: trio.Event = field(default_factory=trio.Event)
    error: SpoolUnavailable | None = None


@asynccontextmanager
async def open_commands(
    store: Store,
    publish: Publish,
    report: Report,
    *,
    refusal: str | None = None,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[Commands]:
    """Load the commands and keep them saved until the body ends.

    Args:
        refusal: why no command can be sent at all; each is then rejected with it.

    Raises:
        SpoolUnavailable: they cannot be read.

    Cancellation: what changed is saved, for at most two seconds.
    """
    loaded = await store.load()
    if loaded.damaged:
        text = f"{loaded.damaged} commands are damaged on the disk; what became of them is not known"
        report(Event("damage", text, level=logging.ERROR, more={"count": loaded.damaged}))
    commands = Commands(store, publish, loaded, refusal, wall)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commands.keep_saved)
            yield commands
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(LAST_SAVE_S, shield=True):
            await commands.save()


class Commands:
    """See the module; made by `open_commands`.

    Attributes:
        book: everything that is kept, to look into.
        due: called with each command that the LRC should get once it is on disk, in order of acceptance; the sender
            puts itself here.
    """

    def __init__(
        self,
        store: Store,
        publish: Publish,
        loaded: LoadedCommands,
        refusal: str | None,
        wall: Callable[[], float],
    ) -> None:
        self.due: Callable[[StoredCommand], None] = lambda command: None
        self.book = CommandBook(loaded, wall)
        self.book.changed = self._mark
        self.book.forgotten = self._forgotten
        self._store = store
        self._publish = publish
        self._refusal = refusal
        self._unsaved: set[int] = set()
        self._owed: dict[int, StoredCommand] = {}
        self._batch = Batch()
        self._saving = Batch()
        self._work = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        for command in loaded.commands:
            if command.state is CommandState.SENDING:
                self.book.doubt(command, CRASHED)
            if refusal is not None and not command.state.final:
                self.book.end(command, CommandState.REJECTED, refusal, WRONG)
            self._owe(command)

    @property
    def waiting(self) -> list[StoredCommand]:
        """What the LRC should get and is on disk, oldest first."""
        return [command for command in self.book.open if command.id not in self._unsaved]

    @property
    def full(self) -> bool:
        """So many wait that no further one should be taken."""
        return self.book.full or len(self._owed) >= MAX_VERDICTS

    async def room(self) -> None:
        """Wait until a further command is taken."""
        while self.full:
            await self._room.park()

    def enter(self, connection: str, wanted: Command | DownlinkError, mark: str = "") -> StoredCommand:
        """Take a command in, or the refusal of a wrong one; `saved` tells when it is on disk.

        Args:
            connection: where it came from; "" is the control plane.
            mark: its `fingerprint`, where it may come again.
        """
        command = self.book.enter(connection, wanted, mark, self._refusal)
        self._unsaved.add(command.id)
        return command

    async def saved(self, command: StoredCommand) -> None:
        """Wait until the command is on disk as it is now.

        Raises:
            SpoolUnavailable: this time the disk refused. It is tried again until it is there, or `withdraw` is called.

        Cancellation: it is saved all the same.
        """
        batch = self._batch if command.id in self._batch.commands else self._saving
        if command.id in batch.commands:
            await batch.done.wait()
            if batch.error is not None:
                raise SpoolUnavailable(batch.error.message, hint=batch.error.hint)

    async def surely_saved(self, command: StoredCommand) -> None:
        """Wait until the command is on disk, however long the disk refuses.

        Cancellation: as of `saved`.
        """
        while True:
            try:
                return await self.saved(command)
            except SpoolUnavailable:
                await trio.lowlevel.checkpoint()

    def withdraw(self, command: StoredCommand) -> None:
        """Take a command back that never was on disk, since whoever sent it is told so."""
        if command.id in self._unsaved:
            self._unsaved.discard(command.id)
            self._batch.commands.pop(command.id, None)
            self.book.withdraw(command)

    def ignored(self, connection: str, *, json: bool) -> None:
        """Count a message that is no command: JSON of another kind, or no JSON at all."""
        counts = self.book.counts(connection)
        if json:
            counts.unrecognised += 1
        else:
            counts.ignored += 1
        self._batch.counted.add(connection)
        self._work.set()

    def transmitted(self, dev_eui: str, fields: dict[str, Any]) -> None:
        """A DevEUI_downlink_Sent came: it is kept with the command that it is about, if that is known."""
        command = self.book.of_report(dev_eui, fields)
        if command is not None:
            self.book.transmit(command, fields)

    def _mark(self, command: StoredCommand) -> None:
        if self.book.find(command.id) is not command:
            return  # it made room for newer ones
        command.version += 1
        self._batch.commands[command.id] = command
        self._batch.counted.add(command.connection)
        self._work.set()
        self._make_room()

    def _make_room(self) -> None:
        if not self.full:
            self._room.unpark_all()

    def _forgotten(self, id: int) -> None:
        self._unsaved.discard(id)
        self._batch.commands.pop(id, None)
        self._batch.forgotten.append(id)

    async def keep_saved(self) -> None:
        """Save whatever was marked and publish the verdicts, for ever; while the disk refuses, try each second."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            if not await self.save() or not await self._publish_verdicts():
                self._work.set()
                await trio.sleep(RETRY_S)

    async def save(self) -> bool:
        """Save what is marked now, in one transaction; False: the disk refused, and it stays marked.

        Cancellation: it stays marked, whether it was stored or not.
        """
        batch = self._saving = self._batch
        self._batch = Batch()
        rows = [command.to_row() for command in batch.commands.values()]
        counts = {id: self.book.counts(id).durable() for id in batch.counted}
        stored = False
        try:
            await self._store.write(rows, batch.forgotten, counts)
            stored = True
        except SpoolUnavailable as error:
            batch.error = error
        finally:
            if not stored:
                self._batch.commands = batch.commands | self._batch.commands
                self._batch.forgotten = batch.forgotten + self._batch.forgotten
                self._batch.counted |= batch.counted
            batch.done.set()
        if stored:
            self._hand_on(batch)
        return stored

    def _hand_on(self, batch: Batch) -> None:
        for id, command in batch.commands.items():
            if id in self._unsaved:
                self._unsaved.discard(id)
                if not command.state.final:
                    self.due(command)
            self._owe(command)

    def _owe(self, command: StoredCommand) -> None:
        if command.verdict is not None:
            self._owed[command.id] = command
            self._work.set()

    async def surely_published(self, report: NewReport) -> None:
        """Put a report into the queue of the connection that it is for, however long the disk refuses.

        Cancellation: it may be there or not.
        """
        while True:
            try:
                await self._publish(report)
                return
            except SpoolUnavailable:
                await trio.sleep(RETRY_S)

    async def _publish_verdicts(self) -> bool:
        """Put verdicts into the queues of their connections; False: the disk refused.

        The transaction that stores a verdict notes that it is published, so each is there once, whenever a crash comes.
        """
        while self._owed:
            batch = list(islice(self._owed.values(), AT_ONCE))
            rows = [replace(command, verdict=None, version=command.version + 1).to_row() for command in batch]
            try:
                await self._store.write(rows, (), {}, [_verdict(command) for command in batch])
            except SpoolUnavailable:
                return False
            for command in batch:
                del self._owed[command.id]
                command.verdict = None
                command.version += 1
            self._make_room()
        return True


def _verdict(command: StoredCommand) -> NewReport:
    body = command.verdict or b""
    return NewReport(DOWNLINK_REJECTED, command.dev_eui, addressed_to(command.connection), body, orjson.loads(body))
