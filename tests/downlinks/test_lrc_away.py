"""An LRC that is away, busy or silent: what waits, what expires, what is in doubt, and what goes out afterwards."""

from __future__ import annotations

from itertools import pairwise

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.downlinks.downlink_doubles import DEV_EUI, Asked, Disk, Lrc, engine, queued, right, wall
from tpxd.downlinks.documents import TOO_LATE, UNCERTAIN
from tpxd.downlinks.inbox import REPEATED
from tpxd.downlinks.lrc_links import ANSWER_S
from tpxd.spool import DownlinkState
from tpxd.timing import ClockWatch

DEVICES = [f"70B3D5E75E00A{n:03X}" for n in range(50)]


# ---- the LRC is away


async def test_an_hour_without_the_lrc(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(there=False)) as plant:
        lrc, counts = plant.lrc, plant.downlinks.book.counts("plant")
        begun = trio.current_time()
        for n in range(30):
            for device in DEVICES[:3]:
                validity = 1_800 if n % 3 == 0 else None
                plant.downlinks.enter(
                    "plant", right(wall(), DevEUI=device, payload_hex=f"{n:02x}", ValidityTime=validity)
                )
        await trio.sleep(3_600)
        assert lrc.told == []
        assert (counts.expired, counts.waiting) == (30, 60)
        document = plant.sender.document()
        assert not document["healthy"]
        assert document["reason"] == "60 downlinks wait: the LRC cannot be reached: lrc.example: connection refused"
        burst = [at for at in lrc.tried if at - begun < 300]
        assert 10 <= len(burst) <= 300
        pauses = [round(after - before, 1) for before, after in pairwise(lrc.tried[2:])]
        assert all(1 <= pause <= 30 for pause in pauses), "one at a time tries, after three that were under way"
        assert set(pauses[-50:]) == {30.0}
        assert len(plant.events()) == 1
        lrc.there = True
        await plant.settled()
        left = [f"{n:02x}" for n in range(30) if n % 3]
        assert all(lrc.payloads(device) == left for device in DEVICES[:3])
        assert (counts.received, counts.sent, counts.expired, counts.waiting) == (90, 60, 30, 0)
        assert plant.events()[1:] == ["the LRC takes downlinks again"]
        verdicts = plant.disk.verdicts()
        assert len(verdicts) == 30
        assert {verdict["DeliveryStatus"] for verdict in verdicts} == {TOO_LATE}
        assert "validity ended" in verdicts[0]["DownlinkRejectionCause"]


async def test_without_a_validity_of_its_own_that_of_the_settings_holds(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(there=False), downlink_validity="2h") as plant:
        await plant.send()
        counts = plant.downlinks.book.counts("plant")
        await trio.sleep(7_100)
        assert (counts.waiting, counts.expired) == (1, 0)
        await trio.sleep(110)
        assert (counts.waiting, counts.expired) == (0, 1)


async def test_nothing_expires_while_the_clock_cannot_be_trusted(autojump_clock: MockClock) -> None:
    trusted = False
    async with engine(lrc=Lrc(there=False), now=lambda: wall() if trusted else None) as plant:
        await plant.send(ValidityTime=60)
        counts = plant.downlinks.book.counts("plant")
        await trio.sleep(600)
        assert (counts.waiting, counts.expired) == (1, 0)
        trusted = True
        await trio.sleep(2)
        assert (counts.waiting, counts.expired) == (0, 1)


async def test_a_clock_that_jumps_ends_nothing_at_once(autojump_clock: MockClock) -> None:
    jump = 0.0
    watch = ClockWatch(lambda: None, wall=lambda: wall() + jump, monotonic=trio.current_time)
    async with engine(lrc=Lrc(there=False), now=watch.now) as plant:
        await plant.send(ValidityTime=900)
        counts = plant.downlinks.book.counts("plant")
        await trio.sleep(60)
        jump = 30 * 86_400.0
        await trio.sleep(500)
        assert (counts.waiting, counts.expired) == (1, 0)
        jump = 0.0
        await trio.sleep(320)
        assert (counts.waiting, counts.expired) == (1, 0), "set right, and the time is not over"
        await trio.sleep(400)
        assert (counts.waiting, counts.expired) == (0, 1)


