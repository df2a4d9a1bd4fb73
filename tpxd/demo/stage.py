"""The parts of a demo that run beside the simulated LRC: a web server, the daemon, and a look at its health."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import trio

from tpxd.demo.scene import UPLINK_PATH, Scene
from tpxd.wire.http import Request, Response, serve_http

DAEMON = (sys.executable, "-m", "tpxd.demo")
START_S = 30.0
LOOK_S = 0.25
RATE_LOOKS = 12
LOG_LINES_SHOWN = 15


class DemoFailed(Exception):
    """A part of the demo did not do what it should; the text says which."""


@dataclass(slots=True)
class Receiver:
    """What reached the demo's web server."""

    uplinks: int = 0

    async def respond(self, request: Request) -> Response:
        """Answer one request."""
        match request.method, request.path:
            case "POST", path if path == UPLINK_PATH:
                self.uplinks += 1
                return Response(204)
            case _:
                return Response(404)


async def serve_receiver(
    address: str, receiver: Receiver, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled."""
    await serve_http(address, receiver.respond, task_status=task_status)


@dataclass(slots=True)
class Looks:
    """What the daemon's health page said, again and again; empty before the first time."""

    health: dict[str, Any] = field(default_factory=dict)
    _delivered: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    @property
    def connections(self) -> dict[str, dict[str, Any]]:
        """The health document of each connection, by id."""
        found: dict[str, dict[str, Any]] = self.health.get("connections", {})
        return found

    def add(self, health: dict[str, Any], now_s: float) -> None:
        """Take in another health document."""
        self.health = health
        for connection, document in self.connections.items():
            points = self._delivered.setdefault(connection, deque(maxlen=RATE_LOOKS))
            points.append((now_s, document["uplinks"]["delivered"]))

    def rate(self, connection: str) -> float:
        """Uplinks delivered per second, over the last few looks."""
        points = self._delivered.get(connection)
        if points is None or len(points) < 2:
            return 0.0
        (begun_s, before), (ended_s, after) = points[0], points[-1]
        return (after - before) / (ended_s - begun_s)

    def lagging(self, accepted: int) -> dict[str, str]:
        """What each active connection still has to do when the LRC got so many reports accepted, by id."""
        behind = {}
        for connection, document in self.connections.items():
            uplinks = document["uplinks"]
            if document["active"] and (uplinks["waiting"] or uplinks["received"] < accepted):
                done = f"{uplinks['delivered']} of {accepted} delivered, {uplinks['waiting']} waiting"
                behind[connection] = f"{done}, {document['state']}"
        return behind


async def keep_looking(scene: Scene, looks: Looks) -> None:
    """Read the health page until cancelled; a page that does not come is tried again."""
    async with open_control(scene) as client:
        while True:
            await look(client, looks)
            await trio.sleep(LOOK_S)


async def look(client: httpx.AsyncClient, looks: Looks) -> None:
    """Read the health page once; nothing changes when it does not come."""
    try:
        response = await client.get("/health")
        looks.add(response.json(), trio.current_time())
    except (httpx.TransportError, ValueError):
        return


@asynccontextmanager
async def open_control(scene: Scene) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the daemon's control plane; no proxy of the environment stands between the two."""
    async with httpx.AsyncClient(base_url=f"http://{scene.control}", trust_env=False, timeout=5) as client:
        yield client


@asynccontextmanager
async def run_daemon(scene: Scene, command: Sequence[str] = DAEMON) -> AsyncIterator[None]:
    """The daemon as a child process, ready when the body begins and gone when this ends.

    Args:
        command: what to run; the directory is appended. It ends with its standard input.

    Raises:
        DemoFailed: it did not become ready, or it ended before the body did, which is then cancelled. The first comes
            inside an exception group.
    """
    with scene.log.open("wb") as log:
        start = partial(
            trio.run_process,
            [*command, str(scene.directory)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            # Settings in the environment are for another daemon.
            env={name: value for name, value in os.environ.items() if not name.startswith("TPXD_")},
            # A session of its own: Ctrl-C is for the demo, which ends the daemon when the queues are empty.
            start_new_session=True,
        )
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(start)
            running = trio.CancelScope()
            nursery.start_soon(_cancel_when_gone, process, running)
            with running:
                await _wait_until_ready(scene)
                yield
            nursery.cancel_scope.cancel()
    if running.cancelled_caught:
        raise DemoFailed(f"the daemon ended with status {process.returncode}:\n{_end_of_log(scene)}")


async def _cancel_when_gone(process: trio.Process, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel()


async def _wait_until_ready(scene: Scene) -> None:
    async with open_control(scene) as client:
        with trio.move_on_after(START_S):
            while True:
                try:
                    response = await client.get("/health/ready")
                    if response.status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                await trio.sleep(LOOK_S / 4)
    raise DemoFailed(f"the daemon is not ready after {START_S:g} s:\n{_end_of_log(scene)}")


def _end_of_log(scene: Scene) -> str:
    lines = scene.log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES_SHOWN:])
