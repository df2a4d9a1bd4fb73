"""Downlinks and traces over the control plane."""

from __future__ import annotations

import orjson
import pytest
import trio

from tests.control.doubles import ScriptedDaemon, client, control_plane
from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.downlinks import MAX_BODY_BYTES

BODY = orjson.dumps({"DevEUI_downlink": {"DevEUI": "70B3D5E75E00A1C4", "FPort": 5, "payload_hex": "02ff"}})
WAITING = {"id": 7, "DevEUI": "70B3D5E75E00A1C4", "state": "waiting", "final": False}
DEVICE = "70B3D5E75E00A1C4"


async def test_a_downlink_goes_to_the_daemon_as_it_came_and_the_answer_back() -> None:
    daemon = ScriptedDaemon(downlink_answer=(202, WAITING))
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        answer = await http.post("/downlinks", content=BODY)
    assert (answer.status_code, answer.json()) == (202, WAITING)
    assert daemon.asked == [("downlink", BODY)]


@pytest.mark.parametrize(("status", "code"), [(400, "com-4000"), (503, "com-5003")])
async def test_a_downlink_that_is_not_taken(status: int, code: str) -> None:
    daemon = ScriptedDaemon(downlink_answer=(status, {"message": "FPort is missing"}))
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        answer = await http.post("/downlinks", content=BODY)
    assert (answer.status_code, answer.json()) == (status, {"code": code, "message": "FPort is missing"})


async def test_a_body_longer_than_any_downlink_is_not_taken() -> None:
    daemon = ScriptedDaemon()
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        assert (await http.post("/downlinks", content=b" " * MAX_BODY_BYTES)).status_code == 202
        refused = await http.post("/downlinks", content=b" " * (MAX_BODY_BYTES + 1))
    assert (refused.status_code, refused.json()["code"]) == (413, "com-4013")
    assert len(daemon.asked) == 1


async def test_a_sender_that_goes_away_in_the_middle_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    daemon = ScriptedDaemon()
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        host, _, port = bound.rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"POST /downlinks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        assert (await http.get("/health/live")).status_code == 200
        await stream.aclose()
        for _ in range(3):
            assert (await http.get("/health/live")).status_code == 200
    assert daemon.asked == []
    assert caplog.text == ""


async def test_what_became_of_a_downlink() -> None:
    daemon = ScriptedDaemon(downlinks=[WAITING])
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        known = await http.get("/downlinks/7")
        daemon.downlinks.clear()
        unknown = await http.get("/downlinks/8")
        nonsense = await http.get("/downlinks/seven")
    assert (known.status_code, known.json()) == (200, WAITING)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "com-4004")
    assert "downlink 8" in unknown.json()["message"]
    assert nonsense.status_code == 400
    assert daemon.asked == [("find", 7), ("find", 8)]


async def test_the_trace_of_a_device_in_any_notation() -> None:
    entries = [{"type": "DevEUI_uplink", "seq": number} for number in range(60)]
    daemon = ScriptedDaemon(traced=entries)
    async with control_plane(daemon) as (bound, *_), client(bound) as http:
        assert (await http.get(f"/trace/{DEVICE}")).json() == entries[-50:]
        assert (await http.get("/trace/70-b3-d5-e7-5e-00-a1-c4?limit=2")).json() == entries[-2:]
        for wrong in ("/trace/70B3", "/trace/plant", f"/trace/{DEVICE}?limit=0", f"/trace/{DEVICE}?limit=1001"):
            refused = await http.get(wrong)
            assert (refused.status_code, refused.json()["code"]) == (400, "com-4000")
        daemon.unreadable = SpoolUnavailable("the disk cannot be read")
        failed = await http.get(f"/trace/{DEVICE}")
    assert (failed.status_code, failed.json()["message"]) == (503, "the disk cannot be read")
    assert daemon.asked == [("trace", DEVICE, 50), ("trace", DEVICE, 2), ("trace", DEVICE, 50)]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/downlinks"), ("GET", "/downlinks/7"), ("GET", f"/trace/{DEVICE}")]
)
async def test_downlinks_and_traces_are_not_for_everyone(method: str, path: str) -> None:
    daemon = ScriptedDaemon(downlinks=[WAITING])
    async with control_plane(daemon, token="s3cret") as (bound, *_):
        async with client(bound) as http:
            assert (await http.request(method, path, content=BODY)).status_code == 401
        async with client(bound, authorization="Bearer other") as http:
            assert (await http.request(method, path, content=BODY)).status_code == 401
        assert daemon.asked == []
        async with client(bound, authorization="Bearer s3cret") as http:
            assert (await http.request(method, path, content=BODY)).status_code in (200, 202)
    async with control_plane(daemon) as (bound, *_), client(bound, host="evil.example") as http:
        assert (await http.request(method, path, content=BODY)).status_code == 403
    assert len(daemon.asked) == 1
