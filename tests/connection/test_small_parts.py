"""Pace, validity, formats, debugMode, stopping: the small pure parts of a connection."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.connection.doubles import make_uplink
from tests.notebook import Notebook
from tpxd.config.flow import Flow
from tpxd.connection.debug_log import open_debug_log
from tpxd.connection.outbound import Format, Outbound, emitted_s
from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Fate, Filtered
from tpxd.timing import ClockWatch, Pace, Stopping

NOW = 1_700_000_000.0


class Clocks:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall, self.monotonic = NOW, 100.0
        self.newest_ms: int | None = None
        self.watch = ClockWatch(lambda: self.newest_ms, wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_a_steady_clock_is_trusted() -> None:
    clocks = Clocks()
    for _ in range(100):
        clocks.pass_(10)
        assert clocks.watch.now() == clocks.wall


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_after_a_step_nothing_expires_for_ten_minutes(step: float) -> None:
    clocks = Clocks()
    clocks.wall += step
    assert clocks.watch.now() is None
    clocks.pass_(599)
    assert clocks.watch.now() is None
    clocks.pass_(2)
    assert clocks.watch.now() == clocks.wall


def test_a_small_correction_is_no_step() -> None:
    clocks = Clocks()
    clocks.wall += 59
    assert clocks.watch.now() is not None


def test_a_clock_behind_the_newest_arrival_is_not_trusted() -> None:
    clocks = Clocks()
    clocks.newest_ms = int((NOW + 5) * 1000)
    assert clocks.watch.now() is None
    clocks.pass_(6)
    assert clocks.watch.now() is not None


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2023-11-14T22:13:10.000+00:00", NOW - 10),
        ("2023-11-14T23:13:10.000+01:00", NOW - 10),
        ("2023-11-14T22:13:10.49", NOW - 9.51),
        ("2023-11-14T22:13:10Z", NOW - 10),
        ("2023-11-14T22:14:00.000+00:00", NOW),
        ("yesterday", NOW),
        ("", NOW),
        (7, NOW),
        (None, NOW),
    ],
)
def test_an_uplinks_age_begins_at_its_own_time_where_that_can_be(time: Any, expected: float) -> None:
    assert emitted_s(make_uplink(1, received_ms=int(NOW * 1000), Time=time)) == pytest.approx(expected)


@given(st.text())
def test_no_time_makes_it_fail(text: str) -> None:
    assert emitted_s(make_uplink(1, received_ms=int(NOW * 1000), Time=text)) <= NOW


def outbound(form: Format = "whole", validity_s: float | None = None, flow: Flow | None = None) -> Outbound:
    return Outbound(flow or Flow(), form, validity_s, Clocks().watch)


def report(kind: str, **fields: Any) -> Uplink:
    body = orjson.dumps({kind: {"DevEUI": "70B3D5E75E00A1C4", **fields}})
    return Uplink(1, int(NOW * 1000), kind, "70B3D5E75E00A1C4", "", body)


def test_the_whole_report_goes_out_byte_for_byte() -> None:
    spaced = Uplink(1, 0, "DevEUI_uplink", "X", "", b'{ "DevEUI_uplink" : {"DevEUI":"X", "n": 1.50} }')
    assert outbound().decide(spaced) is spaced.body


def test_fields_alone_for_uplinks_alone() -> None:
    assert outbound("fields").decide(report("DevEUI_uplink", FPort=5)) == b'{"DevEUI":"70B3D5E75E00A1C4","FPort":5}'
    assert outbound("fields").decide(report("DevEUI_downlink_Sent")) is Filtered.FORMAT


def test_the_decoded_payload_alone_where_there_is_one() -> None:
    assert outbound("payload").decide(report("DevEUI_uplink", payload={"t": 21.5})) == b'{"t":21.5}'
    plain = report("DevEUI_uplink")
    assert outbound("payload").decide(plain) == plain.body


def test_a_flow_filters_before_anything_else() -> None:
    flow = Flow.model_validate({"matchers": [{"type": "fPort", "ports": [9]}]})
    assert outbound(validity_s=1.0, flow=flow).decide(make_uplink(1, received_ms=0, FPort=5)) is Filtered.FLOW


@pytest.mark.parametrize(("age_s", "expired"), [(5.0, False), (15.0, True), (6 * 86_400.0, True)])
def test_an_uplink_older_than_its_validity_expires(age_s: float, expired: bool) -> None:
    old = make_uplink(1, received_ms=int((NOW - age_s) * 1000))
    assert (outbound(validity_s=10.0).decide(old) is Fate.EXPIRED) is expired


def test_a_validity_beyond_five_days() -> None:
    old = make_uplink(1, received_ms=int((NOW - 6 * 86_400) * 1000))
    assert outbound(validity_s=7 * 86_400.0).decide(old) == old.body


async def test_a_pace_never_lets_more_than_its_rate_through(autojump_clock: MockClock) -> None:
    pace, sent, begun = Pace(7), 0, trio.current_time()
    while trio.current_time() < begun + 10:
        allowed = await pace.wait()
        assert 1 <= allowed <= 7
        pace.spend(allowed)
        sent += allowed
    assert 70 <= sent <= 78


async def test_a_pace_may_begin_no_faster_than_it_goes_on(autojump_clock: MockClock) -> None:
    pace, sent = Pace(100, at_first=1), 0
    assert await pace.wait() == 1, "the first one does not wait"
    while trio.current_time() < 1:
        allowed = await pace.wait()
        pace.spend(allowed)
        sent += allowed
    assert sent <= 101
    await trio.sleep(60)
    assert await pace.wait() == 100, "what was not used is saved for a second"


async def test_without_a_rate_nothing_waits(autojump_clock: MockClock) -> None:
    pace = Pace(None)
    for _ in range(1000):
        pace.spend(await pace.wait() and 256)
    assert trio.current_time() == 0


async def test_debug_mode_ends_after_two_days_also_across_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, memory = NOW, Notebook()
    monkeypatch.setattr("tpxd.connection.debug_log.time.time", lambda: now)
    assert (await open_debug_log("plant", True, memory)).on
    now += 86_400
    restarted = await open_debug_log("plant", True, memory)
    still_on = restarted.on
    now += 86_401
    assert (still_on, restarted.on) == (True, False)
    assert not (await open_debug_log("plant", True, memory)).on, "a restart does not prolong it"
    assert not (await open_debug_log("plant", False, memory)).on
    assert (await open_debug_log("plant", True, memory)).on, "switched off and on, it begins anew"


@pytest.mark.parametrize("wanted", [True, False])
async def test_debug_mode_stops_no_connection_where_the_disk_refuses(
    wanted: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Notebook()
    await open_debug_log("plant", not wanted, memory)

    async def full(key: str, value: str) -> None:
        await trio.lowlevel.checkpoint()
        raise SpoolUnavailable("the disk is full")

    monkeypatch.setattr(memory, "remember", full)
    assert (await open_debug_log("plant", wanted, memory)).on is wanted
    assert "cannot be kept, a restart will not know: the disk is full" in caplog.text


async def test_a_request_to_stop_interrupts_waiting_and_bounds_work(autojump_clock: MockClock) -> None:
    stopping, ended = Stopping(), dict[str, float]()

    async def wait() -> None:
        with stopping.interrupts():
            await trio.Event().wait()
        ended["waiting"] = trio.current_time()

    async def work() -> None:
        with stopping.bounds(lambda: 5.0):
            await trio.Event().wait()
        ended["work"] = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(work)
        await trio.sleep(10)
        stopping.request()
        stopping.request()
    assert ended == {"waiting": 10.0, "work": 15.0}
    with stopping.interrupts():
        await trio.Event().wait()
    assert trio.current_time() == 15.0, "what begins after the request ends at once"
