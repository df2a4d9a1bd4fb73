"""The LRC's side of downlinks: takes or refuses them, queues them by device, puts them on air, counts. Pure.

Each device gets one of its downlinks a second, oldest first; each then makes a DevEUI_downlink_Sent report.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl

from tpxd.simulate.downlink_rules import ALREADY_USED, NOT_ENCRYPTED, QUEUED, Downlink, Refusal, Rules, kind_of
from tpxd.simulate.reports import Report

AIR_S = 1.0
MAX_QUEUED = 1_000
"""Downlinks of one device; more are taken, and reported as not transmitted, as an LRC does, so many at a time."""

CORRELATIONS_KEPT = 100_000
NEWEST_KEPT = 20

QUEUE_FULL = "E1"
TOO_OLD = "E3"
"""Delivery failed causes."""


class Answering(StrEnum):
    """How downlinks that keep the rules are answered."""

    OK = "ok"
    REFUSE = "refuse"
    SLOW = "slow"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets; the text stands in the answer's HTML."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """One request as it is shown: local time, what was asked, right or not, and the answer."""

    at: str
    dev_eui: str
    f_port: str
    payload_hex: str
    answer: Answer


@dataclass(slots=True)
class DownlinkCounters:
    """What came of the downlinks so far; changes while the LRC runs.

    Attributes:
        received: requests, whatever became of them: accepted and refused.
        accepted: queued for their device.
        refused: the others, by what was said.
        doubled: accepted although an equal CorrelationID of the same device was accepted before.
        unanswered: accepted, and the connection closed without an answer: in doubt for whoever sent them.
        flushed: gave way to a later downlink with FlushDownlinkQueue.
        transmitted: went on air; `not_transmitted` by the code of the cause.
        newest: the last ones, newest last.
    """

    received: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    doubled: int = 0
    unanswered: int = 0
    flushed: int = 0
    transmitted: int = 0
    not_transmitted: Counter[str] = field(default_factory=Counter)
    newest: deque[Heard] = field(default_factory=lambda: deque(maxlen=NEWEST_KEPT))

    def to_document(self) -> dict[str, Any]:
        """The counts as JSON shows them."""
        return {
            "received": self.received,
            "accepted": self.accepted,
            "refused": dict(self.refused.most_common()),
            "doubled": self.doubled,
            "unanswered": self.unanswered,
            "flushed": self.flushed,
            "transmitted": self.transmitted,
            "notTransmitted": dict(self.not_transmitted.most_common()),
        }


@dataclass(slots=True)
class _Queue:
    """A device's downlinks, oldest first, and when the next one may go on air."""

    downlinks: deque[Downlink] = field(default_factory=deque)
    next_s: float = 0.0


class DownlinkLrc:
    """See the module.

    Attributes:
        answering: may be changed at any time.
    """

    def __init__(self, rules: Rules, counters: DownlinkCounters, answering: Answering = Answering.OK) -> None:
        self.counters = counters
        self.answering = answering
        self._rules = rules
        self._queues: dict[str, _Queue] = {}
        self._full: deque[Downlink] = deque(maxlen=MAX_QUEUED)
        self._known: OrderedDict[tuple[str, int], None] = OrderedDict()

    def take(self, query: str, now_s: float) -> Answer:
        """Decide about a request, and queue its downlink if it keeps the rules.

        Args:
            query: the query string, percent-encoded as it came.
            now_s: seconds since the epoch.
        """
        counters = self.counters
        counters.received += 1
        try:
            downlink = self._rules.read(query, now_s)
            if self.answering is Answering.REFUSE:
                raise _refusal_at_will(downlink)
        except Refusal as refusal:
            counters.refused[kind_of(refusal.cause)] += 1
            answer = Answer(refusal.status, refusal.cause)
        else:
            self._queue(downlink)
            counters.accepted += 1
            counters.unanswered += self.answering is Answering.DROP
            answer = Answer(200, QUEUED)
        named = dict(parse_qsl(query))
        at = datetime.fromtimestamp(now_s, UTC).astimezone().strftime("%H:%M:%S")
        dev_eui, f_port, payload_hex = (named.get(name, "") for name in ("DevEUI", "FPort", "Payload"))
        counters.newest.append(Heard(at, dev_eui, f_port, payload_hex, answer))
        return answer

    def on_air(self, now_s: float) -> list[Report]:
        """What is reported at this moment: for each device whose turn it is, what became of its oldest downlink."""
        now = datetime.fromtimestamp(now_s, UTC).astimezone()
        reports = []
        while self._full:
            reports.append(self._report(self._full.popleft(), now, QUEUE_FULL))
        for dev_eui, queue in list(self._queues.items()):
            while queue.downlinks and _is_over(queue.downlinks[0], now_s):
                reports.append(self._report(queue.downlinks.popleft(), now, TOO_OLD))
            if queue.downlinks and queue.next_s <= now_s:
                reports.append(self._report(queue.downlinks.popleft(), now, ""))
                queue.next_s = now_s + AIR_S
            if not queue.downlinks and queue.next_s <= now_s:
                del self._queues[dev_eui]
        return reports

    def _queue(self, downlink: Downlink) -> None:
        device = downlink.device
        queue = self._queues.setdefault(device.dev_eui, _Queue())
        if downlink.flush:
            self.counters.flushed += len(queue.downlinks)
            queue.downlinks.clear()
        if downlink.f_cnt_dn is not None:
            device.f_cnt_dn = downlink.f_cnt_dn + 1
        if len(queue.downlinks) < MAX_QUEUED:
            queue.downlinks.append(downlink)
        else:
            self.counters.not_transmitted[QUEUE_FULL] += 1
            self._full.append(downlink)
        if downlink.correlation_id is not None:
            self._remember((device.dev_eui, int(downlink.correlation_id, 16)))

    def _remember(self, correlation: tuple[str, int]) -> None:
        self.counters.doubled += correlation in self._known
        self._known[correlation] = None
        self._known.move_to_end(correlation)
        if len(self._known) > CORRELATIONS_KEPT:
            self._known.popitem(last=False)

    def _report(self, downlink: Downlink, now: datetime, failure: str) -> Report:
        if not failure:
            self.counters.transmitted += 1
        elif failure != QUEUE_FULL:  # that was counted when it came
            self.counters.not_transmitted[failure] += 1
        encrypted = downlink.f_cnt_dn is not None
        return downlink.device.any_downlink_sent(
            now, downlink.f_port, downlink.correlation_id, encrypted=encrypted, failure=failure
        )


def _refusal_at_will(downlink: Downlink) -> Refusal:
    """What an LRC says that has no AppSKey of the device, or where another AS was quicker."""
    if downlink.f_cnt_dn is None:
        return Refusal(NOT_ENCRYPTED)
    return Refusal(f"{ALREADY_USED}{downlink.f_cnt_dn + 1}")


def _is_over(downlink: Downlink, now_s: float) -> bool:
    return downlink.valid_until_s is not None and downlink.valid_until_s <= now_s
