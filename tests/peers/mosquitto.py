"""A real Mosquitto on a free loopback port, for tests marked `broker`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.peers.ports import free_port, listening

PROGRAM = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
START_S = 10.0


@dataclass(slots=True)
class Mosquitto:
    """One broker; `start` and `stop` may be called again, the port stays."""

    directory: Path
    port: int
    listener: str = ""
    persistent: bool = False
    process: trio.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it listens."""
        configuration = self.directory / f"mosquitto-{self.port}.conf"
        lines = [
            # as root it would drop its rights and could not read the files of a test
            "user root" if os.geteuid() == 0 else "",
            "max_inflight_messages 0",
            "max_queued_messages 0",
            # else each burst ends 43 ms late
            "set_tcp_nodelay true",
            f"persistence {'true' if self.persistent else 'false'}",
            f"persistence_location {self.directory}/",
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true" if "allow_anonymous" not in self.listener else "",
            self.listener,
        ]
        await trio.Path(configuration).write_text("\n".join(lines) + "\n")
        self.process = await trio.lowlevel.open_process(
            [PROGRAM, "-c", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        further = [int(line.split()[1]) for line in self.listener.splitlines() if line.startswith("listener ")]
        with trio.fail_after(START_S):
            for port in (self.port, *further):
                await listening(port)

    async def stop(self) -> None:
        """End it and wait for its end."""
        if self.process is not None:
            self.process.terminate()
            with trio.move_on_after(START_S, shield=True) as waiting:
                await self.process.wait()
            if waiting.cancelled_caught:
                self.process.kill()
            self.process = None


@asynccontextmanager
async def running_mosquitto(
    directory: Path, *, listener: str = "", persistent: bool = False
) -> AsyncIterator[Mosquitto]:
    """Run a broker while the block lasts.

    Args:
        listener: further lines of its configuration, which belong to its listener, or begin with one more.
    """
    broker = Mosquitto(directory, free_port(), listener, persistent)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()
