"""A demo from beginning to end: parts up, reports in, queues empty, parts down."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from tpxd.demo.scene import Scene
from tpxd.demo.stage import (
    DAEMON,
    LOOK_S,
    DemoFailed,
    Looks,
    Receiver,
    keep_looking,
    look,
    open_control,
    run_daemon,
    serve_receiver,
)
from tpxd.errors import leaves
from tpxd.simulate.downlink_lrc import DownlinkCounters, DownlinkLrc
from tpxd.simulate.downlink_rules import Rules
from tpxd.simulate.downlink_server import open_listeners, take_downlinks
from tpxd.simulate.lrc import DEFAULT_AS_ID, Counters, Pace, Signature, drive
from tpxd.simulate.post import Target
from tpxd.simulate.reports import Device, make_devices

DRAIN_S = 30.0
DEVICES, SEED = 20, 1


@dataclass(slots=True)
class Play:
    """What has happened so far; changes while `perform` runs.

    Attributes:
        phase: what is going on, for people.
        unfinished: what each connection did not finish within `DRAIN_S`, by id.
    """

    scene: Scene
    counters: Counters = field(default_factory=Counters)
    receiver: Receiver = field(default_factory=Receiver)
    looks: Looks = field(default_factory=Looks)
    downlinks: DownlinkCounters = field(default_factory=DownlinkCounters)
    devices: Sequence[Device] = field(default_factory=lambda: make_devices(DEVICES, SEED))
    phase: str = "starting"
    unfinished: dict[str, str] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """The outcome as JSON: what intake took, and what each connection made of it."""
        return {
            "received": self.counters.accepted,
            "connections": {
                connection: {key: document["uplinks"][key] for key in ("delivered", "waiting")}
                for connection, document in sorted(self.looks.connections.items())
            },
        }

    def failures(self) -> list[str]:
        """What went wrong, one line each; nothing when the demo went well."""
        counters = self.counters
        failures = [f"{connection} did not finish: {reason}" for connection, reason in sorted(self.unfinished.items())]
        if counters.lost:
            answers = ", ".join(f"{answer} × {times}" for answer, times in counters.answers.most_common())
            failures.append(f"{counters.lost} of {counters.posted} reports were not accepted: {answers}")
        return failures


async def perform(
    play: Play,
    *,
    rate: float,
    duration_s: float | None,
    show: Callable[[Play], Awaitable[None]] | None = None,
    daemon: Sequence[str] = DAEMON,
) -> None:
    """Run the demo until the duration has passed or a signal came, and until the queues are empty.

    Args:
        rate: reports per second.
        show: runs beside it, until cancelled.
        daemon: what to run as the daemon, as for `run_daemon`.

    Raises:
        DemoFailed: a part did not start, or ended too early.

    A second signal does not wait for the queues; what they still hold is then in `play.unfinished`.
    """
    try:
        async with trio.open_nursery() as nursery:
            pace = Pace(rate, duration_s=duration_s)
            hurry = trio.CancelScope()
            await nursery.start(_stop_at_signal, pace, hurry)
            await nursery.start(serve_receiver, play.scene.receiver, play.receiver)
            if show is not None:
                nursery.start_soon(show, play)
            with hurry:
                async with run_daemon(play.scene, daemon):
                    await _post_and_drain(play, pace)
            if hurry.cancelled_caught:
                play.unfinished = play.looks.lagging(play.counters.accepted)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failed, other = group.split(DemoFailed)
        if failed is None or other is not None:
            raise
        raise next(leaves(failed)) from None


async def _post_and_drain(play: Play, pace: Pace) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_looking, play.scene, play.looks)
        play.phase = "running"
        target = Target.parse(f"http://{play.scene.intake}/uplink")
        signature = Signature(DEFAULT_AS_ID, play.scene.key)
        lrc = DownlinkLrc(Rules({device.dev_eui: device for device in play.devices}, signature), play.downlinks)
        listeners = await open_listeners(play.scene.lrc)
        nursery.start_soon(take_downlinks, listeners, lrc, [target], play.counters, signature)
        await drive([target], pace, play.counters, devices=play.devices, signature=signature)
        play.phase = "emptying the queues"
        nursery.cancel_scope.cancel()
    await _drain(play)
    play.phase = "stopping"


async def _drain(play: Play) -> None:
    """Look until nothing waits any more, at most `DRAIN_S`."""
    async with open_control(play.scene) as client:
        with trio.move_on_after(DRAIN_S):
            while True:
                await look(client, play.looks)
                if play.looks.health and not play.looks.lagging(play.counters.accepted):
                    return
                await trio.sleep(LOOK_S)
    play.unfinished = play.looks.lagging(play.counters.accepted) or {"tpxd": "its health page does not come"}


async def _stop_at_signal(
    pace: Pace, hurry: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal ends the posting, the second one the waiting for empty queues too."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            pace.stop()
            async for _ in signals:
                hurry.cancel()
