"""Commands that survive: the book in memory, and one task that keeps the disk up with it.

Whatever changes is marked; everything that is marked goes to disk in one transaction of the spool, and then what was
marked meanwhile: a crowd of commands shares its commits. A command goes to the sender, and a verdict on its way back,
only when the disk has it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson
import trio

from tpxd.engine.command_book import CommandBook
from tpxd.errors import SpoolUnavailable
from tpxd.events import Event, Report
from tpxd.lorawan.downlinks import Command, DownlinkError
from tpxd.lorawan.reports import DOWNLINK_REJECTED
from tpxd.lorawan.uplink import addressed_to
from tpxd.spool import Appended, CommandState, LoadedCommands, NewReport, StoredCommand

RETRY_S: Final = 1.0
LAST_SAVE_S: Final = 2.0

CRASHED: Final = "the daemon ended while the LRC was being told"


class Store(Protocol):
    """The disk; see `tpxd.spool.CommandStore`."""

    async def load(self) -> LoadedCommands:
        """Read everything."""

    async def write(
        self, rows: Sequence[tuple[Any, ...]], forgotten: Sequence[int], counts: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Store, delete and count in one transaction."""


Publish = Callable[[NewReport], Awaitable[Appended]]
"""How a verdict gets into the queue of its connection; see `Spool.append`."""


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
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commands.keep_saved)
        nursery.start_soon(commands.publish_verdicts)
        try:
            yield commands
        finally:
            with trio.move_on_after(LAST_SAVE_S, shield=True):
                await commands.save()
            nursery.cancel_scope.cancel()


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
        self._verdicts: deque[StoredCommand] = deque()
        self._batch = Batch()
        self._saving = Batch()
        self._work = trio.Event()
        self._verdict_work = trio.Event()
        self._room = trio.Event()
        for command in loaded.commands:
            if command.state is CommandState.SENDING:
                self.book.doubt(command, CRASHED)
            self._tell(command)

    @property
    def waiting(self) -> list[StoredCommand]:
        """What the LRC should get and is on disk, oldest first."""
        return [command for command in self.book.open if command.id not in self._unsaved]

    @property
    def full(self) -> bool:
        """So many wait that no further one should be taken."""
        return self.book.full

    async def room(self) -> None:
        """Wait until a further command is taken."""
        while self.book.full:
            self._room = trio.Event()
            await self._room.wait()

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
        if not self.book.full:
            self._room.set()

    def _forgotten(self, id: int) -> None:
        self._batch.commands.pop(id, None)
        self._batch.forgotten.append(id)

    async def keep_saved(self) -> None:
        """Save whatever was marked, for ever; while the disk refuses, try again each second."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            await self.save()
            if self._saving.error is not None:
                self._work.set()
                await trio.sleep(RETRY_S)

    async def save(self) -> None:
        """Save what is marked now, in one transaction.

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

    def _hand_on(self, batch: Batch) -> None:
        for id, command in batch.commands.items():
            if id in self._unsaved:
                self._unsaved.discard(id)
                if not command.state.final:
                    self.due(command)
            self._tell(command)

    def _tell(self, command: StoredCommand) -> None:
        if command.verdict is not None and command not in self._verdicts:
            self._verdicts.append(command)
            self._verdict_work.set()

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

    async def publish_verdicts(self) -> None:
        """Put each verdict into the queue of its connection, for ever.

        After a crash in between it is put there a second time, which the spool recognises as a duplicate.
        """
        while True:
            while self._verdicts:
                command = self._verdicts[0]
                body = command.verdict or b""
                to = addressed_to(command.connection)
                await self.surely_published(NewReport(DOWNLINK_REJECTED, command.dev_eui, to, body, orjson.loads(body)))
                self._verdicts.popleft()
                command.verdict = None
                self._mark(command)
            self._verdict_work = trio.Event()
            await self._verdict_work.wait()
