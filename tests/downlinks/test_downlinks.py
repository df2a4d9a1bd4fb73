"""From the far end into the book: what is new, what comes again, and what is on disk when it is acknowledged."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from trio.testing import MockClock

from tests.connection.far_end import TOPIC, FarEnd, message, numbered, over, payloads
from tests.downlinks.downlink_doubles import DEV_EUI, Disk, Lrc, body, engine, opened, queued
from tpxd.connector import Incoming
from tpxd.downlinks import book as downlink_book
from tpxd.downlinks.inbox import AHEAD, Inbox
from tpxd.spool import StoredDownlink

# ---- what comes in


async def test_each_is_on_disk_before_it_is_acknowledged_and_in_order(autojump_clock: MockClock) -> None:
    disk = Disk(takes_s=0.3)
    link = FarEnd(disk, deque(numbered(20)))
    async with opened(disk) as downlinks:
        await over(link, downlinks)
        assert payloads(downlinks) == [f"{n:04x}" for n in range(20)]
    assert link.bodies == [body(payload_hex=f"{n:04x}") for n in range(20)]
    assert all(on_disk > n for n, (_, on_disk) in enumerate(link.acknowledged))


@pytest.mark.parametrize(
    ("content", "counted"),
    [
        (b"", "ignored"),
        (b"ON", "ignored"),
        (b"{", "ignored"),
        (b"\xff\x00", "ignored"),
        (b"{}", "unrecognised"),
        (b"[1]", "unrecognised"),
        (b'{"DevEUI_uplink":{"DevEUI":"70B3D5E75E00A1C4"}}', "unrecognised"),
        (body(FPort=None), "rejected"),
        (body(FPort=0), "rejected"),
        (b'{"DevEUI_downlink":[]}', "rejected"),
        (body(), "waiting"),
    ],
)
async def test_what_it_is_decides_where_it_counts(autojump_clock: MockClock, content: bytes, counted: str) -> None:
    disk = Disk()
    link = FarEnd(disk, deque([message(content)]))
    async with opened(disk) as downlinks:
        await over(link, downlinks)
        counts = downlinks.book.counts("plant")
    names = ("ignored", "unrecognised", "rejected", "waiting")
    assert {name: getattr(counts, name) for name in names} == dict.fromkeys(names, 0) | {counted: 1}
    assert disk.counts["plant"][counted if counted != "waiting" else "received"] == 1
    assert link.bodies == [content], "whatever it is, the far end need not send it again"


async def test_a_wrong_downlink_is_answered_with_the_field(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with opened(disk) as downlinks:
        await over(FarEnd(disk, deque([message(body(FPort=999, CorrelationID="A1"))])), downlinks)
    (verdict,) = disk.verdicts()
    assert verdict["DownlinkRejectionCause"] == "FPort 999 is not a number from 1 to 224"
    assert (verdict["DevEUI"], verdict["CorrelationID"], verdict["DeliveryStatus"]) == (DEV_EUI, "A1", 400)


async def test_the_port_that_is_left_out_is_that_of_the_connection(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with opened(disk) as downlinks:
        await over(FarEnd(disk, deque([message(body(FPort=None))])), downlinks, default_port=9)
        assert [downlink.f_port for downlink in downlinks.book.open] == [9]


async def test_a_thousand_go_through_to_the_lrc_in_order(autojump_clock: MockClock) -> None:
    devices = [f"70B3D5E75E00C{n:03X}" for n in range(3)]
    order = [f"{n:04x}" for n in range(400)]
    async with engine(Disk(takes_s=0.001), Lrc(takes_s=0.001)) as plant:
        messages = [message(body(DevEUI=device, payload_hex=text)) for text in order for device in devices]
        link = FarEnd(plant.disk, deque(messages))
        await over(link, plant.downlinks)
        await plant.settled()
        assert len(link.acknowledged) == 1_200
        assert all(plant.lrc.payloads(device) == order for device in devices)


# ---- a disk that refuses, and bounds


async def test_a_disk_that_refuses_holds_acknowledgements_back_and_bounds_what_is_read(
    autojump_clock: MockClock,
) -> None:
    disk = Disk(failing=True)
    link = FarEnd(disk, deque(numbered(1_000)))
    async with opened(disk) as downlinks, trio.open_nursery() as nursery:
        nursery.start_soon(over, link, downlinks, 600)
        await trio.sleep(100)
        assert (link.acknowledged, disk.rows) == ([], {})
        assert AHEAD <= link.received <= AHEAD + 2
        disk.failing = False
        await trio.sleep(60)
        assert len(link.acknowledged) == len(disk.rows) == 1_000
        nursery.cancel_scope.cancel()


async def test_what_is_wrong_with_a_downlink_that_names_no_device_is_said_where_an_operator_looks(
    autojump_clock: MockClock,
) -> None:
    disk, told = Disk(), list[str]()
    async with opened(disk) as downlinks:
        inbox = Inbox("plant", downlinks, None, untold=lambda error: told.append(error.message))
        for content in (body(DevEUI=None), body(DevEUI="12"), body(FPort=0)):
            inbox.take(message(content))
        inbox.take(Incoming("a" * 60_000, b'{"DevEUI_downlink":[]}'))
        await trio.sleep(1)
    assert told == [
        f"a downlink by {TOPIC} is wrong: DevEUI is missing",
        f"a downlink by {'a' * 100} is wrong: DevEUI_downlink is no object",
    ]
    assert len(disk.verdicts()) == 2, "the others are told to whoever sent them"


async def test_while_too_many_wait_nothing_is_taken(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downlink_book, "MAX_OPEN", 10)
    async with engine(lrc=Lrc(there=False)) as plant:
        first, second = FarEnd(plant.disk, deque(numbered(40))), FarEnd(plant.disk, deque(numbered(40)))
        async with trio.open_nursery() as nursery:
            for link in (first, second):
                nursery.start_soon(over, link, plant.downlinks, 100_000)
            await trio.sleep(600)
            assert plant.downlinks.book.open_count <= 7
            assert first.received + second.received <= 7
            with trio.fail_after(1):
                await plant.downlinks.room("another")
            plant.lrc.there = True
            await trio.sleep(600)
            assert len(first.acknowledged) == len(second.acknowledged) == 40
            nursery.cancel_scope.cancel()
        assert plant.downlinks.book.counts("plant").sent == 80


# ---- what comes again


async def test_what_was_not_acknowledged_before_the_link_was_lost_is_taken_once(autojump_clock: MockClock) -> None:
    disk = Disk(takes_s=1.0)
    async with opened(disk) as downlinks:
        first = FarEnd(disk, deque(numbered(5)), lost=True)
        await over(first, downlinks)
        assert first.acknowledged == []
        again = [message(incoming.body, redelivered=True) for incoming in numbered(5)]
        second = FarEnd(disk, deque([*again, *numbered(2)]))
        await over(second, downlinks)
        assert len(second.acknowledged) == 7
        assert downlinks.book.counts("plant").received == 7, "those that are not marked are new ones"


async def test_what_was_stored_and_not_acknowledged_before_a_crash_is_taken_once(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with opened(disk) as downlinks:
        taken = Inbox("plant", downlinks, None).take(message(body(CorrelationID="A1")))
        assert isinstance(taken, StoredDownlink)
        await downlinks.saved(taken)
        left = disk.as_now()
    async with opened(left) as again:
        link = FarEnd(left, deque([message(body(CorrelationID="A1"), redelivered=True)] * 2))
        await over(link, again)
        assert len(link.acknowledged) == 2
        assert again.book.counts("plant").received == 2, "the second one repeats nothing that is known"


async def test_a_repetition_of_what_was_acknowledged_is_new_and_in_doubt(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with opened(disk) as downlinks:
        await over(FarEnd(disk, deque([message(body())])), downlinks)
        again = [message(body(), redelivered=True), message(body(FPort=7), redelivered=True), message(body())]
        await over(FarEnd(disk, deque(again)), downlinks)
        counts = downlinks.book.counts("plant")
        assert (counts.received, counts.doubtful) == (4, 1)
        assert [downlink.doubts for downlink in downlinks.book.open] == [0, 1, 0, 0]


async def test_a_retained_message_is_taken_once(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with opened(disk) as downlinks:
        for _ in range(3):
            await over(FarEnd(disk, deque([message(body(), retained=True)])), downlinks)
        assert downlinks.book.counts("plant").received == 1
        other = Incoming("plant/other", body(), retained=True)
        changed = message(body(payload_hex="03"), retained=True)
        link = FarEnd(disk, deque([other, changed, message(body()), message(body())]))
        await over(link, downlinks)
        assert downlinks.book.counts("plant").received == 5
        assert len(link.acknowledged) == 4
    async with opened(disk.as_now()) as again:
        await over(FarEnd(disk, deque([message(body(), retained=True)])), again)
        assert again.book.counts("plant").received == 5


@pytest.mark.parametrize("marks", [{"redelivered": True}, {"retained": True}])
async def test_a_repetition_is_acknowledged_only_when_the_first_is_on_disk(
    autojump_clock: MockClock, marks: dict[str, bool]
) -> None:
    disk = Disk(failing=True)
    async with opened(disk) as downlinks:
        await over(FarEnd(disk, deque([message(body())]), lost=True), downlinks)
        second = FarEnd(disk, deque([message(body(), **marks)]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(over, second, downlinks, 100)
            await trio.sleep(30)
            assert second.acknowledged == []
            disk.failing = False
        assert second.acknowledged == [(body(), 1)]


async def test_what_goes_back_goes_to_the_lrc_once(autojump_clock: MockClock) -> None:
    """The whole way: redelivered after a crash, and sent to the LRC as one downlink with one CorrelationID."""
    async with engine(lrc=Lrc(there=False)) as plant:
        await over(FarEnd(plant.disk, deque([message(body(CorrelationID="A1"))]), lost=True), plant.downlinks, 5)
        left = plant.disk.as_now()
    async with engine(left, Lrc(lambda asked: queued())) as again:
        await over(FarEnd(left, deque([message(body(CorrelationID="A1"), redelivered=True)])), again.downlinks, 5)
        await again.settled()
        assert [asked["CorrelationID"] for asked in again.lrc.told] == ["A1"]
