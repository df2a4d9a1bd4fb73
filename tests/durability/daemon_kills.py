"""The whole daemon, killed at one system call of its spool after the other, between an LRC and a far end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.daemon.harness import Daemon, http_file
from tests.daemon.lrc import Load
from tests.daemon.receivers import Receiver, judge, keys_of
from tests.durability import shim
from tests.durability.shim import Place
from tests.durability.survivors import Outcome

IN_FLIGHT = 256
CALLS = 300
"""So many calls after the start it is killed at the latest; each of them has its turn."""


def daemon_kills(where: Path) -> Iterator[Outcome]:
    """Kill it while an LRC posts, start it again, and see that the far end gets what was accepted, and what twice."""
    disk, receiver = shim.disk(where), Receiver()
    daemon = Daemon(where, cloud=http_file(receiver.url))
    (where / "state").symlink_to(disk.root)
    try:
        for number in count(1):
            yield _killed(daemon, disk, receiver, 1 + number % CALLS)
    finally:
        daemon.end()
        receiver.close()


def _killed(daemon: Daemon, disk: shim.Disk, receiver: Receiver, later: int) -> Outcome:
    outcome = Outcome()
    with _living_on(disk):
        if daemon.process is None or daemon.process.poll() is not None:
            daemon.start()
        assert daemon.process is not None
        before = len(receiver.requests)
        disk.set(Place.KILL_AT, disk.get(Place.CALLS) + later)
        load = Load(daemon.intake, threads=2)
        try:
            daemon.process.wait(60)
            daemon.start()
        finally:
            load.stop()
    daemon.drained("cloud")
    arrived = keys_of(body for _, _, body, _ in receiver.requests[before:])
    try:
        judge(load.accepted, arrived, posted=load.posted, doubles=IN_FLIGHT)
    except AssertionError as error:
        outcome.lost.append(f"killed {later} calls after the start: {error}")
    outcome.again = len(arrived) - len(set(arrived))
    outcome.alarms += [event["message"] for event in daemon.get("/events")[1] if event["kind"] == "damage"]
    return outcome


@contextmanager
def _living_on(disk: shim.Disk) -> Iterator[None]:
    """What is started meanwhile lives on this disk."""
    added = {name: value for name, value in disk.environment().items() if os.environ.get(name) != value}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
