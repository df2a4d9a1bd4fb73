"""The estimate of a backlog's end."""

from __future__ import annotations

import pytest

from tpxd.connection.health import Drain


def test_a_steady_drain_is_estimated() -> None:
    drain = Drain()
    for second in range(20):
        drain.sample(float(second), 10_000 - 100 * second)
    assert drain.estimate_s(20.0, 8_000) == pytest.approx(80.0)


def test_the_last_half_minute_counts() -> None:
    drain = Drain()
    for second in range(100):
        drain.sample(float(second), 100_000)
    for second in range(100, 140):
        drain.sample(float(second), 100_000 - 1_000 * (second - 100))
    assert drain.estimate_s(140.0, 60_000) == pytest.approx(60.0)


def test_a_growing_backlog_has_no_end() -> None:
    drain = Drain()
    for second in range(20):
        drain.sample(float(second), 100 * second)
    assert drain.estimate_s(20.0, 2_000) is None


def test_nothing_waiting_is_drained_and_no_evidence_is_no_estimate() -> None:
    assert Drain().estimate_s(0.0, 0) == 0.0
    assert Drain().estimate_s(0.0, 10) is None


def test_it_stays_small() -> None:
    drain = Drain()
    for step in range(100_000):
        drain.sample(step / 100, step)
    assert len(drain._samples) <= 32
