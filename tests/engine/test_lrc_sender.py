"""From the book to the LRC: order, parallel, pace, what answers and silences mean, and what a long absence leaves."""

from __future__ import annotations

import logging
from hashlib import sha256
from itertools import pairwise

import httpx
import orjson
import pytest
import trio
from trio.testing import MockClock

from tests.engine.downlink_doubles import (
    AS_KEY,
    DEV_EUI,
    Asked,
    Disk,
    Lrc,
    engine,
    queued,
    refused,
    right,
    wall,
)
from tpxd.engine.device_trace import trace_document
from tpxd.engine.lrc_links import ANSWER_S, UNDER_WAY
from tpxd.engine.lrc_sender import NOT_SET
from tpxd.engine.verdicts import TOO_LATE, UNCERTAIN
from tpxd.lorawan.downlink_request import Signing
from tpxd.spool import CommandState

DEVICES = [f"70B3D5E75E00A{n:03X}" for n in range(50)]


async def test_a_command_goes_out_and_its_answer_is_kept(autojump_clock: MockClock) -> None:
    async with engine() as plant:
        command = await plant.send(Confirmed="1", CorrelationID="A1")
        await plant.settled()
        (asked,) = plant.lrc.told
        assert (asked["DevEUI"], asked["Payload"], asked["Confirmed"], asked["CorrelationID"]) == (
            (DEV_EUI, "02ff", "1", "A1")
        )
        assert (command.state, command.cause, command.status) == (CommandState.SENT, "Request queued by LRC", 200)
        assert (plant.disk.state(command.id), plant.disk.reports) == (CommandState.SENT, [])
        document = plant.sender.document()
        assert (document["healthy"], document["reachable"], document["waiting"]) == (True, True, 0)


async def test_it_is_marked_on_disk_before_the_lrc_knows(autojump_clock: MockClock) -> None:
    disk = Disk(takes_s=0.1)
    seen: list[CommandState] = []

    def answer(asked: Asked) -> httpx.Response:
        seen.append(disk.state(1))
        return queued()

    async with engine(disk, Lrc(answer)) as plant:
        await plant.send()
        await plant.settled()
    assert seen == [CommandState.SENDING]


# ---- order, parallel, pace


async def test_a_thousand_commands_of_one_device_keep_their_order(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(takes_s=0.01)) as plant:
        for n in range(1_000):
            plant.commands.enter("plant", right(payload_hex=f"{n:04x}"))
        await plant.settled()
        assert plant.lrc.payloads() == [f"{n:04x}" for n in range(1_000)]
        assert plant.lrc.most == 1
        assert plant.commands.book.counts("plant").sent == 1_000


async def test_devices_go_in_parallel_so_many_at_once(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(takes_s=1.0)) as plant:
        for n in range(4):
            for device in DEVICES:
                plant.commands.enter("plant", right(DevEUI=device, payload_hex=f"{n:02x}"))
        await plant.settled()
        assert plant.lrc.most == UNDER_WAY
        assert len(plant.lrc.told) == 200
        for device in DEVICES:
            assert plant.lrc.payloads(device) == ["00", "01", "02", "03"]


async def test_the_pace_is_kept(autojump_clock: MockClock) -> None:
    async with engine(downlink_rate_limiter=5) as plant:
        begun = trio.current_time()
        for device in DEVICES:
            plant.commands.enter("plant", right(DevEUI=device))
        await plant.settled()
        # a second's worth at once, then one each fifth of a second
        assert [round(at - begun, 1) for at in plant.lrc.tried] == [max(0, n - 4) / 5 for n in range(50)]


# ---- what answers mean


async def test_a_refusal_carries_the_cause_of_the_lrc_back(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: refused())) as plant:
        command = await plant.send(CorrelationID="A1")
        await plant.settled()
        assert (command.state, command.status) == (CommandState.REJECTED, 350)
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
        assert (report.lane, report.lrn_infos) == (DEV_EUI, "tpxd:to=plant")


async def test_an_answer_that_is_not_documented_is_kept_and_warned_about_once(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: httpx.Response(202, text="thanks"))) as plant:
        first, second = await plant.send(), await plant.send()
        await plant.settled()
        assert [(c.state, c.cause) for c in (first, second)] == [(CommandState.SENT, "thanks")] * 2
        assert plant.events() == ["the LRC takes commands with an answer that is not documented: thanks"]


async def test_commands_over_the_control_plane_have_nobody_to_send_a_verdict_to(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: refused())) as plant:
        command = await plant.send("")
        await plant.settled()
        assert (command.state, plant.disk.reports) == (CommandState.REJECTED, [])


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


# ---- the LRC is away


