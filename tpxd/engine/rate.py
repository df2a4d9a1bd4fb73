"""Watches how many uplinks come for a connection, and raises the alarms of its file.

Where a connection picks its uplinks, nobody knows of those that wait whether they are for it. So they count at the end
of an hour and not at its begin: the rate is never taken for lower than it is.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import trio

from tpxd.alarms import Alarm
from tpxd.events import Event, Report

HOUR_S: Final = 3600.0
LOOK_S: Final = 60.0


Came = Callable[[], tuple[int, int]]
"""How many uplinks have come for a connection since it exists, at least and at most."""


class RateWatch:
    """The uplinks of the last hour, in steps of a minute, and the alarms that this raised.

    A rate is only known once an hour has been watched within the window: after a start, and after the window opened.
    An alarm that holds on is told once per window and hour.
    """

    def __init__(self, id: str, alarms: Sequence[Alarm], came: Came, report: Report) -> None:
        self._id = id
        self._alarms = alarms
        self._came = came
        self._report = report
        self._samples: deque[tuple[float, int]] = deque()
        self._told: dict[int, float] = {}

    def look(self, now: datetime, at: float) -> None:
        """Take a sample and raise what has to be raised; call it about once a minute.

        Args:
            at: seconds on a clock that is never set: one that is, such as after a boot without a battery, would make
                an hour of evidence out of a minute.
        """
        at_least, at_most = self._came()
        self._samples.append((at, at_least))
        while len(self._samples) > 1 and self._samples[1][0] <= at - HOUR_S:
            self._samples.popleft()
        begun, count = self._samples[0]
        if at - begun < HOUR_S:
            return
        hourly = at_most - count
        for number, alarm in enumerate(self._alarms):
            opened = alarm.opened_at(now)
            if opened is None or now.timestamp() - opened.timestamp() < HOUR_S:
                self._told.pop(number, None)
            elif hourly < alarm.uplinkRateMinPerHour and at - self._told.get(number, float("-inf")) >= HOUR_S:
                self._told[number] = at
                evidence = f"{hourly} uplinks in the last hour, {alarm.uplinkRateMinPerHour} expected"
                text = f"{self._id}: {alarm.message} ({evidence})"
                self._report(Event("low_rate", text, self._id, logging.WARNING, more={"uplinksPerHour": hourly}))

    async def watch(self) -> None:
        """Look once a minute, for ever."""
        while True:
            self.look(datetime.now(UTC), trio.current_time())
            await trio.sleep(LOOK_S)
