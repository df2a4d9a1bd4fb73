"""Posts reports at a pace to one or several URLs, as an LRC does, and counts what came of them.

Each report goes to the first URL; to the next only when that one did not answer with 2xx ("sequential" routing). A
report that no URL takes is lost: an LRC does not try again. A device's reports are posted one after the other.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
import trio

from tpxd.simulate.post import NotAnswered, Poster, Target, open_poster
from tpxd.simulate.reports import CUSTOMER_ID, Device, Report, iso_time
from tpxd.simulate.token import sign

DEFAULT_AS_ID = f"TWA_{CUSTOMER_ID}.77.AS"
NEWEST_KEPT = 20


class Latencies:
    """How long answers took, in buckets 2 % apart from 10 µs up: as small after a million as after ten."""

    STEP = math.log(1.02)
    LEAST_S = 1e-5

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one answer."""
        self._buckets[int(math.log(max(seconds, self.LEAST_S) / self.LEAST_S) / self.STEP)] += 1

    def quantile(self, share: float) -> float | None:
        """The seconds within which this share (0 to 1) of the answers came; None when there were none."""
        remaining = share * self._buckets.total()
        for bucket in sorted(self._buckets):
            remaining -= self._buckets[bucket]
            if remaining <= 0:
                return self.LEAST_S * math.exp((bucket + 1) * self.STEP)
        return None


@dataclass(slots=True)
class Counters:
    """What the simulated LRC did so far; changes while `drive` runs.

    Attributes:
        posted: reports that were tried, each counted once.
        accepted: reports that a URL answered with 2xx.
        lost: reports that no URL took.
        answers: how often each status, or failure in a few words, was the answer of a URL.
        latency: how long 2xx answers took, from the moment at which the report was due.
        newest: the last reports, newest last: local time, the report, the last answer to it.
    """

    posted: int = 0
    accepted: int = 0
    lost: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    latency: Latencies = field(default_factory=Latencies)
    newest: deque[tuple[str, Report, str]] = field(default_factory=lambda: deque(maxlen=NEWEST_KEPT))

    def to_document(self) -> dict[str, Any]:
        """The counts as JSON shows them, latencies in milliseconds or None."""
        p50_s, p99_s = self.latency.quantile(0.5), self.latency.quantile(0.99)
        return {
            "posted": self.posted,
            "accepted": self.accepted,
            "lost": self.lost,
            "answers": dict(self.answers.most_common()),
            "latencyMs": {
                "p50": None if p50_s is None else round(p50_s * 1000, 2),
                "p99": None if p99_s is None else round(p99_s * 1000, 2),
            },
        }


class Pace:
    """Hands out the moments at which reports are due, to all clients together.

    Time begins at the first turn. A turn that comes late keeps its due moment, so that a slow server shows as latency,
    not as a lower rate.

    Args:
        rate: reports per second; 0 means as fast as they are answered.
        count: how many in all; None means no limit.
        duration_s: for how long; None means until `stop`.
    """

    def __init__(self, rate: float, count: int | None = None, duration_s: float | None = None) -> None:
        self._rate = rate
        self._remaining = math.inf if count is None else count
        self._duration_s = math.inf if duration_s is None else duration_s
        self._begun: float | None = None
        self._turns = 0
        self._stopping = trio.Event()

    def stop(self) -> None:
        """Hand out no more turns."""
        self._stopping.set()

    async def over(self) -> None:
        """Wait until the duration has passed or `stop` was called, also when the count is used up long before."""
        begun = trio.current_time() if self._begun is None else self._begun
        with trio.move_on_at(begun + self._duration_s):
            await self._stopping.wait()

    async def turn(self) -> float | None:
        """Wait for the next turn and return the moment at which it was due; None when it is over."""
        now = trio.current_time()
        if self._begun is None:
            self._begun = now
        due = self._begun + self._turns / self._rate if self._rate else now
        end = self._begun + self._duration_s
        if self._remaining < 1 or due >= end or now >= end or self._stopping.is_set():
            return None
        self._remaining -= 1
        self._turns += 1
        if due <= now:
            return due
        with trio.move_on_at(due):
            await self._stopping.wait()
            return None
        # Waking takes up to a millisecond, which is not the server's.
        return trio.current_time()