async def test_an_hour_without_the_lrc(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(there=False)) as plant:
        lrc, counts = plant.lrc, plant.commands.book.counts("plant")
        begun = trio.current_time()
        for n in range(30):
            for device in DEVICES[:3]:
                validity = 1_800 if n % 3 == 0 else None
                plant.commands.enter(
                    "plant", right(wall(), DevEUI=device, payload_hex=f"{n:02x}", ValidityTime=validity)
                )
        await trio.sleep(3_600)
        assert lrc.told == []
        assert (counts.expired, counts.waiting) == (30, 60)
        document = plant.sender.document()
        assert not document["healthy"]
        assert document["reason"] == "60 commands wait: the LRC cannot be reached: connection refused"
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
        assert plant.events()[1:] == ["the LRC takes commands again"]
        verdicts = plant.disk.verdicts()
        assert len(verdicts) == 30
        assert {verdict["DeliveryStatus"] for verdict in verdicts} == {TOO_LATE}
        assert "validity ended" in verdicts[0]["DownlinkRejectionCause"]


async def test_without_a_validity_of_its_own_that_of_the_settings_holds(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(there=False), downlink_validity="2h") as plant:
        await plant.send()
        counts = plant.commands.book.counts("plant")
        await trio.sleep(7_100)
        assert (counts.waiting, counts.expired) == (1, 0)
        await trio.sleep(110)
        assert (counts.waiting, counts.expired) == (0, 1)


async def test_nothing_expires_while_the_clock_cannot_be_trusted(autojump_clock: MockClock) -> None:
    trusted = False
    async with engine(lrc=Lrc(there=False), now=lambda: wall() if trusted else None) as plant:
        await plant.send(ValidityTime=60)
        counts = plant.commands.book.counts("plant")
        await trio.sleep(600)
        assert (counts.waiting, counts.expired) == (1, 0)
        trusted = True
        await trio.sleep(2)
        assert (counts.waiting, counts.expired) == (0, 1)


@pytest.mark.parametrize("status", [429, 503])
async def test_an_lrc_that_is_busy_is_asked_again(autojump_clock: MockClock, status: int) -> None:
    async with engine(lrc=Lrc(lambda asked: httpx.Response(status, text="busy"))) as plant:
        command = await plant.send()
        await trio.sleep(60)
        assert (command.state, command.cause) == (CommandState.WAITING, f"HTTP {status}: busy")
        assert (command.tries > 3, command.doubts) == (True, 0)
        plant.lrc.answer = lambda asked: queued()
        await plant.settled()
        assert command.state is CommandState.SENT


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


# ---- nobody knows


def silent(asked: Asked) -> None:
    """The LRC takes a request and never answers."""


async def test_what_was_not_answered_is_doubtful_and_sent_again(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(silent)) as plant:
        command, other = await plant.send(), await plant.send(DevEUI=DEVICES[1], payload_hex="03")
        await trio.sleep(ANSWER_S + 0.5)
        assert plant.sender.document()["doubtful"] == 2
        plant.lrc.answer = lambda asked: queued()
        await plant.settled()
        assert [c.state for c in (command, other)] == [CommandState.SENT] * 2
        assert command.doubts >= 1
        assert plant.commands.book.counts("plant").doubtful == command.doubts + other.doubts
        mine = [asked for asked in plant.lrc.told if asked["DevEUI"] == DEV_EUI]
        assert [asked["CorrelationID"] for asked in mine] == [command.correlation_id] * (command.doubts + 1)


async def test_one_device_that_is_not_answered_holds_up_no_other(autojump_clock: MockClock) -> None:
    lrc = Lrc(lambda asked: None if asked["DevEUI"] == DEV_EUI else queued())
    async with engine(lrc=lrc) as plant:
        stuck = await plant.send()
        await trio.sleep(1)
        for n in range(20):
            other = await plant.send(DevEUI=DEVICES[1], payload_hex=f"{n:02x}")
            await trio.sleep(10)
            assert other.state is CommandState.SENT
        assert stuck.state is not CommandState.SENT
        assert stuck.doubts > 3
        lrc.answer = lambda asked: queued()
        await plant.settled()


async def test_an_lrc_that_never_answers_counts_as_away(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(silent)) as plant:
        for device in DEVICES:
            plant.commands.enter("plant", right(DevEUI=device))
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
        command = await plant.send()
        await plant.settled()
        assert len(plant.lrc.told) == 1
        assert (command.state, command.status) == (CommandState.REJECTED, UNCERTAIN)
        (verdict,) = plant.disk.verdicts()
        assert "may have taken the command or not" in verdict["DownlinkRejectionCause"]
        counts = plant.commands.book.counts("plant")
        assert (counts.rejected, counts.doubtful) == (1, 1)


