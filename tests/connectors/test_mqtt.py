"""The MQTT connector: what its file may say, and what it says to a broker."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from pydantic import ValidationError
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests import pki
from tests.mosquitto import free_port, running_mosquitto
from tests.notebook import Notebook
from tests.wire.scripted_broker import CONNACK, FromClient, ScriptedBroker, puback
from tpxd.config import SecretSources
from tpxd.connector import REGISTRY, Context, Outgoing
from tpxd.connectors.mqtt import MqttConfig, open_mqtt_connection
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost
from tpxd.lorawan.uplink import Uplink
from tpxd.wire.streams import Endpoint, open_stream
from tpxd.wire.tls import TlsContextCache
from tpxd.wire.websocket import WebSocket

DEV_EUI = "70B3D5E75E00A1C4"


def config(**values: Any) -> MqttConfig:
    settings = {"hostName": "broker.example.net:1883", "protocol": "TCP", "uplinkTopicPattern": "plant/{DevEUI}/up"}
    return MqttConfig.model_validate(settings | values)


def complaint(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        config(**values)
    return "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in caught.value.errors())


def outgoing(seq: int = 1, body: bytes = b"{}", **fields: Any) -> Outgoing:
    document = {"DevEUI_uplink": {"DevEUI": DEV_EUI, **fields}}
    return Outgoing(Uplink(seq, 0, "DevEUI_uplink", DEV_EUI, "", orjson.dumps(document)), body)


class Receipts:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.fates: list[tuple[int, str]] = []

    def delivered(self, index: int) -> None:
        self.fates.append((index, "delivered"))

    def rejected(self, index: int, reason: str) -> None:
        self.fates.append((index, reason))

    def filtered(self, index: int, reason: str) -> None:
        raise AssertionError(f"{index} was filtered: {reason}")


class Site:
    """A context whose `dial` hands out one end of a memory stream; `script` speaks at the other."""

    def __init__(self, nursery: trio.Nursery, script: Callable[[ScriptedBroker], Awaitable[None]]) -> None:
        self.dialled: list[tuple[Endpoint, float]] = []
        self.authenticated = 0
        self._nursery, self._script = nursery, script

    async def dial(self, endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        self.dialled.append((endpoint, timeout_s))
        near, far = memory_stream_pair()
        self._nursery.start_soon(self._script, ScriptedBroker(far))
        return near

    def authenticating(self) -> None:
        self.authenticated += 1

    @property
    def context(self) -> Context:
        return context(dial=self.dial, authenticating=self.authenticating)


def context(**parts: Any) -> Context:
    defaults: dict[str, Any] = {
        "connection_id": "plant",
        "instance": "0badcafe",
        "log": logging.LoggerAdapter(logging.getLogger("test")),
        "dial": open_stream,
        "tls": TlsContextCache(),
        "memory": Notebook(),
        "authenticating": lambda: None,
        "proven": lambda: True,
    }
    return Context(**defaults | parts)


# ---- the file


def test_it_is_registered() -> None:
    assert REGISTRY["actility-mqtt-iot"].config is MqttConfig


@pytest.mark.parametrize(
    ("host", "protocol", "expected"),
    [
        ("h", "TCP", "h:1883"),
        ("h", "SSL", "h:8883"),
        ("h", "WSS", "h:443"),
        ("h:8883", "TCP", "h:8883"),
        ("192.0.2.1", "SSL", "192.0.2.1:8883"),
        ("[2001:db8::1]", "TCP", "[2001:db8::1]:1883"),
        ("[2001:db8::1]:99", "TCP", "[2001:db8::1]:99"),
    ],
)
def test_host_names(host: str, protocol: str, expected: str) -> None:
    assert str(config(hostName=host, protocol=protocol).hostName) == expected


CLIENT = {"certificate": pki.client().certificate, "privateKey": pki.client().private_key}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hostName": "mqtt://h:1883"}, "hostName: .*must not begin with a scheme"),
        ({"hostName": 7}, "hostName: .*is not text"),
        ({"path": "/mqtt"}, 'path needs protocol = "WSS"'),
        ({"protocol": "WSS", "path": "mqtt"}, "path: .*is no path"),
        ({"protocol": "WSS", "path": "/mq tt"}, "path: .*is no path"),
        ({"protocol": "WSS", "path": "/mqtt#x"}, "path: .*is no path"),
        ({"protocol": "WSS", "path": "/" * 1001}, "path: .*is no path"),
        ({"protocol": "SLS"}, "protocol: Input should be 'TCP', 'SSL' or 'WSS'"),
        ({"qos": 2}, "qos: Input should be 0 or 1"),
        ({"clientId": ""}, "clientId: "),
        ({"uplinkTopicPatern": "x"}, "uplinkTopicPatern: Extra inputs"),
        ({"actionTimeout": 99}, "actionTimeout: "),
        ({"password": "p"}, "password needs username"),
        ({"username": "u", "password": "p" * 65_536}, "password has more than 65535 bytes"),
        ({"certificate": pki.client().certificate}, "certificate needs privateKey"),
        ({"privateKey": pki.client().private_key}, "privateKey needs certificate"),
        (CLIENT, 'certificates need protocol = "SSL"'),
        ({"trustedCaCertficate": pki.ca().certificate}, 'certificates need protocol = "SSL"'),
        (
            {
                "protocol": "SSL",
                "trustedCaCertificate": pki.ca().certificate,
                "trustedCaCertficate": pki.ca().certificate,
            },
            "are the same; keep one of them",
        ),
        (CLIENT | {"protocol": "SSL", "privateKey": pki.server().private_key}, "does not belong to the certificate"),
        (CLIENT | {"protocol": "SSL", "privateKey": pki.client().encrypted_key()}, "the private key is encrypted"),
        ({"protocol": "SSL", "trustedCaCertificate": "-----BEGIN -----"}, "trusted CA certificate is not PEM"),
        ({"topics": [{"fPort": 256}]}, "topics.0.fPort: "),
        ({"topics": [{"fPort": 2}, {"fPort": 2}]}, "more than one entry for fPort 2"),
    ],
)
def test_what_a_file_may_not_say(values: dict[str, Any], expected: str) -> None:
    text = complaint(**values)
    assert re.search(expected, text), text
    assert "PRIVATE KEY-----\n" not in text


def test_a_websocket_is_for_mqtt_at_its_path() -> None:
    for path, wanted in (({}, "/mqtt"), ({"path": "/broker?site=4"}, "/broker?site=4")):
        endpoint = config(protocol="WSS", hostName="broker.example.net", **path).endpoint(TlsContextCache())
        assert (endpoint.port, endpoint.websocket) == (443, WebSocket(wanted, "mqtt"))
        assert endpoint.tls is not None


def test_both_spellings_of_the_ca() -> None:
    for key in ("trustedCaCertificate", "trustedCaCertficate"):
        trusted = config(protocol="SSL", **{key: pki.ca().certificate}).trustedCaCertificate
        assert trusted is not None
        assert trusted.get_secret_value() == pki.ca().certificate


def test_a_lenient_check_accepts_secrets_that_are_elsewhere() -> None:
    missing = {"credential": "plant"}
    settings = {"hostName": "h", "protocol": "SSL", "uplinkTopicPattern": "t", "username": "u", "password": missing}
    settings |= {"certificate": missing, "privateKey": missing, "trustedCaCertificate": missing}
    sources = SecretSources(credentials=None, lenient=True)
    assert MqttConfig.model_validate(settings, context=sources).certificate is not None


def test_secrets_do_not_show() -> None:
    text = repr(config(username="u", password="hush-4711", protocol="SSL", **CLIENT))
    assert "hush-4711" not in text
    assert "PRIVATE KEY" not in text


def test_where_commands_come_from() -> None:
    topics = [
        {"fPort": 1, "downlinkTopicPattern": "plant/{DevEUI}/down"},
        {"fPort": 2, "downlinkTopicPattern": "plant/commands"},
    ]
    wanted = config(downlinkTopicPattern="plant/{DevEUI}/down", topics=topics)
    assert wanted.command_sources == ["plant/+/down", "plant/commands"]
    assert config(downlinkTopicPattern="plant/{DevEUI}/down", downlinkEnabled=False).command_sources == []
    assert config().command_sources == []


# ---- against a scripted broker


async def test_it_introduces_itself_and_delivers() -> None:
    connects: list[FromClient] = []

    async def script(broker: ScriptedBroker) -> None:
        connects.append(await broker.accept())
        packets = [await broker.expect("PUBLISH") for _ in range(2)]
        assert [(packet.topic, packet.rest, packet.flags) for packet in packets] == [
            (f"plant/{DEV_EUI}/up", b"first", 0x02),
            (f"plant/{DEV_EUI}/up", b"second", 0x02),
        ]
        await broker.send(puback(2) + puback(1))
        await broker.expect("DISCONNECT")

    async with trio.open_nursery() as nursery:
        site, receipts = Site(nursery, script), Receipts()
        settings = config(username="tpx", password="p", connectionTimeout=2_000)
        async with open_mqtt_connection(settings, site.context) as transport:
            await transport.send([outgoing(body=b"first"), outgoing(body=b"second")], receipts)
    assert receipts.fates == [(1, "delivered"), (0, "delivered")]
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
        async with open_mqtt_connection(settings, Site(nursery, script).context) as transport:
            await transport.send([outgoing(FPort=2), outgoing(FPort="3"), outgoing(FPort="2")], receipts)
    assert receipts.fates == [(0, "delivered"), (1, "delivered"), (2, "delivered")]


async def test_uplinks_without_a_legal_topic_are_rejected_and_the_rest_delivered() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        assert (await broker.expect("PUBLISH")).topic == "plant/ok"
        await broker.send(puback(1))

    async with trio.open_nursery() as nursery:
        site, receipts = Site(nursery, script), Receipts()
        async with open_mqtt_connection(config(uplinkTopicPattern="plant/{Name}"), site.context) as transport:
            batch = [outgoing(), outgoing(Name="x" * 65_535), outgoing(Name="ok")]
            await transport.send(batch, receipts)
    assert receipts.fates == [
        (0, "the uplink has no Name, which uplinkTopicPattern asks for"),
        (1, '"plant/{Name}" makes a topic too long: 65541 bytes, 65535 are allowed'),
        (2, "delivered"),
    ]


@pytest.mark.parametrize(("code", "error"), [(4, AuthenticationFailed), (5, AuthenticationFailed), (3, ConnectFailed)])
async def test_refused(code: int, error: type[Exception]) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(bytes((0x20, 2, 0, code)))

    async with trio.open_nursery() as nursery:
        with pytest.raises(error):
            async with open_mqtt_connection(config(), Site(nursery, script).context):
                pytest.fail("opened")


async def test_a_silent_broker_is_left_within_the_connection_timeout(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed, match="no CONNACK"):
            async with open_mqtt_connection(config(connectionTimeout=3_000), Site(nursery, script).context):
                pytest.fail("opened")
    assert trio.current_time() - begun == pytest.approx(3)


async def test_no_receipt_within_the_action_timeout(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        await broker.expect("PUBLISH")

    async def body(site: Site) -> None:
        async with open_mqtt_connection(config(actionTimeout=4_000), site.context) as transport:
            await transport.send([outgoing()], Receipts())

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match="acknowledged nothing for 4 s"):
            await body(Site(nursery, script))
    assert trio.current_time() - begun == pytest.approx(4)


async def test_nothing_runs_after_the_block() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(CONNACK)
        await broker.expect("DISCONNECT")
        await broker.ended()

    async with trio.open_nursery() as nursery:
        site = Site(nursery, script)
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
            await transport.send([outgoing() for _ in range(256)], receipts)
        assert receipts.fates == [(index, "delivered") for index in range(256)]

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
        big = outgoing(body=b"x" * 300_000)
        async with open_mqtt_connection(config(**trusting, **CLIENT), context()) as transport:
            await transport.send([*(outgoing() for _ in range(255)), big], receipts)
        assert receipts.fates == [(index, "delivered") for index in range(256)]

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
            await transport.send([outgoing()], receipts)
            assert receipts.fates == [(0, "delivered")]
