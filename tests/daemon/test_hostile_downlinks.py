"""What no application should send, sent to the whole daemon over MQTT and HTTP: it is answered, and all goes on."""

from __future__ import annotations

import http.client
import threading
from contextlib import closing, suppress

import pytest

from tests.daemon.conftest import Broker, MakeDaemon
from tests.daemon.downlinking import client, downlink, lrc_settings, payloads
from tests.daemon.harness import Daemon, eventually, http_file, mqtt_file
from tests.daemon.lrc import DEVICES, Lrc, uplink
from tests.daemon.receivers import Receiver

pytestmark = pytest.mark.broker

UUID = "6b1f0c9e-0000-4000-8000-00000000a1c4"
DEVICE, OTHER = DEVICES[:2]

NO_JSON = {
    "a megabyte": b"a" * 1_000_000,
    "more than any packet may have": b"a" * 5_000_000,
    "a bomb of lists": b"[" * 100_000 + b"]" * 100_000,
    "a bomb of objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "not UTF-8": b'{"DevEUI_downlink": "\xff\xfe"}',
}
WRONG = {
    "a huge number": downlink("00", FPort="9" * 5_000),
    "a list for a payload": downlink("00", payload_hex=["00"]),
    "a payload beyond any data rate": downlink("00" * 300),
    "an expired time": downlink("00", ValidityTime="2020-01-01T00:00:00Z"),
    "a foreign notation": downlink("00", DevEUI="../../../etc/passwd"),
    "an object for a flag": downlink("00", Confirmed={"a": 1}),
}


def count(daemon: Daemon, id: str, word: str) -> int:
    found: int = daemon.health(id)["downlinks"][word]
    return found


def test_over_mqtt(make_daemon: MakeDaemon, broker: Broker, receiver: Receiver) -> None:
    file = mqtt_file(broker.port, downlinkTopicPattern="d/{DevEUI}")
    daemon = make_daemon(lrc_settings(receiver), plant=file).start()
    daemon.opened("plant")
    with client(broker.port, "application") as (application, _):
        for body in (*NO_JSON.values(), *WRONG.values()):
            application.publish(f"d/{DEVICE}", body, qos=1).wait_for_publish(10)
        # the body says which device, as in ThingPark; the topic is only where it came by
        application.publish(f"d/{OTHER}", downlink("aa"), qos=1).wait_for_publish(10)
        many = [f"{n:04x}" for n in range(1_000)]
        for sent in [application.publish(f"d/{DEVICE}", downlink(payload), qos=1) for payload in many]:
            sent.wait_for_publish(30)
    eventually("the good ones are there, in order", lambda: payloads(receiver)[1:] == many, 60)
    assert payloads(receiver)[0] == "aa"
    counts = daemon.health("plant")["downlinks"]
    assert counts["sent"] == 1_001
    assert counts["rejected"] + counts["expired"] + counts["ignored"] == len(NO_JSON) + len(WRONG)
    assert count(daemon, "plant", "ignored") >= 1
    assert daemon.health("plant")["state"] == "OPENED"


def test_over_http(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    web = http_file(receiver.url, downlinkUuid=UUID, downlinkEnabled=True)
    daemon = make_daemon(lrc_settings(receiver), web=web).start()
    daemon.opened("web")

    def post(body: bytes, uuid: str = UUID) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", daemon.intake, timeout=10)) as link:
            # it answers before it has read a body that is too long
            with suppress(BrokenPipeError, ConnectionResetError):
                link.request("POST", f"/iot-flow/downlinkMessages/{uuid}", body)
            return link.getresponse().status

    assert {name: post(body) for name, body in NO_JSON.items() if len(body) < 200_000} == {"not UTF-8": 400} | {
        name: 413 for name, body in NO_JSON.items() if 65_536 < len(body) < 200_000
    }
    assert {name: post(body) for name, body in WRONG.items()} == dict.fromkeys(WRONG, 400) | {"an expired time": 202}
    eventually("what was over when it came is over", lambda: count(daemon, "web", "expired") == 1)

    statuses: list[int] = []

    def guess(first: int) -> None:
        statuses.extend(post(downlink("00"), f"{first:08x}-0000-4000-8000-{n:012x}") for n in range(50))

    threads = [threading.Thread(target=guess, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for n in range(20):
        assert Lrc(daemon.intake).post(uplink(DEVICE, n)) == 200
    for thread in threads:
        thread.join(30)
    assert set(statuses) == {404, 429}
    assert statuses.count(404) < 40
    assert count(daemon, "web", "sent") == 0
    eventually("the uplinks went their way, and a verdict", lambda: daemon.uplinks("web")["delivered"] == 21)
