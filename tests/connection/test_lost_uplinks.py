"""Uplinks that expired or were rejected show not only as a number: an event says which and why, without a flood."""

from __future__ import annotations

import time
from collections.abc import Sequence

import trio
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, make_connection, make_uplink, running
from tpxd.connection.connection import Connection
from tpxd.connection.health import LOST_S
from tpxd.connector import Outgoing, Receipts
from tpxd.events import Event


async def refusing(batch: Sequence[Outgoing], receipts: Receipts) -> None:
    for index, outgoing in enumerate(batch):
        if outgoing.uplink.seq % 2:
            receipts.rejected(index, f"400 Bad Request for {outgoing.uplink.seq}")
        else:
            receipts.delivered(index)


def told(connection: Connection) -> list[Event]:
    """Put a list in the place of where events go; also lets the health's clock be trio's."""
    events: list[Event] = []
    connection.health.tell = events.append
    connection.health.monotonic = trio.current_time
    return events


async def test_a_rejection_is_told_with_its_reason_once_an_hour(autojump_clock: MockClock) -> None:
    cursor = MemoryCursor()
    connection = make_connection(Peer(sending=refusing), cursor)
    events = told(connection)
    cursor.add(*map(make_uplink, range(1, 21)))
    async with running(connection):
        await trio.sleep(LOST_S - 1)
        cursor.add(*map(make_uplink, range(21, 41)))
        await trio.sleep(2)
        cursor.add(*map(make_uplink, range(41, 61)))
        await trio.sleep(1)
    assert [event.message for event in events if event.kind == "rejected"] == [
        f"plant: rejected and not sent, such as a DevEUI_uplink of 70B3D5E75E00A1C4: 400 Bad Request for {n}"
        for n in (1, 41)
    ]
    document = connection.health.to_document()
    assert document["lastError"]["message"] == "rejected: 400 Bad Request for 59"
    assert document["healthy"], "who refuses single uplinks may be right"


async def test_what_expired_is_told(autojump_clock: MockClock) -> None:
    cursor = MemoryCursor()
    connection = make_connection(Peer(), cursor, uplinkTimeValidity="5s")
    events = told(connection)
    old = int(time.time() * 1000) - 60_000
    cursor.add(*(make_uplink(n, received_ms=old) for n in range(1, 400)))
    async with running(connection):
        await trio.sleep(1)
    assert cursor.ledger.expired == 399
    (event,) = [event for event in events if event.kind == "expired"]
    assert event.message == (
        "plant: expired and not sent, such as a DevEUI_uplink of 70B3D5E75E00A1C4: it is older than uplinkTimeValidity"
    )
    assert connection.health.last_error is None


async def test_who_refuses_everything_needs_a_person(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        for index, outgoing in enumerate(batch):
            if outgoing.uplink.seq in (5, 21):
                receipts.delivered(index)
            else:
                receipts.rejected(index, "404 Not Found", "is the path right?")

    cursor = MemoryCursor()
    connection = make_connection(Peer(sending=sending), cursor)
    async with running(connection):
        for newest, healthy in [(9, True), (14, True), (15, False), (20, False), (21, True), (30, True), (31, False)]:
            cursor.add(*map(make_uplink, range(cursor.newest_seq + 1, newest + 1)))
            await trio.sleep(1)
            document = connection.health.to_document()
            assert (newest, document["healthy"]) == (newest, healthy)
            assert document["state"] == "OPENED"
            assert document["lastError"]["message"] == "rejected: 404 Not Found"
            assert document["lastError"]["hint"] == "is the path right?"
        assert (
            connection.health.to_document()["reason"]
            == "the last 10 uplinks were all rejected: 404 Not Found; is the path right?"
        )
    async with running(connection):
        await trio.sleep(1)
        assert connection.health.healthy, "another version of the file, or another try, is judged by its own uplinks"
