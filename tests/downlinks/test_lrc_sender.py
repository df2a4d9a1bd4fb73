"""From the book to the LRC: order, parallel, pace, what answers mean, a disk that refuses, and the end."""

from __future__ import annotations

import logging
from hashlib import sha256

import httpx
import orjson
import pytest
import trio
from trio.testing import MockClock

from tests.downlinks.downlink_doubles import AS_KEY, DEV_EUI, Asked, Disk, Lrc, engine, queued, refused, right
from tpxd.downlinks.documents import trace_document
from tpxd.downlinks.lrc_links import UNDER_WAY
from tpxd.downlinks.lrc_sender import NOT_SET
from tpxd.downlinks.queue import LAST_SAVE_S
from tpxd.lorawan.downlink_request import Signing
from tpxd.spool import DownlinkState

DEVICES = [f"70B3D5E75E00A{n:03X}" for n in range(50)]


async def test_a_downlink_goes_out_and_its_answer_is_kept(autojump_clock: MockClock) -> None:
    async with engine() as plant:
        downlink = await plant.send(Confirmed="1", CorrelationID="A1")
        await plant.settled()
        (asked,) = plant.lrc.told
        assert (asked["DevEUI"], asked["Payload"], asked["Confirmed"], asked["CorrelationID"]) == (
            (DEV_EUI, "02ff", "1", "A1")
        )
        assert (downlink.state, downlink.cause, downlink.status) == (DownlinkState.SENT, "Request queued by LRC", 200)
        assert (plant.disk.state(downlink.id), plant.disk.reports) == (DownlinkState.SENT, [])
        document = plant.sender.document()
        assert (document["healthy"], document["reachable"], document["waiting"]) == (True, True, 0)


async def test_it_is_marked_on_disk_before_the_lrc_knows(autojump_clock: MockClock) -> None:
    disk = Disk(takes_s=0.1)
    seen: list[DownlinkState] = []

    def answer(asked: Asked) -> httpx.Response:
        seen.append(disk.state(1))
        return queued()

    async with engine(disk, Lrc(answer)) as plant:
        await plant.send()
        await plant.settled()
    assert seen == [DownlinkState.SENDING]


# ---- order, parallel, pace


async def test_a_thousand_downlinks_of_one_device_keep_their_order(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(takes_s=0.01)) as plant:
        for n in range(1_000):
            plant.downlinks.enter("plant", right(payload_hex=f"{n:04x}"))
        await plant.settled()
        assert plant.lrc.payloads() == [f"{n:04x}" for n in range(1_000)]
        assert plant.lrc.most == 1
        assert plant.downlinks.book.counts("plant").sent == 1_000


async def test_devices_go_in_parallel_so_many_at_once(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(takes_s=1.0)) as plant:
        for n in range(4):
            for device in DEVICES:
                plant.downlinks.enter("plant", right(DevEUI=device, payload_hex=f"{n:02x}"))
        await plant.settled()
        assert plant.lrc.most == UNDER_WAY
        assert len(plant.lrc.told) == 200
        for device in DEVICES:
            assert plant.lrc.payloads(device) == ["00", "01", "02", "03"]


async def test_the_pace_is_kept(autojump_clock: MockClock) -> None:
    async with engine(downlink_rate_limiter=5) as plant:
        begun = trio.current_time()
        for device in DEVICES:
            plant.downlinks.enter("plant", right(DevEUI=device))
        await plant.settled()
        # a second's worth at once, then one each fifth of a second
        assert [round(at - begun, 1) for at in plant.lrc.tried] == [max(0, n - 4) / 5 for n in range(50)]


# ---- what answers mean


async def test_a_refusal_carries_the_cause_of_the_lrc_back(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: refused())) as plant:
        downlink = await plant.send(CorrelationID="A1")
        await plant.settled()
        assert (downlink.state, downlink.status) == (DownlinkState.REJECTED, 350)
        (verdict,) = plant.disk.verdicts()
        del verdict["Time"]
        assert verdict == {
            "DevEUI": DEV_EUI,
            "FPort": 5,
            "DeliveryStatus": 350,
            "DownlinkRejectionCause": "Downlink counter value already used. Expected=319",
            "CorrelationID": "A1",
        }
        (report,) = plant.disk.reports
        assert (report.lane, report.recipient) == (DEV_EUI, "plant")


async def test_an_answer_that_is_not_documented_is_kept_and_warned_about_once(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: httpx.Response(202, text="thanks"))) as plant:
        first, second = await plant.send(), await plant.send()
        await plant.settled()
        assert [(c.state, c.cause) for c in (first, second)] == [(DownlinkState.SENT, "thanks")] * 2
        assert plant.events() == ["the LRC takes downlinks with an answer that is not documented: thanks"]


async def test_downlinks_over_the_control_plane_have_nobody_to_send_a_verdict_to(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: refused())) as plant:
        downlink = await plant.send("")
        await plant.settled()
        assert (downlink.state, plant.disk.reports) == (DownlinkState.REJECTED, [])


async def test_without_an_address_each_is_rejected_and_names_the_setting(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(there=False)) as earlier:
        await earlier.send()
    async with engine(earlier.disk.as_now(), refusal=NOT_SET, downlink_url="") as plant:
        await plant.send()
        await plant.settled()
        assert plant.lrc.tried == []
        causes = [verdict["DownlinkRejectionCause"] for verdict in plant.disk.verdicts()]
        assert causes == [NOT_SET] * 2, "what waited from an earlier time too"
        assert "downlink_url" in NOT_SET


