"""Connections through a proxy: what the file may say, and uplinks through a real tinyproxy by each of the ways."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import ValidationError

from tests import pki
from tests.connectors.peers import Receipts, batch_of
from tests.mosquitto import free_port, running_mosquitto
from tests.notebook import Notebook
from tests.tinyproxy import running_tinyproxy
from tpxd.connector import Context
from tpxd.connectors.http import HttpConfig, open_http
from tpxd.connectors.mqtt import MqttConfig, open_mqtt_connection
from tpxd.errors import AuthenticationFailed, ConnectFailed, Refused
from tpxd.tls_config import ProxyConfig, TlsConfig
from tpxd.wire.http1 import Request, Response, serve_http
from tpxd.wire.streams import Endpoint, open_stream
from tpxd.wire.tls import TlsContextCache

LOGIN = "BasicAuth tpx s3cret-of-the-proxy"


def http(port: int, proxy: int, **login: str) -> HttpConfig:
    values = {"destinationURL": f"http://127.0.0.1:{port}/in?a=b", "proxy": {"hostname": f"127.0.0.1:{proxy}"} | login}
    return HttpConfig.model_validate(values)


def mqtt(port: int, proxy: int, protocol: str = "SSL", **login: str) -> MqttConfig:
    values = {
        "hostName": f"127.0.0.1:{port}",
        "protocol": protocol,
        "uplinkTopicPattern": "plant/{DevEUI}",
        "trustedCaCertificate": pki.ca().certificate,
        "proxy": {"hostname": f"http://127.0.0.1:{proxy}/"} | login,
    }
    return MqttConfig.model_validate(values)


def context() -> Context:
    log = logging.LoggerAdapter(logging.getLogger("test"))
    return Context(
        "plant", "0badcafe", log, open_stream, TlsContextCache(), Notebook(), lambda: None, lambda: True
    )  # fmt: skip


# ---- the file


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
        ({"hostname": "socks5://proxy.example.net:1080"}, '"socks5" is no kind of proxy'),
        ({"hostname": "://proxy.example.net:1080"}, "is no kind of proxy"),
        ({"hostname": "http://tpx:s3cret@proxy.example.net:3128"}, "put them into proxy.username"),
        ({"hostname": "proxy.example.net:0"}, "port outside"),
        ({"hostname": "http://proxy.example.net/path:1"}, "no host name"),
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


# ---- against a real proxy


@asynccontextmanager
async def application(seen: list[Request], statuses: list[int] | None = None) -> AsyncIterator[int]:
    """A web server on loopback; yields its port."""

    async def respond(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        seen.append(request)
        return Response(statuses.pop(0) if statuses else 204)

    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(
            lambda task_status: serve_http("127.0.0.1:0", respond, task_status=task_status)
        )
        yield int(address.rpartition(":")[2])
        nursery.cancel_scope.cancel()


@pytest.mark.broker
@pytest.mark.parametrize("login", [{}, {"username": "tpx", "password": "s3cret-of-the-proxy"}])
async def test_posts_that_the_proxy_forwards(tmp_path: Path, login: dict[str, str]) -> None:
    seen: list[Request] = []
    receipts = Receipts()
    async with (
        application(seen) as port,
        running_tinyproxy(tmp_path, *([LOGIN] if login else [])) as proxy,
        open_http(http(port, proxy, **login), context()) as way,
    ):
        await way.send(batch_of(30), receipts)
    assert sorted(receipts.delivered_) == list(range(30))
    assert {(request.method, request.path, request.query) for request in seen} == {("POST", "/in", "a=b")}
    assert {request.headers[b"host"] for request in seen} == {b"127.0.0.1:%d" % port}
    assert all(b"tinyproxy" in request.headers[b"via"] for request in seen)
    assert not any(b"proxy-authorization" in request.headers for request in seen)


@pytest.mark.broker
async def test_a_forwarded_refusal_is_the_servers(tmp_path: Path) -> None:
    receipts = Receipts()
    async with (
        application([], [422, 500, 204]) as port,
        running_tinyproxy(tmp_path) as proxy,
        open_http(http(port, proxy), context()) as way,
    ):
        await way.send(batch_of(3, lanes=1), receipts)
    assert [*receipts.rejected_] == [0, 1]
    assert receipts.delivered_ == [2]


@pytest.mark.broker
@pytest.mark.parametrize(
    ("login", "message", "hint"),
    [
        ({}, "proxy {proxy}: 407 Proxy Authentication Required", "set proxy.username and proxy.password"),
        ({"username": "tpx", "password": "wrong-and-secret"}, "proxy {proxy}, or http", "are proxy.username and proxy"),
    ],
)
async def test_credentials_that_the_proxy_misses_for_a_post(
    tmp_path: Path, login: dict[str, str], message: str, hint: str
) -> None:
    async with running_tinyproxy(tmp_path, LOGIN) as proxy:
        with pytest.raises(AuthenticationFailed) as caught:
            async with open_http(http(free_port(), proxy, **login), context()) as way:
                await way.send(batch_of(1), Receipts())
    assert caught.value.message.startswith(message.format(proxy=f"127.0.0.1:{proxy}"))
    assert hint in (caught.value.hint or "")
    assert "wrong-and-secret" not in caught.value.message


@pytest.mark.broker
async def test_a_server_that_the_proxy_does_not_reach_loses_no_uplink(tmp_path: Path) -> None:
    receipts = Receipts()
    async with running_tinyproxy(tmp_path) as proxy:
        with pytest.raises(Refused, match=rf"^proxy 127\.0\.0\.1:{proxy}, or http://127"):
            async with open_http(http(free_port(), proxy), context()) as way:
                await way.send(batch_of(1), receipts)
    assert receipts.rejected_ == {}


async def test_a_proxy_that_is_away_is_named() -> None:
    proxy = free_port()
    with pytest.raises(ConnectFailed, match=rf"^proxy 127\.0\.0\.1:{proxy}: connection refused \(TCP\)$"):
        async with open_http(http(free_port(), proxy), context()):
            pytest.fail("opened")


@pytest.mark.broker
@pytest.mark.parametrize("protocol", ["SSL", "WSS"])
@pytest.mark.parametrize("login", [{}, {"username": "tpx", "password": "s3cret-of-the-proxy"}])
async def test_mqtt_through_a_tunnel(tmp_path: Path, protocol: str, login: dict[str, str]) -> None:
    certificate, key = pki.server("127.0.0.1").write(tmp_path, "server")
    # Debian's Mosquitto 2.0.11 ends at once with WebSocket listeners alone, so a plain one stands beside
    secure = free_port()
    listener = f"listener {secure} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}"
    if protocol == "WSS":
        listener += "\nprotocol websockets"
    receipts = Receipts()
    tunnels = [f"ConnectPort {secure}", *([LOGIN] if login else [])]
    async with running_mosquitto(tmp_path, listener=listener), running_tinyproxy(tmp_path, *tunnels) as proxy:
        async with open_mqtt_connection(mqtt(secure, proxy, protocol, **login), context()) as transport:
            await transport.send(batch_of(256), receipts)
        assert receipts.delivered_ == list(range(256))
        for wrong in ({}, {"username": "tpx", "password": "wrong"}) if login else ():
            with pytest.raises(AuthenticationFailed, match=rf"^proxy 127\.0\.0\.1:{proxy}: 40[17] "):
                async with open_mqtt_connection(mqtt(secure, proxy, protocol, **wrong), context()):
                    pytest.fail("opened")


@pytest.mark.broker
async def test_tunnels_that_the_proxy_refuses_or_cannot_open(tmp_path: Path) -> None:
    away, forbidden = free_port(), free_port()
    async with running_tinyproxy(tmp_path, f"ConnectPort {away}") as proxy:
        with pytest.raises(ConnectFailed) as caught:
            await open_stream(mqtt(forbidden, proxy).endpoint(TlsContextCache()), 5)
        assert caught.value.message == (
            f"proxy 127.0.0.1:{proxy}: refuses a tunnel to 127.0.0.1:{forbidden}: 403 Forbidden"
        )
        endpoint: Endpoint = mqtt(away, proxy).endpoint(TlsContextCache())
        with pytest.raises(ConnectFailed) as caught:
            await open_stream(endpoint, 5)
        assert caught.value.message.startswith(f"127.0.0.1:{away}: not reached through proxy 127.0.0.1:{proxy}: 50")