@dataclass(frozen=True, slots=True)
class Signature:
    """With what reports are signed; the key is never shown."""

    as_id: str
    key: str = field(repr=False)


async def drive(
    targets: Sequence[Target],
    pace: Pace,
    counters: Counters,
    *,
    devices: Sequence[Device],
    clients: int = 4,
    signature: Signature | None = None,
    mixed: bool = False,
    timeout_s: float = 10.0,
) -> None:
    """Post reports until the pace ends; what is under way then is answered first.

    Args:
        targets: tried in this order for each report.
        devices: take turns in reporting.
        clients: connections per target; no more than devices, since a device's reports keep their order.
        signature: None sends no AS_ID, Time and Token.
        mixed: join requests, sent downlinks, locations and notifications too, a fifth of all.
        timeout_s: how long a target may take for an answer.

    Cancellation: reports under way may or may not have arrived, and are not counted.
    """
    clients = min(clients, len(devices))

    async def report(number: int) -> None:
        own = devices[number::clients]
        async with open_route(targets, counters, signature, number=number, timeout_s=timeout_s) as route:
            turns = 0
            while (due := await pace.turn()) is not None:
                device = own[turns % len(own)]
                now = datetime.now(UTC).astimezone()
                turns += 1
                await route.post(device.any_report(now) if mixed else device.uplink(now), due)

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(report, number)


class Route:
    """Posts one report after the other; made by `open_route`."""

    def __init__(self, posters: Sequence[Poster], counters: Counters, signature: Signature | None, number: int) -> None:
        self._posters = posters
        self._counters = counters
        self._signature = signature
        self._number = number
        self._sequence = 0

    async def post(self, report: Report, due: float) -> None:
        """Post a report to the first URL that takes it, and count what came of it.

        Args:
            due: on trio's clock, from when the answer's latency counts.

        Cancellation: the report may or may not have arrived, and is not counted.
        """
        counters = self._counters
        self._sequence += 1
        body = orjson.dumps({report.kind: report.fields})
        outcome = ""
        for poster in self._posters:
            # Signed for each URL anew: the Time must be fresh, also after another URL let it wait.
            query = request_query(report, f"{DEFAULT_AS_ID}-{self._number}-{self._sequence}", self._signature)
            try:
                status = await poster.post(query, body)
            except NotAnswered as error:
                outcome = str(error)
            else:
                outcome = str(status)
            counters.answers[outcome] += 1
            if outcome.startswith("2"):
                counters.accepted += 1
                counters.latency.add(trio.current_time() - due)
                break
        else:
            counters.lost += 1
        counters.posted += 1
        counters.newest.append((datetime.now(UTC).astimezone().strftime("%H:%M:%S"), report, outcome))


@asynccontextmanager
async def open_route(
    targets: Sequence[Target],
    counters: Counters,
    signature: Signature | None,
    *,
    number: int = 0,
    timeout_s: float = 10.0,
) -> AsyncIterator[Route]:
    """A `Route` with connections of its own, for one task; opens nothing yet, so it cannot fail.

    Args:
        number: tells it from others in LrnInfos.
    """
    async with AsyncExitStack() as stack:
        posters = [await stack.enter_async_context(open_poster(target, timeout_s)) for target in targets]
        yield Route(posters, counters, signature, number)


def request_query(report: Report, lrn_infos: str, signature: Signature | None) -> str:
    """The query string of the POST, percent-encoded, with a Token when there is something to sign with.

    Source: LRC tunnel interface, "Request".
    """
    pairs = [
        ("LrnDevEui", report.fields["DevEUI"]),
        ("LrnFPort", str(_lrn_f_port(report))),
        ("LrnInfos", lrn_infos),
    ]
    if signature is not None:
        pairs += [("AS_ID", signature.as_id), ("Time", iso_time(datetime.now(UTC).astimezone()))]
        pairs += [("Token", sign(report.kind, report.fields, pairs, signature.key))]
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)


def _lrn_f_port(report: Report) -> int:
    """The report's FPort; a join request, which has none, is sent as 1, everything else without one as 0."""
    f_port: int = report.fields.get("FPort", 1 if "rawJoinRequest" in report.fields else 0)
    return f_port
