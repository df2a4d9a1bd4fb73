"""Verdicts go back once, whenever the daemon crashes or stops, and to the connection of their downlink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from tests.downlinks.downlink_doubles import DEV_EUI, Disk, Lrc, engine, opened, refused, right, wrong
from tpxd.spool import DownlinkState, NewReport, StoredDownlink

DEVICES = [f"70B3D5E75E00B{n:03X}" for n in range(20)]


@dataclass
class Remembering(Disk):
    """Keeps what a crash after each write would have left."""

    after: list[Disk] = field(default_factory=list)

    def written(self) -> None:
        self.after.append(self.as_now())


async def test_a_verdict_goes_back_once_whenever_the_daemon_crashes(autojump_clock: MockClock) -> None:
    disk = Remembering()
    lrc = Lrc(lambda asked: refused())
    async with engine(disk, lrc) as plant:
        for n in range(3):
            downlink = await plant.send(CorrelationID=f"{n:X}")
            plant.downlinks.book.acknowledge(downlink)
        plant.downlinks.enter("plant", wrong())
        await plant.settled()
    assert len(disk.after) > 6
    for left in disk.after:
        known = len(left.rows)
        async with engine(left, lrc) as again:
            await again.settled()
        assert len(left.reports) == known
        assert len({report.body for report in left.reports}) == known
        states = {left.state(id) for id in left.rows}
        assert states == {DownlinkState.REJECTED}


class Committing(Disk):
    """Commits what it was given also when nobody waits for it any more, as a thread does."""

    async def write(
        self,
        downlinks: Sequence[StoredDownlink],
        forgotten: Sequence[int],
        counts: Mapping[str, Mapping[str, int]],
        reports: Sequence[NewReport] = (),
    ) -> None:
        with trio.CancelScope(shield=True):
            await super().write(downlinks, forgotten, counts, reports)
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("after_s", [0.3, 0.7, 1.2])
async def test_a_verdict_goes_back_once_whenever_the_daemon_stops(autojump_clock: MockClock, after_s: float) -> None:
    disk = Committing(takes_s=0.5)
    async with opened(disk) as book:
        downlink = book.enter("plant", wrong())
        await trio.sleep(after_s)
        book.book.acknowledge(downlink)
    left = disk.as_now()
    async with opened(left) as again:
        await trio.sleep(5)
        found = again.book.find(downlink.id)
        assert found is not None
        assert (found.acknowledged, found.verdict) == (True, None)
    assert len(left.reports) == 1


async def test_many_that_expire_at_once_share_their_writes(autojump_clock: MockClock) -> None:
    disk = Disk(takes_s=0.01)
    async with engine(disk, Lrc(there=False)) as plant:
        for n in range(3_000):
            plant.downlinks.enter("plant", right(DevEUI=DEVICES[n % len(DEVICES)], ValidityTime=30))
        await trio.sleep(5)
        before = disk.writes
        await trio.sleep(60)
        assert plant.downlinks.book.counts("plant").expired == 3_000
        assert len(disk.reports) == 3_000
        assert disk.writes - before < 100


async def test_a_verdict_names_its_connection_and_device(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with opened(disk) as book:
        book.enter("plant", wrong())
        book.enter("office", wrong(DEVICES[0]))
        book.enter("", wrong())
        book.enter("plant", wrong(""))
        await trio.sleep(1)
    assert [(report.kind, report.lane, report.recipient) for report in disk.reports] == [
        ("DevEUI_downlink_Rejected", DEV_EUI, "plant"),
        ("DevEUI_downlink_Rejected", DEVICES[0], "office"),
    ]
    assert disk.verdicts()[0]["DownlinkRejectionCause"] == "FPort is missing"
    assert disk.reports[0].document is not None
