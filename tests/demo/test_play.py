"""A demo begins, ends and fails as told, with a stand-in for the daemon."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
import trio
from rich.console import Console

from tpxd.demo import play as play_module
from tpxd.demo.play import Play, perform
from tpxd.demo.scene import free_addresses, set_scene
from tpxd.demo.stage import DemoFailed, Looks, Receiver
from tpxd.demo.view import render
from tpxd.simulate.downlink_lrc import DownlinkLrc
from tpxd.simulate.downlink_rules import Rules
from tpxd.simulate.lrc import DEFAULT_AS_ID, Pace
from tpxd.wire.http import Request

LIMIT_S = 30
REPORTS = 50


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of half a second posts so many reports, also on a machine that is late for the last one."""

    def pace(rate: float, duration_s: float | None) -> Pace:
        return Pace(rate, None if duration_s is None else REPORTS)

    monkeypatch.setattr(play_module, "Pace", pace)


def fake(mode: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("fake_daemon.py")), mode]


async def run(tmp_path: Path, mode: str) -> Play:
    play = Play(set_scene(tmp_path))
    with trio.fail_after(LIMIT_S):
        await perform(play, rate=100, duration_s=0.5, daemon=fake(mode))
    return play


async def test_all_that_was_accepted_was_delivered(tmp_path: Path) -> None:
    play = await run(tmp_path, "good")
    assert play.failures() == []
    expected = {"delivered": 50, "waiting": 0}
    assert play.to_document() == {"received": 50, "connections": {"broker": expected, "web": expected}}


async def test_a_queue_that_does_not_empty_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_module, "DRAIN_S", 0.6)
    play = await run(tmp_path, "stuck")
    assert play.failures() == ["web did not finish: 49 of 50 delivered, 1 waiting, OPENED"]
    assert play.to_document()["connections"]["web"] == {"delivered": 49, "waiting": 1}


async def test_refused_reports_are_a_failure(tmp_path: Path) -> None:
    play = await run(tmp_path, "deaf")
    assert play.failures() == ["50 of 50 reports were not accepted: 401 × 50"]


@pytest.mark.parametrize(("mode", "end"), [("stillborn", "no such option: dance"), ("dead", "a broken fake")])
async def test_a_daemon_that_ends_early_ends_the_demo_with_its_last_words(tmp_path: Path, mode: str, end: str) -> None:
    with pytest.raises(DemoFailed, match="the daemon ended with status 1") as caught:
        await run(tmp_path, mode)
    assert end in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "signals", "unfinished"),
    [
        ("good", [signal.SIGINT], False),
        # Two different ones, since the system may merge two equal ones that come close together.
        ("stuck", [signal.SIGINT, signal.SIGTERM], True),
    ],
)
async def test_a_signal_ends_the_posting_and_a_second_one_the_waiting(
    tmp_path: Path, mode: str, signals: list[signal.Signals], unfinished: bool
) -> None:
    play = Play(set_scene(tmp_path))

    async def send(play: Play) -> None:
        while True:
            await trio.sleep(0.01)
            if play.looks.connections and play.counters.accepted:
                break
        for number in signals:
            os.kill(os.getpid(), number)

    with trio.fail_after(LIMIT_S):
        await perform(play, rate=100, duration_s=None, show=send, daemon=fake(mode))
    assert play.counters.accepted
    assert ("web" in play.unfinished) == unfinished
    assert bool(play.failures()) == unfinished


async def test_what_is_shown_while_it_runs(tmp_path: Path) -> None:
    play = Play(set_scene(tmp_path))
    screens: list[str] = []

    def draw(play: Play) -> None:
        paper = io.StringIO()
        Console(file=paper, width=160).print(render(play))
        screens.append(paper.getvalue())

    async def show(play: Play) -> None:
        try:
            while True:
                draw(play)
                await trio.sleep(0.05)
        finally:
            draw(play)

    with trio.fail_after(LIMIT_S):
        await perform(play, rate=100, duration_s=0.5, show=show, daemon=fake("good"))
    assert "starting" in screens[0]
    last = screens[-1]
    assert "50 posted: 200 × 50" in last
    assert "actility-mqtt-iot" in last
    assert f"http://{play.scene.control}/health" in last
    assert play.scene.key not in "".join(screens)


