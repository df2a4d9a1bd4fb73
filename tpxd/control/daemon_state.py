"""The daemon as its control plane sees it, and whether the parts that must never stand still moved."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import trio

from tpxd import sdnotify
from tpxd.downlinks.documents import downlink_document, trace_document
from tpxd.downlinks.doors import CONTROL, take_and_answer
from tpxd.downlinks.lrc_sender import LrcSender
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.events import EventLog, timestamp
from tpxd.intake.server import Intake
from tpxd.reload.supervisor import Supervisor
from tpxd.spool import Spool, StoredDownlink

Document = dict[str, Any]

BEAT_S: Final = 1.0
LATE_S: Final = 10.0
SUPERVISOR_LATE_S: Final = 120.0
"""It reads the directory every few seconds; thousands of files on a slow disk take their time."""


class Pulse:
    """Sees that the event loop, the spool's writer and the supervisor move, and pets systemd's watchdog while they do.

    Attributes:
        ready: intake listens.
    """

    def __init__(self, spool: Spool, supervisor: Supervisor) -> None:
        self.ready = False
        self._spool = spool
        self._supervisor = supervisor
        self._beat_at = time.monotonic()

    async def beat(self) -> None:
        """Beat for ever."""
        every = min(BEAT_S, sdnotify.watchdog_interval_s() or BEAT_S)
        while True:
            self._beat_at = time.monotonic()
            if self.live()[0]:
                sdnotify.watchdog()
            await trio.sleep(every)

    def live(self) -> tuple[bool, str | None]:
        """Whether all moved in the last seconds, and if not, what did not."""
        now = time.monotonic()
        for what, at, late_s in (
            ("the event loop", self._beat_at, LATE_S),
            ("the spool's writer", self._spool.round_ended_at(), LATE_S),
            ("the supervisor", self._supervisor.round_ended_at(), SUPERVISOR_LATE_S),
        ):
            if now - at > late_s:
                return False, f"{what} has not moved for {now - at:.0f} s"
        return True, None


@dataclass(frozen=True, slots=True)
class DaemonState:
    """What the control plane asks; see `tpxd.control.state.ControlState`."""

    supervisor: Supervisor
    intake: Intake
    spool: Spool
    log: EventLog
    pulse: Pulse
    downlinks: DownlinkQueue
    sender: LrcSender

    def connections(self) -> dict[str, Document]:
        """See `ControlState`."""
        return self.supervisor.overview()

    def connection(self, id: str) -> Document | None:
        """See `ControlState`."""
        return self.supervisor.health(id)

    def intake_health(self) -> Document:
        """See `ControlState`."""
        return self.intake.counters.to_document()

    def lrc_health(self) -> Document:
        """See `ControlState`."""
        return self.sender.document()

    def spool_health(self) -> Document:
        """See `ControlState`."""
        found = self.spool.statistics()
        return {
            "healthy": found.storing,
            "reason": None if found.storing else found.last_error or "nothing can be stored",
            "usedBytes": found.used_bytes,
            "maxBytes": found.max_bytes,
            "freeBytes": found.free_bytes,
            "oldest": timestamp(None if found.oldest_ms is None else found.oldest_ms / 1000),
            "newest": timestamp(None if found.newest_ms is None else found.newest_ms / 1000),
            "stored": found.stored_total,
            "duplicates": found.duplicates_total,
            "duplicatesKnownSince": timestamp(found.duplicates_since_ms / 1000),
        }

    def kept_queues(self) -> dict[str, Document]:
        """See `ControlState`."""
        return {
            id: {"waiting": kept.waiting, "until": timestamp(kept.until_ms / 1000)}
            for id, kept in self.spool.kept_queues().items()
        }

    def problems(self) -> list[str]:
        """See `ControlState`."""
        return [str(problem) for problem in self.supervisor.strays]

    def live(self) -> tuple[bool, str | None]:
        """See `ControlState`."""
        return self.pulse.live()

    def ready(self) -> tuple[bool, str | None]:
        """See `ControlState`."""
        if not self.pulse.ready:
            return False, "intake does not listen yet, or no longer"
        return True, None

    def reconnect(self, id: str | None) -> bool:
        """See `ControlState`."""
        if not self.supervisor.reconnect(id):
            return False
        self.sender.reconnect()
        return True

    def reload(self) -> None:
        """See `ControlState`."""
        self.supervisor.reload()

    async def send_downlink(self, body: bytes) -> tuple[int, Document]:
        """See `ControlState`."""
        messages = self.supervisor.chains.messages
        answer = await take_and_answer(self.downlinks, CONTROL, body, messages, time.time())
        if not isinstance(answer.taken, StoredDownlink):
            return answer.status, {"message": answer.error}
        return answer.status, downlink_document(answer.taken)

    def downlink(self, id: int) -> Document | None:
        """See `ControlState`."""
        downlink = self.downlinks.book.find(id)
        return None if downlink is None else downlink_document(downlink)

    async def trace(self, dev_eui: str, limit: int) -> list[Document]:
        """See `ControlState`."""
        uplinks = await self.spool.uplinks_of(dev_eui, limit)
        fates = await self.spool.fates_of([uplink.seq for uplink in uplinks])
        return trace_document(uplinks, self.downlinks.book.of_device(dev_eui, limit), fates)[-limit:]

    def events(self, count: int, connection: str | None) -> list[Document]:
        """See `ControlState`."""
        return [event.to_document() for event in self.log.newest(count, connection)]
