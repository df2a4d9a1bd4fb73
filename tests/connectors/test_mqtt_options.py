"""The MQTT connector: what its file may say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.connectors.mqtt_site import config
from tests.connectors.opening import CLIENT, complaint
from tests.peers import pki
from tpxd.config.fields import SecretSources
from tpxd.connector import REGISTRY
from tpxd.connectors.mqtt import MqttConfig
from tpxd.wire.streams import WebSocket
from tpxd.wire.tls import TlsContextCache


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
        ({"clientId": "a\0b"}, "clientId: .*null character"),
        ({"username": "a\0b"}, "username: .*null character"),
        ({"uplinkTopicPattern": "t" * 65_536}, "uplinkTopicPattern: .*topic too long: 65536 bytes at least"),
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
    text = complaint(config, **values)
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


def test_where_downlinks_come_from() -> None:
    topics = [
        {"fPort": 1, "downlinkTopicPattern": "plant/{DevEUI}/down"},
        {"fPort": 2, "downlinkTopicPattern": "plant/downlinks"},
    ]
    wanted = config(downlinkTopicPattern="plant/{DevEUI}/down", topics=topics)
    assert wanted.downlink_sources == ["plant/+/down", "plant/downlinks"]
    assert config(downlinkTopicPattern="plant/{DevEUI}/down", downlinkEnabled=False).downlink_sources == []
    assert config().downlink_sources == []
