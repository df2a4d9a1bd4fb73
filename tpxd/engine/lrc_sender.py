"""Sends commands to the LRC: each device's in order, devices in parallel, so many a second.

A command is marked on disk before its first byte goes out. Then it is queued, refused, certainly not taken (no
connection), or nobody knows: written and never answered. The last is sent again with the same CorrelationID, or ended
with a verdict, as `[lrc] when_in_doubt` says; either way it is counted.

    while the LRC cannot be reached     one command at a time tries, after 1 s to 30 s, later every 30 s
    while the LRC does not answer       only this device's commands wait; three silences in a row hold back all
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import trio

from tpxd.engine.commands import Commands
from tpxd.engine.health import timestamp
from tpxd.engine.lrc_reach import LrcReach, Patience
from tpxd.engine.pace import Pace
from tpxd.engine.verdicts import TOO_LATE, UNCERTAIN
from tpxd.errors import TpxdError
from tpxd.events import Report
from tpxd.lorawan.downlink_request import Answer, Meaning, Signing, downlink_query, judge
from tpxd.settings import LrcSettings
from tpxd.spool import CommandState, StoredCommand

UNDER_WAY: Final = 32
"""Requests at once."""

CONNECT_S: Final = 5.0
ANSWER_S: Final = 10.0
IDLE_S: Final = 4.0
"""A kept connection is closed sooner than most servers do it: a request that crosses the closing is in doubt."""

TICK_S: Final = 1.0
DOUBTFUL: Final = "the LRC was told once and never answered, so it may have taken the command or not"
MAX_ANSWER_BYTES: Final = 64 * 1024

NOT_SET: Final = "downlink_url in [lrc] of tpxd.toml is not set, so no command can be sent to an LRC"

UNWRITTEN: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""Nothing of the request went out."""


class NotTaken(TpxdError):
    """The LRC certainly did not take the command."""


class Unknown(TpxdError):
    """The command was written, at least in part, and nobody knows whether the LRC took it."""


