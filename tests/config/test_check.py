"""`tpxd check`: one line per problem, and an exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from typer.testing import CliRunner

from tests.config.plant import plant
from tests.peers import pki
from tpxd.cli import application
from tpxd.cli.check import check
from tpxd.reload.files import id_problem

SLS = '"SLS" is not one of TCP, SSL, WSS; did you mean "SSL"?'


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are printed as they are given, here relative ones."""
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *paths: str) -> tuple[int, list[str], str]:
    code = check([Path(path) for path in paths])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.strip()


def test_a_fine_directory(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "plant.toml").write_text(plant())
    (directory.parent / "tpxd.toml").write_text('[log]\nlevel = "debug"')
    assert run(capsys, ".") == (0, [], "2 files, 0 errors")
    assert run(capsys, "connections.d") == (0, [], "1 file, 0 errors")
    assert run(capsys, "connections.d/plant.toml", "tpxd.toml") == (0, [], "2 files, 0 errors")


def test_problems_of_every_kind_of_file(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory.parent / "tpxd.toml").write_text('[log]\nlevel = "loud"')
    (directory / "plant.toml").write_text(plant(more="protocol = 'SLS'\nretain = 1"))
    (directory / "Big.toml").write_text(plant())
    assert run(capsys, ".") == (
        78,
        [
            'tpxd.toml:2:9: log.level: "loud" is not one of debug, info, warning, error',
            f"connections.d/Big.toml: {id_problem('Big')}",
            f"connections.d/plant.toml:7:12: configuration.protocol: {SLS}",
            "connections.d/plant.toml:8:10: configuration.retain: the number is not true or false",
        ],
        "3 files, 4 errors",
    )


def test_connections_are_where_the_settings_say(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory.rename("elsewhere")
    Path("tpxd.toml").write_text('connections_dir = "elsewhere"')
    Path("elsewhere/plant.toml").write_text("name = 'x'")
    code, lines, _ = run(capsys, ".")
    assert code == 78
    assert all(line.startswith("elsewhere/plant.toml:1:1: ") for line in lines)
    Path("tpxd.toml").write_text("")
    assert run(capsys, ".") == (
        0,
        ["warning: connections.d: there is no such directory yet; the daemon waits for it"],
        "1 file, 0 errors, 1 warning",
    )


def test_warnings_alone_are_no_error(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "plant.toml").write_text(plant(more="qos = 0\npassword = { credential = 'plant' }"))
    code, lines, last = run(capsys, "connections.d/plant.toml")
    assert (code, last) == (0, "1 file, 0 errors, 2 warnings")
    assert lines[0].startswith(
        "warning: connections.d/plant.toml:8:12: configuration.password: no credentials were passed"
    )
    assert lines[1].startswith("warning: connections.d/plant.toml:7:7: configuration.qos: 0 means that delivered is")


@pytest.mark.parametrize("url", ["https://as.example.net/in", "http://as.example.net/in"])
@pytest.mark.parametrize("value", ["true", "false"])
def test_a_file_that_still_speaks_of_http2_works_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, value: str
) -> None:
    path = tmp_path / "plant.toml"
    head = 'connectorId = "actility-http-iot"\nname = "P"\n[configuration]\n'
    path.write_text(f'{head}destinationURL = "{url}"\nhttp2 = {value}\n')
    code, lines, _ = run(capsys, str(path))
    assert (code, lines) == (
        0,
        [f"warning: {path}:5:9: configuration.http2: has no effect: HTTP/1.1 is used; leave it out"],
    )


def test_uplinks_that_would_come_back_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plant.toml"
    head = 'connectorId = "actility-mqtt-iot"\nname = "P"\n[configuration]\nprotocol = "TCP"\nhostName = "h:1"\n'
    path.write_text(head + 'uplinkTopicPattern = "p/{DevEUI}/{FPort}"\ndownlinkTopicPattern = "p/{DevEUI}/down"\n')
    code, lines, _ = run(capsys, str(path))
    assert code == 0
    assert lines[0].startswith(f"warning: {path}:7:24: configuration.downlinkTopicPattern: fits what this connection")


def test_what_two_files_cannot_share(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (directory / f"{name}.toml").write_text(plant(more="downlinkUuid = '0123456789abcdef'"))
    message = "is taken by the connection a; choose another"
    assert run(capsys, "connections.d") == (
        78,
        [f"connections.d/b.toml:7:16: configuration.downlinkUuid: {message}"],
        "2 files, 1 error",
    )


def test_a_path_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "nowhere")[:2] == (78, ["nowhere: there is no such file or directory"])


