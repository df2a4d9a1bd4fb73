"""Certificates that are renewed while the daemon runs: taken over without a restart, with nothing lost."""

from __future__ import annotations

import re
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.conftest import MakeDaemon, Subscriber
from tests.daemon.harness import Daemon, connection_file, eventually
from tests.daemon.lrc import DEVICES, Load, Lrc, uplink
from tests.daemon.receivers import judge
from tests.peers import pki
from tests.peers.mosquitto import Mosquitto
from tests.peers.ports import free_port

pytestmark = pytest.mark.broker


class SecureBroker:
    """A Mosquitto with a plain listener for the witness, and one with TLS that asks for client certificates."""

    def __init__(self, directory: Path, ending: ExitStack) -> None:
        self.directory, self.port = directory, free_port()
        self.log = directory / "mosquitto.log"
        listener = (
            f"listener {self.port} 127.0.0.1\ncafile {directory}/ca.crt\ncertfile {directory}/server.crt\n"
            f"keyfile {directory}/server.key\nrequire_certificate true\nuse_identity_as_username true\n"
            f"log_dest file {self.log}\nlog_type all"
        )
        self._mosquitto = Mosquitto(directory, free_port(), listener, persistent=True)
        self.plain_port = self._mosquitto.port
        pki.ca().write(directory, "ca")
        self.start(pki.server("127.0.0.1"))
        ending.callback(self.stop)

    def start(self, identity: pki.Identity) -> None:
        """Start it with this certificate of its own."""
        identity.write(self.directory, "server")
        trio.run(self._mosquitto.start)

    def stop(self) -> None:
        """Stop it; what it holds for persistent sessions is on disk."""
        trio.run(self._mosquitto.stop)

    def users(self) -> list[str]:
        """The names in the certificates of those who connected over TLS, in order."""
        return re.findall(r"New client connected from \S+ as tpxd-.* u'([^']*)'\)", self.log.read_text())


@pytest.fixture
def broker(tmp_path: Path, ending: ExitStack) -> SecureBroker:
    """The broker; its files stand beside the daemon's."""
    directory = tmp_path / "broker"
    directory.mkdir()
    return SecureBroker(directory, ending)


@pytest.fixture
def witness(broker: SecureBroker, ending: ExitStack) -> Subscriber:
    """What arrives at the broker."""
    started = Subscriber(broker.plain_port)
    ending.callback(started.close)
    return started


@pytest.fixture
def daemon(make_daemon: MakeDaemon, tmp_path: Path, broker: SecureBroker) -> Daemon:
    """A daemon whose connection refers to certificate, key and CA as files."""
    pki.issue("first", pki.ca(), client=True).write(tmp_path, "client")
    pki.ca().write(tmp_path, "trusted")
    configuration: dict[str, Any] = {
        "hostName": f"127.0.0.1:{broker.port}",
        "protocol": "SSL",
        "uplinkTopicPattern": "t/{DevEUI}",
        "certificate": {"file": str(tmp_path / "client.crt")},
        "privateKey": {"file": str(tmp_path / "client.key")},
        "trustedCaCertificate": {"file": str(tmp_path / "trusted.crt")},
    }
    daemon: Daemon = make_daemon("", plant=connection_file("actility-mqtt-iot", configuration)).start()
    daemon.opened("plant")
    return daemon


def test_a_renewed_client_certificate_is_taken_over(
    daemon: Daemon, broker: SecureBroker, witness: Subscriber, tmp_path: Path
) -> None:
    assert broker.users() == ["first"]
    expires = pki.NOW + timedelta(days=90)
    renewed = pki.issue("renewed", pki.ca(), client=True, expires=expires)
    load = Load(daemon.intake)
    try:
        eventually("uplinks arrive", lambda: len(witness.messages) > 200)
        (tmp_path / "client.crt").write_text(renewed.certificate)
        # for a moment the files do not belong together: what runs goes on, and the file says why
        eventually("the key is missed", lambda: "does not belong" in str(daemon.health("plant")["file"]["error"]), 12)
        assert daemon.health("plant")["state"] == "OPENED"
        (tmp_path / "client.key").write_text(renewed.private_key)
        eventually("a session with the new certificate", lambda: broker.users() == ["first", "renewed"])
        seen = len(witness.messages)
        eventually("uplinks arrive over it", lambda: len(witness.messages) > seen + 200)
    finally:
        load.stop()
    daemon.opened("plant")
    eventually("everything arrived", lambda: set(load.accepted) <= set(witness.keys()))
    judge(load.accepted, witness.keys(), posted=load.posted, doubles=256)
    daemon.balanced("plant")
    document = daemon.health("plant")
    assert document["file"]["error"] is None
    # the CA's end comes first now
    assert datetime.fromisoformat(document["certificateExpires"]) == pki.ca().x509.not_valid_after_utc


def test_a_renewed_ca_is_taken_over(daemon: Daemon, broker: SecureBroker, witness: Subscriber, tmp_path: Path) -> None:
    new_ca = pki.issue("New CA", is_ca=True, expires=pki.NOW + timedelta(days=20))
    lrc = Lrc(daemon.intake)
    assert lrc.post(uplink(DEVICES[0], 1)) == 200
    eventually("the first arrives", lambda: len(witness.messages) == 1)
    broker.stop()
    broker.start(pki.issue("127.0.0.1", new_ca))
    assert lrc.post(uplink(DEVICES[0], 2)) == 200
    eventually("the new CA is not trusted", lambda: "not issued by the CA" in str(daemon.health("plant")["reason"]), 40)
    (tmp_path / "trusted.crt").write_text(new_ca.certificate)
    eventually("both arrived", lambda: witness.keys() == [(DEVICES[0], 1), (DEVICES[0], 2)])
    daemon.opened("plant")
    shown = daemon.health("plant")["certificateExpires"]
    assert datetime.fromisoformat(shown) == new_ca.x509.not_valid_after_utc
    assert "trustedCaCertificate expires in 19 days" in daemon.log.read_text()
