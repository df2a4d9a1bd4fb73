"""Workers that are no processes: the scripts run here and now, and what was run is remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import orjson
import trio

from tpxd.codecs.engine import Call, Limits, Outcome, run_call
from tpxd.codecs.workers import ScriptWorkers
from tpxd.lorawan.uplink import Uplink

LIMITS = Limits(cpu_s=0.2)
LANE = "70B3D5E75E00A1C4"


class HereAndNow:
    """Stands for `ScriptWorkers`.

    Attributes:
        ran: operation and lane of each call.
        slow_s: how long a device's calls take, by its lane.
    """

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.slow_s: dict[str, float] = {}

    async def run(
        self,
        calls: Sequence[tuple[str, str, Call]],
        ended: Callable[[int, Outcome], None] = lambda index, outcome: None,
    ) -> list[Outcome]:
        """See `ScriptWorkers.run`."""
        outcomes = []
        for index, (_, lane, call) in enumerate(calls):
            await trio.sleep(self.slow_s.get(lane, 0))
            self.ran.append((call.operation, lane))
            outcomes.append(run_call(call, LIMITS))
            ended(index, outcomes[-1])
        return outcomes

    @property
    def as_workers(self) -> ScriptWorkers:
        """This, where workers are wanted."""
        return cast("ScriptWorkers", self)


def uplink_with(seq: int = 1, lane: str = LANE, **fields: Any) -> Uplink:
    """A stored uplink with a payload."""
    document = {"DevEUI_uplink": {"DevEUI": lane, "FPort": 5, "payload_hex": "00d7", **fields}}
    return Uplink(seq, 1_700_000_000_000, "DevEUI_uplink", lane, "", orjson.dumps(document))
