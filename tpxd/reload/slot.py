"""One id: what belongs to it whichever version of its file runs, and the one task in which everything happens to it.

the file is there      it gets its queue on disk, then its newest good version runs, if that is active
that changed           the version at work is asked to stop; the next begins when it has finished
the file is gone       the version at work stops, the queue is retired, its traces at the far end are removed

Nothing is raised out of the task: what the disk refuses is shown in the health and tried again, and keeps no other id
waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio
from pydantic import SecretStr

from tpxd.codecs.decoding import Decoding
from tpxd.config.connection_file import ConnectionFile
from tpxd.connection.backlog import backlog_of
from tpxd.connection.chains import Chains
from tpxd.connection.connection import Connection
from tpxd.connection.delivery import Queue
from tpxd.connection.far_end import FarEnd, context_of
from tpxd.connection.health import Health
from tpxd.connection.in_hand import InHand
from tpxd.connection.outbound import Outbound, format_of, url_field
from tpxd.connection.states import ConnectionState
from tpxd.connection.watches import CertificateWatch
from tpxd.connector import REGISTRY, Dial, TlsContexts
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.downlinks.urls import DownlinkUrls
from tpxd.errors import SpoolUnavailable, behind_barrier, leaves
from tpxd.events import Event, Tell
from tpxd.reload.versions import Desired
from tpxd.spool import Spool
from tpxd.timing import ClockWatch

RETRY_S: Final = 5.0
"""What the disk refused is tried again after this, and whenever the files are read."""

REGRET_S: Final = 3.0
"""A file that is gone for no longer than this, as with some editors, was not removed."""

Step = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of the daemon share."""

    spool: Spool
    tell: Tell
    instance: str
    dial: Dial
    tls: TlsContexts
    stop_grace_s: float
    downlinks: DownlinkQueue
    urls: DownlinkUrls
    clock: ClockWatch
    chains: Chains
    decoding: Decoding | None = None


