"""Senders that mean no good, against the whole daemon: the LRC's reports get in, and health answers."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.harness import Daemon
from tests.daemon.lrc import AS_KEY, DEVICES, SECURE, Lrc, uplink

pytestmark = pytest.mark.broker


@pytest.fixture
def crowd(ending: ExitStack) -> Iterator[list[socket.socket]]:
    """Sockets that end with the test, which may have many open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    silent: list[socket.socket] = []
    yield silent
    for each in silent:
        each.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(port: int, source: str) -> socket.socket:
    """A connection from this address of this machine, whether the far end keeps it or not."""
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))


def all_goes_on(daemon: Daemon, lrc: Lrc, first: int) -> None:
    """Reports get in over the open connection and over new ones, and the control plane answers."""
    for counter in range(first, first + 10):
        if counter % 2:
            lrc.close()
        assert lrc.post(uplink(DEVICES[0], counter)) in ((200,) if counter > first else (200, 0))
    assert max(lrc.seconds[-9:]) < 2
    for path in ("/health/live", "/health/ready", "/health"):
        assert daemon.get(path)[0] == 200


@pytest.mark.parametrize("max_files", [256, 1024])
def test_more_silent_connections_than_files(
    make_daemon: MakeDaemon, crowd: list[socket.socket], max_files: int
) -> None:
    daemon = make_daemon().start(max_files=max_files)
    lrc = Lrc(daemon.intake)
    assert lrc.post(uplink(DEVICES[0], 1)) == 200
    crowd.extend(connect(daemon.intake, f"127.0.1.{1 + n % 9}") for n in range(1_200))
    all_goes_on(daemon, lrc, 2)
    assert b"Too many open files" not in daemon.log.read_bytes()


def test_three_thousand_silent_connections_from_one_address(
    make_daemon: MakeDaemon, crowd: list[socket.socket]
) -> None:
    """The LRC stands behind the same address, with a connection that is open and with new ones."""
    daemon = make_daemon(SECURE).start()
    lrc = Lrc(daemon.intake, AS_KEY)
    assert lrc.post(uplink(DEVICES[0], 1)) == 200
    for n in range(3_000):
        crowd.append(connect(daemon.intake, "127.0.0.1"))
        if n % 2:
            with suppress(OSError):
                crowd[-1].send(b"POST /uplink HTTP/1.1\r\nHost: x\r\n")
    all_goes_on(daemon, lrc, 2)
    lrc.close()
    time.sleep(11.5)
    crowd[-1].settimeout(1)
    crowd[-2].settimeout(1)
    assert crowd[-2].recv(100) == b""
    assert crowd[-1].recv(100).startswith(b"HTTP/1.1 408")
