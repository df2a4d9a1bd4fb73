"""A real tinyproxy on a free loopback port, for tests marked `broker`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.mosquitto import free_port, listening

PROGRAM = shutil.which("tinyproxy") or "/usr/bin/tinyproxy"
START_S = 10.0


@asynccontextmanager
async def running_tinyproxy(directory: Path, *lines: str) -> AsyncIterator[int]:
    """Run a proxy while the block lasts; yields its port.

    Args:
        lines: further lines of its configuration; without ConnectPort it opens tunnels to every port.
    """
    port = free_port()
    configuration = directory / f"tinyproxy-{port}.conf"
    basis = [f"Port {port}", "Listen 127.0.0.1", "Timeout 30", "MaxClients 50", f'LogFile "{directory}/tinyproxy.log"']
    await trio.Path(configuration).write_text("\n".join((*basis, *lines)) + "\n")
    process = await trio.lowlevel.open_process(
        [PROGRAM, "-d", "-c", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with trio.fail_after(START_S):
            await listening(port)
        yield port
    finally:
        process.terminate()
        with trio.move_on_after(START_S, shield=True) as waiting:
            await process.wait()
        if waiting.cancelled_caught:
            process.kill()
