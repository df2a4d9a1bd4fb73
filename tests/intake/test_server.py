"""The data plane on a real socket, with the real spool."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
import trio

from tests.intake.doubles import BODY, UNSIGNED, MemoryStore
from tests.intake.serving import ENOUGH_S, serving
from tests.peers import pki
from tpxd.config.settings import IntakeSettings, LrcSettings
from tpxd.errors import SpoolUnavailable
from tpxd.events import EventLog
from tpxd.intake.server import Intake, serve_intake
from tpxd.spool import SpoolLimits, open_spool
from tpxd.wire.http import CannotListen, Request, Response


async def test_from_a_post_to_the_disk_and_back(tmp_path: Path) -> None:
    limits = SpoolLimits(min_free_bytes=0)
    path = tmp_path / "spool.db"
    async with open_spool(path, limits, tell=EventLog().tell) as spool:
        cursor = await spool.cursor("plant")
        async with serving(spool) as (intake, address), httpx.AsyncClient() as client:
            for _ in range(2):
                answer = await client.post(f"http://{address}/uplink?{UNSIGNED}", content=BODY)
                assert (answer.status_code, answer.content) == (200, b"")
            assert (await client.get(f"http://{address}/health")).status_code == 200
        assert (intake.counters.accepted_total, intake.counters.duplicates_total) == (2, 1)
        (uplink,) = await cursor.next_batch(10, 1 << 20)
        assert (uplink.kind, uplink.lane, uplink.body) == ("DevEUI_uplink", "70B3D5E75E00A1C4", BODY)
        assert uplink.lrn_infos == "TWA_100009421.77.AS-1-884120"


async def test_many_senders_at_once_all_get_what_is_on_disk(tmp_path: Path) -> None:
    limits = SpoolLimits(min_free_bytes=0)
    async with open_spool(tmp_path / "spool.db", limits, tell=EventLog().tell) as spool:
        cursor = await spool.cursor("plant")
        async with serving(spool) as (_, address), httpx.AsyncClient() as client, trio.open_nursery() as nursery:

            async def send(sender: int) -> None:
                for n in range(10):
                    body = BODY.replace(b"4211", b"%d%03d" % (sender, n))
                    assert (await client.post(f"http://{address}/uplink", content=body)).status_code == 200

            for sender in range(1, 21):
                nursery.start_soon(send, sender)
        assert len(await cursor.next_batch(1000, 1 << 24)) == 200


async def test_other_paths_methods_and_sizes() -> None:
    store = MemoryStore()
    async with (
        serving(store, max_body="1 KiB") as (_, address),
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        assert (await client.get("/")).status_code == 404
        refused = await client.get("/uplink")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert (await client.post("/uplink", content=b" " * 1025)).status_code == 413
        assert (await client.post("/uplink", content=BODY.ljust(1024))).status_code == 200
    assert len(store.stored) == 1


async def test_health_follows_the_spool() -> None:
    store = MemoryStore()
    async with serving(store) as (_, address), httpx.AsyncClient(base_url=f"http://{address}") as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.head("/health")).status_code == 200
        store.failing = SpoolUnavailable("the disk is full")
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()) == (503, {"error": "the disk is full"})


async def test_another_route_can_be_added() -> None:
    async def teapot(request: Request) -> Response:
        return Response(418, request.path.encode())

    typed = IntakeSettings.model_validate({"listen": "127.0.0.1:0"})
    intake = Intake(typed, LrcSettings(), MemoryStore())
    intake.routes["/pots/"] = {"BREW": teapot, "POST": teapot}
    with trio.fail_after(ENOUGH_S):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(serve_intake, intake)
            async with httpx.AsyncClient() as client:
                answer = await client.post(f"http://{address}/pots/7")
            assert (answer.status_code, answer.text) == (418, "/pots/7")
            nursery.cancel_scope.cancel()


async def test_https_when_both_files_are_set(tmp_path: Path) -> None:
    certificate, key = pki.server("127.0.0.1").write(tmp_path, "server")
    trusting = ssl.create_default_context(cadata=pki.ca().certificate)
    async with (
        serving(MemoryStore(), tls_certificate=str(certificate), tls_private_key=str(key)) as (_, address),
        httpx.AsyncClient(verify=trusting) as client,
    ):
        assert (await client.post(f"https://{address}/uplink", content=BODY)).status_code == 200


async def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    certificate, key = pki.server("127.0.0.1").write(tmp_path, "server")
    _, foreign = pki.server("elsewhere").write(tmp_path, "foreign")
    locked = tmp_path / "locked.key"
    locked.write_text(pki.server("127.0.0.1").encrypted_key())
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    for files in ((tmp_path / "missing", key), (nonsense, key), (certificate, foreign), (certificate, locked)):
        typed = IntakeSettings(tls_certificate=files[0], tls_private_key=files[1])
        with pytest.raises(CannotListen, match=f"cannot serve HTTPS with {files[0]} and {files[1]}: "):
            await serve_intake(Intake(typed, LrcSettings(), MemoryStore()))
