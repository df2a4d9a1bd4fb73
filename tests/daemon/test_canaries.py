"""Secrets in every place where one may stand, in files and in what far ends repeat: no output shows any of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.harness import Daemon, connection_file, eventually, http_file
from tests.daemon.lrc import DEVICES, Lrc, uplink
from tests.peers.ports import free_port

DEVICE = DEVICES[0]
MARK = "c4n4ry"
KEY = "c4c4" * 8
UUID = f"{MARK}-000-uuid-0000-0000"
OTHER_UUID = f"{MARK}-000-other-0000-0000"
PEM = f"-----BEGIN PRIVATE KEY-----\n{MARK}000pem\n-----END PRIVATE KEY-----\n"


class Echo:
    """A web server that refuses everything and repeats what it was sent, as badly made ones do; it keeps Tokens."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.bodies: list[bytes] = []
        echo = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                echo.bodies.append(sent)
                echo.tokens.update(parse_qs(urlsplit(self.path).query).get("Token", ()))
                headers = {name: value for name, value in self.headers.items() if name != "Host"}
                said = json.dumps({"headers": headers, "path": self.path, "why": f"AS_KEY={KEY} is not known"})
                body = (self.path if "Token" in self.path else said).encode()
                if self.path.startswith("/body"):  # what it repeats is cut, and its own address stands at the end
                    body = sent[-150:]
                self.send_response(422)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def good_files(echo: Echo, secrets: Path) -> dict[str, str]:
    """Files that are fine, whose far ends refuse what they get."""
    (secrets / "word").write_text(f"{MARK}-from-a-file")
    headers = {
        "Authorization": f"Bearer {MARK}-literal",
        "X-File": {"file": str(secrets / "word")},
        "X-Env": {"env": "CANARY_WORD"},
    }
    signing = {"lrcCompliance": True, "downlinkAsId": "A.B", "tunnelInterfaceAuthenticationKey": KEY}
    mqtt = {"hostName": f"127.0.0.1:{free_port()}", "protocol": "TCP", "uplinkTopicPattern": "t"}
    return {
        "headers": http_file(f"{echo.url}/in?token={MARK}-query", headers=headers),
        "strict": http_file(echo.url, headers=headers, strictMode=True),
        "signed": http_file(echo.url, downlinkUuid=UUID, **signing),
        "body": http_file(f"{echo.url}/body", downlinkUuid=OTHER_UUID),
        "broker": connection_file("actility-mqtt-iot", mqtt | {"username": "u", "password": f"{MARK}-password"}),
    }


def bad_files(secrets: Path) -> dict[str, str]:
    """Files that are wrong where secrets stand, or where people put them by mistake."""
    (secrets / "key.pem").write_text(PEM)
    mqtt = {"hostName": "127.0.0.1:1883", "protocol": "SSL", "uplinkTopicPattern": "t"}

    def broker(**more: object) -> str:
        return connection_file("actility-mqtt-iot", mqtt | more)

    return {
        "login": broker(hostName=f"u:{MARK}@127.0.0.1"),
        "scheme": broker(hostName=f"mqtts://u:{MARK}@127.0.0.1:8883"),
        "proxy": http_file("http://127.0.0.1", proxy={"hostname": f"http://u:{MARK}@127.0.0.1:3128"}),
        "odd-proxy": http_file("http://127.0.0.1", proxy={"hostname": f"{MARK}://127.0.0.1:3128"}),
        "url": http_file(f"https://u:{MARK}@127.0.0.1/in"),
        "header": http_file("http://127.0.0.1", headers={f"Authorization: {MARK}": "x"}),
        "header-value": http_file("http://127.0.0.1", headers={"X": f"{MARK}\n{{"}),
        "uuid": http_file("http://127.0.0.1", downlinkUuid=f"{MARK} with blanks"),
        "taken-uuid": http_file("http://127.0.0.1", downlinkUuid=UUID),
        "uuid-number": http_file("http://127.0.0.1", downlinkUuid=444444),
        "env": broker(password={"env": f"{MARK}-in-small-letters"}),
        "kinds": broker(password={MARK: MARK}, username=[MARK], clientId={"a": MARK}, topics=MARK, qos=MARK),
        "switch": broker(retain=MARK, connectionTimeout=MARK, description=["x", MARK]),
        "hex": http_file("http://127.0.0.1", downlinkAsKey=f"{MARK}-no-hex"),
        "pem": broker(certificate={"file": str(secrets / "key.pem")}, privateKey=PEM),
        "aws": connection_file("actility-aws-iot", {"region": MARK + "!", "secretAccessKey": [MARK], "accessKeyId": 5}),
        "chain": http_file("http://127.0.0.1", chainedWithConnectionIds=[MARK]),
        "alarm": http_file("http://127.0.0.1")
        + f'[[alarms]]\nstartTime = "{MARK}"\nendTime = "{MARK}"\ntimezone = "{MARK}"\nuplinkRateMinPerHour = 1\n',
        "flow": http_file("http://127.0.0.1") + f'[flow]\nmatchers = [ {{ type = "key", key = "{MARK}" }} ]\n',
        "key": http_file("http://127.0.0.1") + f'[health]\n"u:{MARK}@h" = 1\n',
    }


