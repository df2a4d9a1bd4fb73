"""Downlinks as a broker keeps them, for the contract suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

SendDownlink = Callable[[int, bytes, bool], Awaitable[None]]
"""Sends one downlink under this number; True where it was sent before."""


class Outbox:
    """The downlinks that a broker keeps until they are acknowledged, over as many links as that takes.

    Attributes:
        window: so many may be under way at once.
        acknowledged: in order.
        routed: whether the broker would keep a downlink for us now, also while we are away.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.acknowledged: list[bytes] = []
        self.routed = False
        self._kept: dict[bytes, bool] = {}
        self._under_way: dict[int, bytes] = {}
        self._last = 0
        self._send: SendDownlink | None = None

    async def put(self, *bodies: bytes) -> None:
        """Keep these, and send them if somebody listens."""
        self._kept |= dict.fromkeys(bodies, False)
        await self._pour()

    async def listen(self, send: SendDownlink) -> None:
        """Somebody listens: everything that was not acknowledged is sent, again or for the first time."""
        self._send, self._under_way = send, {}
        await self._pour()

    async def acknowledge(self, number: int) -> None:
        """The downlink of this number need not be kept any longer."""
        body = self._under_way.pop(number)
        del self._kept[body]
        self.acknowledged.append(body)
        await self._pour()

    async def _pour(self) -> None:
        while self._send is not None and len(self._under_way) < self.window:
            body = next((body for body in self._kept if body not in self._under_way.values()), None)
            if body is None:
                return
            self._last += 1
            self._under_way[self._last] = body
            try:
                await self._send(self._last, body, self._kept[body])
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._send = None
            else:
                self._kept[body] = True
