"""What the LRC should get and is on disk: each device's oldest first, devices in turn. Pure but for its wake."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import trio

from tpxd.engine.lrc_reach import Patience
from tpxd.spool import StoredCommand


@dataclass(slots=True, eq=False)
class Lane:
    """One device's commands, oldest first; while one is under way, or must wait, the lane is in nobody's queue."""

    commands: deque[StoredCommand] = field(default_factory=deque)
    patience: Patience = field(default_factory=Patience)


class Lanes:
    """See the module."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[str] = deque()
        self._wake = trio.Event()

    def put(self, command: StoredCommand) -> None:
        """The LRC should get it, after what came for this device before."""
        lane = self._lanes.get(command.dev_eui)
        if lane is None:
            lane = self._lanes[command.dev_eui] = Lane()
            self.make_ready(command.dev_eui)
        lane.commands.append(command)

    def of(self, dev_eui: str) -> Lane:
        """The lane of a device that `next` named."""
        return self._lanes[dev_eui]

    async def next(self) -> str:
        """The device whose turn it is; its lane is in the caller's hands until `make_ready` or `drop`."""
        while not self._ready:
            self._wake = trio.Event()
            await self._wake.wait()
        await trio.lowlevel.checkpoint()
        return self._ready.popleft()

    def make_ready(self, dev_eui: str) -> None:
        """It is this device's turn again, after all that are ready now."""
        self._ready.append(dev_eui)
        self._wake.set()

    def drop(self, dev_eui: str) -> None:
        """Nothing is left in its lane."""
        del self._lanes[dev_eui]
