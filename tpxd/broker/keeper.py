"""Keeps the embedded MQTT broker running as a child process: started, watched, started anew, ended."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

import trio

from tpxd.events import Event, Tell

START_S = 20.0
PATIENCE_S = 3.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STEADY_S = 60.0
MAX_LINE_BYTES = 4096
READY = b"ready"


async def run_broker(
    address: str,
    tell: Tell,
    *,
    command: Sequence[str] = (sys.executable, "-m", "tpxd.broker.process"),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep a broker at `host:port` until cancelled.

    Started when the broker listens, or could not and will be tried again, or needs longer than `PATIENCE_S`: a port
    that is taken delays nothing else. Each end of the broker is an event, as is each beginning; the pause before the
    next attempt doubles from one second to one minute, and begins anew after a minute of steady service.

    Args:
        command: what to run; `address` is appended. It prints `ready` when it listens and ends with its standard input.

    Cancellation: the process gets SIGTERM, five seconds later SIGKILL, and is gone when this returns.
    """
    settled = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_running, [*command, address], address, tell, settled)
        with trio.move_on_after(PATIENCE_S):
            await settled.wait()
        task_status.started()


async def _keep_running(command: Sequence[str], address: str, tell: Tell, settled: trio.Event) -> None:
    """Run the command again and again; `settled` is set at the first outcome."""

    def on_ready() -> None:
        tell(Event("broker", f"embedded MQTT broker listens at {address}"))
        settled.set()

    pause_s = FIRST_PAUSE_S
    while True:
        begun = trio.current_time()
        reason = await _run_once(command, on_ready)
        if trio.current_time() - begun > STEADY_S:
            pause_s = FIRST_PAUSE_S
        tell(Event("broker", f"embedded MQTT broker ended: {reason}; next try in {pause_s:g} s", level=logging.ERROR))
        settled.set()
        await trio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


async def _run_once(command: Sequence[str], on_ready: Callable[[], None]) -> str:
    """Run the command to its end and return why it ended, in a few words."""
    last_line = b""
    async with trio.open_nursery() as nursery:
        # A session of its own: Ctrl-C at a terminal is for us, and we end the broker after the connections.
        start = partial(
            trio.run_process,
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            start_new_session=True,
        )
        try:
            process: trio.Process = await nursery.start(start)
        except OSError as error:
            return f"it cannot be started: {error}"
        assert process.stdout is not None
        nursery.cancel_scope.deadline = trio.current_time() + START_S
        pending = b""
        async for chunk in process.stdout:
            *lines, pending = (pending + chunk).split(b"\n")
            pending = pending[-MAX_LINE_BYTES:]
            for line in lines:
                if line.strip() == READY:
                    nursery.cancel_scope.deadline = float("inf")
                    on_ready()
                elif line.strip():
                    last_line = line.strip()
        await process.wait()
    if nursery.cancel_scope.cancelled_caught:
        return f"it did not listen within {START_S:g} s"
    return last_line.decode(errors="replace") or f"exit status {process.returncode}"
