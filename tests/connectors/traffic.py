"""What goes over a connection in tests: uplinks and what becomes of them, and downlinks."""

from __future__ import annotations

from typing import Any

import orjson
import trio

from tpxd.connector import Incoming, Outgoing, Transport
from tpxd.lorawan.uplink import Uplink

LANES = ("70B3D5E75E00A1C4", "70B3D5E75E00A1C5", "70B3D5E75E00A1C6")


class Receipts:
    """Keeps what was reported, in order; see `connector.Receipts`."""

    def __init__(self) -> None:
        self.delivered_: list[int] = []
        self.rejected_: dict[int, str] = {}
        self.filtered_: dict[int, str] = {}
        self.hints: dict[int, str | None] = {}

    def delivered(self, index: int) -> None:
        """See `connector.Receipts`."""
        self._assert_first(index)
        self.delivered_.append(index)

    def rejected(self, index: int, reason: str, hint: str | None = None) -> None:
        """See `connector.Receipts`."""
        self._assert_first(index)
        self.rejected_[index] = reason
        self.hints[index] = hint

    def filtered(self, index: int, reason: str) -> None:
        """See `connector.Receipts`."""
        self._assert_first(index)
        self.filtered_[index] = reason

    def _assert_first(self, index: int) -> None:
        assert index not in {*self.delivered_, *self.rejected_, *self.filtered_}


def outgoing(seq: int, lane: str = LANES[0], **fields: Any) -> Outgoing:
    """One uplink as the engine hands it over; its body names it."""
    document = {"DevEUI_uplink": {"DevEUI": lane, "FCntUp": seq, "FPort": 2, **fields}}
    uplink = Uplink(seq, 1_700_000_000_000, "DevEUI_uplink", lane, "", orjson.dumps(document))
    return Outgoing(uplink, b'{"n":%d}' % seq)


def batch_of(size: int, lanes: int = len(LANES)) -> list[Outgoing]:
    """Uplinks of several devices, taking turns."""
    return [outgoing(seq, LANES[seq % lanes]) for seq in range(size)]


async def take(transport: Transport, count: int) -> list[Incoming]:
    """Take and acknowledge so many downlinks, and find that there are no more."""
    taken = []
    with trio.fail_after(10):
        for _ in range(count):
            taken.append(await transport.receive())
            await transport.acknowledge(taken[-1])
    with trio.move_on_after(0.3) as waiting:
        await transport.receive()
    assert waiting.cancelled_caught
    return taken
