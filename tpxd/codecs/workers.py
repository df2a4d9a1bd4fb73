"""The processes that payload scripts run in: how many, for how long, and what happens when one overruns.

A worker starts with the first call and ends when it was idle for a minute. Calls wait for a free worker and for its
start; that time counts for nobody. A worker that dies of itself, or that somebody kills, is replaced, and its batch is
run again. From when a worker has a batch, the batch has the wall-clock limit of one call: the worker itself
begins no new ones after half of it (`engine.run_batch`), and where one long step of a built-in function holds it up,
the process is killed, and the calls of its batch are run one by one, so that only the one that overran has failed.

What overruns three times within ten minutes rests for ten minutes, for that script and device alone, and says so.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto

import trio
import trio_parallel

from tpxd.codecs.engine import Call, Failure, Limits, Outcome, run_batch
from tpxd.config.settings import CodecSettings

IDLE_S = 60.0
GRACE_S = 0.5
BATCH = 64
OVERRUNS = 3
REST_S = 600.0
MAX_WATCHED = 10_000
DEATHS = 3
"""So many workers may die over one batch before its first call is held to be why."""

START_S = 60.0


class Lost(Enum):
    """Why a batch has no outcomes."""

    OVERRAN = auto()
    DIED = auto()


@dataclass(slots=True)
class Overruns:
    """Which scripts rest for which devices; pure, times in."""

    _seen: OrderedDict[tuple[str, str], deque[float]] = field(default_factory=OrderedDict)

    def rests_for_s(self, script: str, lane: str, now: float) -> float:
        """How long this script rests for this device; 0 when it may run."""
        times = self._seen.get((script, lane))
        if times is None or len(times) < OVERRUNS:
            return 0.0
        return max(0.0, times[-1] + REST_S - now)

    def overran(self, script: str, lane: str, now: float) -> None:
        """A call was stopped by a limit."""
        times = self._seen.setdefault((script, lane), deque(maxlen=OVERRUNS))
        while times and times[0] < now - REST_S:
            times.popleft()
        times.append(now)
        self._seen.move_to_end((script, lane))
        while len(self._seen) > MAX_WATCHED:
            self._seen.popitem(last=False)

    def went_well(self, script: str, lane: str) -> None:
        """A call ended by itself."""
        self._seen.pop((script, lane), None)


class ScriptWorkers:
    """Runs scripts in processes apart; see `open_workers`.

    Attributes:
        killed: how many workers were killed since they overran.
    """

    def __init__(self, context: trio_parallel.WorkerContext, count: int, limits: Limits) -> None:
        self._context = context
        self._free = trio.CapacityLimiter(count)
        self._crossing = trio.CapacityLimiter(count)
        self._limits = limits
        self._overruns = Overruns()
        self.killed = 0

    async def run(
        self,
        calls: Sequence[tuple[str, str, Call]],
        ended: Callable[[int, Outcome], None] = lambda index, outcome: None,
    ) -> list[Outcome]:
        """Run calls, each with the name of its script and the lane of its device; returns their outcomes in order.

        Args:
            ended: called with the index and the outcome of a call as soon as it is known.

        Cancellation: the calls under way are given up, with the process that runs them.
        """
        outcomes: list[Outcome] = []
        alone_until = 0
        while (done := len(outcomes)) < len(calls):
            at_once = 1 if done < alone_until else BATCH
            batch = calls[done : done + at_once]
            found = await self._next(batch)
            if found is None:  # one of them held the worker up, and nobody knows which
                alone_until = done + len(batch)
                continue
            for outcome in found:
                ended(len(outcomes), outcome)
                outcomes.append(outcome)
        return outcomes

    async def _next(self, calls: Sequence[tuple[str, str, Call]]) -> list[Outcome] | None:
        """The outcomes of the first calls, at least one; None when several were lost with their worker."""
        now = trio.current_time()
        script, lane, call = calls[0]
        if rest := self._overruns.rests_for_s(script, lane, now):
            text = f"{script} was stopped {OVERRUNS} times for {lane}; it is tried again in {rest:.0f} s"
            await trio.lowlevel.checkpoint()
            return [Outcome(failure=Failure("stopped", text))]
        ready = [call]
        for script, lane, call in calls[1:]:
            if self._overruns.rests_for_s(script, lane, now):
                break
            ready.append(call)
        outcomes = await self._outlive(ready)
        if isinstance(outcomes, Lost):
            if len(ready) > 1:
                return None
            late = f"stopped after {self._limits.wall_s:g} s by the clock"
            dead = f"stopped: {DEATHS} processes died over it, or could not be started"
            outcomes = [Outcome(failure=Failure("stopped", late if outcomes is Lost.OVERRAN else dead))]
        for (script, lane, _), outcome in zip(calls, outcomes, strict=False):
            if outcome.failure is not None and outcome.failure.kind == "stopped":
                self._overruns.overran(script, lane, trio.current_time())
            else:
                self._overruns.went_well(script, lane)
        return outcomes

    async def _outlive(self, calls: list[Call]) -> list[Outcome] | Lost:
        """Hand a batch to a free worker, and again to others where that one dies."""
        for _ in range(DEATHS):
            if (outcomes := await self._cross(calls)) is not Lost.DIED:
                return outcomes
        return Lost.DIED

    async def _cross(self, calls: list[Call]) -> list[Outcome] | Lost:
        """Hand a batch to a free worker, which is killed where it takes too long."""
        async with self._free:
            try:
                if not self._context.statistics().idle_workers:  # its start counts for no script
                    with trio.fail_after(START_S):
                        await self._context.run_sync(
                            run_batch, [], self._limits, kill_on_cancel=True, limiter=self._crossing
                        )
                with trio.move_on_after(self._limits.wall_s):
                    outcomes: list[Outcome] = await self._context.run_sync(
                        run_batch, calls, self._limits, kill_on_cancel=True, limiter=self._crossing
                    )
                    return outcomes
            except (trio_parallel.BrokenWorkerError, trio.TooSlowError, OSError):  # it died, or none can be started
                return Lost.DIED
            self.killed += 1
            return Lost.OVERRAN


def limits_of(settings: CodecSettings) -> Limits:
    """What one call may use, as the daemon's settings say."""
    return Limits(settings.cpu, settings.wall, settings.memory, settings.stack, settings.result)


@asynccontextmanager
async def open_workers(count: int, limits: Limits) -> AsyncIterator[ScriptWorkers]:
    """Script workers, at most `count` at once; none runs before the first call. At the end all are gone."""
    ending = trio_parallel.open_worker_context(idle_timeout=IDLE_S, grace_period=GRACE_S)
    context = await ending.__aenter__()
    try:
        yield ScriptWorkers(context, count, limits)
    finally:
        with suppress(trio_parallel.BrokenWorkerError):  # it did not end in time, so it was killed: it is gone too
            await ending.__aexit__(None, None, None)