async def test_time_and_token_are_made_anew_for_each_try(autojump_clock: MockClock) -> None:
    silences = [None, None]
    lrc = Lrc(lambda asked: silences.pop() if silences else queued())
    async with engine(lrc=lrc, signing=Signing("TWA_1", AS_KEY), as_id="ignored", as_key="0" * 32) as plant:
        await plant.send(ValidityTime=600)
        await plant.settled()
    assert len({asked["Time"] for asked in lrc.told}) == 3
    assert len({asked["CorrelationID"] for asked in lrc.told}) == 1
    assert [int(asked["ValidityTime"]) for asked in lrc.told] == sorted(
        {int(asked["ValidityTime"]) for asked in lrc.told}, reverse=True
    )
    for asked in lrc.told:
        signed = "&".join(f"{name}={value}" for name, value in asked.items() if name != "Token")
        assert asked["Token"] == sha256(f"{signed}{AS_KEY}".encode()).hexdigest()
        assert asked["AS_ID"] == "TWA_1"


# ---- the disk refuses, and the end


async def test_nothing_goes_out_that_is_not_marked_on_disk(autojump_clock: MockClock) -> None:
    async with engine() as plant:
        first = plant.downlinks.enter("plant", right())
        plant.disk.failing = True
        await trio.sleep(10)
        assert plant.lrc.told == []
        plant.disk.failing = False
        await plant.settled()
        assert first.state is DownlinkState.SENT
        # and between a downlink that is on disk and the mark that it is being sent
        plant.disk.takes_s = 1.0
        second = await plant.send(payload_hex="03")
        plant.disk.failing = True
        await trio.sleep(10)
        assert plant.lrc.payloads() == ["02ff"]
        plant.disk.failing = False
        await plant.settled()
        assert second.state is DownlinkState.SENT


async def test_the_answer_is_kept_once_the_disk_works_again(autojump_clock: MockClock) -> None:
    def answer(asked: Asked) -> httpx.Response:
        plant.disk.failing = True
        return refused()

    async with engine(lrc=Lrc(answer)) as plant:
        downlink = await plant.send()
        await trio.sleep(10)
        assert (downlink.state, plant.disk.state(1)) == (DownlinkState.REJECTED, DownlinkState.SENDING)
        assert plant.disk.reports == []
        plant.disk.failing = False
        await trio.sleep(3)
        assert plant.disk.state(1) is DownlinkState.REJECTED
        assert len(plant.disk.verdicts()) == 1


async def test_what_is_under_way_at_a_stop_has_its_grace(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(takes_s=3.0)) as plant:
        await plant.send()
        await plant.send()
        await trio.sleep(1)
    assert [plant.disk.state(id) for id in (1, 2)] == [DownlinkState.SENT, DownlinkState.WAITING]
    async with engine(lrc=Lrc(takes_s=6.0)) as plant:
        await plant.send()
        await trio.sleep(0.5)
        begun = trio.current_time()
    assert trio.current_time() - begun == pytest.approx(5.0)
    assert plant.disk.state(1) is DownlinkState.SENDING


async def test_a_stop_does_not_wait_for_an_lrc_that_is_away(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(there=False)) as plant:
        await plant.send()
        await trio.sleep(1_000)
        begun = trio.current_time()
    assert trio.current_time() == begun
    assert plant.disk.state(1) is DownlinkState.WAITING


async def test_the_key_of_a_downlink_shows_nowhere(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answers = [queued(), None, refused(), None]
    async with engine(lrc=Lrc(lambda asked: answers.pop() if answers else queued())) as plant:
        for n in range(4):
            await plant.send(AS_ID="TWA_1", AS_KEY=AS_KEY, payload_hex=f"{n:02x}")
        stored = plant.disk.as_now()
        assert any(AS_KEY.encode() in row for row in stored.rows.values()), "while it waits it has to be kept"
        await plant.settled()
        downlinks = plant.downlinks.book.of_device(DEV_EUI, 10)
        shown = [orjson.dumps(trace_document([], downlinks, {})), *(orjson.dumps(v) for v in plant.disk.verdicts())]
        shown += [repr(downlink).encode() for downlink in downlinks]
        shown += [text.encode() for text in plant.events()]
        shown += [caplog.text.encode(), orjson.dumps(plant.sender.document())]
        shown += [repr(row).encode() for row in plant.disk.rows.values()]
    assert all("Token" in asked for asked in plant.lrc.told)
    assert all(AS_KEY.encode() not in text for text in shown)


async def test_a_stop_waits_no_longer_for_a_disk_that_refuses(autojump_clock: MockClock) -> None:
    async with engine() as plant:
        plant.disk.takes_s = 0.5
        for device in DEVICES:
            plant.downlinks.enter("plant", right(DevEUI=device))
        await trio.sleep(0.6)
        plant.disk.failing = True
        await trio.sleep(10)
        begun = trio.current_time()
    assert trio.current_time() - begun <= 5.0 + LAST_SAVE_S
    assert len(plant.lrc.told) < len(DEVICES)


async def test_a_bug_holds_up_its_downlink_alone(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    def answer(asked: Asked) -> httpx.Response:
        if bugs and asked["DevEUI"] == DEV_EUI:
            raise RuntimeError(bugs.pop())
        return queued()

    bugs = ["a bug of the test's making"] * 2
    async with engine(lrc=Lrc(answer)) as plant:
        first = await plant.send()
        second = await plant.send(DevEUI=DEVICES[0])
        await trio.sleep(0.5)
        assert (first.state, second.state) == (DownlinkState.WAITING, DownlinkState.SENT)
        assert plant.downlinks.book.counts("plant").doubtful == 1
        await plant.settled()
        assert (first.tries, plant.downlinks.book.counts("plant").sent) == (3, 2)
    assert "downlink 1 on its way to the LRC: crashed, a bug" in caplog.text
