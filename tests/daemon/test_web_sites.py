"""HTTPS connections of the whole daemon to a real web server: what may be wrong with it, and kills in traffic."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.harness import eventually, http_file
from tests.daemon.lrc import DEVICES, Load, Lrc, uplink
from tests.daemon.receivers import judge
from tests.daemon.web_site import AUTHORIZATION, WebSite
from tests.peers import pki

pytestmark = pytest.mark.broker

IN_FLIGHT = 256
ID = "site"


def file_of(site: WebSite, authorization: str = AUTHORIZATION) -> str:
    """A connection that trusts the tests' CA."""
    trusted: dict[str, Any] = {
        "trustedCaCertificate": pki.ca().certificate,
        "headers": {"Authorization": authorization},
    }
    return http_file(f"{site.url}/in", **trusted)


@pytest.mark.parametrize(
    ("identity", "authorization", "state", "reason", "hint"),
    [
        pytest.param(
            pki.issue("localhost", pki.ca(), expires=pki.NOW - timedelta(days=1)), AUTHORIZATION,
            "CLOSED", "the server's certificate has expired", "the server's operator must renew it",
            id="expired",
        ),
        pytest.param(
            pki.server(), "Bearer s3cret-but-wrong",
            "AUTHENTICATION_FAILED", "401 Unauthorized", "do headers hold the credentials that this server expects?",
            id="wrong credentials",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_loses_nothing(
    make_daemon: MakeDaemon, tmp_path: Path, ending: ExitStack,
    identity: pki.Identity, authorization: str, state: str, reason: str, hint: str,
) -> None:  # fmt: skip
    site = WebSite(tmp_path, identity)
    ending.callback(site.kill)
    daemon = make_daemon("", **{ID: file_of(site, authorization)}).start()
    lrc = Lrc(daemon.intake)
    for counter in range(1, 6):
        assert lrc.post(uplink(DEVICES[counter % 2], counter)) == 200
    eventually("it fails", lambda: daemon.health(ID)["state"] == state)
    document = daemon.health(ID)
    assert f"localhost:{site.port}" in document["reason"]
    assert reason in document["reason"]
    assert hint in document["lastError"]["hint"]
    assert "s3cret" not in str(document)
    assert document["healthy"] is False
    assert document["uplinks"]["waiting"] == 5
    assert "s3cret" not in daemon.log.read_text()
    if identity is pki.server():
        daemon.write(ID, file_of(site))
    else:
        site.kill()
        site.start(pki.server())
        daemon.reconnect(ID)
    daemon.drained(ID)
    judge(lrc.accepted, site.keys("/in"))


def refused(document: dict[str, Any]) -> bool:
    """Whether nobody listens, and it says so."""
    hint = document["lastError"]["hint"] or ""
    return document["state"] == "CLOSED" and "refused" in document["reason"] and "is the server running there" in hint


def test_a_site_killed_in_traffic_again_and_again_loses_nothing(
    make_daemon: MakeDaemon, tmp_path: Path, ending: ExitStack
) -> None:
    kills = 4
    site = WebSite(tmp_path, pki.server())
    ending.callback(site.kill)
    daemon = make_daemon("", **{ID: file_of(site)}).start()
    daemon.opened(ID)
    load, pause = Load(daemon.intake, threads=2), threading.Event()
    for _ in range(kills):
        pause.wait(0.3)
        site.kill()
        eventually("the loss is seen", lambda: daemon.health(ID)["state"] != "OPENED")
        daemon.reconnect(ID)
        eventually("it says why", lambda: refused(daemon.health(ID)))
        site.start(pki.server())
        daemon.reconnect(ID)
        daemon.opened(ID)
    load.stop()
    daemon.drained(ID)
    judge(load.accepted, site.keys("/in"), posted=load.posted, doubles=kills * IN_FLIGHT)
    assert daemon.uplinks(ID)["rejected"] == 0
    assert len(load.accepted) > 500, "there was hardly any load"