def test_downlinks_are_shown_and_what_the_lrc_reports_of_them(tmp_path: Path) -> None:
    play = Play(set_scene(tmp_path))
    device = play.devices[0]
    lrc = DownlinkLrc(Rules({device.dev_eui: device}), play.downlinks)
    lrc.take(f"DevEUI={device.dev_eui}&FPort=5&Payload=02ff", 1_795_000_000.0)
    lrc.take(f"DevEUI={device.dev_eui}&FPort=0&Payload=02ff", 1_795_000_000.0)
    (report,) = lrc.on_air(1_795_000_000.0)
    play.counters.newest.append(("09:00:00", report, "200"))
    paper = io.StringIO()
    Console(file=paper, width=160).print(render(play))
    shown = paper.getvalue()
    assert "2 downlinks: 1 taken, 1 transmitted" in shown
    assert "Request queued by LRC" in shown
    assert "FPort is not allowed" in shown
    assert "DevEUI_downlink_Sent" in shown


def test_the_downlink_to_try_can_be_copied_from_a_narrow_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["/home/ann/.tpxd/bin/tpxd", "demo"])
    paper = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="tpxd-demo-") as directory:
        play = Play(set_scene(Path(directory)))
        Console(file=paper, width=80).print(render(play))
    first, second = paper.getvalue().partition(" command  ")[2].splitlines()[:2]
    assert first.endswith("\\"), "no space behind it"
    device = play.devices[0]
    asked = f"--port {device.model.f_port} --hex 02ff --wait=sent --config {play.scene.directory}"
    assert f"{first[:-1]} {second}".split() == [sys.argv[0], "downlink", device.dev_eui, *asked.split()]


def test_the_scene_is_read_as_it_was_meant(tmp_path: Path) -> None:
    scene = set_scene(tmp_path)
    text = (tmp_path / "tpxd.toml").read_text()
    settings = tomllib.loads(text)
    assert settings["lrc"]["tunnel_keys"] == {DEFAULT_AS_ID: scene.key}
    assert settings["broker"] == {"enabled": True, "listen": scene.broker}
    assert (tmp_path / "tpxd.toml").stat().st_mode & 0o077 == 0
    broker, web = (tomllib.loads((tmp_path / f"connections.d/{name}.toml").read_text()) for name in ("broker", "web"))
    assert broker["configuration"]["uplinkTopicPattern"] == "demo/{DevEUI}/uplink"
    assert web["configuration"]["headers"] == {"X-Device": "{DevEUI}"}
    assert scene.key not in repr(scene)


def test_addresses_are_free_and_different() -> None:
    assert len(set(free_addresses(20))) == 20


async def test_the_web_server_counts_uplinks_and_nothing_else() -> None:
    receiver = Receiver()

    async def post(method: str, path: str) -> int:
        request = Request(method=method, path=path, query="", headers={}, body=b"{}", peer="127.0.0.1:1")
        return (await receiver.respond(request)).status

    assert await post("POST", "/uplinks") == 204
    assert await post("POST", "/elsewhere") == 404
    assert await post("GET", "/uplinks") == 404
    assert receiver.uplinks == 1


def test_the_rate_is_that_of_the_last_looks() -> None:
    looks = Looks()
    assert looks.rate("web") == 0.0
    for now_s, delivered in enumerate([0, 10, 20, 40]):
        looks.add({"connections": {"web": {"uplinks": {"delivered": delivered}}}}, now_s)
    assert looks.rate("web") == pytest.approx(40 / 3)


def test_a_connection_that_missed_reports_is_behind() -> None:
    looks = Looks()
    looks.add(
        {
            "connections": {
                "slow": {"active": True, "state": "CLOSED", "uplinks": {"received": 9, "waiting": 0, "delivered": 9}},
                "off": {
                    "active": False,
                    "state": "DEACTIVATED",
                    "uplinks": {"received": 9, "waiting": 9, "delivered": 0},
                },
            }
        },
        0,
    )
    assert looks.lagging(10) == {"slow": "9 of 10 delivered, 0 waiting, CLOSED"}
    assert looks.lagging(9) == {}