@pytest.mark.parametrize("status", [429, 503])
async def test_an_lrc_that_is_busy_is_asked_again(autojump_clock: MockClock, status: int) -> None:
    async with engine(lrc=Lrc(lambda asked: httpx.Response(status, text="busy"))) as plant:
        downlink = await plant.send()
        await trio.sleep(60)
        assert (downlink.state, downlink.cause) == (DownlinkState.WAITING, f"HTTP {status}: busy")
        assert (downlink.tries > 3, downlink.doubts) == (True, 0)
        plant.lrc.answer = lambda asked: queued()
        await plant.settled()
        assert downlink.state is DownlinkState.SENT


# ---- nobody knows


def silent(asked: Asked) -> None:
    """The LRC takes a request and never answers."""


async def test_what_was_not_answered_is_doubtful_and_sent_again(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(silent)) as plant:
        downlink, other = await plant.send(), await plant.send(DevEUI=DEVICES[1], payload_hex="03")
        await trio.sleep(ANSWER_S + 0.5)
        assert plant.sender.document()["doubtful"] == 2
        plant.lrc.answer = lambda asked: queued()
        await plant.settled()
        assert [c.state for c in (downlink, other)] == [DownlinkState.SENT] * 2
        assert downlink.doubts >= 1
        assert plant.downlinks.book.counts("plant").doubtful == downlink.doubts + other.doubts
        mine = [asked for asked in plant.lrc.told if asked["DevEUI"] == DEV_EUI]
        assert [asked["CorrelationID"] for asked in mine] == [downlink.correlation_id] * (downlink.doubts + 1)


async def test_one_device_that_is_not_answered_holds_up_no_other(autojump_clock: MockClock) -> None:
    lrc = Lrc(lambda asked: None if asked["DevEUI"] == DEV_EUI else queued())
    async with engine(lrc=lrc) as plant:
        stuck = await plant.send()
        await trio.sleep(1)
        for n in range(20):
            other = await plant.send(DevEUI=DEVICES[1], payload_hex=f"{n:02x}")
            await trio.sleep(10)
            assert other.state is DownlinkState.SENT
        assert stuck.state is not DownlinkState.SENT
        assert stuck.doubts > 3
        lrc.answer = lambda asked: queued()
        await plant.settled()


@pytest.mark.parametrize("status", [429, 503])
async def test_one_device_that_is_to_wait_slows_down_no_other(autojump_clock: MockClock, status: int) -> None:
    """An LRC limits the downlinks of each device."""
    lrc = Lrc(lambda asked: httpx.Response(status) if asked["DevEUI"] == DEV_EUI else queued(), takes_s=0.01)
    async with engine(lrc=lrc) as plant:
        for n in range(300):
            for device in (DEV_EUI, *DEVICES[:2]):
                plant.downlinks.enter("plant", right(DevEUI=device, payload_hex=f"{n:04x}"))
        await trio.sleep(10)
        assert plant.downlinks.book.counts("plant").sent == 600
        assert set(lrc.payloads()) == {"0000"}
        lrc.answer = lambda asked: queued()
        await plant.settled()
        assert list(dict.fromkeys(lrc.payloads())) == [f"{n:04x}" for n in range(300)]
        assert plant.downlinks.book.counts("plant").doubtful == 0


async def test_an_lrc_that_never_answers_counts_as_away(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(silent)) as plant:
        for device in DEVICES:
            plant.downlinks.enter("plant", right(DevEUI=device))
        await trio.sleep(60)
        assert plant.sender.document()["reachable"] is False
        told = len(plant.lrc.told)
        assert told < len(DEVICES) + 10
        await trio.sleep(600)
        assert len(plant.lrc.told) - told < 600 / ANSWER_S, "one at a time"
        plant.lrc.answer = lambda asked: queued()
        await plant.settled()
        assert {asked["DevEUI"] for asked in plant.lrc.told} == set(DEVICES)


