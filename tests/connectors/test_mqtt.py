"""The MQTT connector: what it says to a broker, one that follows a script and Mosquitto."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connectors.mqtt_site import config, mqtt_site
from tests.connectors.opening import CLIENT, Site, context
from tests.connectors.traffic import LANES, Receipts, batch_of, outgoing
from tests.peers import pki
from tests.peers.mosquitto import running_mosquitto
from tests.peers.ports import free_port
from tests.wire.scripted_broker import CONNACK, FromClient, ScriptedBroker, puback
from tpxd.connectors.mqtt import open_mqtt_connection
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost
from tpxd.wire.streams import Endpoint

DEV_EUI = LANES[0]


# ---- against a scripted broker


async def test_it_introduces_itself_and_delivers() -> None:
    connects: list[FromClient] = []

    async def script(broker: ScriptedBroker) -> None:
        connects.append(await broker.accept())
        packets = [await broker.expect("PUBLISH") for _ in range(2)]
        assert [(packet.topic, packet.rest, packet.flags) for packet in packets] == [
            (f"plant/{DEV_EUI}/up", b'{"n":1}', 0x02),
            (f"plant/{DEV_EUI}/up", b'{"n":2}', 0x02),
        ]
        await broker.send(puback(2) + puback(1))
        await broker.expect("DISCONNECT")

    async with trio.open_nursery() as nursery:
        site, receipts = mqtt_site(nursery, script), Receipts()
        settings = config(username="tpx", password="p", connectionTimeout=2_000)
        async with open_mqtt_connection(settings, site.context) as transport:
            await transport.send([outgoing(1), outgoing(2)], receipts)
    assert receipts.delivered_ == [1, 0]
    assert site.dialled == [(Endpoint("broker.example.net", 1883), 2.0)]
    assert site.authenticated == 1
    # clean session, user name, password; keep-alive of a minute
    assert connects[0].rest == b"\0\4MQTT\4\xc2\0\x3c\0\x13tpxd-0badcafe-plant\0\3tpx\0\1p"


async def test_options_of_the_file() -> None:
    async def script(broker: ScriptedBroker) -> None:
        connect = await broker.accept()
        assert connect.rest.endswith(b"\0\2me")
        topics = [(packet.topic, packet.flags) for packet in [await broker.expect("PUBLISH") for _ in range(3)]]
        assert topics == [("two", 1), (f"plant/{DEV_EUI}/up", 1), ("two", 1)]

    settings = config(clientId="me", qos=0, retain=True, topics=[{"fPort": 2, "uplinkTopicPattern": "two"}])
    async with trio.open_nursery() as nursery:
        receipts = Receipts()
        async with open_mqtt_connection(settings, mqtt_site(nursery, script).context) as transport:
            await transport.send([outgoing(1, FPort=2), outgoing(2, FPort="3"), outgoing(3, FPort="2")], receipts)
    assert receipts.delivered_ == [0, 1, 2]


async def test_uplinks_without_a_legal_topic_are_rejected_and_the_rest_delivered() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        assert (await broker.expect("PUBLISH")).topic == "plant/ok"
        await broker.send(puback(1))

    async with trio.open_nursery() as nursery:
        site, receipts = mqtt_site(nursery, script), Receipts()
        async with open_mqtt_connection(config(uplinkTopicPattern="plant/{Name}"), site.context) as transport:
            batch = [outgoing(1), outgoing(2, Name="x" * 65_535), outgoing(3, Name="ok")]
            await transport.send(batch, receipts)
    assert receipts.delivered_ == [2]
    assert receipts.rejected_ == {
        0: "the uplink has no Name, which uplinkTopicPattern asks for",
        1: '"plant/{Name}" makes a topic too long: 65541 bytes, 65535 are allowed',
    }


@pytest.mark.parametrize(("code", "error"), [(4, AuthenticationFailed), (5, AuthenticationFailed), (3, ConnectFailed)])
async def test_refused(code: int, error: type[Exception]) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(bytes((0x20, 2, 0, code)))

    async with trio.open_nursery() as nursery:
        with pytest.raises(error):
            async with open_mqtt_connection(config(), mqtt_site(nursery, script).context):
                pytest.fail("opened")


async def test_a_silent_broker_is_left_within_the_connection_timeout(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed, match="no CONNACK"):
            async with open_mqtt_connection(config(connectionTimeout=3_000), mqtt_site(nursery, script).context):
                pytest.fail("opened")
    assert trio.current_time() - begun == pytest.approx(3)


async def test_no_receipt_within_the_action_timeout(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        await broker.expect("PUBLISH")

    async def body(site: Site[ScriptedBroker]) -> None:
        async with open_mqtt_connection(config(actionTimeout=4_000), site.context) as transport:
            await transport.send([outgoing(1)], Receipts())

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match="acknowledged nothing for 4 s"):
            await body(mqtt_site(nursery, script))
    assert trio.current_time() - begun == pytest.approx(4)


async def test_nothing_runs_after_the_block() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(CONNACK)
        await broker.expect("DISCONNECT")
        await broker.ended()

    async with trio.open_nursery() as nursery:
        site = mqtt_site(nursery, script)
        async with open_mqtt_connection(config(), site.context):
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks


# ---- against Mosquitto


@pytest.mark.broker
async def test_mosquitto_with_a_client_certificate(tmp_path: Path) -> None:
    certificate, key = pki.server("127.0.0.1").write(tmp_path, "server")
    authority, _ = pki.ca().write(tmp_path, "ca")
    listener = f"cafile {authority}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true"
    async with running_mosquitto(tmp_path, listener=listener) as broker:
        common: dict[str, Any] = {"hostName": f"127.0.0.1:{broker.port}", "protocol": "SSL"}
        receipts = Receipts()
        settings = config(**common, trustedCaCertficate=pki.ca().certificate, **CLIENT)
        async with open_mqtt_connection(settings, context()) as transport:
            await transport.send(batch_of(256), receipts)
        assert receipts.delivered_ == list(range(256))

        with pytest.raises(ConnectFailed, match="was issued by a CA that is not trusted"):
            async with open_mqtt_connection(config(**common, **CLIENT), context()):
                pytest.fail("opened")

        nobody = config(**common, trustedCaCertificate=pki.ca().certificate)
        with pytest.raises(ConnectFailed, match="the server asks for a client certificate"):
            async with open_mqtt_connection(nobody, context()):
                pytest.fail("opened")


@pytest.mark.broker
async def test_mosquitto_over_a_secure_websocket_with_a_client_certificate(tmp_path: Path) -> None:
    certificate, key = pki.server("127.0.0.1").write(tmp_path, "server")
    authority, _ = pki.ca().write(tmp_path, "ca")
    port = free_port()
    # Debian's Mosquitto 2.0.11 ends at once with WebSocket listeners alone, so the plain one stays
    listener = f"listener {port} 127.0.0.1\nprotocol websockets\ncafile {authority}\ncertfile {certificate}\n"
    async with running_mosquitto(tmp_path, listener=f"{listener}keyfile {key}\nrequire_certificate true"):
        common: dict[str, Any] = {"hostName": f"127.0.0.1:{port}", "protocol": "WSS"}
        trusting = common | {"trustedCaCertificate": pki.ca().certificate}
        receipts = Receipts()
        big = replace(outgoing(255), body=b"x" * 300_000)
        async with open_mqtt_connection(config(**trusting, **CLIENT), context()) as transport:
            await transport.send([*batch_of(255), big], receipts)
        assert receipts.delivered_ == list(range(256))

        with pytest.raises(ConnectFailed, match="was issued by a CA that is not trusted"):
            async with open_mqtt_connection(config(**common, **CLIENT), context()):
                pytest.fail("opened")

        with pytest.raises(ConnectFailed, match="the server asks for a client certificate"):
            async with open_mqtt_connection(config(**trusting), context()):
                pytest.fail("opened")


@pytest.mark.broker
async def test_a_secure_websocket_to_something_else(tmp_path: Path) -> None:
    certificate, key = pki.server("127.0.0.1").write(tmp_path, "server")
    listener = f"certfile {certificate}\nkeyfile {key}"
    async with running_mosquitto(tmp_path, listener=listener) as broker:
        settings = config(
            hostName=f"127.0.0.1:{broker.port}", protocol="WSS", trustedCaCertificate=pki.ca().certificate
        )
        with pytest.raises(ConnectFailed, match=r"\(WebSocket handshake\)") as caught:
            async with open_mqtt_connection(settings, context()):
                pytest.fail("opened")
        assert "WebSocket" in (caught.value.hint or "")


@pytest.mark.broker
async def test_mosquitto_with_a_wrong_password(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    await trio.run_process(["mosquitto_passwd", "-b", "-c", str(passwords), "tpx", "right"])
    async with running_mosquitto(tmp_path, listener=f"allow_anonymous false\npassword_file {passwords}") as broker:
        common: dict[str, Any] = {"hostName": f"127.0.0.1:{broker.port}", "username": "tpx"}
        with pytest.raises(AuthenticationFailed, match="refuses"):
            async with open_mqtt_connection(config(**common, password="wrong"), context()):
                pytest.fail("opened")
        async with open_mqtt_connection(config(**common, password="right"), context()) as transport:
            receipts = Receipts()
            await transport.send([outgoing(1)], receipts)
            assert receipts.delivered_ == [0]
