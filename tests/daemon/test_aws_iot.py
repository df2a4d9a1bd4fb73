"""The whole daemon with AWS IoT: uplinks over TLS to a real broker, things in a real moto, and what goes wrong."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import Broker, MakeDaemon, Subscriber
from tests.daemon.harness import Daemon, connection_file, eventually
from tests.daemon.lrc import DEVICES, Load, Lrc, uplink
from tests.daemon.receivers import judge
from tests.peers import pki
from tests.peers.moto import Moto
from tests.peers.ports import free_port
from tests.wire.scripted_registry import KEY_ID, REGION, SECRET
from tpxd.connectors.aws_iot.connector import MAX_IN_FLIGHT

pytestmark = pytest.mark.broker

FOREIGN_CA = pki.issue("Another CA", is_ca=True)
SERVERS = {
    "right": pki.server("127.0.0.1"),
    "expired": pki.issue("127.0.0.1", pki.ca(), expires=pki.NOW - timedelta(days=1)),
}

UUID = "0f5a8e9c-0b1d-4c7e-9a52-3d6f7e8a9b0c"
DOWNLINK_URL = f"http://127.0.0.1:8090/iot-flow/downlinkMessages/{UUID}"


class Cloud:
    """A Mosquitto that asks for client certificates, with a listener for each of `SERVERS`, and moto beside it."""

    def __init__(self, directory: Path, moto: Moto, ending: ExitStack) -> None:
        directory.mkdir()
        authority, _ = pki.ca().write(directory, "ca")
        self.moto = moto
        self.ports = {name: free_port() for name in SERVERS}
        listeners = []
        for name, identity in SERVERS.items():
            certificate, key = identity.write(directory, name)
            listeners.append(
                f"listener {self.ports[name]} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\n"
                f"cafile {authority}\ncertfile {certificate}\nkeyfile {key}"
            )
        self.broker = Broker(directory, "allow_anonymous true\n" + "\n".join(listeners))
        ending.callback(self.broker.stop)
        self.witness = Subscriber(self.broker.port)
        ending.callback(self.witness.close)

    def file(self, server: str = "right", **more: Any) -> str:
        """A connection file, right but for `more`."""
        client = pki.client()
        configuration = {
            "region": REGION,
            "accountPrefix": "abc-ats",
            "endpoint": f"127.0.0.1:{self.ports[server]}",
            "apiEndpoint": self.moto.url,
            "accessKeyId": KEY_ID,
            "secretAccessKey": SECRET,
            "deviceType": "LoRaWAN",
            "certificate": client.certificate,
            "privateKey": client.private_key,
            "trustedCaCertificate": pki.ca().certificate,
            "uplinkTopicPattern": "tpx/{DevEUI}/up",
        }
        return connection_file("actility-aws-iot", configuration | more)


@pytest.fixture
def cloud(tmp_path: Path, moto: Moto, ending: ExitStack) -> Cloud:
    """AWS IoT, as far as it can be had here."""
    return Cloud(tmp_path / "cloud", moto, ending)


def test_devices_become_things_once_and_their_uplinks_arrive_as_they_came(
    make_daemon: MakeDaemon, cloud: Cloud
) -> None:
    arn = cloud.moto.certificate()
    file = cloud.file(certificateId=arn, downlinkUuid=UUID)
    daemon: Daemon = make_daemon('[lrc]\ndownlink_url = "http://127.0.0.1:1/"\n', cloud=file).start()
    lrc, sent = Lrc(daemon.intake), list[tuple[str, bytes]]()

    def post(counter: int, *devices: str) -> None:
        for device in devices:
            document = uplink(device, counter)
            assert lrc.post(document) == 200
            # what tpxd adds stands at the end; nothing else changes by a byte
            body = f'{json.dumps(document)[:-2]},"downlinkUrl":"{DOWNLINK_URL}"}}}}'
            sent.append((f"tpx/{device}/up", body.encode()))

    def all_arrived() -> bool:
        return sorted(cloud.witness.messages) == sorted(sent)

    post(1, *DEVICES[:5])
    post(2, *DEVICES[:5])
    eventually("all arrived", all_arrived)
    assert cloud.moto.things() == dict.fromkeys(DEVICES[:5], "LoRaWAN")
    assert all(cloud.moto.attached_to(device) == [arn] for device in DEVICES[:5])

    lrc.close()
    assert daemon.end() == 0
    daemon.start()
    post(3, *DEVICES[:6])
    eventually("the rest arrived", all_arrived)
    made = [path for path in cloud.moto.asked("POST") if "certificate" not in path]
    assert sorted(made) == ["/thing-types/LoRaWAN", *(f"/things/{device}" for device in DEVICES[:6])]
    assert cloud.moto.asked("PUT").count(f"/things/{DEVICES[0]}/principals") == 1
    judge([*lrc.accepted], cloud.witness.keys())
    daemon.drained("cloud")
    assert daemon.balanced("cloud")["delivered"] == 16


def test_a_broker_that_is_restarted_in_traffic_costs_nothing(make_daemon: MakeDaemon, cloud: Cloud) -> None:
    daemon: Daemon = make_daemon("", cloud=cloud.file(uplinkRateLimiter=2_000)).start()
    daemon.opened("cloud")
    load = Load(daemon.intake)
    try:
        for _ in range(2):
            seen = len(cloud.witness.messages)
            eventually("uplinks arrive", lambda: len(cloud.witness.messages) > seen + 200)  # noqa: B023
            cloud.broker.stop()
            eventually("the loss is seen", lambda: daemon.health("cloud")["state"] != "OPENED")
            cloud.broker.start()
            assert daemon.request("POST", "/connections/cloud/reconnect")[0] == 202
            daemon.opened("cloud", within_s=40)
    finally:
        load.stop()
    daemon.drained("cloud")
    eventually("everything arrived", lambda: set(load.accepted) <= set(cloud.witness.keys()))
    judge(load.accepted, cloud.witness.keys(), posted=load.posted, doubles=2 * MAX_IN_FLIGHT)
    assert cloud.moto.asked("POST").count(f"/things/{DEVICES[0]}") == 1


FOREIGN_CLIENT = pki.issue("intruder", FOREIGN_CA, client=True)
TROUBLES: dict[str, tuple[dict[str, Any], str, str]] = {
    "expired": (
        {"server": "expired"},
        "the server's certificate has expired",
        "the server's operator must renew it; is the clock of this machine right?",
    ),
    "foreign": (
        {"trustedCaCertificate": FOREIGN_CA.certificate},
        "the server's certificate was not issued by the CA that is set",
        "set trustedCaCertificate to the CA that issued the server's, or leave it out where that is a public one",
    ),
    "client": (
        {"certificate": FOREIGN_CLIENT.certificate, "privateKey": FOREIGN_CLIENT.private_key},
        "the server does not trust the CA of our client certificate",
        "is certificate issued by the CA that the server knows, with its intermediates?",
    ),
}


def _closed(daemon: Daemon, id: str) -> dict[str, Any]:
    """The health document of a connection that is CLOSED while everything waits."""
    document = daemon.health(id)
    assert (document["state"], document["uplinks"]["waiting"]) == ("CLOSED", 3), document
    return document


def test_what_the_registry_refuses_is_told_and_holds_nothing(make_daemon: MakeDaemon, cloud: Cloud) -> None:
    file = cloud.file(certificateId="arn:aws:iot:eu-central-1:123456789012:cert/0a1b2c")
    daemon: Daemon = make_daemon("", cloud=file).start()
    lrc = Lrc(daemon.intake)
    for counter in range(3):
        assert lrc.post(uplink(DEVICES[0], counter)) == 200
    daemon.drained("cloud")
    document = daemon.health("cloud")
    assert (document["state"], document["healthy"]) == ("OPENED", True)
    assert "iot:AttachThingPrincipal: 404 Not Found ResourceNotFoundException" in document["reason"]
    assert document["lastError"]["message"] == document["reason"]
    hint = "is certificateId the ARN of a certificate of this account and region?"
    assert document["lastError"]["hint"] == hint
    _, events = daemon.request("GET", "/events?connection=cloud")
    assert [event["hint"] for event in events if event["kind"] == "trouble"] == [hint]

    arn = cloud.moto.certificate()
    daemon.write("cloud", cloud.file(certificateId=arn))
    eventually("the new file is at work", lambda: daemon.health("cloud")["file"]["running"] == 2)
    assert lrc.post(uplink(DEVICES[0], 3)) == 200
    eventually("it is attached", lambda: cloud.moto.attached_to(DEVICES[0]) == [arn])
    assert daemon.health("cloud")["reason"] is None
    eventually("all arrived", lambda: cloud.witness.keys() == [(DEVICES[0], counter) for counter in range(4)])


def test_wrong_certificates_are_told_and_lose_nothing(make_daemon: MakeDaemon, cloud: Cloud) -> None:
    files = {name: cloud.file(**values) for name, (values, _, _) in TROUBLES.items()}
    daemon: Daemon = make_daemon("", **files).start()
    lrc = Lrc(daemon.intake)
    for counter in range(3):
        assert lrc.post(uplink(DEVICES[0], counter)) == 200
    for name, (_, message, hint) in TROUBLES.items():
        document = eventually(f"{name} is CLOSED", lambda: _closed(daemon, name))  # noqa: B023
        assert message in document["reason"]
        assert document["lastError"]["hint"] == hint
    for name in TROUBLES:
        daemon.write(name, cloud.file())
    daemon.opened(*TROUBLES, within_s=30)
    daemon.drained(*TROUBLES)
    keys = [(DEVICES[0], counter) for counter in range(3)]
    eventually("all arrived", lambda: sorted(cloud.witness.keys()) == sorted(keys * len(TROUBLES)))
    assert cloud.moto.things() == {DEVICES[0]: "LoRaWAN"}
