"""Watches how many uplinks come for a connection, and raises the alarms of its file."""

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


class RateWatch:
    """The received uplinks of the last hour, in steps of a minute, and the alarms that this raised.

    A rate is only known once an hour has been watched within the window: after a start, and after the window opened.
    An alarm that holds on is told once per window and hour.
    """

    def __init__(self, id: str, alarms: Sequence[Alarm], received: Callable[[], int], report: Report) -> None:
        self._id = id
        self._alarms = alarms
        self._received = received
        self._report = report
        self._samples: deque[tuple[float, int]] = deque()
        self._told: dict[int, float] = {}

    def look(self, now: datetime) -> None:
        """Take a sample and raise what has to be raised; call it about once a minute."""
        at = now.timestamp()
        self._samples.append((at, self._received()))
        while len(self._samples) > 1 and self._samples[1][0] <= at - HOUR_S:
            self._samples.popleft()
        begun, count = self._samples[0]
        if at - begun < HOUR_S:
            return
        hourly = self._samples[-1][1] - count
        for number, alarm in enumerate(self._alarms):
            opened = alarm.opened_at(now)
            if opened is None or at - opened.timestamp() < HOUR_S:
                self._told.pop(number, None)
            elif hourly < alarm.uplinkRateMinPerHour and at - self._told.get(number, 0.0) >= HOUR_S:
                self._told[number] = at
                evidence = f"{hourly} uplinks in the last hour, {alarm.uplinkRateMinPerHour} expected"
                text = f"{self._id}: {alarm.message} ({evidence})"
                self._report(Event("low_rate", text, self._id, logging.WARNING, more={"uplinksPerHour": hourly}))

    async def watch(self) -> None:
        """Look once a minute, for ever."""
        while True:
            self.look(datetime.now(UTC))
            await trio.sleep(LOOK_S)
