"""Real worker processes: killed, looping, waited for."""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.context
import os
import signal

import pytest
import trio
import trio.testing

from tpxd.codecs.engine import Call, Limits, Outcome
from tpxd.codecs.workers import open_workers

LIMITS = Limits(cpu_s=0.3, wall_s=5.0)
LOOP = "function decodeUplink(input) { for (;;); }"
COUNT = "function decodeUplink(input) { return {data: {n: input.n}}; }"
SLOW = (
    "function decodeUplink(input) { for (var end = Date.now() + 40; Date.now() < end;); return {data: {n: input.n}}; }"
)
STUCK = "function decodeUplink(input) { return {data: {n: new Array(4e8).join('x').length}}; }"


def call(source: str, n: int = 0) -> Call:
    return Call(source, "lora-alliance", "decodeUplink", {"n": n})


def numbers(outcomes: list[Outcome]) -> list[int]:
    return [outcome.result["data"]["n"] for outcome in outcomes]


async def test_no_process_runs_before_the_first_call() -> None:
    before = set(multiprocessing.active_children())
    async with open_workers(2, LIMITS) as workers:
        assert set(multiprocessing.active_children()) == before
        assert numbers(await workers.run([("a", "", call(COUNT, 7))])) == [7]
        assert len(set(multiprocessing.active_children()) - before) == 1
    assert set(multiprocessing.active_children()) <= before


async def test_a_worker_that_is_killed_loses_and_doubles_nothing() -> None:
    before = set(multiprocessing.active_children())
    ended: list[int] = []
    async with open_workers(1, LIMITS) as workers:
        await workers.run([("a", "", call(COUNT))])
        [process] = set(multiprocessing.active_children()) - before
        assert process.pid is not None
        found: list[Outcome] = []

        async def run() -> None:
            calls = [("slow", str(n), call(SLOW, n)) for n in range(10)]
            found.extend(await workers.run(calls, lambda index, outcome: ended.append(index)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked(0.1)
            os.kill(process.pid, signal.SIGKILL)
        assert numbers(found) == list(range(10))
        assert ended == list(range(10))
        assert workers.killed == 0


async def test_one_that_does_not_end_in_time_is_killed_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpxd.codecs.workers.GRACE_S", 0.0)
    before = set(multiprocessing.active_children())
    async with open_workers(1, LIMITS) as workers:
        await workers.run([("a", "", call(COUNT))])
    assert set(multiprocessing.active_children()) <= before


async def test_where_no_process_can_be_started_a_call_fails_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_workers(1, LIMITS) as workers:

        def no_room(_: object) -> None:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

        with monkeypatch.context() as patch:
            patch.setattr(multiprocessing.context.SpawnProcess, "start", no_room)
            [outcome] = await workers.run([("a", "", call(COUNT))])
        assert outcome.failure is not None
        assert outcome.failure.text == "stopped: 3 processes died over it, or could not be started"
        assert numbers(await workers.run([("a", "", call(COUNT, 7))])) == [7]


async def test_what_overruns_rests_for_its_device_alone() -> None:
    async with open_workers(1, LIMITS) as workers:
        for _ in range(3):
            [outcome] = await workers.run([("loop.js", "A", call(LOOP))])
            assert outcome.failure is not None
            assert outcome.failure.text == "stopped after 0.3 s of processor time"
        rests, other, fine = await workers.run(
            [("loop.js", "A", call(COUNT, 1)), ("loop.js", "B", call(COUNT, 2)), ("fine.js", "A", call(COUNT, 3))]
        )
    assert rests.failure is not None
    assert "was stopped 3 times for A; it is tried again in" in rests.failure.text
    assert numbers([other, fine]) == [2, 3]


async def test_a_step_that_the_engine_cannot_end_costs_its_process_and_nobody_else() -> None:
    calls = [("fine.js", "A", call(COUNT, 1)), ("stuck.js", "B", call(STUCK)), ("fine.js", "C", call(COUNT, 3))]
    async with open_workers(1, Limits(cpu_s=0.3, wall_s=0.6, memory_bytes=1 << 30)) as workers:
        first, stuck, last = await workers.run(calls)
        assert workers.killed >= 1
    assert numbers([first, last]) == [1, 3]
    assert stuck.failure is not None
    assert stuck.failure.text == "stopped after 0.6 s by the clock"


async def test_waiting_for_a_worker_counts_for_nobody() -> None:
    found: list[Outcome] = []
    async with open_workers(1, Limits(cpu_s=0.3, wall_s=0.5)) as workers, trio.open_nursery() as nursery:

        async def run(name: str, source: str) -> None:
            found.extend(await workers.run([(name, "A", call(source, 1))]))

        for n in range(3):
            nursery.start_soon(run, f"loop{n}.js", LOOP)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(run, "fine.js", COUNT)
    assert [outcome.failure is None for outcome in found] == [False, False, False, True]
