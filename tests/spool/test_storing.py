"""What is told about a disk that refuses, or takes its time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool.storing import Storing


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def storing(clock: Clock, events: list[Event]) -> Storing:
    return Storing(events.append, clock)


def test_it_stores_again_only_when_it_takes_as_much_as_it_refused(storing: Storing, events: list[Event]) -> None:
    assert storing.refused(SpoolUnavailable("disk full"), 500)
    assert not storing.refused(SpoolUnavailable("disk still full"), 9_000)
    storing.stored(8_999)
    assert storing.hindrance() == "disk still full"
    storing.stored(9_000)
    assert storing.hindrance() is None
    storing.stored(10)
    assert [event.message for event in events] == ["nothing can be stored: disk full", "the spool stores again"]


def test_a_disk_that_takes_more_than_five_seconds_is_told_meanwhile_and_until_it_is_quick(
    storing: Storing, events: list[Event], clock: Clock
) -> None:
    for _ in range(2):
        with storing.timed():
            clock.now_s += 4.9
            assert storing.hindrance() is None or events
            clock.now_s += 2.1
            assert storing.hindrance() == "the disk has not ended a write for 7 s"
        assert storing.hindrance() == "the disk took 7 s for the last write"
    with storing.timed():
        clock.now_s += 0.1
    assert storing.hindrance() is None
    assert [event.message for event in events] == ["the disk took 7 s for one write"]
