"""Starting wrong: one clear line, the documented exit code, nothing damaged."""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.harness import Daemon, eventually

pytestmark = pytest.mark.broker


def fails(daemon: Daemon, code: int) -> str:
    """Start it, expect it to end with `code`; what it said."""
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(20) == code, daemon.log.read_text()
    said = daemon.log.read_text()
    assert "Traceback" not in said
    return said


def test_a_wrong_setting_is_78_with_its_place(make_daemon: MakeDaemon) -> None:
    said = fails(make_daemon('[spool]\nmax_sizes = "1 GiB"\n'), 78)
    assert 'tpxd.toml:7:1: spool.max_sizes: unknown key; did you mean "max_size"?' in said


def test_a_port_that_is_taken(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    with closing(socket.create_server(("127.0.0.1", daemon.intake))):
        said = fails(daemon, 1)
    assert f"cannot listen on 127.0.0.1:{daemon.intake}: address already in use; another program" in said


def test_a_state_directory_that_cannot_be_made(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    assert str(tmp_path / "state") in fails(make_daemon(), 1)


def test_a_second_daemon_on_one_state_directory(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    first = make_daemon().start()
    second = make_daemon()
    assert "another tpxd has it open; stop the other one first" in fails(second, 1)
    assert first.process is not None
    assert first.process.poll() is None
    first.end()


def test_sigterm_during_the_start_ends_it_cleanly(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start(ready=False)
    assert daemon.process is not None
    for _ in range(3):
        code = daemon.end(signal.SIGTERM)
        assert code in (0, -signal.SIGTERM), "before it listens to signals, the system's way of ending is as good"
        daemon.start(ready=False)
    eventually("it starts all the same", lambda: daemon.get("/health/ready")[0] == 200)
