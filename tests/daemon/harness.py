"""The daemon as a process, and peers around it that share no code with it: an LRC, an HTTP receiver, an oracle."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")
Key = tuple[str, int]
"""(DevEUI, FCntUp): what the oracle counts."""

DEVICES = [f"70B3D5E75E1{n:05X}" for n in range(20)]
AS_ID = "TWA_100009421.77.AS"
AS_KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
SECURE = f'[lrc]\ntunnel_keys = {{ "{AS_ID}" = "{AS_KEY}" }}\n'


def free_port() -> int:
    """A loopback port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


def uplink(dev_eui: str, counter: int, **more: Any) -> dict[str, Any]:
    """An uplink report with the fields that a live LRC sends."""
    fields = {
        "Time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "DevEUI": dev_eui,
        "FPort": 2 + counter % 3,
        "FCntUp": counter,
        "payload_hex": hashlib.sha256(f"{dev_eui}{counter}".encode()).hexdigest()[:24],
        "LrrRSSI": -71.0,
        "LrrSNR": 8.25,
        "Lrrs": {"Lrr": [{"Lrrid": "1000A7F2", "LrrRSSI": -71.0}]},
        "CustomerID": "100009421",
        "CustomerData": {"name": "Pump 4", "tags": ["PlantNorth"]},
        "ModelCfg": "0",
    }
    return {"DevEUI_uplink": fields | more}


def signed_query(fields: Mapping[str, Any], key: str | None = AS_KEY) -> str:
    """The tunnel's query string; the Token is computed here a second time, independently."""
    pairs = [
        ("LrnDevEui", str(fields["DevEUI"])),
        ("LrnFPort", str(fields["FPort"])),
        ("LrnInfos", f"{AS_ID}-1-{fields['FCntUp']}"),
    ]
    if key is not None:
        pairs += [("AS_ID", AS_ID), ("Time", datetime.now(UTC).isoformat(timespec="milliseconds"))]
        elements = "".join(str(fields[k]) for k in ("CustomerID", "DevEUI", "FPort", "FCntUp", "payload_hex"))
        signed = elements + "&".join(f"{name}={value}" for name, value in pairs) + key
        pairs.append(("Token", hashlib.sha256(signed.encode()).hexdigest()))
    return urllib.parse.urlencode(pairs)


class Lrc:
    """One keep-alive connection that posts uplinks and remembers what was accepted, and how long each took.

    Attributes:
        made: all of them, so that a fixture can close what a test leaves open.
    """

    made: ClassVar[list[Lrc]] = []

    def __init__(self, port: int, key: str | None = None) -> None:
        self.made.append(self)
        self.port, self.key = port, key
        self.accepted: list[Key] = []
        self.seconds: list[float] = []
        self._http: http.client.HTTPConnection | None = None

    def post(self, document: dict[str, Any]) -> int:
        """Post one report; the status, or 0 when the connection broke."""
        fields = document["DevEUI_uplink"]
        started = time.monotonic()
        if self._http is None:
            self._http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            self._http.request("POST", f"/uplink?{signed_query(fields, self.key)}", json.dumps(document), headers)
            answer = self._http.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return 0
        self.seconds.append(time.monotonic() - started)
        if answer.status == 200:
            self.accepted.append((fields["DevEUI"], fields["FCntUp"]))
        return answer.status

    def close(self) -> None:
        """End the connection; the next post opens another."""
        if self._http is not None:
            self._http.close()
            self._http = None


class Load:
    """Threads that post uplinks, each for its own devices, each retrying until it is accepted, until `stop`."""

    def __init__(self, port: int, threads: int = 4, key: str | None = None) -> None:
        self.counters = dict.fromkeys(DEVICES, 0)
        self.lrcs = [Lrc(port, key) for _ in range(threads)]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=(lrc, DEVICES[n::threads]), daemon=True)
            for n, lrc in enumerate(self.lrcs)
        ]
        for thread in self._threads:
            thread.start()

    def _drive(self, lrc: Lrc, devices: list[str]) -> None:
        while not self._stop.is_set():
            for device in devices:
                self.counters[device] += 1
                document = uplink(device, self.counters[device])
                while lrc.post(document) != 200 and not self._stop.wait(0.02):
                    pass

    def stop(self) -> None:
        """End the load and wait for its threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        for lrc in self.lrcs:
            lrc.close()

    @property
    def accepted(self) -> list[Key]:
        """What got its 200."""
        return [key for lrc in self.lrcs for key in lrc.accepted]

    @property
    def posted(self) -> set[Key]:
        """What was ever posted, accepted or not."""
        return {(device, n) for device, last in self.counters.items() for n in range(1, last + 1)}


class Receiver:
    """An HTTP server that answers as it is told and keeps what it answered.

    Attributes:
        status: asked for each request with (path, body); 200 unless set.
        requests: (path, headers in lower case, body, the sender's port), in order of arrival.
    """

    def __init__(self, status: Callable[[str, bytes], int] = lambda path, body: 200, port: int = 0) -> None:
        self.status = status
        self.requests: list[tuple[str, dict[str, str], bytes, int]] = []
        self._open: set[socket.socket] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if len(body) < length:
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.path, headers, body, self.client_address[1]))
                self.send_response(receiver.status(self.path, body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def process_request(self, request: Any, client_address: Any) -> None:
                receiver._open.add(request)
                super().process_request(request, client_address)

            def shutdown_request(self, request: Any) -> None:
                receiver._open.discard(request)
                super().shutdown_request(request)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A sender that was killed is no news."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def keys(self) -> list[Key]:
        """What arrived, in order."""
        return keys_of(body for _, _, body, _ in list(self.requests))

    def close(self) -> None:
        """Stop listening and cut what is open."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class BlackHole:
    """Accepts connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._held.append(self._socket.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        """Close the listener and everything that was accepted."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for held in self._held:
            held.close()


def keys_of(bodies: Iterable[bytes]) -> list[Key]:
    """(DevEUI, FCntUp) of delivered reports, in order of arrival."""
    inner = (json.loads(body)["DevEUI_uplink"] for body in bodies)
    return [(fields["DevEUI"], int(fields["FCntUp"])) for fields in inner]


def judge(accepted: Iterable[Key], arrived: list[Key], *, posted: set[Key] | None = None, doubles: int = 0) -> None:
    """The oracle: nothing accepted is lost, nothing is invented, each device in order, few doubles."""
    accepted = set(accepted)
    lost = accepted - set(arrived)
    assert not lost, f"{len(lost)} of {len(accepted)} accepted uplinks never arrived, such as {sorted(lost)[:3]}"
    invented = set(arrived) - (accepted if posted is None else posted)
    assert not invented, f"{len(invented)} arrived that nobody posted, such as {sorted(invented)[:3]}"
    twice = len(arrived) - len(set(arrived))
    assert twice <= doubles, f"{twice} doubles, {doubles} allowed"
    newest: dict[str, int] = {}
    for device, counter in dict.fromkeys(arrived):
        assert counter > newest.get(device, -1), f"{device}: {counter} arrived after {newest[device]}"
        newest[device] = counter


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

    def start(self, *, ready: bool = True, max_file_bytes: int | None = None) -> Daemon:
        """Start the process and wait until it is ready; `max_file_bytes` stands for a disk that is full."""

        def limit() -> None:
            if max_file_bytes is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

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
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not end within {within_s} s of {how.name}") from None

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
