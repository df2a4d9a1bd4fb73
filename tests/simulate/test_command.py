"""`tpxd simulate` as a user runs it, against a server that answers for real."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest
import trio
import typer
from typer.testing import CliRunner

from tests.peers.ports import free_port, listening
from tests.simulate.downlinking import ours
from tpxd.cli.simulate import simulate
from tpxd.wire.http import Request, Response, serve_http

KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
SCRIPT = [sys.executable, "-c", "import typer; from tpxd.cli.simulate import simulate; typer.run(simulate)"]


class Intake:
    """Answers with `status`, or not at all while it is 0, and keeps the queries."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.queries: list[str] = []
        self.asked = trio.Event()
        self.released = trio.Event()

    async def respond(self, request: Request) -> Response:
        self.queries.append(request.query)
        self.asked.set()
        if self.status == 0:
            await self.released.wait()
            return Response(503)
        return Response(self.status)


@asynccontextmanager
async def intake(status: int = 200) -> AsyncIterator[tuple[Intake, str]]:
    server = Intake(status)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(lambda task_status: serve(server, task_status))
        yield server, f"http://{addresses[0]}/uplink"
        server.released.set()
        nursery.cancel_scope.cancel()


async def serve(server: Intake, task_status: trio.TaskStatus[list[str]]) -> None:
    await serve_http("127.0.0.1:0", server.respond, task_status=task_status)


async def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(20):
        return await trio.run_process(
            [*SCRIPT, *arguments], capture_stdout=True, capture_stderr=True, check=False, env=env
        )


async def test_a_signed_run_ends_with_one_json_object(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    async with intake() as (server, url):
        done = await run("--to", url, "--count", "30", "--rate", "0", "--json", "--key-file", str(key_file))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["posted"], document["accepted"], document["lost"]) == (30, 30, 0)
    assert document["answers"] == {"200": 30}
    assert 0 < document["latencyMs"]["p50"] <= document["latencyMs"]["p99"]
    assert len(server.queries) == 30
    assert all("Token" in parse_qs(query) for query in server.queries)


async def test_commands_are_taken_and_counted(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    port = free_port()
    async with intake() as (_, url), trio.open_nursery() as nursery:
        options = ["--to", url, "--count", "1", "--downlinks", f"127.0.0.1:{port}", "--json"]
        options += ["--key-file", str(tmp_path / "key"), "--downlink-answer", "refuse"]
        process: trio.Process = await nursery.start(
            partial(trio.run_process, [*SCRIPT, *options], stdout=subprocess.PIPE)
        )
        assert process.stdout is not None
        with trio.fail_after(20):
            await listening(port)
            async with httpx.AsyncClient() as client:
                address = f"http://127.0.0.1:{port}/thingpark/lrc/rest/downlink"
                said = [(await client.post(f"{address}?{text}")).status_code for text in (ours(time.time()), ours())]
            assert said == [350, 401]
            process.send_signal(signal.SIGINT)
            document = json.loads(b"".join([bytes(chunk) async for chunk in process.stdout]))
            assert await process.wait() == 0
    assert document["accepted"] == 1
    assert document["commands"] | {"received": 2, "accepted": 0, "doubled": 0} == document["commands"]
    assert sum(document["commands"]["refused"].values()) == 2


async def test_an_address_that_is_taken_is_wrong_usage() -> None:
    async with intake() as (_, url):
        address = url.removeprefix("http://").removesuffix("/uplink")
        done = await run("--to", url, "--downlinks", address, env={"COLUMNS": "300"})
    assert done.returncode == 2
    assert f"cannot listen on {address}: address already in use" in done.stderr.decode()


async def test_refusals_are_told_and_are_a_failure() -> None:
    async with intake(401) as (_, url):
        done = await run("--to", url, "--count", "3", "--rate", "0", env={})
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == ["3 posted, 0 accepted, 3 lost", "not accepted: 401 × 3"]
    assert done.stderr == b""


async def test_control_c_ends_it_with_the_summary() -> None:
    async with intake() as (server, url), trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(trio.run_process, [*SCRIPT, "--to", url], stdout=subprocess.PIPE)
        )
        assert process.stdout is not None
        with trio.fail_after(20):
            await server.asked.wait()
            process.send_signal(signal.SIGINT)
            said = b"".join([bytes(chunk) async for chunk in process.stdout])
            assert await process.wait() == 0
    assert b" posted, " in said


async def test_a_second_signal_does_not_wait_for_answers() -> None:
    async with intake(0) as (server, url), trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(partial(trio.run_process, [*SCRIPT, "--to", url]))
        with trio.fail_after(20):
            await server.asked.wait()
            # Two different ones, since the system may merge two equal ones that come close together.
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "ftp://x"], "no http:// or https:// URL"),
        (["--to", "http://x", "--key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set"),
        (["--to", "http://x", "--key-file", "/no/such/file"], "cannot be read"),
        (["--to", "http://x", "--key-env", "A", "--key-file", "B"], "only one of"),
    ],
)
def test_wrong_use_is_said_before_anything_is_sent(arguments: list[str], says: str) -> None:
    app = typer.Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert says in result.output
