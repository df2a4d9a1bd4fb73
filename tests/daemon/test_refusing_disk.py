"""A disk that is full while files come and go: the daemon stays, says so, and goes on when there is room."""

from __future__ import annotations

import resource

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.harness import Daemon, eventually, http_file
from tests.daemon.lrc import DEVICES, Lrc, uplink
from tests.daemon.receivers import Receiver

pytestmark = pytest.mark.broker


def limit_files(daemon: Daemon, max_bytes: int) -> None:
    """Let no file of the running daemon grow beyond this; -1 takes the limit away."""
    assert daemon.process is not None
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (max_bytes, -1))


def test_files_come_and_go_while_the_disk_is_full(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    text = http_file(receiver.url)
    daemon = make_daemon("", steady=text, leaves=text).start()
    daemon.opened("steady", "leaves")
    limit_files(daemon, 1)
    daemon.write("comes", text)
    (daemon.connections / "leaves.toml").unlink()
    eventually("it is told", lambda: "spool.db" in str(daemon.health("comes")["reason"]), 5)
    assert daemon.health("comes")["lastError"]["hint"]
    eventually("the other is gone", lambda: daemon.get("/health/leaves")[0] == 404)
    assert daemon.health("steady")["state"] == "OPENED"
    limit_files(daemon, -1)
    daemon.opened("comes")
    Lrc(daemon.intake).post(uplink(DEVICES[0], 1))
    daemon.drained("steady", "comes")
    assert len(receiver.requests) == 2
    assert daemon.end() == 0
    assert "Traceback" not in daemon.log.read_text()
