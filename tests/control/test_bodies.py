"""What is asked is complete before anything is done: half a body, and one that never ends, are refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from tests.control.doubles import ScriptedDaemon, control_plane
from tpxd.control.bodies import BODY_S, MOST_BYTES
from tpxd.control.routes import control_app

PATHS = ["/reload", "/reconnect", "/connections/plant/reconnect", "/downlinks"]


async def ask(daemon: ScriptedDaemon, path: str, *messages: dict[str, Any]) -> tuple[int, str]:
    """Status and message of the answer to a request whose body comes as these messages, and then falls silent."""
    coming, answer = [*messages], []
    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "scheme": "http", "method": "POST", "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"localhost")], "client": None}
    scope |= {"server": None, "root_path": ""}

    async def receive() -> dict[str, Any]:
        if not coming:
            await trio.sleep_forever()
        return coming.pop(0)

    async def send(message: Any) -> None:
        answer.append(message)

    await control_app(daemon, "")(scope, receive, send)
    return answer[0]["status"], orjson.loads(answer[1]["body"])["message"]


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize("path", PATHS)
async def test_half_a_body_is_refused_after_a_while(path: str, autojump_clock: MockClock) -> None:
    daemon = ScriptedDaemon()
    assert await ask(daemon, path, part(b"{", more=True)) == (408, "the body did not arrive in time")
    assert daemon.asked == []


async def test_the_while_is_that_of_the_whole_body(autojump_clock: MockClock) -> None:
    begun = trio.current_time()
    await ask(ScriptedDaemon(), "/reload", *[part(b"x", more=True)] * 100)
    assert trio.current_time() - begun == pytest.approx(BODY_S)


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_without_end_is_refused(path: str) -> None:
    daemon = ScriptedDaemon()
    status, message = await ask(daemon, path, *[part(bytes(MOST_BYTES // 8), more=True)] * 9)
    assert (status, message) == (413, f"a body has at most {MOST_BYTES} bytes")
    assert daemon.asked == []


@pytest.mark.parametrize("path", PATHS)
async def test_whoever_leaves_before_the_end_asked_for_nothing(path: str) -> None:
    daemon = ScriptedDaemon()
    status, _ = await ask(daemon, path, part(b"{", more=True), {"type": "http.disconnect"})
    assert status == 400
    assert daemon.asked == []


async def test_a_body_in_parts_is_one() -> None:
    daemon = ScriptedDaemon(downlink_answer=(400, {"message": "no"}))
    await ask(daemon, "/downlinks", part(b"{", more=True), part(b"}", more=False))
    assert daemon.asked == [("downlink", b"{}")]


async def test_nothing_is_answered_before_the_body_came() -> None:
    daemon = ScriptedDaemon()
    async with control_plane(daemon) as (bound, *_):
        host, _, port = bound.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
            with trio.move_on_after(0.2) as waiting:
                assert await stream.receive_some()
            assert waiting.cancelled_caught
            assert daemon.asked == []
            await stream.send_all(b"cd")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 202")
    assert daemon.asked == ["reload"]