def test_lines_are_never_wrapped(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    (directory / "plant.toml").write_text(plant(more="protocol = 'x'"))
    assert len(run(capsys, "connections.d")[1]) == 1


def test_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "plant.toml").write_text(plant(more="protocol = 'SLS'"))
    assert check([Path("connections.d")], as_json=True) == 78
    assert json.loads(capsys.readouterr().out) == {
        "files": 1,
        "problems": [
            {
                "path": "connections.d/plant.toml",
                "line": 7,
                "column": 12,
                "field": "configuration.protocol",
                "message": SLS,
                "severity": "error",
            }
        ],
    }


def test_a_field_that_is_nearly_a_known_one_is_warned_of(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [
        'headers = { Authorization = "s3cr3t {DevEui}", X-Name = "{CustomerData.name|DevEUI}" }',
        "[[configuration.topics]]",
        "fPort = 2",
        'uplinkTopicPattern = "plant/{Fport|payload.Name|$.DevEUI_uplink.CustomerDate.name}/{Vendor}"',
        "[[flow.matchers]]",
        'type = "jsonPath"',
        'path = "$.DevEUI_uplink[?(@.Fport =~ /devEui/)]"',
    ]
    (directory / "plant.toml").write_text(plant(more="\n".join(more)))
    code, lines, _ = run(capsys, "connections.d/plant.toml")
    begin, end = "warning: connections.d/plant.toml:", "is no field of a report; did you mean "
    assert (code, lines) == (
        0,
        [
            f"{begin}7:29: configuration.headers.…: a field in braces {end}{{DevEUI}}?",
            f'{begin}10:22: configuration.topics[0].uplinkTopicPattern: "Fport" {end}{{FPort}}?',
            f'{begin}10:22: configuration.topics[0].uplinkTopicPattern: "CustomerDate" {end}{{CustomerData}}?',
            f'{begin}13:8: flow.matchers[0].path: "Fport" {end}FPort?',
        ],
    )


def test_keys_with_dashes_are_used_without_them(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dashed = "7d1e9a40-c3b8-5f22-06e4-d7913ab6f85c"
    (directory / "plant.toml").write_text(plant(more=f'downlinkAsKey = "{dashed}"'))
    code, lines, _ = run(capsys, "connections.d")
    told = "configuration.downlinkAsKey: has dashes, which are no part of a key; it is used without them"
    assert (code, lines) == (0, [f"warning: connections.d/plant.toml:7:17: {told}"])
    assert dashed not in lines[0]


def test_a_key_of_the_lrc_that_is_none_is_an_error(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory.parent / "tpxd.toml").write_text('[lrc]\nas_key = "abcd"')
    line = "tpxd.toml:2:10: lrc.as_key: is not a key of 32 hex digits; it has 4 characters"
    assert run(capsys, "tpxd.toml") == (78, [line], "1 file, 1 error")


def test_the_configuration_directory_is_named_as_for_every_command(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "plant.toml").write_text(plant(more="retain = 5"))
    result = CliRunner().invoke(application(["check"]), ["check", "--config", str(directory.parent)])
    assert result.exit_code == 78
    assert "configuration.retain" in result.stdout


@pytest.fixture
def everyones() -> Iterator[Path]:
    """A directory that every user may enter."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("mode", "of_directory", "warned"), [(0o644, 0o755, True), (0o640, 0o755, False), (0o644, 0o750, False)]
)
def test_a_secret_that_every_user_may_read_is_warned_of(
    mode: int, of_directory: int, warned: bool, everyones: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets, key = everyones / "secrets", everyones / "secrets" / "key"
    secrets.mkdir()
    key.write_text("0123456789abcdef" * 2)
    key.chmod(mode)
    secrets.chmod(of_directory)
    (everyones / "cert").write_text(pki.client().certificate)
    more = 'password = { file = "secrets/key" }\ncertificate = { file = "cert" }\n[configuration.headers]\n'
    (everyones / "plant.toml").write_text(plant(more=more + f'X = {{ file = "{key}" }}'))
    tls = 'tls_certificate = "cert"\ntls_private_key = "secrets/key"'
    (everyones / "tpxd.toml").write_text(f'[lrc]\nas_key = {{ file = "{key}" }}\n[intake]\n{tls}')
    check([everyones / "plant.toml", everyones / "tpxd.toml"])
    found = [line.split(": ")[2] for line in capsys.readouterr().out.splitlines() if "every user" in line]
    wanted = ["configuration.password", "configuration.headers.…", "lrc.as_key", "intake.tls_private_key"]
    assert found == (wanted if warned else [])
