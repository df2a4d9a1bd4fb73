"""The daemon as a process, and the files that it reads."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tests.peers.ports import free_port

T = TypeVar("T")

IMPOSSIBLE = b"; the state is shown all the same"
"""How the daemon says that a connection's state did not follow the one before, which is a bug of its own."""


def eventually(what: str, probe: Callable[[], T], within_s: float = 15.0) -> T:
    """Poll until `probe` returns something true; fails with the last value or error as evidence."""
    deadline, last, pause = time.monotonic() + within_s, "nothing yet", threading.Event()
    while time.monotonic() < deadline:
        try:
            value = probe()
            if value:
                return value
            last = repr(value)
        except (OSError, AssertionError, KeyError, ValueError, http.client.HTTPException) as error:
            last = repr(error)
        pause.wait(0.03)
    raise AssertionError(f"{what}: not within {within_s:.0f} s; last: {last:.400}")


class Daemon:
    """tpxd as a process with a configuration directory and a state of its own."""

    def __init__(self, where: Path, settings: str = "", **connections: str) -> None:
        self.where, self.config = where, where / "etc"
        self.connections = self.config / "connections.d"
        self.connections.mkdir(parents=True, exist_ok=True)
        self.intake, self.control = free_port(), free_port()
        text = f'state_dir = "{where}/state"\n'
        text += f'[intake]\nlisten = "127.0.0.1:{self.intake}"\n[control]\nlisten = "127.0.0.1:{self.control}"\n'
        (self.config / "tpxd.toml").write_text(text + settings)
        for id, file in connections.items():
            self.write(id, file)
        self.log = where / "tpxd.log"
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, id: str, text: str) -> None:
        """Put a connection file in place as careful editors do: beside it, then rename."""
        beside = self.connections / f".{id}.toml.new"
        beside.write_text(text)
        beside.rename(self.connections / f"{id}.toml")

    def start(self, *, ready: bool = True, max_file_bytes: int | None = None, max_files: int | None = None) -> Daemon:
        """Start the process and wait until it is ready; `max_file_bytes` stands for a disk that is full.

        Args:
            max_files: how many it may have open at once, whatever it asks for.
        """

        def limit() -> None:
            if max_file_bytes is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
            if max_files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))

        argv = [sys.executable, "-m", "tpxd", "run", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdout=log, stderr=log, preexec_fn=limit, env={**os.environ, "PYTHONWARNINGS": "default"}
            )
        if ready:
            eventually("the daemon is ready", self._is_ready, 30)
        return self

    def _is_ready(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            raise RuntimeError(f"the daemon ended with {code}: {self.log.read_text()[-2000:]}")
        return self.get("/health/ready")[0] == 200

    def end(self, how: signal.Signals = signal.SIGTERM, within_s: float = 15.0) -> int:
        """End the process, if it runs; its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not end within {within_s} s of {how.name}") from None
        bugs = [line for line in self.log.read_bytes().splitlines() if IMPOSSIBLE in line]
        assert bugs == [], "a connection entered a state that may not follow the one before"
        return code

    def request(self, method: str, path: str) -> tuple[int, Any]:
        """Status and document from the control plane."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.control}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def get(self, path: str) -> tuple[int, Any]:
        """Status and document of a GET."""
        return self.request("GET", path)

    def health(self, id: str) -> dict[str, Any]:
        """The health document of one connection."""
        status, document = self.get(f"/health/{id}")
        assert status in (200, 503), f"/health/{id}: {status} {document}"
        found: dict[str, Any] = document
        return found

    def opened(self, *ids: str, within_s: float = 15.0) -> None:
        """Wait until these connections are OPENED."""
        for id in ids:
            eventually(f"{id} is OPENED", lambda id=id: self.health(id)["state"] == "OPENED", within_s)  # type: ignore[misc]

    def reconnect(self, *ids: str) -> None:
        """Have these connections tried again at once."""
        for id in ids:
            assert self.request("POST", f"/connections/{id}/reconnect")[0] == 202

    def drained(self, *ids: str, within_s: float = 60.0) -> None:
        """Wait until nothing waits for these connections, and see their ledgers balance."""
        for id in ids:
            eventually(f"{id} has drained", lambda id=id: self.uplinks(id)["waiting"] == 0, within_s)  # type: ignore[misc]
            self.balanced(id)

    def uplinks(self, id: str) -> dict[str, int]:
        """The ledger of one connection."""
        found: dict[str, int] = self.health(id)["uplinks"]
        return found

    def balanced(self, id: str) -> dict[str, int]:
        """Wait until the ledger adds up, and return it."""

        def adds_up() -> dict[str, int]:
            ledger = self.uplinks(id)
            parts = ("delivered", "filtered", "expired", "rejected", "dropped", "waiting")
            assert ledger["received"] == sum(ledger[part] for part in parts), f"{id}: {ledger}"
            return ledger

        return eventually(f"the ledger of {id} balances", adds_up, 5)


def connection_file(connector: str, configuration: Mapping[str, Any], extra: str = "") -> str:
    """A connection file; JSON texts are TOML texts for what is used here."""
    lines = [f'connectorId = "{connector}"', 'name = "test"', "[configuration]"]
    lines += [f"{name} = {_toml(value)}" for name, value in configuration.items()]
    return "\n".join(lines) + "\n" + extra


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def http_file(url: str, **more: Any) -> str:
    """A file for an HTTP connection."""
    return connection_file("actility-http-iot", {"destinationURL": url, **more})


def mqtt_file(port: int, topic: str = "t/{DevEUI}", **more: Any) -> str:
    """A file for an MQTT connection without TLS."""
    basis = {"hostName": f"127.0.0.1:{port}", "protocol": "TCP", "uplinkTopicPattern": topic}
    return connection_file("actility-mqtt-iot", basis | more)
