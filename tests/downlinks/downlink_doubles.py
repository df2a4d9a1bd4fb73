"""An LRC and a disk in memory, and the engine of downlinks between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx
import orjson
import trio

from tests.intake.doubles import MemoryStore
from tpxd.config.settings import LrcSettings
from tpxd.downlinks.book import DownlinkBook
from tpxd.downlinks.customers import Customers
from tpxd.downlinks.lrc_links import ANSWER_S
from tpxd.downlinks.lrc_sender import LrcSender
from tpxd.downlinks.queue import DownlinkQueue, open_downlinks
from tpxd.errors import SpoolUnavailable
from tpxd.events import EventLog
from tpxd.lorawan.downlink_request import Signing
from tpxd.lorawan.downlinks import Downlink, DownlinkError, parse_downlink
from tpxd.spool import DownlinkState, DownlinkStore, LoadedDownlinks, NewReport, StoredDownlink
from tpxd.spool.downlinks import downlink_from_row

DEV_EUI = "70B3D5E75E00A1C4"
AS_KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
NOW_S = 1_795_000_000.0
URL = "http://lrc.example/thingpark/lrc/rest/downlink"

Asked = dict[str, str]


def body(**fields: Any) -> bytes:
    """A downlink as a far end sends it; None leaves a field out."""
    whole = {"DevEUI": DEV_EUI, "FPort": 5, "payload_hex": "02ff"} | fields
    return orjson.dumps({"DevEUI_downlink": {name: value for name, value in whole.items() if value is not None}})


def right(now_s: float = NOW_S, **fields: Any) -> Downlink:
    """A right downlink."""
    downlink = parse_downlink(body(**fields), default_port=None, now_s=now_s)
    assert isinstance(downlink, Downlink)
    return downlink


def wrong(dev_eui: str = DEV_EUI, f_port: int | None = None, correlation_id: str | None = None) -> DownlinkError:
    """A downlink without an FPort, as far as it could be read."""
    error = DownlinkError("FPort", "is missing")
    error.dev_eui, error.f_port, error.correlation_id = dev_eui, f_port, correlation_id
    return error


def make_book(
    *downlinks: StoredDownlink,
    forgotten: Callable[[int], None] = lambda id: None,
    wall: Callable[[], float] = lambda: NOW_S,
    **counts: dict[str, int],
) -> DownlinkBook:
    """A book that begins with these downlinks, and these counts by connection, and no disk behind it."""
    loaded = LoadedDownlinks(list(downlinks), counts, 0)
    return DownlinkBook(loaded, lambda downlink, counts: None, forgotten, Customers(), wall)


def queued() -> httpx.Response:
    """The documented answer."""
    return httpx.Response(200, text="<html><body>Request queued by LRC</body></html>")


def refused(cause: str = "Downlink counter value already used. Expected=319") -> httpx.Response:
    """A refusal of the LRC."""
    return httpx.Response(350, text=f"<html><body>{cause}</body></html>")


@dataclass
class Lrc(httpx.AsyncBaseTransport):
    """Answers as it is told.

    Attributes:
        answer: asked for each request that reaches it; None stays silent, which httpx gives up after a while.
        there: whether it can be reached; when not, nobody knows that somebody tried.
        takes_s: how long an answer takes.
        told: the parameters of each request that reached it, and `tried` when anybody tried, on trio's clock.
        most: how many requests it had at once.
    """

    answer: Callable[[Asked], httpx.Response | httpx.HTTPError | None] = lambda asked: queued()
    there: bool = True
    takes_s: float = 0.0
    told: list[Asked] = field(default_factory=list)
    tried: list[float] = field(default_factory=list)
    most: int = 0
    _under_way: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`."""
        self.tried.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if not self.there:
            raise httpx.ConnectError("connection refused")
        asked = dict(parse_qsl(request.url.query.decode(), keep_blank_values=True))
        self.told.append(asked)
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            await trio.sleep(self.takes_s)
            answer = self.answer(asked)
            if answer is None:
                await trio.sleep(ANSWER_S)
                answer = httpx.ReadTimeout("")
        finally:
            self._under_way -= 1
        if isinstance(answer, httpx.HTTPError):
            raise answer
        return answer

    def payloads(self, dev_eui: str = DEV_EUI) -> list[str]:
        """What one device would get, in order."""
        return [asked["Payload"] for asked in self.told if asked["DevEUI"] == dev_eui]


