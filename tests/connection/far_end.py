"""The downlink side of a far end that a test scripts, and what came in from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from tests.downlinks.downlink_doubles import NOW_S, Disk, body
from tpxd.connector import Incoming, Outgoing, Receipts
from tpxd.downlinks.inbox import Inbox, receive_downlinks
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.errors import LinkLost

TOPIC = "plant/70B3D5E75E00A1C4/downlink"


@dataclass
class FarEnd:
    """A link over which messages come.

    Attributes:
        messages: what is still to come; then the link is lost, or stays quiet.
        acknowledged: bodies, in order, each with what was on disk at that moment.
    """

    disk: Disk
    messages: deque[Incoming] = field(default_factory=deque)
    lost: bool = False
    received: int = 0
    acknowledged: list[tuple[bytes, int]] = field(default_factory=list)

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """Never used."""

    async def receive(self) -> Incoming:
        """See `connector.Transport`."""
        await trio.lowlevel.checkpoint()
        if not self.messages:
            if self.lost:
                raise LinkLost("the far end is gone")
            await trio.sleep_forever()
        self.received += 1
        return self.messages.popleft()

    async def acknowledge(self, incoming: Incoming) -> None:
        """See `connector.Transport`."""
        await trio.lowlevel.checkpoint()
        self.acknowledged.append((incoming.body, len(self.disk.rows)))

    @property
    def bodies(self) -> list[bytes]:
        """What was acknowledged."""
        return [acknowledged for acknowledged, _ in self.acknowledged]


def message(content: bytes, **marks: bool) -> Incoming:
    return Incoming(TOPIC, content, **marks)


def numbered(count: int) -> list[Incoming]:
    return [message(body(payload_hex=f"{n:04x}")) for n in range(count)]


def payloads(downlinks: DownlinkQueue) -> list[str]:
    """What waits, in order."""
    return [stored.downlink.payload_hex for stored in downlinks.book.open if stored.downlink is not None]


async def over(link: FarEnd, downlinks: DownlinkQueue, seconds: float = 60, default_port: int | None = None) -> None:
    """Let messages come over one link until it is lost, or for a while."""
    inbox = Inbox("plant", downlinks, default_port, wall=lambda: NOW_S)
    with trio.move_on_after(seconds):
        try:
            await receive_downlinks(link, inbox)
        except* LinkLost:
            pass
