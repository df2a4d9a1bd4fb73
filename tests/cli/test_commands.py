"""The commands that ask a running daemon, against a control plane that is served for real."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.running import ask, invoke, settings
from tests.control.doubles import ScriptedDaemon, connection_document, control_plane, ill
from tpxd import __version__
from tpxd.cli import COMMANDS

REFUSED = "connections.d/cloud.toml:3:1: protocol: is unknown"

ROOT = Path(__file__).parents[2]


def two_connections() -> ScriptedDaemon:
    error = {"at": "2026-11-20T09:59:58Z", "message": "refused\x1b[2J by [red]peer[/red]", "hint": None}
    file = {"generation": 2, "running": 1, "error": REFUSED}
    return ScriptedDaemon(
        {
            "plant": connection_document("plant", oldestWaitingSeconds=7500),
            "cloud": ill("cloud", connectorId=None, lastError=error, file=file, oldestWaitingSeconds=None),
        },
        strays=["connections.d/No Id.toml: is no id"],
        kept={"old": {"waiting": 3, "until": "2026-11-21T10:00:00Z"}},
        parts={"spool": {"healthy": False, "reason": "disk full"}},
    )


async def test_status_shows_a_table_and_what_needs_a_person(tmp_path: Path) -> None:
    async with control_plane(two_connections()) as (bound, *_):
        result = await ask("status", "--config", settings(tmp_path, listen=bound))
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == [
        *("ID", "CONNECTOR", "STATE", "DELIVERED", "WAITING", "REJECTED", "OLDEST"),
        *("DL", "SENT", "DL", "WAITING", "DL", "REJECTED", "LAST", "ERROR"),
    ]
    assert rows[1] == ["plant", "actility-mqtt-iot", "OPENED", "3", "2", "0", "2h", "5m", "6", "0", "1", "-"]
    error = ["2026-11-20T09:59:58Z", "refused\\x1b[2J", "by", "[red]peer[/red]"]
    assert rows[2] == ["cloud", "-", "CLOSED", "3", "2", "0", "-", "6", "0", "1", *error]
    assert result.stdout.splitlines()[3:] == [
        "old: its file is gone; its queue, in which 3 uplinks wait, is kept until 2026-11-21T10:00:00Z",
        REFUSED,
        "connections.d/No Id.toml: is no id",
        "spool: disk full",
    ]
    assert "\x1b" not in result.stdout


AT = {"at": "2026-11-20T10:00:00.500Z", "message": "connection refused", "hint": "is the broker running?"}
BEFORE, AFTER = "2026-11-20T09:00:00.000Z", "2026-11-20T11:00:00.000Z"
NOW, OVERCOME = "2026-11-20T10:00:00Z connection refused", "2026-11-20T10:00:00Z overcome: connection refused"


@pytest.mark.parametrize(
    ("document", "cell", "under"),
    [
        (
            ill("plant", lastError=AT, since=AFTER, retryAt=AFTER),
            NOW,
            ["plant: is the broker running?; tried again at 2026-11-20T11:00:00Z"],
        ),
        (ill("plant", lastError=AT | {"hint": None}, since=AFTER), NOW, []),
        (
            ill("plant", file={"generation": 1, "running": 1, "error": None, "warning": "x.toml: it goes on"})
            | {"lastError": AT | {"hint": None}, "since": AFTER},
            NOW,
            ["warning: x.toml: it goes on"],
        ),
        (connection_document("plant", lastError=AT, since=AFTER), OVERCOME, []),
        (connection_document("plant", lastError=AT, since=BEFORE, lastDelivery=AFTER), OVERCOME, []),
        (
            connection_document("plant", lastError=AT, since=BEFORE, lastDelivery=BEFORE),
            NOW,
            ["plant: is the broker running?"],
        ),
        (  # what fails beside the way of uplinks
            connection_document("plant", lastError=AT, reason=AT["message"], since=BEFORE, lastDelivery=AFTER),
            NOW,
            ["plant: is the broker running?"],
        ),
        (
            connection_document(
                "plant", lastError=AT, since=AFTER, healthy=False, reason="stalled: it has waited 40 s"
            ),
            OVERCOME,
            ["plant: stalled: it has waited 40 s"],
        ),
    ],
)
async def test_status_tells_what_to_do_and_what_is_overcome(
    tmp_path: Path, document: dict[str, Any], cell: str, under: list[str]
) -> None:
    async with control_plane(ScriptedDaemon({"plant": document})) as (bound, *_):
        result = await ask("status", "--config", settings(tmp_path, listen=bound))
    _, row, *lines = result.stdout.splitlines()
    assert " ".join(row.split()).endswith(f" 6 0 1 {cell}")
    assert lines == under


async def test_status_tells_what_to_do_about_an_lrc_that_refuses(tmp_path: Path) -> None:
    reason, hint = 'the LRC refuses AS_ID "TWA_1": HTTP 401: no', "as_key in [lrc] must be the key that the LRC has"
    lrc = {"healthy": False, "reason": reason, "lastError": {"at": AFTER, "message": reason, "hint": hint}}
    daemon = ScriptedDaemon({"plant": connection_document("plant")}, parts={"lrc": lrc})
    async with control_plane(daemon) as (bound, *_):
        result = await ask("status", "--config", settings(tmp_path, listen=bound))
    assert result.stdout.splitlines()[2:] == [f"lrc: {reason}; {hint}"]


async def test_lines_for_programs_are_never_folded(tmp_path: Path) -> None:
    long = "connections.d/plant.toml:3:1: " + "word " * 100 + "end"
    daemon = ScriptedDaemon({"plant": ill("plant", file={"generation": 1, "running": None, "error": long})})
    async with control_plane(daemon) as (bound, *_):
        result = await ask("status", "--config", settings(tmp_path, listen=bound))
    assert long in result.stdout.splitlines()


async def test_status_without_connections(tmp_path: Path) -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        result = await ask("status", "--config", settings(tmp_path, listen=bound))
    assert result.stdout == "no connections: put a file into connections.d, or see: tpxd demo\n"


async def test_status_as_json(tmp_path: Path) -> None:
    daemon = two_connections()
    async with control_plane(daemon) as (bound, *_):
        result = await ask("status", "--json", "--config", settings(tmp_path, listen=bound))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["connections"] == daemon.documents


async def test_the_socket_is_asked_first(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    daemon = ScriptedDaemon({"plant": connection_document("plant")})
    async with control_plane(daemon, socket=path):
        result = await ask("reconnect", "plant", "--config", settings(tmp_path, socket=path, listen="127.0.0.1:1"))
    assert (result.exit_code, result.output) == (0, "plant is tried again now\n")
    assert daemon.asked == [("reconnect", "plant")]


async def test_the_address_is_asked_when_the_socket_is_gone(tmp_path: Path) -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        directory = settings(tmp_path, socket=str(tmp_path / "gone"), listen=bound)
        result = await ask("reconnect", "--config", directory)
    assert (result.exit_code, result.output) == (0, "every connection is tried again now\n")


async def test_an_address_that_means_everywhere_is_asked_on_this_machine(tmp_path: Path) -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        directory = settings(tmp_path, listen=f"0.0.0.0:{bound.rpartition(':')[2]}")
        assert (await ask("status", "--config", directory)).exit_code == 0


async def test_the_token_of_the_settings_is_sent(tmp_path: Path) -> None:
    async with control_plane(ScriptedDaemon(), token="s3cret") as (bound, *_):
        good = await ask("reconnect", "--config", settings(tmp_path, listen=bound, token="s3cret"))
        bad = await ask("reconnect", "--config", settings(tmp_path, listen=bound, token="other"))
    assert good.exit_code == 0
    assert (bad.exit_code, bad.stderr) == (1, "tpxd: the bearer token is wrong\n")


async def test_reconnecting_what_is_not_there(tmp_path: Path) -> None:
    async with control_plane(ScriptedDaemon()) as (bound, *_):
        result = await ask("reconnect", "a/b", "--config", settings(tmp_path, listen=bound))
    assert result.exit_code == 1
    assert result.stderr.startswith("tpxd: there is no ")


def test_nobody_answers(tmp_path: Path) -> None:
    directory = settings(tmp_path, socket=str(tmp_path / "gone"), listen="127.0.0.1:1")
    result = invoke("status", "--config", directory)
    assert result.exit_code == 1
    assert result.stdout == ""
    said, next_step = result.stderr.splitlines()
    assert f"unix:{tmp_path}/gone (no such file or directory)" in said
    assert "http://127.0.0.1:1 (connection refused)" in said
    assert f"tpxd run --config {directory}" in next_step


async def test_another_program_answers(tmp_path: Path) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.0 200 OK\r\n\r\nhello")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, speak, 0)
        port = listeners[0].socket.getsockname()[1]
        result = await ask("status", "--config", settings(tmp_path, listen=f"127.0.0.1:{port}"))
        nursery.cancel_scope.cancel()
    assert result.exit_code == 1
    assert "answered 200 without JSON" in result.stderr


def test_invalid_settings_are_told_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "tpxd.toml").write_text('[control]\nlisen = "127.0.0.1:1"\n')
    result = invoke("status", "--config", str(tmp_path))
    assert result.exit_code == 78
    assert result.stderr.startswith(f"{tmp_path}/tpxd.toml:2:1: control.lisen: ")


def test_run_gives_the_daemon_its_directory_and_passes_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []

    def run(directory: Path) -> int:
        started.append(directory)
        return 78

    monkeypatch.setattr("tpxd.daemon.run", run)
    assert invoke("run", "--config", str(tmp_path)).exit_code == 78
    assert started == [tmp_path]


def test_connectors() -> None:
    listed = invoke("connectors").stdout
    assert "actility-mqtt-iot" in listed
    documents = json.loads(invoke("connectors", "--json").stdout)
    assert {"id", "title", "description"} == set(documents[0])
    explained = invoke("connectors", "actility-mqtt-iot").stdout
    assert explained == (ROOT / "examples" / "all-options" / "actility-mqtt-iot.toml").read_text()
    assert "$schema" in json.loads(invoke("connectors", "actility-mqtt-iot", "--schema").stdout)
    schema = json.loads(invoke("connectors", "actility-mqtt-iot", "--schema").stdout)
    assert "hostName" in schema["properties"]
    unknown = invoke("connectors", "acme")
    assert unknown.exit_code == 1
    assert "actility-mqtt-iot" in unknown.stderr
    assert invoke("connectors", "--schema").exit_code == 2


def test_help_lists_every_command_and_imports_none() -> None:
    for name in COMMANDS:
        sys.modules.pop(f"tpxd.cli.{name}", None)
    result = invoke("--help")
    assert result.exit_code == 0
    for name, (_, summary) in COMMANDS.items():
        assert f"{name} " in result.stdout
        assert summary in result.stdout
        assert f"tpxd.cli.{name}" not in sys.modules


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: tpxd {name} ")


def test_version_and_usage() -> None:
    assert invoke("--version").stdout == f"tpxd {__version__}\n"
    wrong = invoke("statsu")
    assert wrong.exit_code == 2
    assert "No such command 'statsu'" in wrong.stderr


def tpxd(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tpxd", *arguments], capture_output=True, text=True, timeout=20, check=False, **options
    )


def test_as_a_process() -> None:
    done = tpxd("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tpxd {__version__}\n", "")
    assert tpxd("nonsense").returncode == 2


def test_a_reader_that_went_away_is_no_news() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "tpxd", "connectors"], stdout=writing, stderr=subprocess.PIPE, timeout=20, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_control_c_is_no_news() -> None:
    script = "import tpxd.cli.failures as f\nwith f.exit_codes():\n    raise KeyboardInterrupt\n"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import typer\ndef go():\n    {script.replace(chr(10), chr(10) + '    ')}\ntyper.run(go)",
        ],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


async def test_colours_on_a_terminal_only(tmp_path: Path) -> None:
    async with control_plane(two_connections()) as (bound, *_):
        near, far = pty.openpty()
        command = [sys.executable, "-m", "tpxd", "status", "--config", settings(tmp_path, listen=bound)]
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
        environment.pop("NO_COLOR", None)
        await trio.run_process(command, stdout=far, env=environment)
        os.close(far)
        shown = os.read(near, 65536).decode()
        os.close(near)
    assert "\x1b[32mOPENED" in shown
    assert "\x1b[2J" not in shown
