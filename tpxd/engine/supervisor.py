"""Makes what runs agree with the connection files, one id at a time, and catches what no one expected.

The queue, the health and the uplinks in hand belong to an id (`Slot`); a version of its file at work is a `Live`. A new
version waits until the one before has finished, in a task of its own, so that one slow stop delays no other id.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from tpxd.barrier import behind_barrier
from tpxd.connection_file import ConnectionFile
from tpxd.connector import REGISTRY, Dial, TlsContexts
from tpxd.engine.certificates import CertificateWatch
from tpxd.engine.chains import Chains
from tpxd.engine.commands import Commands
from tpxd.engine.config_dir import ConfigDir, Desired, Snapshot
from tpxd.engine.connection import Live, run_connection
from tpxd.engine.downlink_urls import DownlinkUrls
from tpxd.engine.flight import Flight
from tpxd.engine.health import Health, State
from tpxd.engine.leaving import take_leave
from tpxd.engine.outbound import Outbound, format_of, url_field
from tpxd.engine.plan import plan
from tpxd.errors import Problem, leaves
from tpxd.events import Event, Report
from tpxd.flow import Flow
from tpxd.lorawan.downlink_request import Signing
from tpxd.lorawan.uplink import Uplink
from tpxd.secret import plain
from tpxd.spool import Cursor, Spool
from tpxd.timing import ClockWatch

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Slot:
    """What belongs to an id, whichever version of its file runs.

    Attributes:
        file: the newest good version, whether it runs or is paused.
        live: the newest version that was started; it may have been asked to stop since.
        present: the file is there; a slot outlives its file so that a file put back goes on without a gap.
    """

    cursor: Cursor
    health: Health
    flight: Flight
    certificates: CertificateWatch = field(default_factory=CertificateWatch)
    file: ConnectionFile | None = None
    live: Live | None = None
    present: bool = True

    @property
    def running(self) -> ConnectionFile | None:
        """The version at work, None when none is or it was asked to stop."""
        return None if self.live is None or self.live.stopping.requested else self.live.file

    def rest(self) -> None:
        """Nothing runs: paused, or stopped."""
        self.health.turn(State.CLOSED if self.health.active else State.DEACTIVATED)


class Supervisor:
    """Keeps the connections that a directory declares.

    Attributes:
        clock: tells whether anything may expire.
        chains: which connections hand on to which.

    Args:
        commands: where commands go.
        urls: the connections' addresses for commands over HTTP.

    Everything here runs on trio's thread; only reading the directory happens on another.
    """

    def __init__(
        self,
        config_dir: ConfigDir,
        spool: Spool,
        report: Report,
        *,
        instance: str,
        dial: Dial,
        tls: TlsContexts,
        stop_grace_s: float,
        commands: Commands,
        urls: DownlinkUrls,
    ) -> None:
        self._config_dir = config_dir
        self._spool = spool
        self._report = report
        self._instance = instance
        self._dial = dial
        self._tls = tls
        self._stop_grace_s = stop_grace_s
        self._commands = commands
        self._urls = urls
        self.clock = ClockWatch(lambda: spool.statistics().newest_ms)
        self.chains = Chains()
        self._slots: dict[str, Slot] = {}
        self._strays: tuple[Problem, ...] = ()
        self._flows: tuple[Flow, ...] = ()
        self._takes_all = False
        self._asked = 0
        self._applied = 0
        self._moved_at = time.monotonic()
        self._wake = trio.Event()
        self._round = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Apply the directory, say started, and apply it again whenever `reload` is called.

        Started means: every connection has its cursor, so intake may begin to listen.
        """
        async with trio.open_nursery() as nursery:
            await self._apply_directory(nursery)
            task_status.started()
            while True:
                await self._wake.wait()
                await self._apply_directory(nursery)

    async def stop(self) -> None:
        """Ask every connection to stop and wait until all have, each within its grace."""
        lives = [slot.live for slot in self._slots.values() if slot.live is not None]
        for live in lives:
            live.stopping.request()
        for live in lives:
            await live.finished.wait()

    def reload(self) -> None:
        """The directory may have changed: read it soon."""
        self._asked += 1
        self._wake.set()

    async def reload_and_wait(self) -> None:
        """Read the directory now; returns when what it said was applied."""
        self.reload()
        wanted = self._asked
        while self._applied < wanted:
            await self._round.wait()

    def reconnect(self, id: str | None = None) -> bool:
        """Try one connection, or all, again now, beginning the burst anew; False when there is none of that id."""
        slots = [s for i, s in self._slots.items() if s.present and id in (None, i)]
        for slot in slots:
            if slot.live is not None:
                slot.live.nudge()
        return id is None or bool(slots)

    def health(self, id: str) -> dict[str, Any] | None:
        """The health document of one connection, None when there is none of that id."""
        slot = self._slots.get(id)
        return slot.health.to_document() if slot is not None and slot.present else None

    def overview(self) -> dict[str, dict[str, Any]]:
        """All health documents by id."""
        return {id: slot.health.to_document() for id, slot in sorted(self._slots.items()) if slot.present}

    def claims(self, kind: str, lane: str, document: dict[str, Any]) -> bool:
        """Whether the flow of some connection takes this report; without any connection nothing is claimed."""
        if self._takes_all:
            return True
        uplink = Uplink(0, 0, kind, lane, "", b"", document)
        return any(flow.takes(uplink) for flow in self._flows)

    def signing(self, id: str) -> Signing:
        """With what a connection's commands are signed, as far as its file says; "" stands for what it does not."""
        slot = self._slots.get(id)
        if slot is None or slot.file is None:
            return Signing()
        configuration = slot.file.configuration
        return Signing(configuration.downlinkAsId or "", plain(configuration.downlinkAsKey) or "")

    @property
    def strays(self) -> tuple[Problem, ...]:
        """What is wrong with the directory itself, such as a file whose name is no id."""
        return self._strays

    def moved(self) -> float:
        """Monotonic time at which the last round ended; there is one every few seconds, the watcher sees to that."""
        return self._moved_at

    async def _apply_directory(self, nursery: trio.Nursery) -> None:
        asked = self._asked
        self._wake = trio.Event()
        snapshot = await trio.to_thread.run_sync(self._config_dir.read)
        await self._apply(snapshot, nursery)
        self._applied = asked
        self._moved_at = time.monotonic()
        self._round.set()
        self._round = trio.Event()

    async def _apply(self, snapshot: Snapshot, nursery: trio.Nursery) -> None:
        """Make what runs agree with `snapshot`; untouched connections are not touched."""
        self._tell_strays(snapshot)
        for id, desired in snapshot.desired.items():
            await self._show(id, desired)
        gone = [id for id, slot in self._slots.items() if slot.present and id not in snapshot.desired]
        wanted = {id: d.model for id, d in snapshot.desired.items() if d.model is not None and d.model.active}
        running = {id: slot.running for id, slot in self._slots.items() if slot.running is not None}
        models = {id: d.model for id, d in snapshot.desired.items() if d.model is not None}
        self.chains.set(
            dict.fromkeys(snapshot.desired, ())
            | {id: model.configuration.chainedWithConnectionIds for id, model in models.items()}
        )
        self._flows = tuple(
            model.flow for id, model in models.items() if model.flow.matchers or not self.chains.names(id)
        )
        self._takes_all = any(not flow.matchers for flow in self._flows)
        steps = plan(wanted, running)
        for id in steps.stop:
            self._slots[id].live.stopping.request()  # type: ignore[union-attr] # what runs has a Live
        for id in (*steps.restart, *steps.start):
            self._launch(id, snapshot.desired[id], nursery)
        for id in steps.keep:
            self._slots[id].health.file.running = snapshot.desired[id].running
        for id in gone:
            self._slots[id].present = False
            self._urls.close(id)
            nursery.start_soon(self._retire, id)
        await trio.to_thread.run_sync(self._keep_good, snapshot)

    def _keep_good(self, snapshot: Snapshot) -> None:
        """Have the versions that were just found good kept for a restart; in a thread, since it waits for the disk."""
        for id, desired in snapshot.desired.items():
            if not desired.problems and desired.generation != desired.accepted:
                self._config_dir.accept(id, desired.generation)

    def _tell_strays(self, snapshot: Snapshot) -> None:
        for problem in snapshot.strays:
            if problem not in self._strays:
                self._report(Event("file", str(problem), level=logging.WARNING))
        self._strays = snapshot.strays

    async def _show(self, id: str, desired: Desired) -> None:
        """Let the id's health tell which versions were seen and what is wrong with the newest."""
        slot = self._slots.get(id)
        if slot is None:
            cursor = await self._spool.cursor(id)
            slot = self._slots[id] = Slot(cursor, Health(id, cursor, self._report), Flight())
            slot.health.downlinks = self._commands.book.counts(id)
        elif not slot.present:
            slot.present = True
            slot.cursor = slot.health.cursor = await self._spool.cursor(id)
        health = slot.health
        if desired.problems and desired.problems != health.file.problems:
            for problem in desired.problems:
                self._report(Event("file", str(problem), id, logging.WARNING))
        health.file.generation = desired.generation
        health.file.problems = desired.problems
        model = desired.model
        if model is None:
            health.turn(State.INVALID, health.file.error)
            return
        slot.file = model
        await self._urls.open(id, model.configuration)
        if slot.live is not None:
            slot.live.outbound.url_field = url_field(self._urls.url(id))
        health.name, health.connector_id, health.active = model.name, model.connectorId, model.active
        slot.cursor.validity_s = model.configuration.uplinkTimeValidity
        if not model.active:
            health.file.running = desired.running
            if slot.live is None or slot.live.finished.is_set():
                slot.rest()

    def _launch(self, id: str, desired: Desired, nursery: trio.Nursery) -> None:
        model = desired.model
        assert model is not None
        slot = self._slots[id]
        configuration = model.configuration
        before = slot.live
        slot.live = Live(
            id=id,
            file=model,
            connector=REGISTRY[model.connectorId],
            cursor=slot.cursor,
            health=slot.health,
            flight=slot.flight,
            certificates=slot.certificates,
            outbound=Outbound(
                model.flow,
                format_of(configuration),
                configuration.uplinkTimeValidity,
                self.clock,
                id,
                self.chains,
                url_field(self._urls.url(id)),
                partial(self._commands.is_about_one_of, id),
            ),
            chains=self.chains,
            instance=self._instance,
            dial=self._dial,
            tls=self._tls,
            memory=self._spool,
            stop_grace_s=self._stop_grace_s,
            commands=self._commands,
        )
        if before is not None:
            before.stopping.request()
        nursery.start_soon(self._run_after, before, slot.live, slot, desired)

    async def _run_after(self, before: Live | None, live: Live, slot: Slot, desired: Desired) -> None:
        """Run a version once the one before has finished, unless it was itself replaced meanwhile."""
        try:
            if before is not None:
                await before.finished.wait()
            if live.stopping.requested:
                return
            slot.health.file.running = desired.running
            await self._barrier(live)
        finally:
            live.finished.set()
            if slot.live is live:
                slot.rest()

    async def _barrier(self, live: Live) -> None:
        """Run a connection until it is asked to stop; a bug in it ends there, and it starts again under back-off."""
        while not live.stopping.requested:
            error = await behind_barrier(partial(run_connection, live), "connection %s", live.id)
            if error is not None:
                bug = next(leaves(error))
                live.health.turn(State.CLOSED, f"crashed: {type(bug).__name__}: {bug}; the log has the traceback")
                await live.pause(live.backoff.delay(trio.current_time()))

    async def _retire(self, id: str) -> None:
        """The file is gone: its queue stays for a while, in case it comes back."""
        slot = self._slots[id]
        live = slot.live
        if live is not None:
            live.stopping.request()
            await live.finished.wait()
        if slot.present:
            return
        await self._spool.retire(id)
        self._report(Event("file", f"{id}: the file is gone; its queue is kept for a while", id))
        if live is not None:
            await take_leave(live, lambda: slot.live is live and not slot.present)
