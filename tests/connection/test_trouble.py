"""What fails beside the way of uplinks: health shows it, one event tells of its beginning and one of its end."""

from __future__ import annotations

from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, make_connection
from tpxd.connection.health import Health
from tpxd.connection.states import ConnectionState
from tpxd.errors import TransportError
from tpxd.events import Event

DENIED = TransportError("devices are not registered: 403", hint="allow it")


def health_and_events() -> tuple[Health, list[Event]]:
    events: list[Event] = []
    health = Health("plant", MemoryCursor(), events.append)
    health.enter(ConnectionState.OPENING)
    health.enter(ConnectionState.OPENED)
    events.clear()
    return health, events


def test_a_trouble_shows_in_a_document_that_stays_healthy_and_is_told_once() -> None:
    health, events = health_and_events()
    health.troubled(DENIED)
    health.troubled(TransportError("devices are not registered: 503"))
    document = health.to_document()
    assert (document["state"], document["healthy"]) == ("OPENED", True)
    assert document["reason"] == document["lastError"]["message"] == "devices are not registered: 503"
    (event,) = events
    assert event.to_document() | {"at": ""} == {
        "at": "", "level": "warning", "kind": "trouble", "connection": "plant",
        "message": "plant: devices are not registered: 403", "hint": "allow it",
    }  # fmt: skip


def test_its_end_is_told_once() -> None:
    health, events = health_and_events()
    health.troubled(None)
    assert events == []
    health.troubled(DENIED)
    health.troubled(None)
    health.troubled(None)
    assert [event.message for event in events[1:]] == ["plant: overcome: devices are not registered: 403"]
    assert health.to_document()["reason"] is None


def test_what_keeps_uplinks_waiting_is_named_first() -> None:
    health, _ = health_and_events()
    health.troubled(DENIED)
    health.enter(ConnectionState.CLOSED, "connection refused")
    assert health.to_document()["reason"] == "connection refused"
    health.enter(ConnectionState.OPENING)
    health.enter(ConnectionState.OPENED)
    assert health.to_document()["reason"] == DENIED.message


async def test_another_version_of_the_file_begins_without(autojump_clock: MockClock) -> None:
    connection = make_connection(Peer(), MemoryCursor())
    connection.far_end.context.troubled(DENIED)
    assert connection.health.trouble == DENIED.message
    connection.stopping.request()
    await connection.run()
    assert connection.health.trouble is None
