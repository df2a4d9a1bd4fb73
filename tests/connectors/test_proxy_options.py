"""What a connection file may say about a proxy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.peers import pki
from tpxd.connectors.http.connector import HttpConfig
from tpxd.connectors.parts.tls import ProxyConfig, TlsConfig
from tpxd.wire.tls import TlsContextCache


@pytest.mark.parametrize(
    ("hostname", "shown"),
    [
        ("proxy.example.net:3128", "http://proxy.example.net:3128"),
        ("http://proxy.example.net:3128/", "http://proxy.example.net:3128"),
        ("http://proxy.example.net", "http://proxy.example.net:80"),
        ("https://mycompany/", "https://mycompany:443"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
        ("[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
    ],
)
def test_how_a_proxy_is_written(hostname: str, shown: str) -> None:
    proxy = ProxyConfig.model_validate({"hostname": hostname})
    assert str(proxy.hostname) == shown
    assert proxy.model_dump(mode="json")["hostname"] == shown
    assert ProxyConfig.model_validate(proxy.model_dump(mode="json")) == proxy


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hostname": "proxy.example.net"}, "has no port"),
        ({"hostname": "[2001:db8::1]"}, "has no port"),
        ({"hostname": 3128}, "is not text"),
        ({"hostname": "socks5://proxy.example.net:1080"}, "is no kind of proxy"),
        ({"hostname": "://proxy.example.net:1080"}, "is no kind of proxy"),
        ({"hostname": "http://tpx:s3cret@proxy.example.net:3128"}, "put them into proxy.username"),
        ({"hostname": "proxy.example.net:0"}, "port outside"),
        ({"hostname": "http://proxy.example.net/path:1"}, "is not one host:port alone"),
        ({"hostname": "p:1", "password": "x"}, "password needs username"),
        ({"hostname": "p:1", "username": "a:b"}, "holds a colon"),
        ({"hostname": "p:1", "user": "a"}, "Extra inputs"),
        ({}, "Field required"),
    ],
)
def test_what_a_file_may_not_say(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected) as caught:
        TlsConfig.model_validate({"proxy": values})
    shown = "; ".join(error["msg"] for error in caught.value.errors())
    assert "s3cret" not in shown


def test_the_password_does_not_show() -> None:
    proxy = ProxyConfig.model_validate({"hostname": "p:1", "username": "tpx", "password": "s3cret"})
    assert "s3cret" not in repr(proxy) + proxy.model_dump_json()


def test_a_proxy_over_tls_gets_the_ca_and_never_our_certificate() -> None:
    asked: list[dict[str, Any]] = []
    cache = TlsContextCache()
    client = pki.client()
    values = {
        "certificate": client.certificate,
        "privateKey": client.private_key,
        "trustedCaCertificate": pki.ca().certificate,
        "proxy": {"hostname": "https://proxy.example.net"},
    }

    def contexts(**texts: Any) -> Any:
        asked.append(texts)
        return cache(**texts)

    hop = TlsConfig.model_validate(values).proxy_hop(contexts)
    assert hop is not None
    assert hop.tls is not None
    assert asked == [{"ca": pki.ca().certificate}]


def test_a_ca_has_an_effect_on_a_proxy_over_tls() -> None:
    ca = {"trustedCaCertificate": pki.ca().certificate}
    plain_http = {"destinationURL": "http://as.example.net/"}
    HttpConfig.model_validate(plain_http | ca | {"proxy": {"hostname": "https://proxy.example.net"}})
    with pytest.raises(ValidationError, match="no effect"):
        HttpConfig.model_validate(plain_http | ca | {"proxy": {"hostname": "http://proxy.example.net"}})
