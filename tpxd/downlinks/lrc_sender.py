"""Sends commands to the LRC: each device's in order, devices in parallel, so many a second.

A command is marked on disk before its first byte goes out. Then it is queued, refused, certainly not taken (no
connection), or nobody knows: written and never answered. The last is sent again with the same CorrelationID, or ended
with a verdict, as `[lrc] when_in_doubt` says; either way it is counted.

    while the LRC cannot be reached     one command at a time tries, after 1 s to 30 s, later every 30 s
    while it does not answer, or says   only this device's commands wait; three times in a row, and no answer to any
    429 or 503                          other, hold back all
    while it refuses what they are      only this device's commands wait that are signed alike; tried again every five
    signed with: 401 or 403             minutes, and at once when a key changes or somebody asks for it
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httpx
import trio

from tpxd.config.settings import LrcSettings
from tpxd.downlinks.documents import TOO_LATE, UNCERTAIN
from tpxd.downlinks.lanes import Lane
from tpxd.downlinks.lrc_links import UNDER_WAY, Later, LrcLinks, NotTaken, Unauthorised, Unknown, open_links
from tpxd.downlinks.lrc_reach import LrcReach, named
from tpxd.downlinks.queue import Commands
from tpxd.errors import TpxdError, behind_barrier
from tpxd.events import Report, timestamp
from tpxd.lorawan.downlink_request import Meaning, Signing, downlink_query
from tpxd.spool import CommandState, StoredCommand
from tpxd.timing import Pace, Stopping

TICK_S: Final = 1.0
AT_ONCE: Final = 256
"""So many commands expire before the disk is waited for."""

BUG: Final = "a bug ended the try to send it; the log has the traceback"
DOUBTFUL: Final = "the LRC was told once and never answered, so it may have taken the command or not"

NOT_SET: Final = "downlink_url in [lrc] of tpxd.toml is not set, so no command can be sent to an LRC"


class LrcSender:
    """See the module.

    Args:
        signing: the AS_ID and key that a connection's file has, "" where it has none: then those of the settings.
        now: seconds since the epoch, None while the clock cannot be trusted to expire anything.
        wall: seconds since the epoch.
        grace_s: how long what is under way may go on after `stop`.
        transport: what httpx sends through; tests put an LRC there.
    """

    def __init__(
        self,
        settings: LrcSettings,
        commands: Commands,
        report: Report,
        *,
        signing: Callable[[str], Signing],
        now: Callable[[], float | None],
        wall: Callable[[], float] = time.time,
        grace_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._commands = commands
        self._signing = signing
        self._now = now
        self._wall = wall
        self._grace_s = grace_s
        self._transport = transport
        self._stopping = Stopping()
        self._ended = trio.Event()
        self._reach = LrcReach(report, wall)
        self._refused: dict[str, Signing] = {}

    def document(self) -> dict[str, Any]:
        """The part `lrc` of the health document.

        Unhealthy while commands wait for an LRC that cannot be reached, and while it refuses an AS_ID.
        """
        book, error = self._commands.book, self._reach.last_error
        waiting = book.open_count
        reason = self._reach.trouble
        if self._reach.reachable is False and waiting:
            reason = f"{waiting} commands wait: {error.message if error else 'unreachable'}"
        return {
            "healthy": reason is None,
            "reason": reason,
            "reachable": self._reach.reachable,
            "waiting": waiting,
            "doubtful": sum(command.doubts > 0 for command in book.open),
            "refusedAsIds": list(self._reach.refused),
            "lastError": error and {"at": timestamp(error.at), "message": error.message, "hint": error.hint},
        }

    def reconnect(self) -> None:
        """Try at once what the LRC refused because of what it was signed with."""
        self._refused.clear()
        self._reach.refused.clear()
        self._commands.lanes.take_all_back()

    async def stop(self) -> None:
        """Begin nothing more, and wait until `run` has returned."""
        self._stopping.request()
        await self._ended.wait()

    async def run(self) -> None:
        """Send until `stop`; what is under way then has its grace.

        Cancellation: commands under way stay marked as such, and are in doubt at the next start.
        """
        async with (
            open_links(self._settings.downlink_url, self._transport) as links,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._tick)
            with self._stopping.bounds(lambda: self._grace_s):
                async with trio.open_nursery() as requests:
                    await self._send_all(links, requests)
            nursery.cancel_scope.cancel()
        self._ended.set()

    async def _send_all(self, links: LrcLinks, requests: trio.Nursery) -> None:
        slots = trio.Semaphore(UNDER_WAY)
        pace = Pace(self._settings.downlink_rate_limiter)
        while (lane := await self._next_lane()) is not None:
            command = lane.take(self._signature)
            if command is None:
                self._commands.lanes.give_back(lane)
                continue
            await pace.wait()
            pace.spend(1)
            await slots.acquire()
            if self._reach.reachable is False:
                await self._pause(self._reach.retry_at - trio.current_time())
                await self._serve(links, lane, command, requests, slots)
            else:
                requests.start_soon(self._serve, links, lane, command, requests, slots)

    # ---- devices

    async def _next_lane(self) -> Lane | None:
        """The lane of the device whose turn it is; None after `stop`."""
        lane: Lane | None = None
        with self._stopping.interrupts():
            lane = await self._commands.lanes.next()
        return lane

    async def _serve(
        self, links: LrcLinks, lane: Lane, command: StoredCommand, requests: trio.Nursery, slots: trio.Semaphore
    ) -> None:
        """Try the oldest command of a lane, and decide when the lane is next."""
        delay_s: float | Exception = 0.0
        try:
            if not self._stopping.requested:
                work = partial(self._try, links, command, lane)
                delay_s = await behind_barrier(work, "command %d on its way to the LRC", command.id)
        finally:
            slots.release()
        if isinstance(delay_s, Exception):
            delay_s = lane.patience.delay(trio.current_time())
            if not command.state.final:
                self._commands.book.doubt(command, BUG)
        if not command.state.final:
            lane.put(command)
        if delay_s:
            requests.start_soon(self._give_back_later, lane, delay_s)
        else:
            self._commands.lanes.give_back(lane)

    async def _give_back_later(self, lane: Lane, delay_s: float) -> None:
        await self._pause(delay_s)
        self._commands.lanes.give_back(lane)

    async def _pause(self, delay_s: float) -> None:
        with self._stopping.interrupts():
            await trio.sleep(max(0.0, delay_s))

    # ---- one command

    async def _try(self, links: LrcLinks, command: StoredCommand, lane: Lane) -> float:
        """Tell the LRC about a command once; returns the seconds that its lane must wait then."""
        book = self._commands.book
        if command.state.final or self._expired(command) or self._is_over(command):
            return 0.0
        book.begin(command)
        await self._commands.surely_saved(command)
        signing = self._signature(command)
        try:
            answer = await links.post(self._query(command, signing))
        except Unauthorised as error:
            self._set_aside(command, lane, signing, error)
            return 0.0
        except Later as error:
            book.hold(command, error.message)
            self._reach.undecided(error)
            return lane.patience.delay(trio.current_time())
        except NotTaken as error:
            book.hold(command, error.message)
            self._reach.away(error)
            return 0.0
        except Unknown as error:
            book.doubt(command, error.message)
            self._reach.undecided(error)
            return 0.0 if self._is_over(command) else lane.patience.delay(trio.current_time())
        self._reach.answered(answer, signing.as_id)
        lane.patience.reset()
        state = CommandState.SENT if answer.meaning is Meaning.QUEUED else CommandState.REJECTED
        book.end(command, state, answer.cause, answer.status)
        return 0.0

    def _query(self, command: StoredCommand, signing: Signing) -> str:
        assert command.command is not None
        return downlink_query(command.command, signing, self._wall())

    def _signature(self, command: StoredCommand) -> Signing:
        """With what a command is signed now: its own, its connection's, or that of the settings."""
        assert command.command is not None
        return self._signature_of(command.connection).of(command.command)

    def _signature_of(self, connection: str) -> Signing:
        own, settings = self._signing(connection), self._settings
        return Signing(own.as_id or settings.as_id, own.as_key or settings.signing_key)

    def _set_aside(self, command: StoredCommand, lane: Lane, signing: Signing, error: Unauthorised) -> None:
        """The LRC refuses what a command is signed with: it waits, and what goes to its device signed alike."""
        refusal = TpxdError(f"the LRC refuses {named(signing.as_id)}: {error.message}", hint=error.hint)
        self._commands.book.hold(command, refusal.message)
        self._reach.unauthorised(signing.as_id, refusal)
        self._refused[command.connection] = self._signature_of(command.connection)
        self._commands.lanes.set_aside(lane, signing, refusal.message)

    def _is_over(self, command: StoredCommand) -> bool:
        """Whether nothing is left to do for a command; one in doubt ends here, where such ones are not sent again."""
        if command.state.final:
            return True
        if not command.doubts or self._settings.when_in_doubt == "resend":
            return False
        cause = f"{DOUBTFUL} ({command.cause})" if command.tries else command.cause
        self._commands.book.end(command, CommandState.REJECTED, cause, UNCERTAIN)
        return True

    def _expired(self, command: StoredCommand) -> bool:
        """End a command whose time is over."""
        now = self._now()
        if now is None or now < self._valid_until_s(command):
            return False
        why = f" ({command.cause})" if command.cause else ""
        cause = f"its validity ended before the LRC was known to have it{why}"
        status = UNCERTAIN if command.doubts else TOO_LATE
        self._commands.book.end(command, CommandState.EXPIRED, cause, status)
        return True

    def _valid_until_s(self, command: StoredCommand) -> float:
        assert command.command is not None
        until_s = command.command.valid_until_s
        return command.received_ms / 1000 + self._settings.downlink_validity if until_s is None else until_s

    # ---- each second

    async def _tick(self) -> None:
        """Look each second, for ever, at what was set aside and at what has waited too long."""
        while True:
            await trio.sleep(TICK_S)
            self._commands.lanes.take_back()
            if any(self._signature_of(id) != signing for id, signing in self._refused.items()):
                self.reconnect()
            await self._expire()

    async def _expire(self) -> None:
        """End what has waited too long."""
        now = self._now()
        if now is None:
            return
        late = [command for command in self._commands.waiting if now >= self._valid_until_s(command)]
        for count, command in enumerate(late, 1):
            if command.state is CommandState.WAITING and self._expired(command) and count % AT_ONCE == 0:
                await self._commands.surely_saved(command)
        self._commands.lanes.sweep({command.dev_eui for command in late})
