"""What a connection leaves at a broker beyond its links: subscriptions of a session, bindings of a queue.

Neither MQTT nor AMQP can list them, so whoever wants to remove what an earlier version of a file asked for must have
remembered it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from tpxd.connector import Context
from tpxd.errors import SpoolUnavailable

BROKERS: Final = 8
"""So many are remembered: a file that is set to another broker and back finds what it left there."""


class LeftAtBroker:
    """What one connection left at one broker, as JSON values, kept durably.

    Args:
        kind: what it is, in the plural, such as "bindings".
        broker: names the broker, and whatever else decides where they are.
    """

    def __init__(self, context: Context, kind: str, broker: str) -> None:
        self._context = context
        self._kind = kind
        self._broker = broker
        self._key = f"connector/{context.connection_id}/{kind}"

    def recall(self) -> list[Any]:
        """What was remembered last for this broker."""
        found: list[Any] = self._all().get(self._broker, [])
        return found

    async def remember(self, items: Sequence[Any]) -> None:
        """Keep these instead, as far as the disk allows."""
        before = self._all()
        after = {broker: kept for broker, kept in before.items() if broker != self._broker}
        if items:
            after = dict([*after.items()][1 - BROKERS :]) | {self._broker: list(items)}
        text = orjson.dumps(after, default=list)
        if text == orjson.dumps(before):
            return
        try:
            await self._context.memory.remember(self._key, text.decode())
        except SpoolUnavailable as error:
            self._context.log.warning(
                "%s cannot be remembered, so stale ones may stay at the broker: %s", self._kind, error
            )

    def _all(self) -> dict[str, list[Any]]:
        document: dict[str, list[Any]] = orjson.loads(self._context.memory.recall(self._key) or "{}")
        return document