@dataclass(slots=True, eq=False)
class Lane:
    """One device's commands, oldest first; while one is under way, or must wait, the lane is in nobody's queue."""

    commands: deque[StoredCommand] = field(default_factory=deque)
    patience: Patience = field(default_factory=Patience)


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
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[str] = deque()
        self._wake = trio.Event()
        self._stopping = trio.Event()
        self._ended = trio.Event()
        self._reach = LrcReach(report, wall)
        commands.due = self._put
        for command in commands.waiting:
            self._put(command)

    def document(self) -> dict[str, Any]:
        """The part `lrc` of the health document: unhealthy while commands wait for an LRC that cannot be reached."""
        waiting = self._commands.book.open
        healthy = self._reach.reachable is not False or not waiting
        error = self._reach.last_error
        return {
            "healthy": healthy,
            "reason": None if healthy else f"{len(waiting)} commands wait: {error.message if error else 'unreachable'}",
            "reachable": self._reach.reachable,
            "waiting": len(waiting),
            "doubtful": sum(command.doubts > 0 for command in waiting),
            "lastError": error and {"at": timestamp(error.at), "message": error.message, "hint": error.hint},
        }

    async def stop(self) -> None:
        """Begin nothing more, and wait until `run` has returned."""
        self._stopping.set()
        self._wake.set()
        await self._ended.wait()

    async def run(self) -> None:
        """Send until `stop`; what is under way then has its grace.

        Cancellation: commands under way stay marked as such, and are in doubt at the next start.
        """
        limits = httpx.Limits(max_connections=UNDER_WAY, max_keepalive_connections=UNDER_WAY, keepalive_expiry=IDLE_S)
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        async with (
            httpx.AsyncClient(timeout=timeout, limits=limits, transport=self._transport, trust_env=False) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._expire)
            async with trio.open_nursery() as requests:
                await self._send_all(client, requests)
                requests.cancel_scope.deadline = trio.current_time() + self._grace_s
            nursery.cancel_scope.cancel()
        self._ended.set()

    async def _send_all(self, client: httpx.AsyncClient, requests: trio.Nursery) -> None:
        slots = trio.Semaphore(UNDER_WAY)
        pace = Pace(self._settings.downlink_rate_limiter)
        while (dev_eui := await self._next_lane()) is not None:
            await pace.wait()
            pace.spend(1)
            await slots.acquire()
            if self._reach.reachable is False:
                await self._pause(self._reach.retry_at - trio.current_time())
                await self._serve(client, dev_eui, requests, slots)
            else:
                requests.start_soon(self._serve, client, dev_eui, requests, slots)

    # ---- lanes

    def _put(self, command: StoredCommand) -> None:
        lane = self._lanes.get(command.dev_eui)
        if lane is None:
            lane = self._lanes[command.dev_eui] = Lane()
            self._make_ready(command.dev_eui)
        lane.commands.append(command)

    def _make_ready(self, dev_eui: str) -> None:
        self._ready.append(dev_eui)
        self._wake.set()

    async def _next_lane(self) -> str | None:
        """The device whose turn it is; None after `stop`."""
        while not self._stopping.is_set():
            if self._ready:
                await trio.lowlevel.checkpoint()
                return self._ready.popleft()
            self._wake = trio.Event()
            await self._wake.wait()
        return None

    async def _serve(
        self, client: httpx.AsyncClient, dev_eui: str, requests: trio.Nursery, slots: trio.Semaphore
    ) -> None:
        """Try the oldest command of a lane, and decide when the lane is next."""
        lane = self._lanes[dev_eui]
        delay_s = 0.0
        try:
            if not self._stopping.is_set():
                delay_s = await self._try(client, lane.commands[0], lane)
        finally:
            slots.release()
        while lane.commands and lane.commands[0].state.final:
            lane.commands.popleft()
        if not lane.commands:
            del self._lanes[dev_eui]
        elif delay_s:
            requests.start_soon(self._make_ready_later, dev_eui, delay_s)
        else:
            self._make_ready(dev_eui)

    async def _make_ready_later(self, dev_eui: str, delay_s: float) -> None:
        await self._pause(delay_s)
        self._make_ready(dev_eui)

    async def _pause(self, delay_s: float) -> None:
        with trio.move_on_after(max(0.0, delay_s)):
            await self._stopping.wait()

    # ---- one command

    async def _try(self, client: httpx.AsyncClient, command: StoredCommand, lane: Lane) -> float:
        """Tell the LRC about a command once; returns the seconds that its lane must wait then."""
        book = self._commands.book
        if command.state.final or await self._expired(command) or await self._reported(command):
            return 0.0
        book.begin(command)
        await self._commands.surely_saved(command)
        try:
            answer = await self._post(client, command)
        except NotTaken as error:
            book.hold(command, error.message)
            self._reach.away(error)
            await self._commands.surely_saved(command)
            return 0.0
        except Unknown as error:
            book.doubt(command, error.message)
            self._reach.silent(error)
            await self._commands.surely_saved(command)
            return 0.0 if await self._reported(command) else lane.patience.delay(trio.current_time())
        self._reach.answered(answer)
        lane.patience.reset()
        queued = answer.meaning is Meaning.QUEUED
        await self._end(command, CommandState.SENT if queued else CommandState.REJECTED, answer.cause, answer.status)
        return 0.0

    async def _post(self, client: httpx.AsyncClient, command: StoredCommand) -> Answer:
        """One request and its answer.

        Raises:
            NotTaken, Unknown: there is no answer of the LRC.
        """
        assert command.command is not None
        query = downlink_query(command.command, self._signature(command.connection), self._wall())
        url = self._settings.downlink_url
        body = b""
        try:
            async with client.stream("POST", f"{url}{'&' if '?' in url else '?'}{query}") as response:
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        break
        except UNWRITTEN as error:
            raise NotTaken(f"the LRC cannot be reached: {_reason(error)}", hint="see downlink_url in [lrc]") from None
        except httpx.HTTPError as error:
            raise Unknown(f"the LRC was told and did not answer: {_reason(error)}") from None
        answer = judge(response.status_code, body)
        match answer.meaning:
            case Meaning.LATER:
                raise NotTaken(answer.cause)
            case Meaning.UNKNOWN:
                raise Unknown(answer.cause)
        return answer

    def _signature(self, connection: str) -> Signing:
        own, key = self._signing(connection), self._settings.as_key.get_secret_value()
        return Signing(own.as_id or self._settings.as_id, own.as_key or key)

    async def _reported(self, command: StoredCommand) -> bool:
        """End a command that is in doubt, where such ones are not to be sent again."""
        if not command.doubts or self._settings.when_in_doubt == "resend":
            return False
        await self._end(command, CommandState.REJECTED, f"{DOUBTFUL} ({command.cause})", UNCERTAIN)
        return True

    async def _expired(self, command: StoredCommand) -> bool:
        """End a command whose time is over."""
        now = self._now()
        if now is None or command.command is None:
            return False
        until_s = command.command.valid_until_s
        if until_s is None:
            until_s = command.received_ms / 1000 + self._settings.downlink_validity
        if now < until_s:
            return False
        why = f" ({command.cause})" if command.cause else ""
        cause = f"its validity ended before the LRC was known to have it{why}"
        await self._end(command, CommandState.EXPIRED, cause, UNCERTAIN if command.doubts else TOO_LATE)
        return True

    async def _end(self, command: StoredCommand, state: CommandState, cause: str, status: int | None) -> None:
        self._commands.book.end(command, state, cause, status)
        await self._commands.surely_saved(command)

    async def _expire(self) -> None:
        """End what has waited too long, for ever."""
        while True:
            await trio.sleep(TICK_S)
            for command in self._commands.waiting if self._commands.book.open_count else ():
                if command.state is CommandState.WAITING:
                    await self._expired(command)


def _reason(error: httpx.HTTPError) -> str:
    """An error of httpx in a few words; it never holds the URL, which has the Token in it."""
    return str(error) or type(error).__name__
