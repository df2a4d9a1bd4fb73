"""The HTTP connector: what its file may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.connectors.http_site import URL, config
from tests.connectors.opening import CLIENT, complaint
from tests.peers import pki
from tpxd.config.fields import SecretSources
from tpxd.connector import REGISTRY
from tpxd.connectors.http.connector import HttpConfig


def test_it_is_registered() -> None:
    assert REGISTRY["actility-http-iot"].config is HttpConfig


def test_what_a_short_file_means() -> None:
    short = config()
    assert (str(short.destinationURL), short.headers, short.strictMode, short.maxParallel) == (URL, {}, False, 16)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "must begin with http:// or https://"),
        ("as.example.net/in", "must begin with http:// or https://"),
        ("ftp://as.example.net/in", "must begin with http:// or https://"),
        (7, "must begin with http:// or https://"),
        ("http://", "no valid host name or port"),
        ("http://:80/", "no valid host name or port"),
        ("http://h:0/", "no valid host name or port"),
        ("http://h:65536/", "no valid host name or port"),
        ("http://a b/", "no valid host name or port"),
        ("http://h:port/", "is no URL"),
        ("http://h/\n", "is no URL"),
        ("http://[::1/", "is no URL"),
        ("http://h/in#top", "has a fragment"),
        ("http://h/in/{DevEUI}", "holds braces"),
        ("http://u:s3cr3t@h/in", "put them into headers"),
    ],
)
def test_urls_that_are_refused(url: object, expected: str) -> None:
    text = complaint(config, destinationURL=url)
    assert text.startswith("destinationURL: ")
    assert expected in text
    assert "s3cr3t" not in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"headers": {"X Y": "v"}}, "is no name of a header"),
        ({"headers": {"X-Ä": "v"}}, "is no name of a header"),
        ({"headers": {"": "v"}}, "is no name of a header"),
        ({"headers": {"host": "v"}}, "host is set by tpxd itself"),
        ({"headers": {"Content-Length": "v"}}, "Content-Length is set by tpxd itself"),
        ({"headers": {"Transfer-Encoding": "v"}}, "Transfer-Encoding is set by tpxd itself"),
        ({"headers": {"Connection": "v"}}, "Connection is set by tpxd itself"),
        ({"headers": {"X-A": "v", "x-a": "w"}}, "is there twice"),
        ({"headers": {"X-A": 7}}, "is no secret; write"),
        ({"headers": {"X-A": "v" * 65_536}}, "is no header value, which is one line of at most 65535 bytes"),
        ({"strictmode": True}, "strictmode: Extra inputs"),
        ({"maxParallel": 0}, "maxParallel: "),
        ({"maxParallel": 65}, "maxParallel: "),
        (CLIENT, "certificates have no effect with http://"),
        ({"trustedCaCertficate": pki.ca().certificate}, "certificates have no effect with http://"),
    ],
)
def test_what_else_is_refused(values: dict[str, Any], expected: str) -> None:
    assert expected in complaint(config, **values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"certificate": CLIENT["certificate"]}, "certificate needs privateKey"),
        ({"privateKey": CLIENT["privateKey"]}, "privateKey needs certificate"),
        (CLIENT | {"privateKey": pki.server().private_key}, "the private key does not belong to the certificate"),
        ({"trustedCaCertificate": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"}, "CA certificate"),
    ],
)
def test_tls_material_is_proven_to_load(values: dict[str, Any], expected: str) -> None:
    assert expected in complaint(config, destinationURL="https://as.example.net/in", **values)


def test_both_spellings_of_the_trusted_ca() -> None:
    ca = pki.ca().certificate
    for spelling in ("trustedCaCertificate", "trustedCaCertficate"):
        trusted = config(destinationURL="https://as.example.net/", **{spelling: ca}).trustedCaCertificate
        assert trusted is not None
        assert trusted.get_secret_value() == ca


def test_header_values_are_secrets(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("Bearer s3cr3t-file\n")
    sources = SecretSources(directory=tmp_path, environment={"TOKEN": "s3cr3t-env"})
    values = {
        "destinationURL": URL,
        "headers": {"Authorization": {"file": "token"}, "X-Key": {"env": "TOKEN"}, "X-Plain": "s3cr3t-text"},
    }
    read = HttpConfig.model_validate(values, context=sources)
    assert [value.text for value in read.headers.values()] == ["Bearer s3cr3t-file", "s3cr3t-env", "s3cr3t-text"]
    assert "s3cr3t" not in read.model_dump_json()


def test_a_header_value_that_breaks_lines_is_refused_and_not_repeated() -> None:
    sources = SecretSources(environment={"TOKEN": "s3cr3t\r\nX-Evil: 1"})
    values = {"destinationURL": URL, "headers": {"Authorization": {"env": "TOKEN"}}}
    with pytest.raises(ValidationError) as caught:
        HttpConfig.model_validate(values, context=sources)
    (error,) = caught.value.errors()
    assert "is no header value, which is one line" in error["msg"]
    assert "s3cr3t" not in error["msg"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"tunnelInterfaceAuthenticationKey": "7d1e9a40c3b85f2206e4d7913ab6f85c"}, "lrcCompliance"),
        (
            {"lrcCompliance": True, "tunnelInterfaceAuthenticationKey": "7d1e9a40c3b85f2206e4d7913ab6f85c"},
            "downlinkAsId",
        ),
        (
            {
                "lrcCompliance": True,
                "tunnelInterfaceAuthenticationKey": "7d1e9a40c3b85f2206e4d7913ab6f85c",
                "downlinkAsId": "",
            },
            "needs downlinkAsId",
        ),
        ({"lrcCompliance": True, "tunnelInterfaceAuthenticationKey": "short"}, "32 hex"),
    ],
)
def test_a_key_that_signs_nothing_is_an_error(more: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        config(**more)
