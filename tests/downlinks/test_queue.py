"""Downlinks that survive: what is on disk when, what a refusing disk changes, and who waits for room."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.downlinks.downlink_doubles import DEV_EUI, Disk, opened, right, wrong
from tpxd.downlinks import book as downlink_book
from tpxd.downlinks import queue as downlinks
from tpxd.downlinks.lanes import Lanes
from tpxd.downlinks.queue import CRASHED
from tpxd.downlinks.saving import RETRY_S
from tpxd.errors import SpoolUnavailable
from tpxd.events import EventLog
from tpxd.lorawan.downlink_request import Signing
from tpxd.lorawan.reports import DOWNLINK_SENT
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import DownlinkState, NewReport

DEVICES = [f"70B3D5E75E00B{n:03X}" for n in range(20)]


# ---- to the disk


async def test_the_sender_gets_downlinks_when_they_are_on_disk_in_their_order(autojump_clock: MockClock) -> None:
    disk = Disk(takes_s=0.2)
    due: list[int] = []

    async def take_each(lanes: Lanes) -> None:
        while True:
            lane = await lanes.next()
            downlink = lane.take(lambda downlink: Signing())
            assert downlink is not None
            assert downlink.id in disk.rows
            due.append(downlink.id)
            lanes.give_back(lane)

    async with opened(disk) as book, trio.open_nursery() as nursery:
        nursery.start_soon(take_each, book.lanes)
        for n in range(40):
            disk.failing = n % 3 == 1
            book.enter("plant", right())
            if n % 5 == 0:
                book.enter("plant", wrong())
            await trio.sleep(0.15)
        disk.failing = False
        await trio.sleep(5)
        assert due == [downlink.id for downlink in book.book.open]
        assert [downlink.id for downlink in book.waiting] == due
        assert len(due) == 40
        nursery.cancel_scope.cancel()


async def test_a_crowd_shares_its_writes(autojump_clock: MockClock) -> None:
    disk = Disk(takes_s=0.01)
    async with opened(disk) as book, trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(book.saved, book.enter("plant", right()))
            await trio.lowlevel.checkpoint()
    assert len(disk.rows) == 500
    assert disk.writes < 50


async def test_everything_is_there_after_a_restart(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with opened(disk) as book:
        waits = book.enter("plant", right(CorrelationID="A1", AS_ID="TWA_1", AS_KEY="0" * 32, ValidityTime=60), "m")
        sent = book.enter("plant", right(CorrelationID="A2"))
        book.book.end(sent, DownlinkState.SENT, "Request queued by LRC", 200)
        told = {"CorrelationID": "A2", "DeliveryStatus": 1, "FCntDn": 7}
        assert book.transmitted(DEV_EUI, told)
        assert not book.transmitted(DEV_EUI, {"CorrelationID": "unknown", "DeliveryStatus": 0})
        report = Uplink(1, 0, DOWNLINK_SENT, DEV_EUI, "", orjson.dumps({DOWNLINK_SENT: told}))
        assert [book.is_about_one_of(id, report) for id in ("plant", "office", "")] == [True, False, False]
        for json in (True, False, False):
            book.ignored("plant", json=json)
        counts = book.book.counts("plant")
    async with opened(disk.as_now()) as again:
        found = again.book.find(waits.id)
        assert found is not None
        assert (found.downlink, found.mark, found.version) == (waits.downlink, "m", waits.version)
        finished = again.book.find(sent.id)
        assert finished is not None
        assert finished.transmitted == {"DeliveryStatus": 1, "FCntDn": 7, "CorrelationID": "A2"}
        assert again.book.counts("plant") == counts
        assert (counts.ignored, counts.unrecognised, counts.waiting) == (2, 1, 1)
        assert again.enter("plant", right()).id == 3


async def test_what_a_crash_left_in_the_middle_is_doubtful_once_each_time(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with opened(disk) as book:
        downlink = book.enter("plant", right())
        book.book.begin(downlink)
    for doubts in (1, 2):
        async with opened(disk) as again:
            found = again.book.find(downlink.id)
            assert found is not None
            assert (found.state, found.cause, found.doubts) == (DownlinkState.WAITING, CRASHED, doubts)
            assert again.book.counts("plant").doubtful == doubts
            again.book.begin(found)


async def test_without_an_lrc_only_what_waits_is_refused_at_a_restart(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with opened(disk) as book:
        waits, sent = (book.enter("plant", right()) for _ in range(2))
        book.book.end(sent, DownlinkState.SENT, "Request queued by LRC", 200)
    async with opened(disk, refusal="no LRC") as again:
        assert again.waiting == []
        await trio.sleep(1)
    assert (disk.state(waits.id), disk.state(sent.id)) == (DownlinkState.REJECTED, DownlinkState.SENT)
    assert [verdict["DownlinkRejectionCause"] for verdict in disk.verdicts()] == ["no LRC"]


async def test_damaged_rows_are_told_and_the_rest_goes_on(autojump_clock: MockClock) -> None:
    disk, log = Disk(), EventLog()
    async with opened(disk) as book:
        for n in range(3):
            book.enter("plant", right(payload_hex=f"{n:02x}"))
    first, *middle, crc = disk.rows[2]
    disk.rows[2] = (first, *middle, crc ^ 1)
    async with opened(disk, log) as again:
        assert [downlink.id for downlink in again.waiting] == [1, 3]
        counts = again.book.counts("plant")
        assert (counts.received, counts.rejected, counts.waiting) == (3, 1, 2)
    (event,) = log.newest()
    assert (event.kind, event.more) == ("damage", {"count": 1})


# ---- a disk that refuses


async def test_who_waits_is_told_that_the_disk_refuses_and_may_take_it_back(autojump_clock: MockClock) -> None:
    disk = Disk(failing=True)
    async with opened(disk) as book:
        for wanted in (right(), wrong()):
            downlink = book.enter("plant", wanted, "m")
            with pytest.raises(SpoolUnavailable, match="the disk is full"):
                await book.saved(downlink)
            book.withdraw(downlink)
            book.withdraw(downlink)
        kept = book.enter("plant", right())
        with pytest.raises(SpoolUnavailable):
            await book.saved(kept)
        disk.failing = False
        await trio.sleep(3)
        await book.saved(kept)
        book.withdraw(kept)
        assert list(disk.rows) == [kept.id], "what is on disk cannot be taken back"
        counts = book.book.counts("plant")
        assert (counts.received, counts.waiting, counts.rejected) == (1, 1, 0)
        assert disk.counts["plant"]["received"] == 1
        assert disk.reports == []


async def test_who_must_wait_waits_as_long_as_it_takes(autojump_clock: MockClock) -> None:
    disk = Disk(failing=True)
    async with opened(disk) as book:
        downlink = book.enter("plant", right())
        with trio.move_on_after(3_600):
            await book.surely_saved(downlink)
            raise AssertionError("it is on no disk")
        disk.failing = False
        begun = trio.current_time()
        await book.surely_saved(downlink)
        assert trio.current_time() - begun <= RETRY_S
        assert disk.rows.keys() == {downlink.id}


async def test_what_is_forgotten_before_it_could_be_saved_is_gone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downlink_book, "KEPT", 5)
    disk = Disk(failing=True)
    async with opened(disk) as book:
        first = book.enter("plant", wrong(""))
        with trio.move_on_after(2):
            await book.surely_saved(first)
        for _ in range(10):
            book.enter("plant", wrong(""))
        book.withdraw(first)
        disk.failing = False
        await trio.sleep(3)
        assert len(disk.rows) == 5
        assert book.book.counts("plant").rejected == 11


async def test_the_last_save_takes_two_seconds_at_most(autojump_clock: MockClock) -> None:
    disk = Disk(takes_s=1_000)
    async with opened(disk) as book:
        book.enter("plant", right())
        await trio.sleep(1)
        begun = trio.current_time()
    assert trio.current_time() - begun == pytest.approx(downlinks.LAST_SAVE_S)
    assert disk.rows == {}


async def test_a_cancellation_saves_what_was_entered(autojump_clock: MockClock) -> None:
    disk = Disk(takes_s=1)
    with trio.CancelScope() as scope:
        async with opened(disk) as book:
            book.enter("plant", right())
            await trio.sleep(0.5)
            book.enter("plant", right())
            scope.cancel()
    assert disk.rows.keys() == {1, 2}


# ---- room


async def test_all_who_wait_for_room_are_woken(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downlink_book, "MAX_OPEN", 2)
    async with opened(Disk()) as book:
        first = book.enter("plant", right())
        await book.saved(first)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(book.room, "plant")
                await wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == 3
                book.book.end(first, DownlinkState.SENT, "", 200)


async def test_verdicts_that_cannot_be_stored_take_room_too(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downlinks, "MAX_VERDICTS", 10)
    disk = NoRoomForReports()
    async with opened(disk) as book:
        for _ in range(10):
            await book.surely_saved(book.enter("plant", wrong()))
        assert book.full("office")
        disk.room = True
        with trio.fail_after(5):
            await book.room("plant")
    assert len(disk.reports) == 10


class NoRoomForReports(Disk):
    """A spool that is full of uplinks and may not drop any, until `room`."""

    room = False

    def refuses(self, reports: Sequence[NewReport]) -> bool:
        return bool(reports) and not self.room


async def test_no_room_for_verdicts_keeps_no_downlink_off_the_disk(autojump_clock: MockClock) -> None:
    disk = NoRoomForReports()
    async with opened(disk) as book:
        await book.surely_saved(book.enter("plant", wrong()))
        with trio.fail_after(5):
            await book.surely_saved(book.enter("plant", right()))
        assert disk.rows.keys() == {1, 2}
