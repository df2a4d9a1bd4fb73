"""`tpxd downlink` and `tpxd trace`, against a control plane that is served for real."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console

from tests.cli.running import ask, invoke, settings
from tests.control.doubles import ScriptedDaemon, control_plane
from tpxd.cli import main
from tpxd.cli.trace import trace_table

DEVICE = "70B3D5E75E00A1C4"
DOWNLINK = ("downlink", DEVICE, "--hex", "02ff", "--port", "5")


def downlink(state: str = "waiting", **more: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "DevEUI": DEVICE,
        "FPort": 5,
        "payload_hex": "02ff",
        "state": state,
        "final": state in ("sent", "rejected", "expired"),
        "cause": None,
        "received": "2026-11-20T10:00:00.000Z",
        "doubts": 0,
        "transmitted": None,
    } | more


def sent_by(daemon: ScriptedDaemon) -> dict[str, Any]:
    """The fields of the downlink that the daemon was given."""
    ((_, body),) = [asked for asked in daemon.asked if asked[0] == "downlink"]
    fields: dict[str, Any] = json.loads(body)["DevEUI_downlink"]
    return fields


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpxd.cli.downlink.POLL_S", 0.0)


async def test_it_returns_when_the_daemon_has_it(tmp_path: Path) -> None:
    daemon = ScriptedDaemon(downlink_answer=(202, downlink()))
    async with control_plane(daemon) as (bound, *_):
        result = await ask(*DOWNLINK, "--config", settings(tmp_path, listen=bound))
    assert (result.exit_code, result.output) == (0, f"downlink 7 to {DEVICE} is waiting\n")
    assert sent_by(daemon) == {"DevEUI": DEVICE, "FPort": 5, "payload_hex": "02ff"}


async def test_a_downlink_that_is_rejected_at_once_failed(tmp_path: Path) -> None:
    daemon = ScriptedDaemon(downlink_answer=(202, downlink("rejected", cause="downlink_url is not set")))
    async with control_plane(daemon) as (bound, *_):
        result = await ask(*DOWNLINK, "--config", settings(tmp_path, listen=bound))
    assert (result.exit_code, result.output) == (1, f"downlink 7 to {DEVICE} is rejected: downlink_url is not set\n")


async def test_every_option_becomes_a_field(tmp_path: Path) -> None:
    daemon = ScriptedDaemon(downlink_answer=(202, downlink()))
    options = ("--confirmed", "--flush", "--validity", "3600", "--json")
    async with control_plane(daemon) as (bound, *_):
        result = await ask(*DOWNLINK, *options, "--config", settings(tmp_path, listen=bound))
    assert json.loads(result.stdout) == downlink()
    fields = {"Confirmed": 1, "FlushDownlinkQueue": 1, "ValidityTime": "3600"}
    assert sent_by(daemon) == {"DevEUI": DEVICE, "FPort": 5, "payload_hex": "02ff"} | fields


@pytest.mark.parametrize("status", [400, 503])
async def test_a_downlink_that_is_not_taken(tmp_path: Path, status: int) -> None:
    daemon = ScriptedDaemon(downlink_answer=(status, {"message": "DevEUI '70B3' is not 16 hex digits"}))
    async with control_plane(daemon) as (bound, *_):
        result = await ask(*DOWNLINK, "--wait=lrc", "--config", settings(tmp_path, listen=bound))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "tpxd: DevEUI '70B3' is not 16 hex digits\n"


TRANSMITTED = {"DeliveryStatus": "1", "FCntDn": 319}
LOST = {"DeliveryStatus": 0, "DeliveryFailedCause1": "D0", "DeliveryFailedCause2": "00"}
GROUP = {"TransmissionStatus": "SUCCESS", "LrrCnt": 24, "LrrSuccessCnt": 24}
PART_OF_IT = {"TransmissionStatus": "PARTIAL", "LrrCnt": 24, "LrrSuccessCnt": 21, "LrrFailedDistribution": "A3=1,D0=2"}


@pytest.mark.parametrize(
    ("wait", "last", "code", "line"),
    [
        ("lrc", downlink("sent"), 0, "is sent"),
        ("lrc", downlink("rejected", cause="bad AS_ID\x1b[2J"), 1, "is rejected: bad AS_ID\\x1b[2J"),
        ("lrc", downlink("expired", cause="its ValidityTime is over"), 1, "is expired: its ValidityTime is over"),
        ("lrc", downlink("sent", doubts=2), 0, "is sent; written 2 times without an answer"),
        ("sent", downlink("sent", transmitted=TRANSMITTED), 0, "is sent; transmitted"),
        (
            "sent",
            downlink("sent", transmitted=LOST),
            1,
            "is sent; not transmitted: RX1 D0, the duty cycle of the base station",
        ),
        ("sent", downlink("sent", transmitted=GROUP), 0, "is sent; transmitted, by 24 of 24 base stations"),
        (
            "sent",
            downlink("sent", transmitted=PART_OF_IT),
            1,
            (
                "is sent; transmitted in part, by 21 of 24 base stations: 1 × A3, the radio is busy; "
                "2 × D0, the duty cycle of the base station"
            ),
        ),
        ("sent", downlink("rejected", cause="no"), 1, "is rejected: no"),
    ],
)
async def test_waiting_for_an_end(tmp_path: Path, wait: str, last: dict[str, Any], code: int, line: str) -> None:
    """It asks until the downlink is as far as it can come."""
    between = [downlink(), downlink("doubtful", doubts=1)] + ([downlink("sent")] if wait == "sent" else [])
    daemon = ScriptedDaemon(downlink_answer=(202, downlink()), downlinks=[*between, last])
    async with control_plane(daemon) as (bound, *_):
        directory = settings(tmp_path, listen=bound)
        result = await ask(*DOWNLINK, f"--wait={wait}", "--config", directory)
        assert (result.exit_code, result.output) == (code, f"downlink 7 to {DEVICE} {line}\n")
        assert daemon.asked[1:] == [("find", 7)] * (len(between) + 1)
        shown = await ask(*DOWNLINK, f"--wait={wait}", "--json", "--config", directory)
        assert (shown.exit_code, json.loads(shown.stdout)) == (code, last)


async def test_the_time_runs_out(tmp_path: Path) -> None:
    held = downlink(cause="connection refused")
    daemon = ScriptedDaemon(downlink_answer=(202, downlink()), downlinks=[held])
    async with control_plane(daemon) as (bound, *_):
        directory = settings(tmp_path, listen=bound)
        result = await ask(*DOWNLINK, "--wait=lrc", "--timeout", "0.1", "--config", directory)
    assert (result.exit_code, result.stdout) == (1, "")
    said, hint = result.stderr.splitlines()
    assert said == f"tpxd: no answer in time; downlink 7 to {DEVICE} is waiting: connection refused"
    assert hint == f"tpxd: it goes on: tpxd trace {DEVICE}"


async def test_a_downlink_that_is_forgotten_while_it_waits(tmp_path: Path) -> None:
    daemon = ScriptedDaemon(downlink_answer=(202, downlink()))
    async with control_plane(daemon) as (bound, *_):
        result = await ask(*DOWNLINK, "--wait=lrc", "--config", settings(tmp_path, listen=bound))
    assert result.exit_code == 1
    assert "there is no downlink 7" in result.stderr


@pytest.mark.parametrize("arguments", [("trace", DEVICE), DOWNLINK])
def test_no_daemon(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments, "--config", settings(tmp_path, listen="127.0.0.1:1"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the daemon does not answer" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (DOWNLINK[:4], "Missing option '--port'"),
        ((*DOWNLINK[:2], *DOWNLINK[4:]), "Missing option '--hex'"),
        ((*DOWNLINK, "--port", "five"), "Invalid value for '--port'"),
        ((*DOWNLINK, "--wait=air"), "Invalid value for '--wait'"),
        ((*DOWNLINK, "--timeout", "0"), "Invalid value for '--timeout'"),
        (("trace",), "Missing argument 'DEVEUI'"),
        (("trace", DEVICE, "--limit", "1001"), "Invalid value for '--limit'"),
    ],
)
def test_usage(arguments: tuple[str, ...], complaint: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr


async def test_wait_needs_no_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = ScriptedDaemon(downlink_answer=(202, downlink()), downlinks=[downlink("rejected", cause="no")])

    def run(*arguments: str) -> object:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code

    async with control_plane(daemon) as (bound, *_):
        directory = settings(tmp_path, listen=bound)
        for place in ((*DOWNLINK, "--wait"), (*DOWNLINK[:2], "--wait", *DOWNLINK[2:]), (*DOWNLINK, "--wait", "lrc")):
            call: Callable[[], object] = lambda place=place: run(*place, "--config", directory)  # type: ignore[misc] # noqa: E731
            assert await trio.to_thread.run_sync(call) == 1
    assert capsys.readouterr().out == f"downlink 7 to {DEVICE} is rejected: no\n" * 3


async def test_a_blank_before_its_value_is_as_good_as_a_sign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = ScriptedDaemon(downlink_answer=(202, downlink()), downlinks=[downlink("sent", transmitted=LOST)])

    def run(*arguments: str) -> object:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code

    async with control_plane(daemon) as (bound, *_):
        directory = settings(tmp_path, listen=bound)
        for place in ((*DOWNLINK, "--wait", "sent"), ("downlink", "--wait", "sent", *DOWNLINK[1:])):
            call: Callable[[], object] = lambda place=place: run(*place, "--config", directory)  # type: ignore[misc] # noqa: E731
            assert await trio.to_thread.run_sync(call) == 1
    assert capsys.readouterr().out.count("is sent; not transmitted") == 2


# ---- tpxd trace

UPLINK = {
    "type": "DevEUI_uplink",
    "received": "2026-11-20T09:59:00.000Z",
    "seq": 3,
    "fields": {"FPort": 2, "FCntUp": 4211, "payload_hex": "016700f1"},
    "connections": {"plant": "delivered", "cloud": "filtered", "office": "waiting"},
    "why": {"cloud": "why"},
}
REFUSED = {
    "type": "DevEUI_downlink_Rejected",
    "received": "2026-11-20T10:00:01.000Z",
    "seq": 4,
    "fields": {"FPort": 5, "DownlinkRejectionCause": "bad\x1b[2J"},
    "connections": {"plant": "delivered"},
    "why": {},
}


async def test_a_trace_as_a_table(tmp_path: Path) -> None:
    sent = {"type": "DevEUI_downlink"} | downlink("sent", FCntDn=318, transmitted=TRANSMITTED)
    doubtful = {"type": "DevEUI_downlink"} | downlink("doubtful", doubts=1, cause="no answer", payload_hex=None)
    told = UPLINK | {"type": "DevEUI_downlink_Sent", "onAir": "not transmitted: RX1 D0, the duty cycle"}
    lonely = UPLINK | {"connections": {}, "fields": {}}
    daemon = ScriptedDaemon(traced=[UPLINK, sent, doubtful, REFUSED, told, lonely])
    async with control_plane(daemon) as (bound, *_):
        result = await ask("trace", DEVICE.lower(), "--limit", "9", "--config", settings(tmp_path, listen=bound))
    assert result.exit_code == 0
    assert daemon.asked == [("trace", DEVICE, 9)]
    assert "\x1b" not in result.stdout
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "RECEIVED TYPE FPORT FCNT PAYLOAD WHAT BECAME OF IT",
        "2026-11-20T09:59:00.000Z DevEUI_uplink 2 4211 016700f1 plant delivered, cloud filtered (why), office waiting",
        "2026-11-20T10:00:00.000Z DevEUI_downlink 5 318 02ff sent; transmitted",
        "2026-11-20T10:00:00.000Z DevEUI_downlink 5 - - doubtful: no answer; written 1 times without an answer",
        "2026-11-20T10:00:01.000Z DevEUI_downlink_Rejected 5 - - plant delivered: bad\\x1b[2J",
        (
            "2026-11-20T09:59:00.000Z DevEUI_downlink_Sent 2 4211 016700f1 plant delivered, cloud filtered (why), "
            "office waiting: not transmitted: RX1 D0, the duty cycle"
        ),
        "2026-11-20T09:59:00.000Z DevEUI_uplink - - - no connection",
    ]


def test_a_long_payload_hides_nothing_on_a_narrow_screen() -> None:
    entry = {"type": "DevEUI_downlink"} | downlink("rejected", cause="no such device", payload_hex="0123456789ab" * 40)
    console = Console(width=110, file=StringIO())
    with console.capture() as shown:
        console.print(trace_table([entry], folded=True))
    lines = shown.get().splitlines()
    assert lines[0].split() == ["RECEIVED", "TYPE", "FPORT", "FCNT", "PAYLOAD", "WHAT", "BECAME", "OF", "IT"]
    assert "rejected: no such" in lines[1]
    assert shown.get().count("0123456789ab") == 40
    assert len(lines) == 21


async def test_a_trace_for_programs_and_an_empty_one(tmp_path: Path) -> None:
    daemon = ScriptedDaemon(traced=[UPLINK, REFUSED])
    async with control_plane(daemon) as (bound, *_):
        directory = settings(tmp_path, listen=bound)
        assert json.loads((await ask("trace", DEVICE, "--json", "--config", directory)).stdout) == [UPLINK, REFUSED]
        daemon.traced = []
        nothing = await ask("trace", DEVICE, "--config", directory)
        assert (nothing.exit_code, nothing.stdout) == (0, "nothing is kept of this device\n")
        assert (await ask("trace", DEVICE, "--json", "--config", directory)).stdout == "[]\n"


async def test_a_trace_of_no_device(tmp_path: Path) -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        for name in ("70B3", "../health"):
            result = await ask("trace", name, "--config", settings(tmp_path, listen=bound))
            assert (result.exit_code, result.stdout) == (1, "")
            assert result.stderr.startswith("tpxd: ")
