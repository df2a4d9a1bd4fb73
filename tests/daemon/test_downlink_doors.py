"""Downlinks come in through every door of the daemon and reach the LRC; what became of them is told in its place."""

from __future__ import annotations

import json
import threading
import urllib.request
from urllib.parse import urlsplit

import pytest

from tests.daemon.conftest import Broker, MakeDaemon, Subscriber
from tests.daemon.downlinking import DEVICE, client, downlink, lrc_settings, payloads, publish, tpxd
from tests.daemon.harness import eventually, http_file, mqtt_file
from tests.daemon.lrc import Lrc, uplink
from tests.daemon.receivers import Receiver

pytestmark = pytest.mark.broker


def test_every_door_leads_to_the_lrc(
    make_daemon: MakeDaemon, broker: Broker, subscriber: Subscriber, receiver: Receiver
) -> None:
    lrc, web = receiver, Receiver()
    patterns = {"downlinkTopicPattern": "down/{DevEUI}", "downlinkStatusTopicPattern": "status/{DevEUI}"}
    daemon = make_daemon(lrc_settings(lrc), plant=mqtt_file(broker.port, **patterns), web=http_file(web.url)).start()
    try:
        daemon.opened("plant", "web")

        publish(broker.port, f"down/{DEVICE}", downlink("01"))
        eventually("the downlink from the topic is there", lambda: payloads(lrc) == ["01"])

        assert Lrc(daemon.intake).post(uplink(DEVICE, 1)) == 200
        (_, _, body, _) = eventually("the uplink is there", lambda: web.requests)[0]
        url = json.loads(body)["DevEUI_uplink"]["downlinkUrl"]
        here = f"http://127.0.0.1:{daemon.intake}{urlsplit(url).path}"
        with urllib.request.urlopen(urllib.request.Request(here, downlink("02"), method="POST"), timeout=10) as answer:
            assert answer.status == 202
        eventually("the downlink from the URL is there", lambda: payloads(lrc) == ["01", "02"])

        done = tpxd(daemon, "downlink", DEVICE, "--hex", "03", "--port", "7", "--wait")
        assert (done.returncode, done.stdout.partition(":")[0]) == (0, f"downlink 3 to {DEVICE} is sent"), done.stderr
        assert payloads(lrc) == ["01", "02", "03"]

        lrc.status = lambda path, body: 350
        publish(broker.port, f"down/{DEVICE}", downlink("04", CorrelationID="A1"))
        verdict = eventually(
            "the verdict is at its topic",
            lambda: [json.loads(body) for topic, body in subscriber.messages if topic == f"status/{DEVICE}"],
        )[0]["DevEUI_downlink_Rejected"]
        assert (verdict["DeliveryStatus"], verdict["CorrelationID"]) == (350, "A1")
        refused = tpxd(daemon, "downlink", DEVICE, "--hex", "05", "--port", "7", "--wait")
        assert (refused.returncode, "is rejected" in refused.stdout) == (1, True)

        traced = json.loads(tpxd(daemon, "trace", DEVICE, "--json").stdout)
        states = [(entry["connection"], entry["state"]) for entry in traced if entry["type"] == "DevEUI_downlink"]
        assert states == [("plant", "sent"), ("web", "sent"), (None, "sent"), ("plant", "rejected"), (None, "rejected")]
        assert {"DevEUI_uplink", "DevEUI_downlink_Rejected"} <= {entry["type"] for entry in traced}
    finally:
        web.close()


def test_downlinks_of_a_connection_that_is_paused_edited_and_removed(
    make_daemon: MakeDaemon, broker: Broker, receiver: Receiver
) -> None:
    def file(topic: str, extra: str = "") -> str:
        return extra + mqtt_file(broker.port, downlinkTopicPattern=topic, clientId="plant-client")

    daemon = make_daemon(lrc_settings(receiver), plant=file("old/{DevEUI}")).start()
    daemon.opened("plant")
    daemon.write("plant", file("old/{DevEUI}", "active = false\n"))
    eventually("it is paused", lambda: daemon.health("plant")["state"] == "DEACTIVATED")
    publish(broker.port, f"old/{DEVICE}", downlink("01"))
    daemon.end()
    daemon.start()
    publish(broker.port, f"old/{DEVICE}", downlink("02"))
    assert payloads(receiver) == []
    daemon.write("plant", file("old/{DevEUI}"))
    eventually("what the broker kept is there", lambda: payloads(receiver) == ["01", "02"])

    daemon.write("plant", file("new/{DevEUI}"))
    eventually("the edit is at work", lambda: daemon.health("plant")["file"]["running"] == 4)
    daemon.opened("plant")
    publish(broker.port, f"old/{DEVICE}", downlink("03"))
    publish(broker.port, f"new/{DEVICE}", downlink("04"))
    eventually("only the new topic counts", lambda: payloads(receiver) == ["01", "02", "04"])

    (daemon.connections / "plant.toml").unlink()
    eventually("it is gone", lambda: daemon.get("/health/plant")[0] == 404)

    def ended() -> bool:
        with client(broker.port, "plant-client", clean=False) as (_, present):
            return not present

    # the session is ended some seconds later; whoever asks takes its place, so it is asked once only
    threading.Event().wait(5)
    assert ended()
    assert payloads(receiver) == ["01", "02", "04"]


def test_a_key_that_the_lrc_refuses_holds_downlinks_until_the_file_has_the_right_one(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    uuid = "6b1f0c9e-0000-4000-8000-00000000a1c4"
    wrong, right = "0" * 32, "1" * 32
    file = {"downlinkUuid": uuid, "downlinkAsId": "TWA_1"}
    daemon = make_daemon(
        lrc_settings(receiver), web=http_file("http://127.0.0.1:1/", **file, downlinkAsKey=wrong)
    ).start()
    receiver.status = lambda path, body: 401
    here = f"http://127.0.0.1:{daemon.intake}/iot-flow/downlinkMessages/{uuid}"
    for payload in ("01", "02"):
        request = urllib.request.Request(here, downlink(payload), method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 202
    refusal = 'the LRC refuses AS_ID "TWA_1": HTTP 401'
    eventually("/health says so", lambda: refusal in (daemon.get("/health")[1]["lrc"]["reason"] or ""))
    status, health = daemon.get("/health")
    assert (status, health["lrc"]["waiting"], payloads(receiver)) == (503, 2, ["01"])
    assert "downlinkAsKey" in health["lrc"]["lastError"]["hint"]
    shown = tpxd(daemon, "status").stdout
    assert refusal in shown
    assert "downlinkAsKey" in shown
    receiver.status = lambda path, body: 200
    daemon.write("web", http_file("http://127.0.0.1:1/", **file, downlinkAsKey=right))
    eventually("both are sent, in order", lambda: payloads(receiver) == ["01", "01", "02"])
    eventually("it is well again", lambda: daemon.get("/health")[1]["lrc"]["healthy"])
