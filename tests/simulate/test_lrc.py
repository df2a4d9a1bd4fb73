"""The simulated LRC keeps its pace, its order and its counts, and fails over as an LRC does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import orjson
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tpxd.simulate import lrc
from tpxd.simulate.lrc import Counters, Latencies, Pace, Signature, drive
from tpxd.simulate.post import NotAnswered, Target
from tpxd.simulate.reports import make_devices
from tpxd.simulate.token import sign

FIRST, SECOND = Target.parse("http://first/uplink"), Target.parse("http://second/uplink")
SIGNATURE = Signature("AS.1", "7d1e9a40c3b85f2206e4d7913ab6f85c")


class Network:
    """Answers every POST after `takes_s` with what `answers` has for its host; a text is a failure."""

    def __init__(self) -> None:
        self.answers: dict[str, int | str] = {"first": 200, "second": 200}
        self.takes_s = 0.01
        self.seen: list[tuple[str, str, bytes]] = []

    @asynccontextmanager
    async def open_poster(self, target: Target, timeout_s: float) -> AsyncIterator[FakePoster]:
        yield FakePoster(self, target)


class FakePoster:
    def __init__(self, network: Network, target: Target) -> None:
        self.network = network
        self.host = target.host

    async def post(self, query: str, body: bytes) -> int:
        await trio.sleep(self.network.takes_s)
        self.network.seen.append((self.host, query, body))
        answer = self.network.answers[self.host]
        if isinstance(answer, str):
            raise NotAnswered(answer)
        return answer


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    monkeypatch.setattr(lrc, "open_poster", network.open_poster)
    return network


async def run(targets: Sequence[Target], pace: Pace, devices: int = 20, **more: object) -> Counters:
    counters = Counters()
    await drive(targets, pace, counters, devices=make_devices(devices, 1), **more)  # type: ignore[arg-type]
    return counters


async def test_count_and_rate_are_kept(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    begun = trio.current_time()
    counters = await run([FIRST], Pace(50, count=101))
    assert trio.current_time() - begun == pytest.approx(2.01)
    assert (counters.posted, counters.accepted, counters.lost) == (101, 101, 0)
    assert counters.answers == {"200": 101}


async def test_a_duration_ends_it(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    counters = await run([FIRST], Pace(10, duration_s=3))
    assert counters.accepted == 30


async def test_stopping_lets_answers_come(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    network.takes_s = 1
    pace = Pace(0)
    counters = Counters()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: drive([FIRST], pace, counters, devices=make_devices(4, 1), clients=4))
        await trio.sleep(0.5)
        pace.stop()
    assert counters.accepted == 4


async def test_without_a_rate_answers_set_the_pace(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    counters = await run([FIRST], Pace(0, duration_s=1), devices=8, clients=100)
    assert counters.accepted == pytest.approx(800, abs=16)


async def test_a_slow_server_shows_as_latency(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    network.takes_s = 0.2
    counters = await run([FIRST], Pace(10, count=20), devices=1, clients=1)
    # The twentieth report was due after 1.9 s and answered after 4 s.
    longest, least = counters.latency.quantile(1), counters.latency.quantile(0.05)
    assert longest == pytest.approx(2.1, rel=0.03)
    assert least == pytest.approx(0.2, rel=0.03)


async def test_a_devices_reports_keep_their_order(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    await run([FIRST], Pace(0, count=300), devices=7, clients=3)
    by_device: dict[str, list[int]] = defaultdict(list)
    for _, _, body in network.seen:
        fields = orjson.loads(body)["DevEUI_uplink"]
        by_device[fields["DevEUI"]].append(fields["FCntUp"])
    assert len(by_device) == 7
    for counters in by_device.values():
        assert counters == list(range(counters[0], counters[0] + len(counters)))


async def test_the_next_url_is_for_what_the_one_before_did_not_take(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    network.answers = {"first": "connection refused", "second": 200}
    counters = await run([FIRST, SECOND], Pace(0, count=5))
    assert (counters.posted, counters.accepted, counters.lost) == (5, 5, 0)
    assert counters.answers == {"connection refused": 5, "200": 5}
    assert [host for host, _, _ in network.seen].count("second") == 5


async def test_what_no_url_takes_is_lost(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    network.answers = {"first": 503, "second": 401}
    counters = await run([FIRST, SECOND], Pace(0, count=5))
    assert (counters.posted, counters.accepted, counters.lost) == (5, 0, 5)
    assert counters.answers == {"503": 5, "401": 5}
    assert counters.latency.quantile(0.5) is None
    assert counters.newest[-1][2] == "401"


async def test_every_mixed_report_carries_a_token_over_what_was_sent(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    await run([FIRST], Pace(0, count=400), signature=SIGNATURE, mixed=True)
    assert len(network.seen) == 400
    for _, query, body in network.seen:
        *pairs, (name, token) = parse_qsl(query, strict_parsing=True)
        ((kind, fields),) = orjson.loads(body).items()
        assert name == "Token"
        assert [name for name, _ in pairs] == ["LrnDevEui", "LrnFPort", "LrnInfos", "AS_ID", "Time"]
        assert token == sign(kind, fields, pairs, SIGNATURE.key)
        assert "+" not in query


async def test_without_a_key_nothing_is_signed(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    await run([FIRST], Pace(0, count=1), clients=1)
    ((_, query, body),) = network.seen
    fields = orjson.loads(body)["DevEUI_uplink"]
    assert query == f"LrnDevEui={fields['DevEUI']}&LrnFPort={fields['FPort']}&LrnInfos=TWA_100009421.77.AS-0-1"


def test_the_key_is_never_shown() -> None:
    assert SIGNATURE.key not in repr(SIGNATURE)


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_are_right_within_two_percent(seconds: list[float], share: float) -> None:
    latencies = Latencies()
    for value in seconds:
        latencies.add(value)
    found = latencies.quantile(share)
    assert found is not None
    within = sum(value <= found * 1.0001 for value in seconds)
    assert within >= share * len(seconds) - 1e-6
    assert any(value <= found * 1.0001 and found <= value * 1.0202 for value in seconds)
