"""The writing half of a session: sends what a protocol core has to say, and keeps the link alive.

One task alone calls `send_all`, so that no cancelled command cuts a packet in half, and what many commands append to
the core goes out in one piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from tpxd.errors import TransportError
from tpxd.wire.streams import explain

FLUSH_S = 1.0
# a writer that fails leaves the reader this long to find out why
REASON_S = 1.0


class Core(Protocol):
    """What a protocol core shows its writer; it never awaits."""

    @property
    def has_outgoing(self) -> bool:
        """There are bytes to send."""

    def outgoing(self, now: float) -> bytes:
        """Take them."""

    def next_deadline(self) -> float:
        """When `tick` is due."""

    def tick(self, now: float) -> None:
        """Time went by: there may be something to say; raises LinkLost when the far end is silent for too long."""


class LinkWriter:
    """See the module.

    Args:
        lost: the error for a link that broke, from the reason and the hint.

    Attributes:
        cut: a packet may have been cut in half: nothing that is sent now would be understood.
        on_sent: each is called once, with the time, when the system has taken over all that the core had to say when it
            was put here.
    """

    def __init__(self, stream: trio.abc.Stream, core: Core, lost: Callable[[str, str | None], TransportError]) -> None:
        self.cut = False
        self.on_sent: list[Callable[[float], None]] = []
        self._stream = stream
        self._core = core
        self._lost = lost
        self._to_write = trio.lowlevel.ParkingLot()
        self._written = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        """The core has something to say."""
        self._to_write.unpark_all()

    async def run(self) -> None:
        """Send what there is, for ever.

        Raises:
            TransportError: the link broke.
        """
        try:
            while True:
                await self.send()
                self._written.unpark_all()
                await self._to_write.park()
        except trio.BrokenResourceError as error:
            # the reader meets the same end, often with the reason, such as a TLS alert
            await trio.sleep(REASON_S)
            raise self._lost(*explain(error)) from error

    async def keep_alive(self) -> None:
        """Let the core say what the time asks for, for ever.

        Raises:
            LinkLost: the far end is silent for too long.
        """
        while True:
            await trio.sleep_until(self._core.next_deadline())
            self._core.tick(trio.current_time())
            self.wake()

    async def send(self) -> None:
        """Send all that there is; while `run` is at work it alone does this.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the link ended.

        Cancellation: `cut` tells whether a packet was cut in half.
        """
        while self._core.has_outgoing:
            # a cancellation that is already here must not meet us with packets in our hands
            await trio.lowlevel.checkpoint_if_cancelled()
            sent, self.on_sent = self.on_sent, []
            self.cut = True
            await self._stream.send_all(self._core.outgoing(trio.current_time()))
            self.cut = False
            now = trio.current_time()
            for tell in sent:
                tell(now)

    async def flush(self) -> None:
        """Let `run` send what there is, for a short time."""
        with trio.move_on_after(FLUSH_S):
            while self._core.has_outgoing or self.cut:
                await self._written.park()
