"""Somebody removes or replaces the spool of a running daemon: what was answered stays, and health and log say so."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.harness import eventually, http_file
from tests.daemon.lrc import DEVICES, Load, Lrc, uplink
from tests.daemon.receivers import Receiver, judge

pytestmark = pytest.mark.broker


def remove_files(state: Path) -> None:
    for one in state.glob("spool.db*"):
        one.unlink()


def replace_directory(state: Path) -> None:
    state.rename(state.with_name("away"))
    state.mkdir(mode=0o700)


@pytest.mark.parametrize("way", [remove_files, shutil.rmtree, replace_directory])
def test_what_was_answered_outlives_the_file(
    make_daemon: MakeDaemon, receiver: Receiver, way: Callable[[Path], None]
) -> None:
    receiver.status = lambda path, body: 503
    daemon = make_daemon("", plant=http_file(receiver.url)).start()
    load = Load(daemon.intake)
    eventually("there are some", lambda: len(load.accepted) > 80)
    way(daemon.where / "state")
    before = len(load.accepted)
    eventually("it is told", lambda: "was taken away while it was open" in daemon.log.read_text(), 5)
    eventually("it goes on", lambda: len(load.accepted) > before + 80)
    load.stop()
    assert daemon.get("/health")[1]["spool"]["healthy"]
    assert " 0 are lost" in daemon.log.read_text()
    daemon.end(signal.SIGKILL)
    receiver.requests.clear()
    receiver.status = lambda path, body: 200
    daemon.start().drained("plant")
    judge(load.accepted, receiver.keys(), posted=load.posted)
    assert "Traceback" not in daemon.log.read_text()


def test_while_the_directory_cannot_be_made_what_comes_is_refused_and_what_is_there_goes_out(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.status = lambda path, body: 503
    daemon = make_daemon("", plant=http_file(receiver.url)).start()
    state, lrc = daemon.where / "state", Lrc(daemon.intake)
    assert [lrc.post(uplink(DEVICES[0], n)) for n in range(20)] == [200] * 20
    shutil.rmtree(state)
    state.write_text("in the way")
    assert lrc.post(uplink(DEVICES[0], 20)) == 503
    assert not daemon.get("/health")[1]["spool"]["healthy"]
    receiver.requests.clear()
    receiver.status = lambda path, body: 200
    daemon.reconnect("plant")
    eventually("what is there goes out", lambda: set(lrc.accepted) <= set(receiver.keys()))
    state.unlink()
    eventually("it stores again", lambda: lrc.post(uplink(DEVICES[0], 20)) == 200)
    daemon.drained("plant")
    assert daemon.get("/health")[1]["spool"]["healthy"]