@dataclass
class Disk(DownlinkStore):
    """Downlinks in memory, as rows that come back as SQLite gives them.

    Attributes:
        reports: what was put into the journal.
        failing: it refuses everything.
        takes_s: how long a write takes.
        writes: how many there were.
    """

    rows: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    counts: dict[str, Mapping[str, int]] = field(default_factory=dict)
    reports: list[NewReport] = field(default_factory=list)
    failing: bool = False
    takes_s: float = 0.0
    writes: int = 0

    async def load(self) -> LoadedDownlinks:
        """See `spool.DownlinkStore`."""
        await trio.lowlevel.checkpoint()
        found = [downlink_from_row(row) for _, row in sorted(self.rows.items())]
        downlinks = [downlink for downlink in found if downlink is not None]
        return LoadedDownlinks(
            downlinks, {id: dict(one) for id, one in self.counts.items()}, len(found) - len(downlinks)
        )

    async def write(
        self,
        downlinks: Sequence[StoredDownlink],
        forgotten: Sequence[int],
        counts: Mapping[str, Mapping[str, int]],
        reports: Sequence[NewReport] = (),
    ) -> None:
        """See `spool.DownlinkStore`."""
        rows = {downlink.id: read_back(downlink.to_row()) for downlink in downlinks}
        await trio.sleep(self.takes_s)
        if self.refuses(reports):
            raise SpoolUnavailable("the disk is full")
        self.writes += 1
        self.rows |= rows
        for id in forgotten:
            self.rows.pop(id, None)
        self.counts |= counts
        self.reports += reports
        self.written()

    def refuses(self, reports: Sequence[NewReport]) -> bool:
        """Whether a write with these reports fails."""
        return self.failing

    def written(self) -> None:
        """Called after each write that succeeded."""

    def as_now(self) -> Disk:
        """What a crash leaves."""
        return Disk(dict(self.rows), dict(self.counts), list(self.reports))

    def state(self, id: int) -> DownlinkState:
        """Where a downlink is, as far as the disk knows."""
        downlink = downlink_from_row(self.rows[id])
        assert downlink is not None
        return downlink.state

    def verdicts(self) -> list[dict[str, Any]]:
        """The fields of each DevEUI_downlink_Rejected that was published."""
        return [orjson.loads(report.body)["DevEUI_downlink_Rejected"] for report in self.reports]


def read_back(row: Sequence[Any]) -> tuple[Any, ...]:
    """A row as SQLite gives it back: texts are bytes."""
    return tuple(value.encode() if isinstance(value, str) else value for value in row)


def opened(
    disk: Disk, log: EventLog | None = None, *, refusal: str | None = None
) -> AbstractAsyncContextManager[DownlinkQueue]:
    """Downlinks alone, kept on this disk."""
    return open_downlinks(disk, MemoryStore().append, (log or EventLog()).tell, refusal=refusal, wall=wall)


@dataclass
class Engine:
    """Downlinks and their sender at work."""

    downlinks: DownlinkQueue
    sender: LrcSender
    disk: Disk
    lrc: Lrc
    log: EventLog

    async def send(self, connection: str = "plant", **fields: Any) -> StoredDownlink:
        """A right downlink comes in and is on disk."""
        downlink = self.downlinks.enter(connection, right(wall(), **fields))
        await self.downlinks.saved(downlink)
        return downlink

    def events(self) -> list[str]:
        """What happened, oldest first."""
        return [event.message for event in self.log.newest()]

    async def settled(self) -> None:
        """Wait until no downlink waits any more, and the disk knows it; a week at most."""
        for _ in range(7 * 24 * 60):
            await trio.sleep(60)
            if not self.downlinks.book.open_count:
                return
        raise AssertionError(f"{self.downlinks.book.open_count} downlinks still wait")


def wall() -> float:
    """Seconds since the epoch, moved by trio's clock."""
    return NOW_S + trio.current_time()


@asynccontextmanager
async def engine(
    disk: Disk | None = None,
    lrc: Lrc | None = None,
    *,
    refusal: str | None = None,
    signing: Signing | None = None,
    signing_of: Callable[[str], Signing] | None = None,
    now: Callable[[], float | None] = wall,
    **settings: Any,
) -> AsyncIterator[Engine]:
    """An engine at work while the block lasts; then it is stopped as the daemon stops it."""
    disk, lrc, log = disk or Disk(), lrc or Lrc(), EventLog()
    lrc_settings = LrcSettings.model_validate({"downlink_url": URL, "downlink_rate_limiter": None} | settings)
    async with open_downlinks(disk, MemoryStore().append, log.tell, refusal=refusal, wall=wall) as downlinks:
        sender = LrcSender(
            lrc_settings,
            downlinks,
            log.tell,
            signing=signing_of or (lambda id: signing or Signing()),
            now=now,
            wall=wall,
            grace_s=5.0,
            transport=lrc,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.run)
            yield Engine(downlinks, sender, disk, lrc, log)
            with trio.fail_after(3_600):
                await sender.stop()
