"""A proxy that is killed in traffic, under each of the ways through it, on the whole daemon."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import Broker, MakeDaemon, Subscriber
from tests.daemon.harness import connection_file, eventually, http_file
from tests.daemon.lrc import Load
from tests.daemon.receivers import Receiver, judge
from tests.daemon.web_site import AUTHORIZATION, WebSite
from tests.peers import pki
from tests.peers.ports import free_port
from tests.peers.proxy_process import ProxyProcess, RunProxy
from tests.peers.squid import running_squid
from tests.peers.tinyproxy import running_tinyproxy

pytestmark = pytest.mark.broker

IN_FLIGHT = 256
KILLS = 3
LOGIN = {"username": "tpx", "password": "s3cret-of-the-proxy"}


@pytest.fixture(params=[running_tinyproxy, running_squid], ids=["tinyproxy", "squid"])
def proxy(request: pytest.FixtureRequest) -> Iterator[ProxyProcess]:
    """One of the proxies, which asks for credentials."""
    run: RunProxy = request.param
    with run(login=":".join(LOGIN.values())) as running:
        yield running


def test_a_proxy_killed_in_traffic_loses_nothing(
    make_daemon: MakeDaemon, proxy: ProxyProcess, receiver: Receiver, tmp_path: Path, ending: ExitStack
) -> None:
    site = WebSite(tmp_path, pki.server())
    ending.callback(site.kill)
    port, (certificate, key) = free_port(), pki.server("127.0.0.1").write(tmp_path, "broker")
    broker = Broker(tmp_path, f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}")
    ending.callback(broker.stop)
    subscriber = Subscriber(broker.port)
    ending.callback(subscriber.close)

    through: dict[str, Any] = {"proxy": {"hostname": f"127.0.0.1:{proxy.port}", **LOGIN}}
    secure = through | {"trustedCaCertificate": pki.ca().certificate}
    mqtt = {"hostName": f"127.0.0.1:{port}", "protocol": "SSL", "uplinkTopicPattern": "t/{DevEUI}", **secure}
    files = {
        "forwarded": http_file(receiver.url, **through),
        "tunnelled": http_file(f"{site.url}/in", headers={"Authorization": AUTHORIZATION}, **secure),
        "plant": connection_file("actility-mqtt-iot", mqtt),
    }
    daemon = make_daemon("", **files).start()
    daemon.opened(*files)
    load, pause = Load(daemon.intake, threads=2), threading.Event()
    for _ in range(KILLS):
        pause.wait(0.3)
        proxy.kill()
        for id in files:
            eventually("the loss is seen", lambda id=id: daemon.health(id)["state"] != "OPENED")  # type: ignore[misc]
        daemon.reconnect(*files)
        for id in files:
            eventually(f"{id} names the proxy", lambda id=id: str(proxy) in daemon.health(id)["reason"])  # type: ignore[misc]
        proxy.start()
        daemon.reconnect(*files)
        daemon.opened(*files)
    load.stop()
    daemon.drained(*files)
    eventually("the subscriber has all", lambda: set(load.accepted) <= set(subscriber.keys()))
    arrived = {"forwarded": receiver.keys(), "tunnelled": site.keys("/in"), "plant": subscriber.keys()}
    for id, keys in arrived.items():
        judge(load.accepted, keys, posted=load.posted, doubles=KILLS * IN_FLIGHT)
        assert daemon.uplinks(id)["rejected"] == 0
    assert len(load.accepted) > 100, "there was hardly any load"
