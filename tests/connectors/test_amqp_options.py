"""The AMQP connector: what its file may say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.connectors.amqp_site import config
from tests.connectors.opening import CLIENT, complaint
from tests.peers import pki
from tpxd.config.fields import SecretSources
from tpxd.connector import REGISTRY
from tpxd.connectors.amqp import AmqpConfig


def test_it_is_registered() -> None:
    assert REGISTRY["actility-amqp-0.9.1-iot"].config is AmqpConfig


def test_the_documented_examples() -> None:
    """ThingPark X IoT Flow, "Creating an AMQP connection"."""
    example = {
        "uplinkTopicPattern": "amqp.things.{DevEUI}.uplink",
        "downlinkTopicPattern": "amqp.things.{DevEUI}.downlink",
        "username": "mycompany",
        "password": "mypassword",
        "exchangeName": "IotFlowExchange",
    }
    clear = config(**example, hostName="amqp.actility.com:5672", protocol="TCP")
    assert (clear.virtualHost, clear.unroutable, clear.downlink_sources) == ("/", "hold", ["amqp.things.*.downlink"])
    config(**example, hostName="amqp.actility.com:5671", protocol="SSL", **CLIENT)


@pytest.mark.parametrize(
    ("host", "protocol", "expected"),
    [
        ("h", "TCP", "h:5672"),
        ("h", "SSL", "h:5671"),
        ("h:99", "TCP", "h:99"),
        ("[2001:db8::1]", "SSL", "[2001:db8::1]:5671"),
    ],
)
def test_host_names(host: str, protocol: str, expected: str) -> None:
    assert str(config(hostName=host, protocol=protocol).hostName) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hostName": "amqp://h:5672"}, "hostName: .*must not begin with a scheme"),
        ({"protocol": "AMQPS"}, "protocol: Input should be 'TCP' or 'SSL'"),
        ({"exchangeName": None}, "exchangeName: Field required"),
        ({"exchangeName": "a*b"}, "exchangeName: .*may hold letters"),
        ({"exchangeName": ""}, "exchangeName: .*is empty"),
        ({"downlinkQueue": "q" * 128}, "downlinkQueue: .*more than 127 characters"),
        ({"virtualHost": ""}, "virtualHost: "),
        ({"virtualHost": "\u2603" * 86}, "virtualHost: .*more than the 255 bytes"),
        ({"username": "a\0b"}, "username: .*null character"),
        ({"username": "a", "password": "a\0b"}, "password holds a null character"),
        ({"uplinkTopicPattern": "k" * 256}, "uplinkTopicPattern: .*routing key too long: 256 bytes at least"),
        ({"downlinkTopicPattern": "k" * 254 + "{a}{b}"}, "downlinkTopicPattern: .*routing key too long"),
        ({"unroutable": "drop"}, "unroutable: Input should be 'hold' or 'count'"),
        ({"uplinkTopicPattern": "plant.{DevEUI"}, "uplinkTopicPattern: "),
        ({"exchange": "x"}, "exchange: Extra inputs"),
        ({"username": None}, "password needs username"),
        ({"username": None, "password": None}, "username is missing; only a certificate"),
        ({"certificate": pki.client().certificate, "protocol": "SSL"}, "certificate needs privateKey"),
        (CLIENT, 'certificates need protocol = "SSL"'),
        (CLIENT | {"protocol": "SSL", "privateKey": pki.server().private_key}, "does not belong to the certificate"),
        ({"protocol": "SSL", "trustedCaCertificate": "-----BEGIN -----"}, "trusted CA certificate is not PEM"),
        ({"topics": [{"fPort": 2}, {"fPort": 2}]}, "more than one entry for fPort 2"),
    ],
)
def test_what_a_file_may_not_say(values: dict[str, Any], expected: str) -> None:
    text = complaint(config, **values)
    assert re.search(expected, text), text
    assert "PRIVATE KEY-----\n" not in text


def test_a_certificate_alone_may_log_in() -> None:
    assert config(username=None, password=None, protocol="SSL", **CLIENT).username is None
    elsewhere = {"credential": "plant"}
    settings = {"hostName": "h", "protocol": "SSL", "exchangeName": "x", "uplinkTopicPattern": "k"}
    sources = SecretSources(credentials=None, lenient=True)
    AmqpConfig.model_validate(settings | {"certificate": elsewhere, "privateKey": elsewhere}, context=sources)


def test_where_downlinks_come_from() -> None:
    topics = [
        {"fPort": 1, "downlinkTopicPattern": "plant.{DevEUI}.down"},
        {"fPort": 2, "downlinkTopicPattern": "plant.downlinks"},
    ]
    wanted = config(downlinkTopicPattern="plant.{DevEUI}.down", topics=topics)
    assert wanted.downlink_sources == ["plant.*.down", "plant.downlinks"]
    assert config(downlinkTopicPattern="plant.{DevEUI}.down", downlinkEnabled=False).downlink_sources == []
    assert config().downlink_sources == []
