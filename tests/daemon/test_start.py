"""Starting wrong: one clear line, the documented exit code, nothing damaged."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.harness import Daemon, eventually, http_file
from tests.daemon.lrc import DEVICES, Lrc, uplink
from tests.daemon.receivers import Receiver

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


def test_what_it_can_go_on_with_is_a_warning_though_check_refuses_it(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(
        '[lrc]\nas_key = "abcd"\ntunnel_keys = { ACME = "0123-4567" }\n', web=http_file("http://a.b/c")
    )
    path = daemon.config / "tpxd.toml"
    open_to_all = path.read_text().replace(f"127.0.0.1:{daemon.intake}", f"0.0.0.0:{daemon.intake}")
    path.write_text(open_to_all.replace(f"127.0.0.1:{daemon.control}", f"0.0.0.0:{daemon.control}"))
    checked = tpxd("check", str(daemon.config))
    assert checked.returncode == 78
    daemon.start()
    said = daemon.log.read_text()
    for line in (
        "tpxd.toml:7:10: lrc.as_key: is not a key of 32 hex digits; it has 4 characters",
        "tpxd.toml:8:24: lrc.tunnel_keys.…: is not a key of 32 hex digits; it has 9 characters",
        "tpxd.toml:2:1: intake.public_url: ",
        "tpxd.toml:5:10: control.listen: is open to other machines, and no token is set",
    ):
        assert line in checked.stdout
        assert line in said
    assert daemon.end() == 0


def test_uplinks_invite_no_downlinks_that_could_go_nowhere(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    for settings, invited in (("", False), ('[lrc]\ndownlink_url = "http://127.0.0.1:1/"\n', True)):
        daemon = make_daemon(settings, web=http_file(receiver.url)).start()
        assert Lrc(daemon.intake).post(uplink(DEVICES[0], 1)) == 200
        (_, _, body, _) = eventually("the uplink is there", lambda: receiver.requests)[-1]
        assert ("downlinkUrl" in json.loads(body)["DevEUI_uplink"]) == invited
        receiver.requests.clear()
        daemon.end()


def tpxd(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tpxd", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
