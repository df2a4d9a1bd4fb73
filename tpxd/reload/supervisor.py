"""Reads the files, plans what has to change, and applies it; each id has a slot, which does the rest in its own task.

supervisor.run
  └─ a slot's task, for each id that has something to do
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from tpxd.codecs.decoding import Decoding
from tpxd.config.connection_file import ConnectionFile
from tpxd.connection.chains import Chains
from tpxd.connection.claims import Claims
from tpxd.connector import Dial, TlsContexts
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.downlinks.urls import DownlinkUrls
from tpxd.errors import Problem, behind_barrier
from tpxd.events import Event, Tell
from tpxd.reload.drivers import DriverDir
from tpxd.reload.slot import Shared, Slot
from tpxd.reload.versions import ConfigDir, Desired, Snapshot
from tpxd.spool import Spool
from tpxd.timing import ClockWatch


class Supervisor:
    """Keeps the connections that a directory declares.

    Attributes:
        clock: tells whether anything may expire.
        chains: which connections hand on to which.
        claims: which reports some connection takes.

    Args:
        downlinks: where downlinks go.
        urls: the connections' addresses for downlinks over HTTP.
        drivers: the directory of drivers, read before the files that name them are applied; None where there is none.
        decoding: decodes with them.

    Everything here runs on trio's thread; only reading the directory happens on another.
    """

    def __init__(
        self,
        config_dir: ConfigDir,
        spool: Spool,
        tell: Tell,
        *,
        instance: str,
        dial: Dial,
        tls: TlsContexts,
        stop_grace_s: float,
        downlinks: DownlinkQueue,
        urls: DownlinkUrls,
        drivers: DriverDir | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        self._config_dir = config_dir
        self._spool = spool
        self._tell = tell
        self.clock = ClockWatch(lambda: spool.statistics().newest_ms)
        self.chains = Chains()
        self.claims = Claims()
        self._shared = Shared(
            spool, tell, instance, dial, tls, stop_grace_s, downlinks, urls, self.clock, self.chains, decoding
        )
        self._drivers = drivers
        self._slots: dict[str, Slot] = {}
        self._strays: tuple[Problem, ...] = ()
        self._desired: Mapping[str, Desired] = {}
        self._asked = 0
        self._applied = 0
        self._round_ended_at = time.monotonic()
        self._wake = trio.Event()
        self._round = trio.Event()
        self._reading = trio.CancelScope()
        self._stopped = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Apply the directory, say started, and apply it again whenever `reload` is called, until `stop` is.

        Started means: every connection has its queue, or the disk refused to make it, so intake may begin to listen.
        """
        async with trio.open_nursery() as nursery:
            with self._reading:
                await self._round_of(nursery)
                task_status.started()
                while True:
                    await self._wake.wait()
                    await self._round_of(nursery)
            for slot in self._slots.values():
                slot.stop()
        self._stopped.set()

    async def stop(self) -> None:
        """Have nothing begin any more and ask every connection to stop; wait until all have, each within its grace."""
        self._reading.cancel()
        await self._stopped.wait()

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
        slots = [slot for slot in self._present() if id in (None, slot.id)]
        for slot in slots:
            if slot.connection is not None:
                slot.connection.nudge()
        return id is None or bool(slots)

    def health(self, id: str) -> dict[str, Any] | None:
        """The health document of one connection, None when there is none of that id."""
        slot = self._slots.get(id)
        return slot.health.to_document() if slot is not None and slot.desired is not None else None

    def overview(self) -> dict[str, dict[str, Any]]:
        """All health documents by id."""
        return {slot.id: slot.health.to_document() for slot in sorted(self._present(), key=lambda slot: slot.id)}

    def _present(self) -> Iterable[Slot]:
        return (slot for slot in self._slots.values() if slot.desired is not None)

    def file(self, id: str) -> ConnectionFile | None:
        """The newest good version of a connection's file, whether it runs or is paused, None when there was none."""
        slot = self._slots.get(id)
        return None if slot is None else slot.file

    @property
    def strays(self) -> tuple[Problem, ...]:
        """What is wrong besides connections: a file whose name is no id, a driver that is none."""
        return self._strays

    def round_ended_at(self) -> float:
        """Monotonic time at which the last round ended; there is one every few seconds, the watcher sees to that."""
        return self._round_ended_at

    async def _round_of(self, nursery: trio.Nursery) -> None:
        """Read and apply; a bug on the way is logged, and the next round tries again."""
        asked = self._asked
        self._wake = trio.Event()
        await behind_barrier(partial(self._read_and_apply, nursery), "reading the files")
        self._applied = asked
        self._round_ended_at = time.monotonic()
        self._round.set()
        self._round = trio.Event()

    async def _read_and_apply(self, nursery: trio.Nursery) -> None:
        snapshot = await trio.to_thread.run_sync(self._config_dir.read, abandon_on_cancel=True)
        if self._drivers is not None:
            await behind_barrier(self._drivers.refresh, "reading the drivers")
        self._tell_strays([*snapshot.strays, *self._problems_of_drivers(snapshot)])
        self._apply(snapshot, nursery)
        for slot in [slot for slot in self._present() if not slot.tried.is_set()]:
            await slot.tried.wait()
        queues = self._spool.cursors()
        if snapshot.whole:
            self._shared.downlinks.book.forget_all_but(snapshot.desired.keys() | set(queues))
        await trio.to_thread.run_sync(self._keep_good, snapshot, queues)

    def _apply(self, snapshot: Snapshot, nursery: trio.Nursery) -> None:
        """Make what runs agree with `snapshot`; untouched connections are not touched."""
        slots = self._slots
        left_behind = self._queues_at_work() if snapshot.whole else set()
        for id in (snapshot.desired.keys() | left_behind) - slots.keys():
            slots[id] = Slot(id, self._shared)
        gone = [slot for id, slot in slots.items() if id not in snapshot.desired]
        for slot in gone:  # first, so that what they give up is free for others
            slot.want(None)
        for id, desired in snapshot.desired.items():
            slots[id].want(desired)
        if snapshot.desired is not self._desired:
            self._tell_flows(snapshot)
        self._desired = snapshot.desired
        wanted = {id: d.model for id, d in snapshot.desired.items() if d.model is not None and d.model.active}
        running = {id: slot.running for id, slot in slots.items() if slot.running is not None}
        steps = plan(wanted, running)
        for id in (*steps.stop, *steps.restart):
            slots[id].stop_version()
        for slot in slots.values():
            slot.start(nursery)
        for slot in gone:
            if slot.over:
                del slots[slot.id]

    def _queues_at_work(self) -> set[str]:
        """Those that are not retired: without a slot they are of files that went while the daemon was down."""
        found = ((id, self._spool.find_cursor(id)) for id in self._spool.cursors())
        return {id for id, cursor in found if cursor is not None and not cursor.retired}

    def _tell_flows(self, snapshot: Snapshot) -> None:
        """Let the files at work say who hands on to whom, and who takes what."""
        models = {id: d.model for id, d in snapshot.desired.items() if d.model is not None}
        self.chains.set(
            dict.fromkeys(snapshot.desired, ())
            | {id: model.configuration.chainedWithConnectionIds for id, model in models.items()}
        )
        self.claims.set({id: model.flow for id, model in models.items()}, self.chains)

    def _keep_good(self, snapshot: Snapshot, queues: list[str]) -> None:
        """Have the versions that were just found good kept for a restart, and nothing of ids that have neither file nor
        queue; in a thread, since it waits for the disk."""
        if snapshot.whole:
            self._config_dir.forget_all_but(queues)
        for id, desired in snapshot.desired.items():
            if not desired.problems and desired.generation != desired.accepted:
                self._config_dir.accept(id, desired.generation)

    def _problems_of_drivers(self, snapshot: Snapshot) -> Iterator[Problem]:
        """What is wrong with drivers, and which of those that files name are not there."""
        if self._drivers is None:
            return
        yield from self._drivers.problems
        for id, desired in snapshot.desired.items():
            if (
                desired.model is not None
                and desired.model.active
                and (lacking := self._drivers.lacks(desired.model.flow))
            ):
                file = f"{self._config_dir.name}/{id}.toml"
                yield Problem(file, 0, 0, "flow.driver", f"{lacking}; uplinks go on without their payloads decoded")

    def _tell_strays(self, strays: Sequence[Problem]) -> None:
        for problem in strays:
            if problem not in self._strays:
                self._tell(Event("file", str(problem), level=logging.WARNING))
        self._strays = tuple(strays)


@dataclass(frozen=True, slots=True)
class Plan:
    """Ids by what happens to them; each id stands in one of the four, in alphabetical order."""

    stop: tuple[str, ...]
    restart: tuple[str, ...]
    start: tuple[str, ...]
    keep: tuple[str, ...]


def plan(wanted: Mapping[str, ConnectionFile], running: Mapping[str, ConnectionFile]) -> Plan:
    """Compare what should run with what runs. Models are compared, never file times: equal means untouched."""
    both = wanted.keys() & running.keys()
    changed = {id for id in both if wanted[id] is not running[id] and wanted[id] != running[id]}
    return Plan(
        stop=tuple(sorted(running.keys() - wanted.keys())),
        restart=tuple(sorted(changed)),
        start=tuple(sorted(wanted.keys() - running.keys())),
        keep=tuple(sorted(both - changed)),
    )