async def test_where_doubts_are_to_be_reported_nothing_is_sent_twice(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(silent), when_in_doubt="report") as plant:
        downlink = await plant.send()
        await plant.settled()
        assert len(plant.lrc.told) == 1
        assert (downlink.state, downlink.status) == (DownlinkState.REJECTED, UNCERTAIN)
        (verdict,) = plant.disk.verdicts()
        assert "may have taken the downlink or not" in verdict["DownlinkRejectionCause"]
        counts = plant.downlinks.book.counts("plant")
        assert (counts.rejected, counts.doubtful) == (1, 1)


async def test_a_repetition_that_is_not_to_be_sent_is_not_said_to_have_been(autojump_clock: MockClock) -> None:
    async with engine(when_in_doubt="report") as plant:
        downlink = plant.downlinks.enter("plant", right())
        plant.downlinks.book.doubt(downlink, REPEATED)
        await plant.settled()
        assert plant.lrc.told == []
        (verdict,) = plant.disk.verdicts()
        assert verdict["DownlinkRejectionCause"] == REPEATED


async def test_a_doubt_that_outlives_the_validity_ends_once(autojump_clock: MockClock) -> None:
    """The answer stays away until after the downlink's time, and the disk is slow: two reasons to end it."""
    async with engine(Disk(takes_s=2.0), Lrc(silent), when_in_doubt="report") as plant:
        await plant.send(ValidityTime=11)
        await plant.settled()
        counts = plant.downlinks.book.counts("plant")
        assert (counts.received, counts.rejected + counts.expired, counts.waiting) == (1, 1, 0)
        assert len(plant.disk.verdicts()) == 1


@pytest.mark.parametrize("when_in_doubt", ["resend", "report"])
async def test_a_crash_while_the_lrc_is_told(autojump_clock: MockClock, when_in_doubt: str) -> None:
    async with engine(lrc=Lrc(silent)) as before:
        await before.send(CorrelationID="A1")
        await trio.sleep(1)
        left = before.disk.as_now()
    assert left.state(1) is DownlinkState.SENDING
    async with engine(left, when_in_doubt=when_in_doubt) as plant:
        downlink = plant.downlinks.book.find(1)
        assert downlink is not None
        await plant.settled()
        counts = plant.downlinks.book.counts("plant")
        assert (counts.received, counts.doubtful, counts.waiting) == (1, 1, 0)
        if when_in_doubt == "resend":
            assert [asked["CorrelationID"] for asked in plant.lrc.told] == ["A1"]
            assert downlink.state is DownlinkState.SENT
        else:
            assert plant.lrc.told == []
            assert [verdict["DeliveryStatus"] for verdict in plant.disk.verdicts()] == [UNCERTAIN]


async def test_a_silent_lrc_whose_report_tells_that_it_has_the_downlink_is_not_told_again(
    autojump_clock: MockClock,
) -> None:
    for early in (True, False):
        async with engine(lrc=Lrc(lambda asked: None)) as plant:
            first = await plant.send(CorrelationID="A1")
            second = await plant.send(payload_hex="03", CorrelationID="A2")
            await trio.sleep(1 if early else ANSWER_S + 0.5)
            assert plant.lrc.payloads() == ["02ff"]
            assert plant.downlinks.transmitted(DEV_EUI, {"CorrelationID": "A1", "DeliveryStatus": 1})
            plant.lrc.answer = lambda asked: queued()
            await plant.settled()
            assert plant.lrc.payloads() == ["02ff", "03"]
            assert (first.state, first.tries, second.state) == (DownlinkState.SENT, 1, DownlinkState.SENT)
            assert plant.disk.reports == []
            counts = plant.downlinks.book.counts("plant")
            assert (counts.sent, counts.doubtful) == (2, 1)
