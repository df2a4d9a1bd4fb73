"""Senders that mean no good, against the whole daemon: the LRC's reports get in, and health answers."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.harness import Daemon
from tests.daemon.lrc import AS_KEY, DEVICES, SECURE, Lrc, signed_query, uplink

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


def xml_bomb(encoding: str = "utf-8") -> bytes:
    """256 KiB of elements in a long namespace: each name would be as long as the namespace."""
    head = f'<?xml version="1.0" encoding="{encoding}"?><a xmlns="{"u" * 130_000}">'
    return f"{head}{'<b/>' * 32_000}</a>".encode()[: 256 * 1024]


def post(daemon: Daemon, query: str, body: bytes) -> tuple[int, bytes]:
    """One POST over a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", daemon.intake, timeout=30)) as connection:
        connection.request("POST", f"/uplink?{query}", body, {"Content-Type": "text/xml"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_xml_bombs_with_and_without_keys(make_daemon: MakeDaemon) -> None:
    """As many as a sender can post in two seconds, beside an LRC that posts."""
    for settings, query, status in ((SECURE, "LrnDevEui=70B3D5E75E100000", 401), ("", "", 400)):
        daemon = make_daemon(settings).start()
        lrc = Lrc(daemon.intake, AS_KEY)
        lrc.post(uplink(DEVICES[0], 1))
        stop, statuses = threading.Event(), []

        def bomb(daemon: Daemon = daemon, query: str = query, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                statuses.append(post(daemon, query, xml_bomb())[0])  # noqa: B023

        bombers = [threading.Thread(target=bomb) for _ in range(2)]
        for each in bombers:
            each.start()
        for counter in range(2, 40):
            assert lrc.post(uplink(DEVICES[0], counter)) == 200
            time.sleep(0.05)
        stop.set()
        for each in bombers:
            each.join(30)
        assert set(statuses) == {status}
        assert len(statuses) > 10
        assert max(lrc.seconds) < 2
        daemon.end()


def resident_mib(daemon: Daemon) -> float:
    assert daemon.process is not None
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def test_ever_new_names_of_encodings_leave_nothing_in_memory(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    for n in range(20):
        assert post(daemon, "", xml_bomb(f"warm{n}"))[0] == 400
    before = resident_mib(daemon)
    for n in range(400):
        status, answer = post(daemon, "", f'<?xml version="1.0" encoding="x{n}{"A" * 200_000}"?><a/>'.encode())
        assert (status, len(answer) < 300) == (400, True)
    assert resident_mib(daemon) - before < 20
    assert max(len(line) for line in daemon.log.read_bytes().splitlines()) < 600


def test_a_captured_post_is_good_for_no_other_report(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(SECURE).start()
    fields = uplink(DEVICES[0], 12, FPort=5, payload_hex="0102ff")["DevEUI_uplink"]
    captured = signed_query(fields)

    def sent(**changed: object) -> int:
        return post(daemon, captured, json.dumps({"DevEUI_uplink": fields | changed}).encode())[0]

    assert sent(FPort=51, FCntUp=2) == 401
    assert sent() == sent() == 200
    assert sent(FCntUp=1201, payload_hex="02ff") == 401
    assert sent(LrrRSSI=-1.0) == 401
    assert sent(payload_hex="0102f") == 400
    doubled = json.dumps({"DevEUI_uplink": fields}).replace('{"Time"', '{"FPort": 6, "Time"')
    assert post(daemon, captured, doubled.encode())[0] == 400
    refused = daemon.get("/health")[1]["intake"]["refused"]
    assert {reason: each["count"] for reason, each in refused.items()} == {"token": 3, "report": 2}
