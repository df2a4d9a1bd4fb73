"""Low-rate alarms: windows of the week, time zones, daylight saving, one event an hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trio
from pydantic import ValidationError
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, make_connection, make_uplink, running
from tpxd.config.alarms import Alarm
from tpxd.config.flow import Flow
from tpxd.connection.watches import RateWatch
from tpxd.events import Event

PARIS = ZoneInfo("Europe/Paris")


def alarm(**more: Any) -> Alarm:
    basis = {
        "startTime": "2026-01-05T09:00:00+01:00",
        "endTime": "2026-01-05T18:00:00+01:00",
        "timezone": "Europe/Paris",
        "uplinkRateMinPerHour": 10,
        "message": "Plant is too quiet",
        "recurrence": [{"frequency": "weekly", "byDays": ["monday", "friday"]}],
    }
    return Alarm.model_validate({name: value for name, value in (basis | more).items() if value is not None})


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        (datetime(2026, 1, 5, 9, 0, tzinfo=PARIS), True),
        (datetime(2026, 1, 5, 8, 59, tzinfo=PARIS), False),
        (datetime(2026, 1, 5, 17, 59, tzinfo=PARIS), True),
        (datetime(2026, 1, 5, 18, 0, tzinfo=PARIS), False),
        (datetime(2026, 1, 6, 12, 0, tzinfo=PARIS), False),
        (datetime(2026, 1, 9, 12, 0, tzinfo=PARIS), True),
        (datetime(2026, 7, 6, 9, 0, tzinfo=PARIS), True),
        (datetime(2026, 7, 6, 8, 59, tzinfo=PARIS), False),
        (datetime(2026, 7, 6, 7, 30, tzinfo=UTC), True),
    ],
)
def test_the_window_follows_the_clock_on_the_wall(moment: datetime, is_open: bool) -> None:
    assert (alarm().opened_at(moment) is not None) is is_open


def test_a_window_over_midnight_belongs_to_the_day_it_opened() -> None:
    night = alarm(startTime="2026-01-05T22:00:00+01:00", endTime="2026-01-06T06:00:00+01:00")
    assert night.opened_at(datetime(2026, 1, 6, 5, 0, tzinfo=PARIS)) == datetime(2026, 1, 5, 22, tzinfo=PARIS)
    assert night.opened_at(datetime(2026, 1, 7, 5, 0, tzinfo=PARIS)) is None


def test_the_night_in_which_the_clock_changes_has_its_true_length() -> None:
    night = alarm(
        startTime="2026-01-05T22:00:00+01:00",
        endTime="2026-01-06T06:00:00+01:00",
        recurrence=[{"frequency": "weekly", "byDays": ["saturday"]}],
    )
    begins = datetime(2026, 3, 28, 22, 0, tzinfo=PARIS)
    open_minutes = sum(
        night.opened_at(begins.astimezone(UTC) + timedelta(minutes=n)) is not None for n in range(24 * 60)
    )
    assert open_minutes == 7 * 60


def test_without_recurrence_the_window_is_that_one_period() -> None:
    once = alarm(recurrence=None)
    assert once.opened_at(datetime(2026, 1, 5, 12, 0, tzinfo=PARIS)) is not None
    assert once.opened_at(datetime(2026, 1, 12, 12, 0, tzinfo=PARIS)) is None


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"timezone": "Europe/Pariss"}, "time zone"),
        ({"startTime": "nine"}, "startTime"),
        ({"startTime": "2026-01-05T09:00:00"}, "offset"),
        ({"recurrence": [{"frequency": "daily", "byDays": ["monday"]}]}, "frequency"),
        ({"recurrence": [{"frequency": "weekly", "byDays": ["lundi"]}]}, "byDays"),
        ({"uplinkRateMinPerHour": 0}, "uplinkRateMinPerHour"),
        ({"recurrence": None, "endTime": "2026-01-05T08:00:00+01:00"}, "endTime"),
    ],
)
def test_a_wrong_alarm_is_named(more: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError, match=names):
        alarm(**more)


def watched(per_hour: int, hours: int, begins: datetime) -> list[Event]:
    """The events of so many hours at a steady rate."""
    received, events = 0.0, list[Event]()
    rate = RateWatch("plant", [alarm()], lambda: (int(received), int(received)), events.append)
    for minute in range(hours * 60):
        rate.look(begins + timedelta(minutes=minute), minute * 60)
        received += per_hour / 60
    return events


def test_a_quiet_plant_is_told_once_an_hour_within_the_window() -> None:
    events = watched(5, 24, datetime(2026, 1, 5, 0, 0, tzinfo=PARIS))
    assert 7 <= len(events) <= 8, "from 10:00 to 18:00"
    assert "Plant is too quiet" in events[0].message
    assert events[0].connection == "plant"


def test_a_busy_plant_is_not_told() -> None:
    assert watched(12, 24, datetime(2026, 1, 5, 0, 0, tzinfo=PARIS)) == []


def test_what_waits_undecided_is_never_missed_in_a_rate() -> None:
    """The link is away for three hours in which 12 uplinks an hour come for the connection, and 100 for others."""
    ours = undecided = 0.0
    events: list[Event] = []

    def arrived() -> tuple[int, int]:
        return int(ours), int(ours + undecided)

    rate, begins = RateWatch("plant", [alarm()], arrived, events.append), datetime(2026, 1, 5, 9, 0, tzinfo=PARIS)
    for minute in range(9 * 60):
        rate.look(begins + timedelta(minutes=minute), minute * 60)
        away = 120 <= minute < 300
        if away:
            undecided += 112 / 60
        else:
            # what waited turns out to be ours by one in nine or so
            ours += 12 / 60 + undecided * 12 / 112
            undecided = 0
    assert events == []


def test_a_clock_that_is_set_makes_no_hour_out_of_a_minute() -> None:
    """The machine has no battery: it boots in 1970, and learns the time some minutes later."""
    events: list[Event] = []
    rate = RateWatch("plant", [alarm()], lambda: (0, 0), events.append)
    for minute in range(120):
        begins = datetime(1970, 1, 1, tzinfo=UTC) if minute < 5 else datetime(2026, 1, 5, 12, 0, tzinfo=PARIS)
        rate.look(begins + timedelta(minutes=minute), minute * 60)
        assert (len(events) > 0) is (minute >= 60)


def test_a_day_outside_is_not_told() -> None:
    assert watched(0, 24, datetime(2026, 1, 6, 0, 0, tzinfo=PARIS)) == []


def test_a_start_within_the_window_waits_for_an_hour_of_evidence() -> None:
    assert watched(0, 1, datetime(2026, 1, 5, 12, 0, tzinfo=PARIS)) == []
    assert len(watched(0, 2, datetime(2026, 1, 5, 12, 0, tzinfo=PARIS))) == 1


async def test_a_connection_at_work_raises_the_alarms_of_its_file(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monday = datetime(2026, 1, 5, 9, 0, tzinfo=PARIS)

    class Wall(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Wall:
            return cls.fromtimestamp(monday.timestamp() + trio.current_time(), tz)

    monkeypatch.setattr("tpxd.connection.watches.datetime", Wall)
    connection = make_connection(Peer(), MemoryCursor())
    connection.file = connection.file.model_copy(update={"alarms": [alarm()]})
    events: list[Event] = []
    connection.health.tell = events.append
    async with running(connection):
        await trio.sleep(1.5 * 3_600)
    assert ["Plant is too quiet" in event.message for event in events if event.kind == "low_rate"] == [True]


async def test_only_what_its_flow_takes_counts(autojump_clock: MockClock) -> None:
    flow = Flow.model_validate({"matchers": [{"type": "fPort", "ports": [9]}]})
    peer, cursor = Peer(), MemoryCursor()
    connection = make_connection(peer, cursor, flow=flow)
    cursor.add(*(make_uplink(n, FPort=9 if n % 4 == 0 else 2) for n in range(1, 41)))
    assert connection.queue.arrived() == (0, 40), "of what waits nobody knows"
    async with running(connection):
        await trio.sleep(1)
        assert connection.queue.arrived() == (10, 10)


@pytest.mark.parametrize(("settings", "arrived"), [({}, (3, 3)), ({"sendMetadata": True}, (0, 3))])
def test_a_connection_that_takes_everything_knows_what_waits_for_it(
    settings: dict[str, Any], arrived: tuple[int, int]
) -> None:
    cursor = MemoryCursor()
    cursor.add(*map(make_uplink, (1, 2, 3)))
    assert make_connection(Peer(), cursor, **settings).queue.arrived() == arrived