class Slot:
    """See the module. `want`, `stop_version` and `stop` say what should be, `start` has it brought about.

    Attributes:
        desired: what the files say; None: the file is gone. A slot outlives its file, so that one put back goes on.
        file: the newest good version, whether it runs or is paused.
        connection: the version at work, None when there is none.
        tried: set when there is a queue, or the disk was asked for one and refused.
    """

    def __init__(self, id: str, shared: Shared) -> None:
        self.id = id
        self.desired: Desired | None = None
        self.file: ConnectionFile | None = None
        self.connection: Connection | None = None
        self.tried = trio.Event()
        self._busy = False
        self._shared = shared
        self._cursor = shared.spool.queue(id)
        self._in_hand = InHand()
        self.health = Health(id, self._cursor, shared.tell, in_hand=self._in_hand)
        self.health.downlinks = shared.downlinks.book.counts(id)
        self._certificates = CertificateWatch()
        self._left: FarEnd | None = None
        self._leaving = trio.CancelScope()
        self._addressed: ConnectionFile | None = None
        self._refused = False
        self._stopping = False
        self._news = trio.Event()
        if self._has_queue:
            self.tried.set()

    @property
    def running(self) -> ConnectionFile | None:
        """The version at work, None when none is or it was asked to stop."""
        return None if self.connection is None or self.connection.stopping.requested else self.connection.file

    @property
    def over(self) -> bool:
        """The file is gone, its queue is forgotten, and nothing is left to do."""
        return self.desired is None and not self._busy and not self._has_queue

    @property
    def _never_valid(self) -> bool:
        return self.desired is not None and self.desired.model is None

    @property
    def _has_queue(self) -> bool:
        return self._shared.spool.find_cursor(self.id) is self._cursor

    def want(self, desired: Desired | None) -> None:
        """The files say this now; where it is what they said before, what was refused is tried once more.

        An address that the file names no more is free when this returns.
        """
        if desired is self.desired and not self._refused:
            return
        self.desired = desired
        if desired is None:
            self._close_address()
        else:
            self._show(desired)
        self._news.set()

    def stop_version(self) -> None:
        """Ask the version at work to stop."""
        if self.connection is not None:
            self.connection.stopping.request()

    def stop(self) -> None:
        """Nothing should run any more: the task ends when the version at work has finished, within its grace."""
        self._stopping = True
        self.stop_version()
        self._leaving.cancel()
        self._news.set()

    def start(self, nursery: trio.Nursery) -> None:
        """Begin with what is to be done, unless that is under way already."""
        if not self._busy and self._next_step() is not None:
            self._busy = True
            nursery.start_soon(self._run)

    async def _run(self) -> None:
        """Do what is to be done, one step after the other, until nothing is left."""
        try:
            while (step := self._next_step()) is not None:
                self._news = trio.Event()
                error = await behind_barrier(partial(_unless_refused, step), "connection %s", self.id)
                if error is not None:
                    self._show_error(error)
                    await self._pause()
        finally:
            self._busy = False

    def _next_step(self) -> Step | None:
        """What is to be done now, None when nothing is."""
        queued = self._has_queue and not self._cursor.retired
        if self._stopping:
            return None
        if self.desired is None:
            if queued:
                return self._retire
            return None if self._left is None else self._leave
        model = self.desired.model
        if not queued:
            return self._make_queue
        if model is None:
            return None
        if model.active:
            return self._work
        return None if self._addressed is model else self._open_address_of_paused

    async def _make_queue(self) -> None:
        """Have the queue on disk; one that was forgotten meanwhile begins anew, and nothing of it is in hand."""
        try:
            cursor = await self._shared.spool.cursor(self.id)
        finally:
            self.tried.set()
        if cursor is not self._cursor:
            cursor.validity_s = self._cursor.validity_s
            self._cursor = self.health.cursor = cursor
            self._in_hand = self.health.in_hand = InHand()
            self.health.downlinks = self._shared.downlinks.book.begin_anew(self.id)
        self._overcome()

    async def _retire(self) -> None:
        """The file is gone: its queue stays for a while, in case it comes back."""
        await self._shared.spool.retire(self.id)
        self._shared.tell(Event("file", f"{self.id}: the file is gone; its queue is kept for a while", self.id))
        self._overcome()

    async def _leave(self) -> None:
        """Remove what the last version left at its far end, unless the file is back soon."""
        left = self._left
        with trio.move_on_after(REGRET_S) as regret:
            await self._news.wait()
        if regret.cancelled_caught and left is not None:
            self._left = None
            with trio.CancelScope() as self._leaving:
                await left.leave()

    async def _work(self) -> None:
        """Run the newest good version until it is asked to stop."""
        desired = self.desired
        assert desired is not None
        assert desired.model is not None
        addressed = await self._open_address(desired.model)
        if self.desired is not desired or self._stopping:
            return
        connection = self.connection = self._connection_of(desired.model)
        self.health.file.running = desired.running
        try:
            async with trio.open_nursery() as nursery:
                if not addressed:
                    nursery.start_soon(self._keep_address, connection.file)
                while not connection.stopping.requested:
                    await self._carry(connection)
                nursery.cancel_scope.cancel()
        finally:
            self.connection, self._left = None, connection.far_end
            self._show_nothing_runs()
            if self._never_valid:
                self._show_invalid()

    async def _carry(self, connection: Connection) -> None:
        """Run a version until it is asked to stop; a disk that cannot be read, or a bug, ends it for a while."""
        error = await behind_barrier(partial(_unless_refused, connection.run), "connection %s", self.id)
        if error is not None:
            self._show_error(error)
            await connection.pause(
                RETRY_S if isinstance(error, SpoolUnavailable) else connection.backoff.delay(trio.current_time())
            )

    async def _keep_address(self, model: ConnectionFile) -> None:
        await self._pause()
        while not await self._open_address(model):
            await self._pause()

    async def _open_address_of_paused(self) -> None:
        assert self.desired is not None
        assert self.desired.model is not None
        if not await self._open_address(self.desired.model):
            await self._pause()

    async def _open_address(self, model: ConnectionFile) -> bool:
        """Give the connection its address; False when it cannot be kept, or another connection has it still."""
        urls = self._shared.urls
        there = await urls.open(self.id, model.configuration)
        if self.connection is not None:
            self.connection.queue.outbound.url_field = url_field(urls.url(self.id))
        if there and self.desired is not None and self.desired.model is model:
            self._addressed = model
        return there

    def _close_address(self) -> None:
        self._addressed = None
        self._shared.urls.close(self.id)

    def _show(self, desired: Desired) -> None:
        """Let the health tell which versions were seen and what is wrong with the newest."""
        health = self.health
        if desired.problems != health.file.problems:
            for problem in desired.problems:
                self._shared.tell(Event("file", str(problem), self.id, logging.WARNING))
        if desired.warnings != health.file.warnings:
            for problem in desired.warnings:
                self._shared.tell(Event("file", f"warning: {problem}", self.id, logging.WARNING))
        health.file.generation = desired.generation
        health.file.problems, health.file.warnings = desired.problems, desired.warnings
        model = desired.model
        if model is None:
            self._close_address()
            health.name, health.connector_id = desired.name, desired.connector_id
            if self.connection is None:  # a version from before the file was gone may still end
                self._show_invalid()
            return
        if self._addressed is not None and _address(self._addressed) != _address(model):
            self._close_address()
        self.file = model
        health.name, health.connector_id, health.active = model.name, model.connectorId, model.active
        self._cursor.validity_s = model.configuration.uplinkTimeValidity
        if not model.active or self.running == model:
            health.file.running = desired.running
        if not model.active and self.connection is None:
            self._show_nothing_runs()

    def _show_nothing_runs(self) -> None:
        """Nothing runs: paused, or stopped."""
        self.health.enter(ConnectionState.CLOSED if self.health.active else ConnectionState.DEACTIVATED)

    def _show_invalid(self) -> None:
        """Nothing can run: the file never was valid since it is there."""
        self.health.enter(ConnectionState.INVALID, self.health.file.error)

    def _show_error(self, error: Exception) -> None:
        """Show what stands in the way, and that it is tried again."""
        if isinstance(error, SpoolUnavailable):
            self.health.troubled(error)
            reason = error.message
        else:
            bug = next(leaves(error))
            reason = f"crashed: {type(bug).__name__}: {bug}; the log has the traceback"
        if self.health.active and not self._never_valid:
            self.health.enter(ConnectionState.CLOSED, reason, retry_at=self.health.wall() + RETRY_S)

    def _overcome(self) -> None:
        self.health.troubled(None)

    async def _pause(self) -> None:
        """Wait before something is tried again: for a while, or for news."""
        self._refused = True
        with trio.move_on_after(RETRY_S):
            await self._news.wait()
        self._news = trio.Event()
        self._refused = False

    def _connection_of(self, model: ConnectionFile) -> Connection:
        shared, configuration, health = self._shared, model.configuration, self.health
        context = context_of(health, shared.instance, shared.dial, shared.tls, shared.spool)
        outbound = Outbound(
            model.flow,
            format_of(configuration),
            configuration.uplinkTimeValidity,
            shared.clock,
            self.id,
            shared.chains,
            url_field(shared.urls.url(self.id)),
            partial(shared.downlinks.is_about_one_of, self.id),
            shared.decoding is not None and model.flow.decodes,
        )
        backlog = backlog_of(self.id, configuration.backlogShare, health.tell)
        return Connection(
            model,
            FarEnd(REGISTRY[model.connectorId], configuration, context),
            Queue(self._cursor, self._in_hand, outbound, backlog, shared.decoding),
            health,
            self._certificates,
            shared.downlinks,
            shared.stop_grace_s,
        )


async def _unless_refused(step: Step) -> SpoolUnavailable | None:
    """Do something; returns what the disk refused, be it in a task further down."""
    try:
        await step()
    except SpoolUnavailable as error:
        return error
    except BaseExceptionGroup as group:
        refused, rest = group.split(SpoolUnavailable)
        if refused is None or rest is not None:
            raise
        first = next(leaves(refused))
        assert isinstance(first, SpoolUnavailable)
        return first
    return None


def _address(model: ConnectionFile) -> tuple[bool, SecretStr | None]:
    """What a file says about its address for downlinks."""
    return model.configuration.downlinkEnabled, model.configuration.downlinkUuid
