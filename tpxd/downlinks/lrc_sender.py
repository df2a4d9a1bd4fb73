"""Sends downlinks to the LRC: each device's in order, devices in parallel, so many a second.

A downlink is marked on disk before its first byte goes out. Then it is queued, refused, certainly not taken (no
connection), or nobody knows: written and never answered. The last is sent again with the same CorrelationID, or ended
with a verdict, as `[lrc] when_in_doubt` says; either way it is counted.

    while the LRC cannot be reached     one downlink at a time tries, after 1 s to 30 s, later every 30 s
    while it does not answer, or says   only this device's downlinks wait; three times in a row, and no answer to any
    429 or 503                          other, hold back all
    while it refuses what they are      only this device's downlinks wait that are signed alike; tried again every five
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
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.errors import TpxdError, behind_barrier
from tpxd.events import Tell, timestamp
from tpxd.lorawan.downlink_request import Meaning, Signing, downlink_query
from tpxd.spool import DownlinkState, StoredDownlink
from tpxd.timing import Pace, Stopping

TICK_S: Final = 1.0
AT_ONCE: Final = 256
"""So many downlinks expire before the disk is waited for."""

BUG: Final = "a bug ended the try to send it; the log has the traceback"
DOUBTFUL: Final = "the LRC was told once and never answered, so it may have taken the downlink or not"

NOT_SET: Final = "downlink_url in [lrc] of tpxd.toml is not set, so no downlink can be sent to an LRC"


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
        downlinks: DownlinkQueue,
        tell: Tell,
        *,
        signing: Callable[[str], Signing],
        now: Callable[[], float | None],
        wall: Callable[[], float] = time.time,
        grace_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._downlinks = downlinks
        self._signing = signing
        self._now = now
        self._wall = wall
        self._grace_s = grace_s
        self._transport = transport
        self._stopping = Stopping()
        self._ended = trio.Event()
        self._reach = LrcReach(tell, wall)
        self._refused: dict[str, Signing] = {}

    def document(self) -> dict[str, Any]:
        """The part `lrc` of the health document.

        Unhealthy while downlinks wait for an LRC that cannot be reached, and while it refuses an AS_ID.
        """
        book, error = self._downlinks.book, self._reach.last_error
        waiting = book.open_count
        reason = self._reach.trouble
        if self._reach.reachable is False and waiting:
            reason = f"{waiting} downlinks wait: {error.message if error else 'unreachable'}"
        return {
            "healthy": reason is None,
            "reason": reason,
            "reachable": self._reach.reachable,
            "waiting": waiting,
            "doubtful": sum(downlink.doubts > 0 for downlink in book.open),
            "refusedAsIds": list(self._reach.refused),
            "lastError": error and {"at": timestamp(error.at), "message": error.message, "hint": error.hint},
        }

    def reconnect(self) -> None:
        """Try at once what the LRC refused because of what it was signed with."""
        self._refused.clear()
        self._reach.refused.clear()
        self._downlinks.lanes.take_all_back()

    async def stop(self) -> None:
        """Begin nothing more, and wait until `run` has returned."""
        self._stopping.request()
        await self._ended.wait()

    async def run(self) -> None:
        """Send until `stop`; what is under way then has its grace.

        Cancellation: downlinks under way stay marked as such, and are in doubt at the next start.
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
            downlink = lane.take(self._signature)
            if downlink is None:
                self._downlinks.lanes.give_back(lane)
                continue
            await pace.wait()
            pace.spend(1)
            await slots.acquire()
            if self._reach.reachable is False:
                await self._pause(self._reach.retry_at - trio.current_time())
                await self._serve(links, lane, downlink, requests, slots)
            else:
                requests.start_soon(self._serve, links, lane, downlink, requests, slots)

    # ---- devices

    async def _next_lane(self) -> Lane | None:
        """The lane of the device whose turn it is; None after `stop`."""
        lane: Lane | None = None
        with self._stopping.interrupts():
            lane = await self._downlinks.lanes.next()
        return lane

    async def _serve(
        self, links: LrcLinks, lane: Lane, downlink: StoredDownlink, requests: trio.Nursery, slots: trio.Semaphore
    ) -> None:
        """Try the oldest downlink of a lane, and decide when the lane is next."""
        delay_s: float | Exception = 0.0
        try:
            if not self._stopping.requested:
                work = partial(self._try, links, downlink, lane)
                delay_s = await behind_barrier(work, "downlink %d on its way to the LRC", downlink.id)
        finally:
            slots.release()
        if isinstance(delay_s, Exception):
            delay_s = lane.patience.delay(trio.current_time())
            if not downlink.state.final:
                self._downlinks.book.doubt(downlink, BUG)
        if not downlink.state.final:
            lane.put(downlink)
        if delay_s:
            requests.start_soon(self._give_back_later, lane, delay_s)
        else:
            self._downlinks.lanes.give_back(lane)

    async def _give_back_later(self, lane: Lane, delay_s: float) -> None:
        await self._pause(delay_s)
        self._downlinks.lanes.give_back(lane)

    async def _pause(self, delay_s: float) -> None:
        with self._stopping.interrupts():
            await trio.sleep(max(0.0, delay_s))

    # ---- one downlink

    async def _try(self, links: LrcLinks, downlink: StoredDownlink, lane: Lane) -> float:
        """Tell the LRC about a downlink once; returns the seconds that its lane must wait then."""
        book = self._downlinks.book
        if downlink.state.final or self._expired(downlink) or self._is_over(downlink):
            return 0.0
        book.begin(downlink)
        await self._downlinks.surely_saved(downlink)
        signing = self._signature(downlink)
        try:
            answer = await links.post(self._query(downlink, signing))
        except Unauthorised as error:
            self._set_aside(downlink, lane, signing, error)
            return 0.0
        except Later as error:
            book.hold(downlink, error.message)
            self._reach.undecided(error)
            return lane.patience.delay(trio.current_time())
        except NotTaken as error:
            book.hold(downlink, error.message)
            self._reach.away(error)
            return 0.0
        except Unknown as error:
            book.doubt(downlink, error.message)
            self._reach.undecided(error)
            return 0.0 if self._is_over(downlink) else lane.patience.delay(trio.current_time())
        self._reach.answered(answer, signing.as_id)
        lane.patience.reset()
        state = DownlinkState.SENT if answer.meaning is Meaning.QUEUED else DownlinkState.REJECTED
        book.end(downlink, state, answer.cause, answer.status)
        return 0.0

    def _query(self, downlink: StoredDownlink, signing: Signing) -> str:
        assert downlink.downlink is not None
        return downlink_query(downlink.downlink, signing, self._wall())

    def _signature(self, downlink: StoredDownlink) -> Signing:
        """With what a downlink is signed now: its own, its connection's, or that of the settings."""
        assert downlink.downlink is not None
        return self._signature_of(downlink.connection).of(downlink.downlink)

    def _signature_of(self, connection: str) -> Signing:
        own, settings = self._signing(connection), self._settings
        return Signing(own.as_id or settings.as_id, own.as_key or settings.signing_key)

    def _set_aside(self, downlink: StoredDownlink, lane: Lane, signing: Signing, error: Unauthorised) -> None:
        """The LRC refuses what a downlink is signed with: it waits, and what goes to its device signed alike."""
        refusal = TpxdError(f"the LRC refuses {named(signing.as_id)}: {error.message}", hint=error.hint)
        self._downlinks.book.hold(downlink, refusal.message)
        self._reach.unauthorised(signing.as_id, refusal)
        self._refused[downlink.connection] = self._signature_of(downlink.connection)
        self._downlinks.lanes.set_aside(lane, signing, refusal.message)

    def _is_over(self, downlink: StoredDownlink) -> bool:
        """Whether nothing is left to do for a downlink; one in doubt ends here, where such ones are not sent again."""
        if downlink.state.final:
            return True
        if not downlink.doubts or self._settings.when_in_doubt == "resend":
            return False
        cause = f"{DOUBTFUL} ({downlink.cause})" if downlink.tries else downlink.cause
        self._downlinks.book.end(downlink, DownlinkState.REJECTED, cause, UNCERTAIN)
        return True

    def _expired(self, downlink: StoredDownlink) -> bool:
        """End a downlink whose time is over."""
        now = self._now()
        if now is None or now < self._valid_until_s(downlink):
            return False
        why = f" ({downlink.cause})" if downlink.cause else ""
        cause = f"its validity ended before the LRC was known to have it{why}"
        status = UNCERTAIN if downlink.doubts else TOO_LATE
        self._downlinks.book.end(downlink, DownlinkState.EXPIRED, cause, status)
        return True

    def _valid_until_s(self, downlink: StoredDownlink) -> float:
        assert downlink.downlink is not None
        until_s = downlink.downlink.valid_until_s
        return downlink.received_ms / 1000 + self._settings.downlink_validity if until_s is None else until_s

    # ---- each second

    async def _tick(self) -> None:
        """Look each second, for ever, at what was set aside and at what has waited too long."""
        while True:
            await trio.sleep(TICK_S)
            self._downlinks.lanes.take_back()
            if any(self._signature_of(id) != signing for id, signing in self._refused.items()):
                self.reconnect()
            await self._expire()

    async def _expire(self) -> None:
        """End what has waited too long."""
        now = self._now()
        if now is None:
            return
        late = [downlink for downlink in self._downlinks.waiting if now >= self._valid_until_s(downlink)]
        for count, downlink in enumerate(late, 1):
            if downlink.state is DownlinkState.WAITING and self._expired(downlink) and count % AT_ONCE == 0:
                await self._downlinks.surely_saved(downlink)
        self._downlinks.lanes.sweep({downlink.dev_eui for downlink in late})
