from __future__ import annotations

import os
import resource
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tpxd import sdnotify


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.setblocking(False)
        yield receiver


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with listening(path) as receiver:
        yield receiver


def test_the_life_of_a_service(supervisor: socket.socket) -> None:
    sdnotify.ready("two connections\nopen")
    sdnotify.status("busy")
    sdnotify.watchdog()
    sdnotify.stopping()
    sdnotify.ready()
    heard = [supervisor.recv(4096) for _ in range(5)]
    assert heard == [b"READY=1\nSTATUS=two connections open", b"STATUS=busy", b"WATCHDOG=1", b"STOPPING=1", b"READY=1"]


def test_a_reload_carries_the_monotonic_clock(supervisor: socket.socket) -> None:
    before_us = time.monotonic_ns() // 1000
    sdnotify.reloading()
    first, second = supervisor.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(value) <= time.monotonic_ns() // 1000


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"tpxd-{secrets.token_hex(8)}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with listening(f"\0{name}") as receiver:
        sdnotify.watchdog()
        assert receiver.recv(4096) == b"WATCHDOG=1"


def test_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(sdnotify, "_outlet", lambda: opened.append("a socket"))
    sdnotify.ready()
    assert opened == []


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    with caplog.at_level("DEBUG"):
        sdnotify.ready()
    assert "systemd does not hear us" in caplog.text


def test_the_watchdog_is_fed_when_no_file_is_left(supervisor: socket.socket) -> None:
    sdnotify.ready()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        sdnotify.watchdog()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [supervisor.recv(4096) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]


def test_a_supervisor_that_does_not_read_is_not_waited_for(
    supervisor: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        for _ in range(100_000):
            sdnotify.watchdog()
            if caplog.records:
                break
    assert "systemd does not hear us" in caplog.text
    assert supervisor.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", None, 15.0),
        pytest.param("30000000", str(os.getpid()), 15.0, id="ours"),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_how_often_the_watchdog_is_fed(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, expected: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert sdnotify.watchdog_interval_s() == expected
