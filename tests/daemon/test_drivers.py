"""The daemon with payload drivers: decoded uplinks arrive, whatever scripts do and whoever kills their processes."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.harness import Daemon, eventually, http_file
from tests.daemon.lrc import DEVICES, Lrc, uplink
from tests.daemon.receivers import Receiver

pytestmark = pytest.mark.broker

THERMO = "function decodeUplink(input) { return {data: {t: (input.bytes[0] << 8 | input.bytes[1]) / %d}}; }"
LOOP = "function decodeUplink(input) { for (;;); }"
FLOW = '[flow]\ndriver = "{}"\n'


def put(daemon: Daemon, name: str, text: str) -> None:
    """Put a driver in place as careful editors do."""
    directory = daemon.config / "drivers"
    directory.mkdir(exist_ok=True)
    (directory / f".{name}.new").write_text(text)
    (directory / f".{name}.new").rename(directory / name)


def arrived(receiver: Receiver, path: str = "/") -> list[dict[str, Any]]:
    """The fields of what came on this path."""
    return [json.loads(body)["DevEUI_uplink"] for came, _, body, _ in list(receiver.requests) if came == path]


def workers_of(daemon: Daemon) -> list[int]:
    """Its child processes."""
    assert daemon.process is not None
    threads = Path(f"/proc/{daemon.process.pid}/task").glob("*/children")
    children = [int(pid) for thread in threads for pid in thread.read_text().split()]
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_driver_that_changes_while_it_is_used(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon("", plant=http_file(receiver.url) + FLOW.format("thermo.js"))
    put(daemon, "thermo.js", THERMO % 10)
    daemon.start().opened("plant")
    lrc = Lrc(daemon.intake)

    def shown(counter: int) -> Any:
        lrc.post(uplink(DEVICES[0], counter, payload_hex="00d7"))
        came = eventually("it arrives", lambda: [f for f in arrived(receiver) if f["FCntUp"] == counter])
        return came[0].get("payload")

    assert shown(1) == {"t": 21.5}
    put(daemon, "thermo.js", THERMO % 10 + "\n}")
    eventually("the broken one is told", lambda: "thermo.js:2:1" in str(daemon.get("/health")[1]["problems"]))
    assert shown(2) == {"t": 21.5}
    put(daemon, "thermo.js", THERMO % 100)
    eventually("all is well", lambda: daemon.get("/health")[0] == 200)
    assert shown(3) == {"t": 2.15}
    (daemon.config / "drivers" / "thermo.js").unlink()
    eventually("that it is gone is told", lambda: "no driver" in str(daemon.get("/health")[1]["problems"]))
    assert shown(4) is None
    daemon.balanced("plant")


def test_scripts_that_loop_delay_neither_intake_nor_others(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(
        '[codecs]\ncpu = "500ms"\n',
        hostile=http_file(receiver.url + "/hostile") + FLOW.format("loop.js"),
        plain=http_file(receiver.url + "/plain"),
    )
    put(daemon, "loop.js", LOOP)
    daemon.start().opened("hostile", "plain")
    lrc = Lrc(daemon.intake)
    took: list[float] = []
    for n in range(40):
        began = time.monotonic()
        assert lrc.post(uplink(DEVICES[0], n, payload_hex="00")) == 200
        took.append(time.monotonic() - began)
        eventually(f"{n} is there", lambda n=n: len(arrived(receiver, "/plain")) > n, 0.5 + 2)  # type: ignore[misc]
    assert statistics.median(took) < 0.1
    assert max(took) < 0.5, took
    eventually("all of them", lambda: len(arrived(receiver, "/hostile")) == 40, 30)
    came = arrived(receiver, "/hostile")
    assert [fields["FCntUp"] for fields in came] == list(range(40))
    assert {fields["payloadDecodedError"]["code"] for fields in came} == {"com-5000"}
    assert "tried again in" in came[-1]["payloadDecodedError"]["message"]
    daemon.balanced("hostile")


def test_workers_that_are_killed_are_not_noticed(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon("", plant=http_file(receiver.url) + FLOW.format("thermo.js"))
    put(daemon, "thermo.js", THERMO % 10)
    daemon.start().opened("plant")
    lrc = Lrc(daemon.intake)
    killed = 0
    for n in range(100):
        assert lrc.post(uplink(DEVICES[n % 5], n, payload_hex="00d7")) == 200
        if n % 20 == 10:
            for pid in workers_of(daemon):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        if n % 20 == 19:
            eventually("what was posted arrives", lambda n=n: len(arrived(receiver)) == n + 1)  # type: ignore[misc]
    daemon.drained("plant")
    came = arrived(receiver)
    assert sorted(fields["FCntUp"] for fields in came) == list(range(100))
    assert {fields["payload"]["t"] for fields in came} == {21.5}
    assert killed
    assert daemon.end() == 0