def outputs(daemon: Daemon, ids: list[str]) -> dict[str, str]:
    """Everything that the daemon and its downlinks show, by name."""
    token = {"Authorization": f"Bearer {MARK}-control-token"}

    def asked(path: str) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{daemon.control}{path}", headers=token)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def shell(*arguments: str) -> str:
        argv = [sys.executable, "-m", "tpxd", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    config = ("--config", str(daemon.config))
    shown = {f"/health/{id}": json.dumps(daemon.health(id)) for id in ids}
    shown |= {"/health": json.dumps(daemon.get("/health")[1])}
    shown |= {path: asked(path) for path in ("/events?count=2000", f"/trace/{DEVICE}", "/downlinks/1")}
    shown |= {"log": daemon.log.read_text()}
    shown |= {"check": shell("check", str(daemon.config)), "check --json": shell("check", "--json", str(daemon.config))}
    for downlink in (("status",), ("status", "--json"), ("trace", DEVICE), ("trace", DEVICE, "--json")):
        shown[" ".join(downlink)] = shell(*downlink, *config)
    return shown


def test_no_output_shows_a_secret(
    make_daemon: MakeDaemon, echo: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_WORD", f"{MARK}-from-the-environment")
    files = good_files(echo, tmp_path) | bad_files(tmp_path)
    lrc = f'[lrc]\ndownlink_url = "{echo.url}/lrc"\nas_id = "A.B"\nas_key = "{KEY}"\n'
    daemon = make_daemon(lrc, **files)
    settings = daemon.config / "tpxd.toml"
    settings.write_text(settings.read_text().replace("[control]", f'[control]\ntoken = "{MARK}-control-token"', 1))
    daemon.start()
    assert Lrc(daemon.intake).post(uplink(DEVICE, 1)) == 200
    eventually(
        "the refusals came", lambda: daemon.uplinks("headers")["rejected"] and daemon.uplinks("signed")["rejected"]
    )
    downlink = {"DevEUI_downlink": {"DevEUI": DEVICE, "FPort": 1, "payload_hex": "00"}}
    url = f"http://127.0.0.1:{daemon.intake}/iot-flow/downlinkMessages/{UUID}"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(downlink).encode()), timeout=10) as answer:
        assert answer.status == 202
    eventually("the LRC refused", lambda: daemon.health("signed")["downlinks"]["rejected"] == 1)
    eventually("the sender heard of it", lambda: any(b"_Rejected" in body for body in echo.bodies))
    eventually("strict is held", lambda: daemon.health("strict")["lastError"])
    shown = outputs(daemon, list(files)) | {"sent": b"\n".join(echo.bodies[1:]).decode()}
    shown["sent"] = "\n".join(line for line in shown["sent"].splitlines() if "_Rejected" in line)
    shown["sent"] = "".join(shown["sent"].split('"downlinkUrl"')[:1])  # the far end may know its own address
    assert len(echo.tokens) >= 2
    for name, text in shown.items():
        assert text, name
        for secret in (MARK, KEY, "444444", *echo.tokens):
            at = text.find(secret)
            assert at < 0, f"{name} shows {text[max(0, at - 200) : at + 60]!r}"
    assert "*****" in shown["/events?count=2000"]
    assert all(daemon.health(id)["state"] == "INVALID" for id in bad_files(tmp_path))
    assert os.environ["CANARY_WORD"]
