from __future__ import annotations

from typing import Any

import pytest

from tests.control.doubles import ScriptedDaemon, client, connection_document, control_plane, ill
from tpxd import __version__


async def test_healthy_as_a_whole() -> None:
    kept = {"old": {"waiting": 3, "until": "2026-11-21T10:00:00Z"}}
    daemon = ScriptedDaemon({"plant": connection_document("plant")}, kept=kept)
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        answer = await http.get("/health")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == {
            "status": "healthy",
            "reasons": [],
            "version": __version__,
            "connections": daemon.documents,
            "intake": {"healthy": True, "reason": None, "accepted": 7},
            "lrc": {"healthy": True, "reason": None},
            "spool": {"healthy": True, "reason": None},
            "keptQueues": {"old": {"waiting": 3, "until": "2026-11-21T10:00:00Z"}},
            "problems": [],
        }


@pytest.mark.parametrize(
    ("wrong", "reasons"),
    [
        ({"documents": {"plant": ill("plant")}}, ["plant: CLOSED: connection refused"]),
        ({"parts": {"intake": {"healthy": False, "reason": "12 of 20 refused"}}}, ["intake: 12 of 20 refused"]),
        ({"parts": {"lrc": {"healthy": False, "reason": "refused"}}}, ["lrc: refused"]),
        ({"parts": {"spool": {"healthy": False, "reason": "disk full"}}}, ["spool: disk full"]),
        ({"strays": ["connections.d/Plant.toml: is no id"]}, ["connections.d/Plant.toml: is no id"]),
    ],
)
async def test_whatever_needs_a_person_makes_it_unhealthy_and_is_named(
    wrong: dict[str, Any], reasons: list[str]
) -> None:
    async with control_plane(ScriptedDaemon(**wrong)) as (bound, *_), client(bound) as http:
        answer = await http.get("/health")
    assert answer.status_code == 503
    assert answer.json()["status"] == "unhealthy"
    assert answer.json()["reasons"] == reasons


async def test_an_inactive_connection_makes_nothing_unhealthy() -> None:
    daemon = ScriptedDaemon({"plant": ill("plant", active=False)})
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        assert (await http.get("/health")).status_code == 200


async def test_one_connection() -> None:
    daemon = ScriptedDaemon({"plant": connection_document("plant"), "cloud.2-b": ill("cloud.2-b")})
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        good, bad = await http.get("/health/plant"), await http.get("/health/cloud.2-b")
        unknown = await http.get("/health/other")
    assert (good.status_code, good.json()) == (200, daemon.documents["plant"])
    assert (bad.status_code, bad.json()) == (503, daemon.documents["cloud.2-b"])
    assert (unknown.status_code, unknown.json()) == (
        404,
        {"code": "com-4004", "message": "there is no connection other"},
    )


@pytest.mark.parametrize(("path", "attribute"), [("/health/live", "alive"), ("/health/ready", "taking")])
async def test_probes(path: str, attribute: str) -> None:
    daemon = ScriptedDaemon({"plant": ill("plant")})
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        good = await http.get(path)
        setattr(daemon, attribute, (False, "the spool's writer has not moved for 12 s"))
        bad = await http.get(path)
        head = await http.head(path)
    assert (good.status_code, good.json()) == (200, {"status": "healthy", "reasons": []})
    assert bad.status_code == 503
    assert bad.json() == {"status": "unhealthy", "reasons": ["the spool's writer has not moved for 12 s"]}
    assert (head.status_code, head.content) == (503, b"")


async def test_reconnect_and_reload() -> None:
    daemon = ScriptedDaemon({"plant": connection_document("plant")})
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        answers = [
            (await http.post(path)).status_code
            for path in ("/connections/plant/reconnect", "/connections/other/reconnect", "/reconnect", "/reload")
        ]
        assert (await http.get("/reload")).status_code == 405
    assert answers == [202, 404, 202, 202]
    assert daemon.asked == [("reconnect", "plant"), ("reconnect", "other"), ("reconnect", None), "reload"]


async def test_events() -> None:
    happened = [{"message": f"{number}", "connection": "ab"[number % 2]} for number in range(200)]
    async with control_plane(ScriptedDaemon(happened=happened)) as (bound, *_), client(bound) as http:
        assert (await http.get("/events")).json() == happened[-100:]
        assert (await http.get("/events?count=2&connection=a")).json() == [happened[196], happened[198]]
        for count in ("0", "2001", "many"):
            refused = await http.get(f"/events?count={count}")
            assert refused.status_code == 400
            assert refused.json()["code"] == "com-4000"
            assert refused.json()["message"].startswith("query.count: ")


async def test_unknown_paths_and_methods() -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_), client(bound) as http:
        unknown = await http.get("/docs")
        assert (unknown.status_code, unknown.json()) == (404, {"code": "com-4004", "message": "there is no /docs"})
        wrong = await http.put("/health")
        assert (wrong.status_code, wrong.json()["code"]) == (405, "com-4005")
        for hidden in ("/openapi.json", "/redoc", "/health/", "/health/%2e%2e/reload"):
            assert (await http.get(hidden)).status_code == 404


async def test_a_bug_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    daemon = ScriptedDaemon(broken=True)
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        answer = await http.get("/health/live")
        assert (answer.status_code, answer.json()) == (
            500,
            {"code": "com-5000", "message": "internal error, see the log"},
        )
        assert (await http.get("/health/ready")).status_code == 200
    assert "a bug of the test's making" in caplog.text


async def test_the_token_is_asked_for_before_anything_is_done() -> None:
    daemon = ScriptedDaemon()
    async with control_plane(daemon, token="s3cret") as (bound, *_):
        async with client(bound) as http:
            refused = await http.post("/reload")
            assert (refused.status_code, refused.json()["code"]) == (401, "com-4001")
            assert refused.headers["www-authenticate"] == "Bearer"
            assert (await http.get("/nothing")).status_code == 401
            assert (await http.get("/health")).status_code == 200
        assert daemon.asked == []
        async with client(bound, authorization="Bearer s3cret") as http:
            assert (await http.post("/reload")).status_code == 202
    assert daemon.asked == ["reload"]


async def test_a_rebound_name_is_refused() -> None:
    daemon = ScriptedDaemon()
    async with control_plane(daemon) as (bound, *_), client(bound, host="evil.example") as http:
        refused = await http.post("/reload")
        assert (refused.status_code, refused.json()["code"]) == (403, "com-4003")
        assert (await http.get("/health")).status_code == 200
    assert daemon.asked == []


@pytest.mark.parametrize("path", ["/", "/health/", "/connections/"])
async def test_what_a_stranger_wrote_is_repeated_in_short(path: str) -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_), client(bound) as http:
        answers = [
            await http.get(path + "x" * 10_000),
            await http.post(f"{path}{'x' * 10_000}/reconnect"),
            await http.get("/events", headers={"Host": "x" * 10_000}),
            await http.get(f"/events?count={'x' * 10_000}"),
        ]
    for answer in answers:
        assert answer.status_code >= 400
        assert len(answer.content) < 400, answer.content[:500]
