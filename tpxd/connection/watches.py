"""What is watched while a connection lives: when its certificates end, and whether its uplinks come often enough.

The earliest end stands in its health, with warnings while there is time to renew:

from 30 days before      one warning
from 7 days before       a warning each day
from the end on          an error each day
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import trio

from tpxd.config.alarms import Alarm
from tpxd.connection.health import Health
from tpxd.events import Event, Tell, utc_text
from tpxd.wire.tls import certificate_expires

logger = logging.getLogger(__name__)

SOON: Final = timedelta(days=30)
URGENT: Final = timedelta(days=7)
DAY: Final = timedelta(days=1)
EXPIRY_LOOK_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class CertificateEnd:
    """The earliest end among a connection's certificates, and the key of the file that holds it."""

    field: str
    at: datetime


def earliest(pems: Mapping[str, str]) -> CertificateEnd | None:
    """Find the certificate that ends first; a text that cannot be read tells nothing about an end."""
    found = []
    for key, pem in pems.items():
        try:
            found.append(CertificateEnd(key, certificate_expires(pem)))
        except ValueError as error:
            logger.warning("the end of %s is not watched: %s", key, error)
    return min(found, key=lambda end: end.at, default=None)


@dataclass(slots=True)
class CertificateWatch:
    """What was told about an id's certificates, whichever version of its file runs; another end is told anew."""

    _warned: dict[tuple[CertificateEnd, timedelta], datetime] = field(default_factory=dict)

    def look(self, id: str, end: CertificateEnd, now: datetime) -> Event | None:
        """What there is to tell now, at most the same once a day."""
        left = end.at - now
        mark = next((mark for mark in (timedelta(0), URGENT, SOON) if left <= mark), None)
        if mark is None:
            return None
        last = self._warned.get((end, mark))
        if last is not None and (mark == SOON or now - last < DAY):
            return None
        self._warned = {key: at for key, at in self._warned.items() if key[0] == end} | {(end, mark): now}
        return _event(id, end, left, now)

    async def watch(self, id: str, pems: Mapping[str, str], health: Health) -> None:
        """Show the earliest end in the health, and tell as it comes near, until cancelled.

        Args:
            pems: see `ConnectorConfig.pems`.
        """
        # the library is imported at its first use, which takes longer than an uplink may wait
        end = await trio.to_thread.run_sync(earliest, pems)
        health.certificate_expires = None if end is None else end.at
        if end is not None:
            await self.follow(id, end, health)

    async def follow(self, id: str, end: CertificateEnd, health: Health) -> None:
        """Look each hour, for ever."""
        while True:
            event = self.look(id, end, datetime.fromtimestamp(health.wall(), UTC))
            if event is not None:
                health.tell(event)
            await trio.sleep(EXPIRY_LOOK_S)


def _event(id: str, end: CertificateEnd, left: timedelta, now: datetime) -> Event:
    ends = f"{end.at:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        text, level = f"{id}: {end.field} has expired on {ends}: renew it", logging.ERROR
    else:
        remaining = f"{left.days} days" if left >= 2 * DAY else f"{left / timedelta(hours=1):.0f} hours"
        text, level = f"{id}: {end.field} expires in {remaining}, on {ends}: renew it", logging.WARNING
    more = {"field": end.field, "certificateExpires": utc_text(end.at.timestamp())}
    return Event("certificate", text, id, level, at=now.timestamp(), more=more)


HOUR_S: Final = 3600.0
LOOK_S: Final = 60.0


Arrived = Callable[[], tuple[int, int]]
"""How many uplinks have come for a connection since it exists, at least and at most."""


class RateWatch:
    """The uplinks of the last hour, in steps of a minute, and the alarms that this raised.

    A rate is only known once an hour has been watched within the window: after a start, and after the window opened.
    An alarm that holds on is told once per window and hour.
    """

    def __init__(self, id: str, alarms: Sequence[Alarm], arrived: Arrived, tell: Tell) -> None:
        self._id = id
        self._alarms = alarms
        self._arrived = arrived
        self._tell = tell
        self._samples: deque[tuple[float, int]] = deque()
        self._raised: dict[int, float] = {}

    def look(self, now: datetime, at: float) -> None:
        """Take a sample and raise what has to be raised; call it about once a minute.

        Args:
            at: seconds on a clock that is never set: one that is, such as after a boot without a battery, would make
                an hour of evidence out of a minute.
        """
        at_least, at_most = self._arrived()
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
                self._raised.pop(number, None)
            elif hourly < alarm.uplinkRateMinPerHour and at - self._raised.get(number, float("-inf")) >= HOUR_S:
                self._raised[number] = at
                evidence = f"{hourly} uplinks in the last hour, {alarm.uplinkRateMinPerHour} expected"
                text = f"{self._id}: {alarm.message} ({evidence})"
                self._tell(Event("low_rate", text, self._id, logging.WARNING, more={"uplinksPerHour": hourly}))

    async def watch(self) -> None:
        """Look once a minute, for ever."""
        while True:
            self.look(datetime.now(UTC), trio.current_time())
            await trio.sleep(LOOK_S)
