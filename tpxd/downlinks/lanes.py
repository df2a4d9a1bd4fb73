"""What the LRC should get and is on disk: each device's oldest first, devices in turn. Pure but for its wake.

A downlink whose AS_ID or key the LRC refused is set aside, with all that would be signed alike for the same device;
what is signed otherwise goes on. After `ASIDE_S` it is taken back to where it stood.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from tpxd.downlinks.lrc_reach import Patience
from tpxd.lorawan.downlink_request import Signing
from tpxd.spool import StoredDownlink

ASIDE_S: Final = 300.0

Sign = Callable[[StoredDownlink], Signing]
"""With what a downlink would be signed now."""


@dataclass(slots=True, eq=False)
class Aside:
    """What is signed alike and set aside, and why: that is the cause of each, for whoever asks what became of it."""

    cause: str
    downlinks: list[StoredDownlink] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Lane:
    """One device's downlinks; while one is under way, or must wait, the lane is in nobody's queue.

    Attributes:
        resting: everything that it holds is set aside.
    """

    dev_eui: str
    patience: Patience = field(default_factory=Patience)
    resting: bool = False
    _downlinks: list[tuple[int, StoredDownlink]] = field(default_factory=list)
    _aside: dict[Signing, Aside] = field(default_factory=dict)

    def put(self, downlink: StoredDownlink) -> None:
        """It waits, behind those that came before it."""
        heapq.heappush(self._downlinks, (downlink.id, downlink))

    def take(self, sign: Sign) -> StoredDownlink | None:
        """The oldest that is not over; what is signed like one that is set aside joins it. None: nothing is left."""
        while self._downlinks:
            _, downlink = heapq.heappop(self._downlinks)
            if downlink.state.final:
                continue
            aside = self._aside.get(sign(downlink))
            if aside is None:
                return downlink
            downlink.cause = aside.cause
            aside.downlinks.append(downlink)
        return None

    def set_aside(self, signing: Signing, cause: str) -> None:
        """What is signed so is set aside when it is taken next."""
        self._aside.setdefault(signing, Aside(cause))

    def take_back(self, signing: Signing) -> None:
        """What was set aside waits as if it never had been."""
        aside = self._aside.pop(signing, None)
        for downlink in aside.downlinks if aside is not None else ():
            self.put(downlink)

    def take_all_back(self) -> None:
        """The same, whatever it is signed with."""
        for signing in list(self._aside):
            self.take_back(signing)

    def sweep(self) -> None:
        """Let go of what is over."""
        self._downlinks = [(id, downlink) for id, downlink in self._downlinks if not downlink.state.final]
        heapq.heapify(self._downlinks)
        for aside in self._aside.values():
            aside.downlinks = [downlink for downlink in aside.downlinks if not downlink.state.final]
        self._aside = {signing: aside for signing, aside in self._aside.items() if aside.downlinks}

    @property
    def has_work(self) -> bool:
        """Something waits that is not set aside."""
        return bool(self._downlinks)

    @property
    def empty(self) -> bool:
        """Nothing waits."""
        return not self._downlinks and not self._aside


class Lanes:
    """See the module."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._aside: deque[tuple[float, Lane, Signing]] = deque()
        self._wake = trio.Event()

    @property
    def devices(self) -> int:
        """For how many devices something waits, or was under way just now."""
        return len(self._lanes)

    def put(self, downlink: StoredDownlink) -> None:
        """The LRC should get it, after what came for this device before."""
        lane = self._lanes.get(downlink.dev_eui)
        if lane is None:
            lane = self._lanes[downlink.dev_eui] = Lane(downlink.dev_eui, resting=True)
        lane.put(downlink)
        self._rouse(lane)

    async def next(self) -> Lane:
        """The lane whose turn it is; it is in the caller's hands until `give_back`."""
        while not self._ready:
            self._wake = trio.Event()
            await self._wake.wait()
        await trio.lowlevel.checkpoint()
        return self._ready.popleft()

    def give_back(self, lane: Lane) -> None:
        """It is this lane's turn again, after all that are ready now, if anything in it can go."""
        if lane.has_work:
            self._ready.append(lane)
            self._wake.set()
        else:
            lane.resting = True
            self._let_go(lane)

    def set_aside(self, lane: Lane, signing: Signing, cause: str) -> None:
        """The LRC refused what downlinks of this lane are signed with: see the module."""
        lane.set_aside(signing, cause)
        self._aside.append((trio.current_time() + ASIDE_S, lane, signing))

    def take_back(self) -> None:
        """Take back what was set aside long enough ago."""
        now = trio.current_time()
        while self._aside and self._aside[0][0] <= now:
            _, lane, signing = self._aside.popleft()
            lane.take_back(signing)
            self._rouse(lane)

    def take_all_back(self) -> None:
        """Take back everything that was set aside."""
        self._aside.clear()
        for lane in self._lanes.values():
            lane.take_all_back()
            self._rouse(lane)

    def sweep(self, dev_euis: set[str]) -> None:
        """Let go of what is over, for these devices."""
        for dev_eui in dev_euis & self._lanes.keys():
            lane = self._lanes[dev_eui]
            lane.sweep()
            self._let_go(lane)

    def _rouse(self, lane: Lane) -> None:
        if lane.resting and lane.has_work:
            lane.resting = False
            self.give_back(lane)

    def _let_go(self, lane: Lane) -> None:
        if lane.resting and lane.empty and self._lanes.get(lane.dev_eui) is lane:
            del self._lanes[lane.dev_eui]
