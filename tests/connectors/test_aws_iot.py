"""The AWS IoT connector: what its file may say, and where that leads."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.connectors.peers import AwsIotPeer
from tests.daemon.harness import connection_file
from tests.peers import pki
from tests.wire.scripted_registry import KEY_ID, SECRET
from tpxd.cli.check import check
from tpxd.connector import REGISTRY
from tpxd.connectors.aws_iot.config import ALPN, WSS_HINT, AwsIotConfig
from tpxd.connectors.aws_iot.connector import MAX_IN_FLIGHT
from tpxd.wire.tls import TlsContextCache

CACHE = TlsContextCache()
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
WSS = {"protocol": "WSS", "certificate": None, "privateKey": None}


def settings(**values: Any) -> dict[str, Any]:
    """Those of a file that is fine, and these; None leaves one out."""
    return {key: value for key, value in (AwsIotPeer.settings | values).items() if value is not None}


def config(**values: Any) -> AwsIotConfig:
    return AwsIotConfig.model_validate(settings(**values))


# ---- the file


REGION = 'is no region of AWS; write it as "eu-central-1"'
PREFIX = 'is what the data endpoint has before ".iot.", such as "a1b2c3d4e5f6g7-ats"; put a whole name into endpoint'
THING_TYPE = 'is no name of a thing type, which has 1 to 128 letters, digits, "-", "_" and ":"'
ARN = 'is no ARN of a certificate; write it as "arn:aws:iot:eu-central-1:123456789012:cert/0a1b2c"'
KEY = "is no access key id; it has letters and digits only, such as AKIAIOSFODNN7EXAMPLE"
PLACE = 'must not begin with a scheme; write host:port, such as "broker.example.net:8883"'
URL = 'write it as "https://iot.eu-central-1.amazonaws.com"'
NO_LOGIN = {"certificate": None, "privateKey": None}


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"region": None}, "region", "is missing; it is required"),
        ({"accountPrefix": None}, "accountPrefix", "is missing; it is required"),
        ({"region": "Frankfurt"}, "region", REGION),
        ({"accountPrefix": "abc-ats.iot.eu-central-1.amazonaws.com"}, "accountPrefix", PREFIX),
        ({"accountPrefix": "a" * 64}, "accountPrefix", PREFIX),
        ({"accountPrefix": "abc.other"}, "accountPrefix", PREFIX),
        ({"deviceType": "LoRa WAN"}, "deviceType", THING_TYPE),
        ({"certificateId": "28e7cc38"}, "certificateId", ARN),
        ({"accessKeyId": "AKIA 1"}, "accessKeyId", KEY),
        ({"protocol": "TCP"}, "protocol", "AWS IoT has no port without encryption; write SSL, or WSS"),
        ({"endpoint": "https://h"}, "endpoint", PLACE),
        ({"apiEndpoint": "h.example.net"}, "apiEndpoint", f"must begin with http:// or https://; {URL}"),
        (
            {"apiEndpoint": "https://h/x"},
            "apiEndpoint",
            f"must hold a host and perhaps a port, and nothing else; {URL}",
        ),
        (NO_LOGIN, "", "protocol = SSL needs certificate and privateKey; without them, write WSS"),
        ({"privateKey": None}, "", "certificate needs privateKey"),
        ({"uplinkTopicPattern": "/" * 8}, "uplinkTopicPattern", "has 8 slashes, and AWS IoT takes 7"),
        ({"downlinkTopicPattern": "é" * 129}, "downlinkTopicPattern", "has 258 bytes, and AWS IoT takes 256"),
        ({"downlinkStatusTopicPattern": "/" * 8}, "downlinkStatusTopicPattern", "has 8 slashes, and AWS IoT takes 7"),
        ({"clientId": "x" * 129}, "clientId", "the text is too long"),
        ({"ggHostName": "10.0.0.1:8883"}, "ggHostName", "unknown key"),
    ],
)
def test_what_a_file_may_not_say(
    values: dict[str, Any], field: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = connection_file("actility-aws-iot", settings(**values))
    path = tmp_path / "cloud.toml"
    path.write_text(text)
    assert check([path]) == 78
    (line,) = capsys.readouterr().out.splitlines()
    wrong = [number for number, told in enumerate(text.splitlines(), 1) if told.startswith(f"{field} = ")]
    # what is missing, or wrong between several keys, is told at the table; what nobody knows at its key
    column = 1 if message == "unknown key" else len(f'{field} = "')
    place = f"{wrong[0]}:{column}" if wrong else "3:1"
    assert line.startswith(f"{path}:{place}: configuration{field and '.'}{field}: {message}")
    assert SECRET not in line


def test_a_topic_of_some_fports_is_told_at_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = "[[configuration.topics]]\nfPort = 1\n[[configuration.topics]]\nfPort = 2\n"
    text = connection_file("actility-aws-iot", settings(), f'{entries}uplinkTopicPattern = "a/b/c/d/e/f/g/h/i"\n')
    path = tmp_path / "cloud.toml"
    path.write_text(text)
    assert check([path]) == 78
    assert capsys.readouterr().out == (
        f"{path}:{text.count(chr(10))}:22: configuration.topics[1].uplinkTopicPattern: has 8 slashes, and AWS IoT "
        "takes 7\n"
    )


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({"accountPrefix": "a1b2c3"}, True),
        ({"accountPrefix": "a1b2c3-ats"}, False),
        ({"accountPrefix": "a1b2c3.ats"}, False),
        ({"accountPrefix": "a1b2c3", "endpoint": "vpc.example.net"}, False),
        ({"accountPrefix": "a1b2c3", "trustedCaCertificate": pki.ca().certificate}, False),
    ],
)
def test_an_endpoint_of_old_is_warned_about(
    values: dict[str, Any], warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cloud.toml"
    path.write_text(connection_file("actility-aws-iot", settings(**values)))
    assert check([path]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"warning: {path}:5:17: configuration.accountPrefix: does not end in ats: ") == warned
    assert bool(told) == warned


def test_what_basic_ingest_begins_with_does_not_count() -> None:
    config(uplinkTopicPattern="$aws/rules/lorawan/1/2/3/4/5/6/7/{DevEUI}")
    with pytest.raises(ValueError, match="has 8 slashes"):
        config(uplinkTopicPattern="$aws/rules/lorawan/1/2/3/4/5/6/7/8/{DevEUI}")


def test_its_defaults_are_within_the_limits_of_aws() -> None:
    assert config().uplinkRateLimiter == 100
    assert REGISTRY["actility-aws-iot"].max_in_flight == MAX_IN_FLIGHT == 100


# ---- where it leads


DATA, API = "abc-ats.iot.eu-central-1.amazonaws.com", "iot.eu-central-1.amazonaws.com"
VPC = "vpc.example.net"


@pytest.mark.parametrize(
    ("values", "data", "registry"),
    [
        ({}, f"{DATA}:8883", f"{API}:443"),
        (WSS, f"{DATA}:443", f"{API}:443"),
        ({"region": "us-gov-east-1"}, f"{DATA}:8883", f"{API}:443"),
        ({"region": "cn-north-1"}, f"{DATA}.cn:8883", f"{API}.cn:443"),
        ({"region": "cn-north-1", "accountPrefix": "abc.ats"}, f"{DATA}.cn:8883".replace("-", ".", 1), f"{API}.cn:443"),
        (WSS | {"region": "cn-northwest-1"}, f"{DATA}.cn:443", f"{API}.cn:443"),
        ({"endpoint": VPC}, f"{VPC}:8883", f"{API}:443"),
        (WSS | {"endpoint": VPC}, f"{VPC}:443", f"{API}:443"),
        ({"endpoint": f"{VPC}:443"}, f"{VPC}:443", f"{API}:443"),
        ({"apiEndpoint": f"https://{VPC}"}, f"{DATA}:8883", f"{VPC}:443"),
        ({"apiEndpoint": "http://[::1]:5000/"}, f"{DATA}:8883", "[::1]:5000"),
    ],
)
def test_endpoints(values: dict[str, Any], data: str, registry: str) -> None:
    offered: list[Sequence[str]] = []

    def contexts(**texts: Any) -> ssl.SSLContext:
        offered.append(texts.get("alpn", ()))
        return CACHE(**texts)

    connection = config(**values)
    endpoint = connection.data_endpoint(contexts, NOW)
    region = str(values.get("region", "eu-central-1"))
    assert str(endpoint) == data.replace("eu-central-1", region)
    assert endpoint.tls is not None
    # port 443 is for HTTPS too: there, and only there, ALPN says that this is MQTT
    expected = (ALPN,) if endpoint.port == 443 and connection.protocol == "SSL" else ()
    assert [tuple(protocols) for protocols in offered] == [expected]
    found = connection.registry_endpoint(contexts)
    assert str(found) == registry.replace("eu-central-1", region)
    assert (found.tls is None) == (str(values.get("apiEndpoint")).startswith("http:"))


def test_a_private_ca_holds_for_the_registry_only_where_its_url_is_set() -> None:
    asked: list[str | None] = []

    def contexts(**texts: Any) -> ssl.SSLContext:
        asked.append(texts["ca"])
        return CACHE(**texts)

    ca = pki.ca().certificate
    config(trustedCaCertificate=ca).registry_endpoint(contexts)
    config(trustedCaCertificate=ca, apiEndpoint="https://vpc.example.net").registry_endpoint(contexts)
    assert asked == [None, ca]


@pytest.mark.parametrize("endpoint", [None, "vpc.example.net", "vpc.example.net:8443"])
def test_the_url_of_a_websocket_is_signed_as_botocore_signs_it(endpoint: str | None) -> None:
    way = config(**WSS, endpoint=endpoint).data_endpoint(CACHE, NOW)
    assert way.websocket is not None
    assert (way.websocket.path, way.websocket.subprotocol, way.websocket.login_hint) == ("/mqtt", "mqtt", WSS_HINT)
    # the Host header as it goes out: without the port that it would have anyway
    host = str(way).removesuffix(":443")
    request = AWSRequest("GET", f"wss://{host}/mqtt")
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        SigV4QueryAuth(Credentials(KEY_ID, SECRET), "iotdevicegateway", "eu-central-1", expires=300).add_auth(request)
    expected = dict(parse_qsl(request.url.partition("?")[2]))
    assert dict(parse_qsl(way.websocket.query)) == expected
    assert expected["X-Amz-Signature"] not in f"{way} {way!r}"
