"""An LRC that refuses what downlinks are signed with: who waits, who goes on, when it is tried again, who is told."""

from __future__ import annotations

import logging

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.downlinks.downlink_doubles import AS_KEY, DEV_EUI, Asked, Disk, Lrc, engine, queued, right, wall
from tpxd.downlinks import lrc_reach
from tpxd.lorawan.downlink_request import Signing
from tpxd.spool import DownlinkState

OTHER = "70B3D5E75E00A1C5"
RIGHT, WRONG = Signing("TWA_1", AS_KEY), Signing("TWA_1", "0" * 32)


def bad(status: int = 403) -> httpx.Response:
    """A refusal of the AS_ID or the Token."""
    return httpx.Response(status, text="<html><body>Security Check. bad AS_ID</body></html>")


@pytest.mark.parametrize("status", [401, 403])
async def test_it_waits_and_is_tried_every_five_minutes_until_the_lrc_takes_it(
    autojump_clock: MockClock, status: int
) -> None:
    async with engine(lrc=Lrc(lambda asked: bad(status)), as_id="TWA_1") as plant:
        begun = trio.current_time()
        first, second = await plant.send(), await plant.send(payload_hex="03")
        await trio.sleep(1_000)
        assert [round(at - begun) for at in plant.lrc.tried] == [0, 300, 600, 900], "one of them, each five minutes"
        cause = f'the LRC refuses AS_ID "TWA_1": HTTP {status}: Security Check. bad AS_ID'
        assert [(c.state, c.doubts) for c in (first, second)] == [(DownlinkState.WAITING, 0)] * 2
        assert [c.cause for c in (first, second)] == [cause] * 2, "also of one that was not tried itself"
        assert plant.disk.reports == []
        document = plant.sender.document()
        assert (document["healthy"], document["reachable"], document["reason"]) == (False, True, cause)
        assert document["refusedAsIds"] == ["TWA_1"]
        assert document["lastError"]["message"] == cause
        assert {401: "downlinkAsKey", 403: "downlinkAsId"}[status] in document["lastError"]["hint"]
        assert plant.events() == [f"downlinks wait, tried every five minutes: {cause}"]
        assert plant.log.newest()[0].level == logging.WARNING
        plant.lrc.answer = lambda asked: queued()
        await trio.sleep(302)
        assert [c.state for c in (first, second)] == [DownlinkState.SENT] * 2
        assert plant.lrc.payloads()[-2:] == ["02ff", "03"]
        assert (plant.sender.document()["healthy"], plant.sender.document()["refusedAsIds"]) == (True, [])
        assert plant.events()[1:] == ['the LRC takes AS_ID "TWA_1" again']


async def test_its_validity_ends_it_and_the_cause_says_why(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: bad())) as plant:
        downlink = await plant.send(ValidityTime=60)
        await trio.sleep(70)
        assert downlink.state is DownlinkState.EXPIRED
        (verdict,) = plant.disk.verdicts()
        assert "the LRC refuses downlinks without an AS_ID: HTTP 403" in verdict["DownlinkRejectionCause"]
        assert not plant.sender.document()["healthy"], "nothing was accepted since"
        await trio.sleep(1_000)
        assert len(plant.lrc.tried) == 1


async def test_a_device_that_is_not_its_own_holds_up_no_other(autojump_clock: MockClock) -> None:
    lrc = Lrc(lambda asked: bad() if asked["DevEUI"] == DEV_EUI else queued())
    async with engine(lrc=lrc, as_id="TWA_1") as plant:
        stuck = await plant.send()
        await trio.sleep(1)
        assert not plant.sender.document()["healthy"]
        for n in range(20):
            other = await plant.send(DevEUI=OTHER, payload_hex=f"{n:02x}")
            await trio.sleep(10)
            assert other.state is DownlinkState.SENT
            assert plant.sender.document()["healthy"], "one with that AS_ID was accepted since"
        assert stuck.state is DownlinkState.WAITING
        await trio.sleep(301)
        assert not plant.sender.document()["healthy"], "the newest try was refused"


