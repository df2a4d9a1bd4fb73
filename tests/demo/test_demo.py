"""The demo with the real daemon: nothing but tpxd itself is needed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import trio

pytestmark = pytest.mark.broker

DEMO = [sys.executable, "-m", "tpxd", "demo"]
LIMIT_S = 60


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_every_uplink_reaches_both_connections() -> None:
    done = run("--duration", "2", "--rate", "50", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    delivered = {"delivered": 100, "waiting": 0}
    assert json.loads(done.stdout) == {"received": 100, "connections": {"broker": delivered, "web": delivered}}


def test_a_named_directory_must_be_empty_and_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    done = run("--duration", "1", "--dir", str(place))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"demo in {place}, health at http://127.0.0.1:")
    assert lines[1:] == [
        "10 uplinks posted, 10 accepted",
        "broker: 10 delivered, 0 waiting",
        "web: 10 delivered, 0 waiting",
    ]
    assert (place / "connections.d" / "web.toml").exists()
    again = run("--duration", "1", "--dir", str(place))
    assert again.returncode == 2
    assert "is not empty" in again.stderr


async def test_a_downlink_goes_the_whole_way_and_back(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    with trio.fail_after(LIMIT_S):
        process = await trio.lowlevel.open_process([*DEMO, "--dir", str(place)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.receive_some()
        send = [*DEMO[:-1], "downlink", "70B3D5E75E000001", "--port", "10", "--hex", "02ff", "--wait=sent"]
        while True:
            done = await trio.run_process([*send, "--config", str(place)], check=False, capture_stdout=True)
            if done.returncode == 0:
                break
            await trio.sleep(0.2)
        assert b"is sent: Request queued by LRC; transmitted" in done.stdout
        process.send_signal(signal.SIGINT)
        async for _ in process.stdout:
            pass
        assert await process.wait() == 0


async def test_control_c_ends_with_the_summary_and_leaves_nothing_behind() -> None:
    with trio.fail_after(LIMIT_S):
        process = await trio.lowlevel.open_process([*DEMO], stdout=subprocess.PIPE)
        assert process.stdout is not None
        said = bytes(await process.stdout.receive_some())
        place = trio.Path(said.decode().removeprefix("demo in ").partition(",")[0])
        assert await place.is_dir()
        process.send_signal(signal.SIGINT)
        said += b"".join([bytes(chunk) async for chunk in process.stdout])
        assert await process.wait() == 0
    assert b" uplinks posted, " in said
    assert not await place.exists()


async def test_a_killed_demo_takes_its_daemon_and_broker_along(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    with trio.fail_after(LIMIT_S):
        process = await trio.lowlevel.open_process([*DEMO, "--dir", str(place)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.receive_some()
        ports: list[int] = []
        while len(ports) < 3:
            await trio.sleep(0.1)
            ports = [port for port in ports_of(place) if await listens(port)]
        process.kill()
        await process.wait()
        while ports:
            await trio.sleep(0.1)
            ports = [port for port in ports if await listens(port)]


def ports_of(place: Path) -> list[int]:
    settings = tomllib.loads((place / "tpxd.toml").read_text())
    return [int(settings[part]["listen"].rpartition(":")[2]) for part in ("intake", "control", "broker")]


async def listens(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True
