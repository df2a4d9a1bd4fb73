"""`debugMode`: a log line for each uplink, where it went, and its fate, and for each refusal that holds some.

It lasts for two days, also across restarts.

Source: ThingPark X IoT Flow, HTTP connector, Debug Mode: it ends by itself after two days.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tpxd.connection.in_hand import Taken
from tpxd.connector import Memory
from tpxd.errors import SpoolUnavailable, TransportError
from tpxd.log import visible
from tpxd.spool import Fate, Filtered, Rejected, Settled

logger = logging.getLogger(__name__)

LASTS_S: Final = 2 * 86_400.0
NEVER: Final = float("-inf")
MOST_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class DebugLog:
    """What is logged until `until`, in seconds since the epoch."""

    id: str = ""
    until: float = NEVER

    @property
    def on(self) -> bool:
        """Whether it is still time."""
        return self.until != NEVER and time.time() < self.until

    def batch(self, items: Sequence[Taken], seconds: float) -> None:
        """Log the fate of each uplink of a batch that took so long."""
        for item in items:
            uplink, fate = item.uplink, item.settled
            word, reason = _words(fate)
            reason = item.reason or reason
            text = f"{word}, {reason}" if reason else word
            logger.info(
                "%s: debugMode: seq %d, %s of %s, %d bytes%s: %s; the batch of %d took %.0f ms",
                self.id, uplink.seq, uplink.kind, uplink.lane, len(item.body), _place(item), text, len(items),
                seconds * 1000, extra={"connection": self.id},
            )  # fmt: skip

    def held(self, items: Sequence[Taken], seconds: float, error: TransportError) -> None:
        """Log why those of a batch that are not settled have to wait, and the fate of the others."""
        self.batch([item for item in items if item.settled is not None], seconds)
        waiting = [item for item in items if item.settled is None]
        for oldest in waiting[:1]:
            logger.info(
                "%s: debugMode: held: %s; %d of %d wait, the oldest is seq %d of %s%s",
                self.id, error.message, len(waiting), len(items), oldest.uplink.seq, oldest.uplink.lane,
                _place(oldest), extra={"connection": self.id},
            )  # fmt: skip


def _place(item: Taken) -> str:
    """Where an uplink went, as far as it came; what devices wrote may stand in it."""
    return f" with {visible(item.place[:MOST_SHOWN])}" if item.place else ""


def _words(fate: Settled | None) -> tuple[str, str | None]:
    match fate:
        case None:
            return "unsettled", None
        case Rejected(reason):
            return "rejected", reason
        case Filtered():
            return "filtered", fate.value
        case Fate():
            return fate.value, None


async def open_debug_log(id: str, wanted: bool, memory: Memory) -> DebugLog:
    """The log of a connection whose file has debugMode or has not.

    The moment at which it was switched on is kept, as far as the disk allows, so that a restart does not prolong it;
    switching it off and on does.
    """
    key = f"debugMode/{id}"
    known = memory.recall(key) or ""
    begun = known or str(time.time()) if wanted else ""
    if begun != known:
        try:
            await memory.remember(key, begun)
        except SpoolUnavailable as error:
            text = "%s: when debugMode began or ended cannot be kept, a restart will not know: %s"
            logger.warning(text, id, error, extra={"connection": id})
    if not wanted:
        return DebugLog()
    log = DebugLog(id, float(begun) + LASTS_S)
    if not log.on:
        logger.warning("%s: debugMode ended by itself after two days; set it to false", id, extra={"connection": id})
    return log
