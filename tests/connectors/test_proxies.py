"""Connections through real proxies, by each of the ways: posts that are forwarded, tunnels for HTTPS, MQTT and WSS."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.connectors.hypercorn_site import hypercorn_site
from tests.connectors.opening import context
from tests.connectors.traffic import Receipts, batch_of
from tests.peers import pki
from tests.peers.mosquitto import running_mosquitto
from tests.peers.ports import free_port
from tests.peers.proxy_process import RunProxy
from tests.peers.squid import running_squid
from tests.peers.tinyproxy import running_tinyproxy
from tpxd.connectors.http.connector import HttpConfig, open_http
from tpxd.connectors.mqtt import MqttConfig, open_mqtt_connection
from tpxd.errors import AuthenticationFailed, ConnectFailed, Refused
from tpxd.wire.http import Request, Response, serve_http
from tpxd.wire.streams import open_stream
from tpxd.wire.tls import TlsContextCache

LOGIN = "tpx:s3cret-of-the-proxy"
RIGHT = {"username": "tpx", "password": "s3cret-of-the-proxy"}
WRONG = {"username": "tpx", "password": "wrong-and-secret"}

pytestmark = pytest.mark.broker


@pytest.fixture(params=[running_tinyproxy, running_squid], ids=["tinyproxy", "squid"])
def run_proxy(request: pytest.FixtureRequest) -> RunProxy:
    """Runs one of the proxies while a block lasts."""
    run: RunProxy = request.param
    return run


def http(url: str, proxy: int, login: dict[str, str], **more: Any) -> HttpConfig:
    values = {"destinationURL": url, "proxy": {"hostname": f"127.0.0.1:{proxy}"} | login}
    return HttpConfig.model_validate(values | more)


def mqtt(port: int, proxy: int, login: dict[str, str], protocol: str = "SSL") -> MqttConfig:
    values = {
        "hostName": f"127.0.0.1:{port}",
        "protocol": protocol,
        "uplinkTopicPattern": "plant/{DevEUI}",
        "trustedCaCertificate": pki.ca().certificate,
        "proxy": {"hostname": f"http://127.0.0.1:{proxy}/"} | login,
    }
    return MqttConfig.model_validate(values)


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


@pytest.mark.parametrize("login", [{}, RIGHT], ids=["open", "login"])
async def test_posts_that_the_proxy_forwards(run_proxy: RunProxy, login: dict[str, str]) -> None:
    seen: list[Request] = []
    receipts = Receipts()
    with run_proxy(login=LOGIN if login else "") as proxy:
        async with application(seen) as port:
            url = f"http://127.0.0.1:{port}/in?a=b"
            async with open_http(http(url, proxy.port, login), context()) as transport:
                await transport.send(batch_of(30), receipts)
    assert sorted(receipts.delivered_) == list(range(30))
    assert {(request.method, request.path, request.query) for request in seen} == {("POST", "/in", "a=b")}
    assert {request.headers[b"host"] for request in seen} == {b"127.0.0.1:%d" % port}
    assert all(proxy.name.encode() in request.headers[b"via"] for request in seen)
    assert not any(b"proxy-authorization" in request.headers for request in seen)


async def test_a_forwarded_refusal_is_the_servers(run_proxy: RunProxy) -> None:
    receipts = Receipts()
    with run_proxy() as proxy:
        async with (
            application([], [422, 500, 204]) as port,
            open_http(http(f"http://127.0.0.1:{port}/in", proxy.port, {}), context()) as transport,
        ):
            await transport.send(batch_of(3, lanes=1), receipts)
    assert [*receipts.rejected_] == [0, 1]
    assert receipts.delivered_ == [2]


@pytest.mark.parametrize("login", [{}, RIGHT], ids=["open", "login"])
async def test_posts_through_a_tunnel(run_proxy: RunProxy, login: dict[str, str], tmp_path: Path) -> None:
    receipts, batch = Receipts(), batch_of(30)
    trusted = pki.ca().certificate
    async with hypercorn_site(tmp_path) as site:
        with run_proxy(login=LOGIN if login else "", tunnels_to=[int(site.url.rpartition(":")[2])]) as proxy:
            config = http(f"{site.url}/in?a=b", proxy.port, login, trustedCaCertificate=trusted)
            async with open_http(config, context()) as transport:
                await transport.send(batch, receipts)
    assert sorted(receipts.delivered_) == list(range(30))
    assert sorted(seen.body for seen in site.seen) == sorted(item.body for item in batch)
    assert not any({b"via", b"proxy-authorization"} & seen.headers.keys() for seen in site.seen)


@pytest.mark.parametrize(
    ("login", "hint"),
    [({}, "set proxy.username and proxy.password"), (WRONG, "are proxy.username and proxy.password right?")],
)
async def test_credentials_that_the_proxy_misses_for_a_tunnel(
    run_proxy: RunProxy, login: dict[str, str], hint: str
) -> None:
    with run_proxy(login=LOGIN) as proxy, pytest.raises(AuthenticationFailed, match=rf"^{proxy}: 40[17] ") as caught:
        async with open_http(http("https://127.0.0.1/in", proxy.port, login), context()):
            pytest.fail("opened")
    assert hint in (caught.value.hint or "")
    assert "wrong-and-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("login", "hint"),
    [({}, "set proxy.username and proxy.password"), (WRONG, "are proxy.username and proxy.password right?")],
)
async def test_credentials_that_the_proxy_misses_for_a_post(
    run_proxy: RunProxy, login: dict[str, str], hint: str
) -> None:
    url = f"http://127.0.0.1:{free_port()}/in"
    with run_proxy(login=LOGIN) as proxy, pytest.raises(AuthenticationFailed) as caught:
        async with open_http(http(url, proxy.port, login), context()) as transport:
            await transport.send(batch_of(1), Receipts())
    # tinyproxy answers wrong credentials with 401, as a server might
    assert re.match(rf"{proxy}(: 407|, or {url} behind it: 401) ", caught.value.message)
    assert hint in (caught.value.hint or "")
    assert "wrong-and-secret" not in str(caught.value)


async def test_a_server_that_the_proxy_does_not_reach_loses_no_uplink(run_proxy: RunProxy) -> None:
    url, receipts = f"http://127.0.0.1:{free_port()}/in", Receipts()
    with run_proxy() as proxy, pytest.raises(Refused, match=rf"^{proxy}, or {url} behind it: 50[03] ") as caught:
        async with open_http(http(url, proxy.port, {}), context()) as transport:
            await transport.send(batch_of(1), receipts)
    assert receipts.rejected_ == {}
    assert "does the proxy reach the server" in (caught.value.hint or "")


async def test_a_server_that_the_proxy_forbids_loses_no_uplink() -> None:
    url, receipts = f"http://127.0.0.1:{free_port()}/in", Receipts()
    with running_squid(rules=["http_access deny all"]) as proxy:
        expected = f"{proxy}, or {url} behind it: 403 Forbidden: ERR_ACCESS_DENIED 0"
        with pytest.raises(Refused, match=f"^{re.escape(expected)}$") as caught:
            async with open_http(http(url, proxy.port, {}), context()) as transport:
                await transport.send(batch_of(1), receipts)
    assert receipts.rejected_ == {}
    assert "does it allow us to go there?" in (caught.value.hint or "")


async def test_a_proxy_that_is_away_is_named() -> None:
    proxy = free_port()
    with pytest.raises(ConnectFailed, match=rf"^proxy 127\.0\.0\.1:{proxy}: connection refused \(TCP\)$"):
        async with open_http(http(f"http://127.0.0.1:{free_port()}/in", proxy, {}), context()):
            pytest.fail("opened")


@pytest.mark.parametrize("protocol", ["SSL", "WSS"])
@pytest.mark.parametrize("login", [{}, RIGHT], ids=["open", "login"])
async def test_mqtt_through_a_tunnel(run_proxy: RunProxy, tmp_path: Path, protocol: str, login: dict[str, str]) -> None:
    certificate, key = pki.server("127.0.0.1").write(tmp_path, "server")
    # Debian's Mosquitto 2.0.11 ends at once with WebSocket listeners alone, so a plain one stands beside
    secure = free_port()
    listener = f"listener {secure} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}"
    if protocol == "WSS":
        listener += "\nprotocol websockets"
    receipts = Receipts()
    with run_proxy(login=LOGIN if login else "", tunnels_to=[secure]) as proxy:
        async with running_mosquitto(tmp_path, listener=listener):
            async with open_mqtt_connection(mqtt(secure, proxy.port, login, protocol), context()) as transport:
                await transport.send(batch_of(256), receipts)
            assert receipts.delivered_ == list(range(256))
            for wrong in ({}, WRONG) if login else ():
                with pytest.raises(AuthenticationFailed, match=rf"^{proxy}: 40[17] "):
                    async with open_mqtt_connection(mqtt(secure, proxy.port, wrong, protocol), context()):
                        pytest.fail("opened")


async def test_tunnels_that_the_proxy_refuses_or_cannot_open(run_proxy: RunProxy) -> None:
    away, forbidden = free_port(), free_port()
    with run_proxy(tunnels_to=[away]) as proxy:
        with pytest.raises(ConnectFailed) as caught:
            await open_stream(mqtt(forbidden, proxy.port, {}).endpoint(TlsContextCache()), 5)
        assert caught.value.message == f"{proxy}: refuses a tunnel to 127.0.0.1:{forbidden}: 403 Forbidden"
        with pytest.raises(ConnectFailed, match=rf"^127.0.0.1:{away}: not reached through {proxy}: 50"):
            await open_stream(mqtt(away, proxy.port, {}).endpoint(TlsContextCache()), 5)
