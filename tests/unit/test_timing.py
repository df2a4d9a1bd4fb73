"""The retry clock, against the documented tables, over simulated days."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, make_connection, make_uplink, running
from tpxd.connector import Outgoing, Receipts
from tpxd.errors import ConnectFailed, LinkLost
from tpxd.timing import BURST_S, JITTER_S, TABLES, Backoff, Strategy

HOUR, DAY = 3600.0, 86400.0


def attempts(strategy: Strategy, lasts_s: float, seed: int = 1) -> list[float]:
    """Times of the tries of a connection that always fails at once, from its first failure on."""
    backoff, now, times = Backoff(strategy, random.Random(seed)), 0.0, [0.0]
    while now < lasts_s:
        delay = backoff.delay(now)
        if delay is None:
            break
        now += delay
        times.append(now)
    return times


@pytest.mark.parametrize("strategy", ["CALM", "NORMAL", "AGGRESSIVE"])
def test_begins_with_a_burst_of_five_minutes(strategy: Strategy) -> None:
    times = attempts(strategy, BURST_S)
    gaps = [b - a for a, b in pairwise(times)]
    assert all(1.0 <= gap <= 30.0 for gap in gaps[:-1])
    assert gaps[0] <= 3.0, "the first retry comes within three seconds"
    assert 10 <= len(times) <= 150
    assert times[-1] >= BURST_S


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("strategy", ["CALM", "NORMAL", "AGGRESSIVE"])
def test_follows_the_documented_table_for_24_hours_and_more(strategy: Strategy, seed: int) -> None:
    times = attempts(strategy, 12 * DAY, seed)
    after = [t - BURST_S for t in times if t >= BURST_S]
    begins = 0.0
    for delay, lasts in TABLES[strategy]:
        ends = min(begins + lasts, 12 * DAY)
        inside = [(a, b) for a, b in pairwise(after) if begins <= a < ends]
        assert inside, f"no try in the phase of {delay} s"
        for a, b in inside:
            assert abs((b - a) - delay) <= JITTER_S + 1e-6
        if lasts < 12 * DAY:
            assert abs(len(inside) - lasts / delay) <= max(2, 0.06 * lasts / delay)
        begins += lasts


def test_calm_gives_up_after_a_day_and_a_half() -> None:
    backoff = Backoff("CALM", random.Random(3))
    assert backoff.delay(0.0) is not None
    assert backoff.delay(BURST_S + 12 * HOUR + DAY - 1) is not None
    assert backoff.delay(BURST_S + 12 * HOUR + DAY + 1) is None


def test_a_reset_begins_the_burst_anew() -> None:
    backoff = Backoff("NORMAL", random.Random(4))
    backoff.delay(0.0)
    late = backoff.delay(2 * HOUR)
    assert late is not None
    assert late > 1000
    backoff.reset()
    fresh = backoff.delay(2 * HOUR)
    assert fresh is not None
    assert fresh <= 3.0


@pytest.mark.parametrize(
    ("strategy", "phases"),
    [
        ("CALM", [(600, 12 * HOUR), (HOUR, 24 * HOUR)]),
        ("NORMAL", [(300, HOUR), (HOUR, 24 * HOUR)]),
        ("AGGRESSIVE", [(180, 3 * HOUR), (1_800, 24 * HOUR)]),
    ],
)
async def test_a_connection_that_cannot_open_keeps_to_the_table_for_24_hours(
    strategy: Strategy, phases: list[tuple[float, float]], autojump_clock: MockClock
) -> None:
    peer = Peer(opening=lambda: ConnectFailed("connection refused"))
    async with running(make_connection(peer, MemoryCursor(), reconnectStrategy=strategy)):
        await trio.sleep(BURST_S + DAY)
    times = [moment - peer.opens[0] - BURST_S for moment in peer.opens]
    assert sum(moment < 0 for moment in times) >= 10
    begins = 0.0
    for delay, ends in phases:
        gaps = [later - moment for moment, later in pairwise(times) if begins <= moment < ends]
        assert gaps
        assert all(abs(gap - delay) <= JITTER_S for gap in gaps)
        begins = ends


async def test_calm_gives_up_and_says_how_to_go_on(autojump_clock: MockClock) -> None:
    peer = Peer(opening=lambda: ConnectFailed("connection refused"))
    async with running(make_connection(peer, MemoryCursor(), reconnectStrategy="CALM")) as connection:
        await trio.sleep(3 * DAY)
        opens = len(peer.opens)
        document = connection.health.to_document()
        assert (document["state"], document["retryAt"]) == ("CLOSED", None)
        assert document["reason"] == (
            "connection refused; gave up as reconnectStrategy CALM says: `tpxd reconnect plant` tries again"
        )
        await trio.sleep(30 * DAY)
        assert len(peer.opens) == opens
        connection.nudge()
        await trio.sleep(5)
        assert len(peer.opens) > opens + 1, "the burst begins anew"


async def test_a_receipt_of_long_ago_keeps_no_connection_in_its_burst(autojump_clock: MockClock) -> None:
    """It resets the burst once; after five minutes without another one, the table holds."""

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        if len(peer.opens) == 1:
            receipts.delivered(0)
        raise LinkLost("closed by the far end")

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*map(make_uplink, range(1, 101)))
    async with running(make_connection(peer, cursor)):
        await trio.sleep(BURST_S + 60)
        in_burst = len(peer.opens)
        await trio.sleep(3_000)
    assert in_burst > 10
    assert len(peer.opens) - in_burst == pytest.approx(10, abs=2), "every five minutes"
