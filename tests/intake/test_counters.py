"""What intake counts, and when it calls itself healthy."""

from __future__ import annotations

import logging

import pytest

from tpxd.intake.counters import IntakeCounters, IntakeHealth, Refusal


class Clock:
    """Seconds since the epoch, set by hand."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def recorded(clock: Clock, *, accepted: int, refused: int) -> IntakeHealth:
    health = IntakeHealth(clock)
    for _ in range(accepted):
        health.accepted()
    for _ in range(refused):
        health.refused("the Token is wrong")
    return health


@pytest.mark.parametrize(
    ("accepted", "refused", "healthy"),
    [(0, 0, True), (0, 9, True), (0, 10, False), (5, 5, False), (6, 5, True), (6, 4, True), (1000, 999, True)],
)
def test_fewer_than_half_of_at_least_ten(accepted: int, refused: int, healthy: bool) -> None:
    health = recorded(Clock(), accepted=accepted, refused=refused)
    assert health.healthy() is healthy
    assert (health.reason() is None) is healthy


def test_the_reason_says_how_many_and_gives_an_example() -> None:
    assert recorded(Clock(), accepted=2, refused=10).reason() == (
        "10 of 12 reports of the last five minutes were refused, the last one: the Token is wrong"
    )


def test_only_five_minutes_count() -> None:
    clock = Clock()
    health = recorded(clock, accepted=0, refused=10)
    clock.now += 280
    assert not health.healthy()
    clock.now += 20
    assert health.healthy()
    assert health.recent() == (0, 0)


def test_reports_leave_the_window_as_they_came() -> None:
    clock = Clock()
    health = IntakeHealth(clock)
    for _ in range(100):
        health.refused("no")
        clock.now += 10
    assert health.recent() == (29, 29), "the slot of this moment is still empty"


def test_a_clock_that_is_set_back_leaves_nothing_in_the_future() -> None:
    clock = Clock()
    health = recorded(clock, accepted=0, refused=10)
    clock.now -= 3600
    health.accepted()
    assert health.recent() == (1, 0)


def test_the_document() -> None:
    clock = Clock()
    counters = IntakeCounters(clock)
    counters.accepted(duplicate=False)
    counters.accepted(duplicate=True)
    counters.refused(Refusal("report", "the body is empty", "192.0.2.7"))
    counters.refused(
        Refusal("time", "Time is 90 s off", "192.0.2.8", "DevEUI_uplink", "70B3D5E75E00A1C4", "ACME", 90.0)
    )
    clock.now += 1.5
    counters.refused(Refusal("report", "the body is text", "192.0.2.9"))
    nothing = {"AS_ID": None, "DevEUI": None, "timeDifferenceSeconds": None}
    assert counters.to_document() == {
        "healthy": True,
        "reason": None,
        "accepted": 2,
        "duplicates": 1,
        "unclaimed": 0,
        "refused": {
            "report": {
                "count": 2,
                "types": {},
                "last": {
                    "at": "2023-11-14T22:13:21.500Z",
                    "message": "the body is text",
                    "peer": "192.0.2.9",
                    **nothing,
                },
            },
            "time": {
                "count": 1,
                "types": {"DevEUI_uplink": 1},
                "last": {
                    "at": "2023-11-14T22:13:20.000Z",
                    "message": "Time is 90 s off",
                    "peer": "192.0.2.8",
                    "AS_ID": "ACME",
                    "DevEUI": "70B3D5E75E00A1C4",
                    "timeDifferenceSeconds": 90.0,
                },
            },
        },
    }


def test_the_document_says_why_it_is_not_healthy() -> None:
    counters = IntakeCounters(Clock())
    for _ in range(10):
        counters.refused(Refusal("token", "the Token is wrong", "192.0.2.7"))
    document = counters.to_document()
    assert document["healthy"] is False
    assert document["reason"].startswith("10 of 10 reports")


def test_strangers_cannot_fill_the_document() -> None:
    counters = IntakeCounters(Clock())
    for n in range(1000):
        counters.refused(Refusal("as_id", "x" * 10_000, "192.0.2.7", f"type{n}", "F" * 10_000, "y" * 10_000))
    (reason,) = counters.to_document()["refused"].values()
    assert reason["count"] == 1000
    assert len(reason["types"]) == 32
    assert max(len(str(value)) for value in reason["last"].values()) == 200


def test_each_reason_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    counters = IntakeCounters(clock)
    for _ in range(120):
        counters.refused(Refusal("token", "the Token is wrong", "192.0.2.7"))
        clock.now += 1
    counters.refused(Refusal("time", "Time is 90 s off", "192.0.2.7"))
    assert [record.getMessage() for record in caplog.records] == [
        "report from 192.0.2.7 refused: the Token is wrong",
        "report from 192.0.2.7 refused: the Token is wrong (and 59 more since the last such line)",
        "report from 192.0.2.7 refused: Time is 90 s off",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_clock_that_is_set_back_does_not_silence_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    counters = IntakeCounters(clock)
    counters.refused(Refusal("token", "the Token is wrong", "192.0.2.7"))
    clock.now -= 3600
    counters.refused(Refusal("token", "the Token is wrong", "192.0.2.7"))
    assert len(caplog.records) == 2