async def test_who_signs_otherwise_goes_on_to_the_same_device_and_in_order(autojump_clock: MockClock) -> None:
    lrc = Lrc(lambda asked: bad() if asked["AS_ID"] == "BAD" else queued())
    async with engine(lrc=lrc, as_id="TWA_1") as plant:
        for n in range(30):
            plant.downlinks.enter("plant", right(wall(), payload_hex=f"{n:02x}", AS_ID="BAD" if n % 3 else None))
        await trio.sleep(10)
        assert [asked["Payload"] for asked in lrc.told if asked["AS_ID"] != "BAD"] == [
            f"{3 * n:02x}" for n in range(10)
        ]
        assert lrc.most == 1
        lrc.answer = lambda asked: queued()
        await plant.settled()
        late = [asked["Payload"] for asked in lrc.told if asked["AS_ID"] == "BAD"]
        assert late[0] == "01"
        assert late[1:] == [f"{n:02x}" for n in range(30) if n % 3], "those that waited, in their order"


async def test_somebody_asks_for_it(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: bad())) as plant:
        await plant.send()
        await plant.send(DevEUI=OTHER)
        await trio.sleep(20)
        plant.sender.reconnect()
        await trio.sleep(1)
        assert len(plant.lrc.tried) == 4
        assert not plant.sender.document()["healthy"]
        await trio.sleep(100)
        assert len(plant.lrc.tried) == 4, "and then again in five minutes"
        plant.lrc.answer = lambda asked: queued()
        plant.sender.reconnect()
        await trio.sleep(1)
        assert plant.downlinks.book.counts("plant").sent == 2


async def test_a_changed_key_is_tried_at_once(autojump_clock: MockClock) -> None:
    def answer(asked: Asked) -> httpx.Response:
        return queued() if keys["plant"] == RIGHT else bad(401)

    keys = {"plant": WRONG}
    async with engine(lrc=Lrc(answer), signing_of=lambda id: keys.get(id, Signing())) as plant:
        downlink = await plant.send()
        await trio.sleep(30)
        assert (downlink.state, len(plant.lrc.tried)) == (DownlinkState.WAITING, 1)
        keys["plant"] = RIGHT
        await trio.sleep(2)
        assert downlink.state is DownlinkState.SENT
        assert plant.sender.document()["healthy"]


async def test_a_changed_key_without_anything_to_send_is_not_held_against_the_file(autojump_clock: MockClock) -> None:
    keys = {"plant": WRONG}
    async with engine(lrc=Lrc(lambda asked: bad(401)), signing_of=lambda id: keys[id]) as plant:
        await plant.send(ValidityTime=10)
        await trio.sleep(30)
        assert not plant.sender.document()["healthy"]
        keys["plant"] = RIGHT
        await trio.sleep(2)
        assert plant.sender.document()["healthy"]


async def test_a_restart_tries_at_once(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: bad())) as before:
        await before.send()
        await trio.sleep(5)
        left = before.disk.as_now()
    async with engine(left) as plant:
        await trio.sleep(1)
        assert plant.downlinks.book.counts("plant").sent == 1


async def test_what_is_remembered_of_refused_ones_is_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lrc_reach, "MOST_REFUSED", 3)
    async with engine(Disk(), Lrc(lambda asked: bad())) as plant:
        for n in range(10):
            await plant.send(AS_ID=f"AS{n}", ValidityTime=60)
            await trio.sleep(1)
        document = plant.sender.document()
        assert document["refusedAsIds"] == ["AS7", "AS8", "AS9"]
        assert document["reason"] == 'the LRC refuses AS_ID "AS9": HTTP 403: Security Check. bad AS_ID; 2 more AS_IDs'
        await trio.sleep(120)
        assert plant.downlinks.lanes.devices == 0, "and no lane is left of what expired"


async def test_a_changed_key_is_no_reason_to_try_another_one_again_and_again(autojump_clock: MockClock) -> None:
    def answer(asked: Asked) -> httpx.Response:
        return bad(401) if asked["DevEUI"] == OTHER or keys["plant"] == WRONG else queued()

    keys = {"plant": WRONG}
    async with engine(lrc=Lrc(answer), signing_of=lambda id: keys.get(id, Signing())) as plant:
        downlink = await plant.send()
        plant.downlinks.enter("office", right(wall(), DevEUI=OTHER))
        await trio.sleep(30)
        keys["plant"] = RIGHT
        await trio.sleep(5)
        assert downlink.state is DownlinkState.SENT
        tries = len(plant.lrc.tried)
        await trio.sleep(60)
        assert len(plant.lrc.tried) == tries