async def test_a_doubt_that_outlives_the_validity_ends_once(autojump_clock: MockClock) -> None:
    """The answer stays away until after the command's time, and the disk is slow: two reasons to end it."""
    async with engine(Disk(takes_s=2.0), Lrc(silent), when_in_doubt="report") as plant:
        await plant.send(ValidityTime=11)
        await plant.settled()
        counts = plant.commands.book.counts("plant")
        assert (counts.received, counts.rejected + counts.expired, counts.waiting) == (1, 1, 0)
        assert len(plant.disk.verdicts()) == 1


@pytest.mark.parametrize("when_in_doubt", ["resend", "report"])
async def test_a_crash_while_the_lrc_is_told(autojump_clock: MockClock, when_in_doubt: str) -> None:
    async with engine(lrc=Lrc(silent)) as before:
        await before.send(CorrelationID="A1")
        await trio.sleep(1)
        left = before.disk.as_now()
    assert left.state(1) is CommandState.SENDING
    async with engine(left, when_in_doubt=when_in_doubt) as plant:
        command = plant.commands.book.find(1)
        assert command is not None
        await plant.settled()
        counts = plant.commands.book.counts("plant")
        assert (counts.received, counts.doubtful, counts.waiting) == (1, 1, 0)
        if when_in_doubt == "resend":
            assert [asked["CorrelationID"] for asked in plant.lrc.told] == ["A1"]
            assert command.state is CommandState.SENT
        else:
            assert plant.lrc.told == []
            assert [verdict["DeliveryStatus"] for verdict in plant.disk.verdicts()] == [UNCERTAIN]


# ---- the disk refuses, and the end


async def test_nothing_goes_out_that_is_not_marked_on_disk(autojump_clock: MockClock) -> None:
    async with engine() as plant:
        first = plant.commands.enter("plant", right())
        plant.disk.failing = True
        await trio.sleep(10)
        assert plant.lrc.told == []
        plant.disk.failing = False
        await plant.settled()
        assert first.state is CommandState.SENT
        # and between a command that is on disk and the mark that it is being sent
        plant.disk.takes_s = 1.0
        second = await plant.send(payload_hex="03")
        plant.disk.failing = True
        await trio.sleep(10)
        assert plant.lrc.payloads() == ["02ff"]
        plant.disk.failing = False
        await plant.settled()
        assert second.state is CommandState.SENT


async def test_the_answer_is_kept_once_the_disk_works_again(autojump_clock: MockClock) -> None:
    def answer(asked: Asked) -> httpx.Response:
        plant.disk.failing = True
        return refused()

    async with engine(lrc=Lrc(answer)) as plant:
        command = await plant.send()
        await trio.sleep(10)
        assert (command.state, plant.disk.state(1)) == (CommandState.REJECTED, CommandState.SENDING)
        assert plant.disk.reports == []
        plant.disk.failing = False
        await trio.sleep(3)
        assert plant.disk.state(1) is CommandState.REJECTED
        assert len(plant.disk.verdicts()) == 1


async def test_what_is_under_way_at_a_stop_has_its_grace(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(takes_s=3.0)) as plant:
        await plant.send()
        await plant.send()
        await trio.sleep(1)
    assert [plant.disk.state(id) for id in (1, 2)] == [CommandState.SENT, CommandState.WAITING]
    async with engine(lrc=Lrc(takes_s=6.0)) as plant:
        await plant.send()
        await trio.sleep(0.5)
        begun = trio.current_time()
    assert trio.current_time() - begun == pytest.approx(5.0)
    assert plant.disk.state(1) is CommandState.SENDING


async def test_a_stop_does_not_wait_for_an_lrc_that_is_away(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(there=False)) as plant:
        await plant.send()
        await trio.sleep(1_000)
        begun = trio.current_time()
    assert trio.current_time() == begun
    assert plant.disk.state(1) is CommandState.WAITING


async def test_the_key_of_a_command_shows_nowhere(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answers = [queued(), None, refused(), None]
    async with engine(lrc=Lrc(lambda asked: answers.pop() if answers else queued())) as plant:
        for n in range(4):
            await plant.send(AS_ID="TWA_1", AS_KEY=AS_KEY, payload_hex=f"{n:02x}")
        stored = plant.disk.as_now()
        assert any(AS_KEY.encode() in row for row in stored.rows.values()), "while it waits it has to be kept"
        await plant.settled()
        commands = plant.commands.book.of_device(DEV_EUI, 10)
        shown = [orjson.dumps(trace_document([], commands, [])), *(orjson.dumps(v) for v in plant.disk.verdicts())]
        shown += [repr(command).encode() for command in commands]
        shown += [text.encode() for text in plant.events()]
        shown += [caplog.text.encode(), orjson.dumps(plant.sender.document())]
        shown += [repr(row).encode() for row in plant.disk.rows.values()]
    assert all("Token" in asked for asked in plant.lrc.told)
    assert all(AS_KEY.encode() not in text for text in shown)
