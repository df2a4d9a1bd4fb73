"""tpxd.toml and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tpxd.errors import ConfigError
from tpxd.secret import SecretSources
from tpxd.settings import Settings, check_settings, load_settings

EVERYTHING = """\
state_dir = "/var/lib/tpxd"
instance = ""
connections_dir = "connections.d"
drivers_dir = "drivers"

[intake]
listen = "127.0.0.1:8090"
public_url = "http://127.0.0.1:8090"
max_body = "256 KiB"
duplicate_window = "10m"
tls_certificate = ""
tls_private_key = ""

[lrc]
downlink_url = ""
as_id = ""
as_key = ""
tunnel_keys = {}
max_time_deviation = "60s"
unsigned_reports = "refuse"
downlink_validity = "24h"
when_in_doubt = "resend"

[control]
listen = "127.0.0.1:8091"
socket = ""
token = ""

[spool]
max_size = "1 GiB"
min_free = "256 MiB"
retention = "24h"
when_full = "drop-oldest"

[engine]
stop_grace = "5s"

[broker]
enabled = false
listen = "127.0.0.1:1883"

[log]
level = "info"
format = "text"
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPXD_UNRELATED", "1")


def written(directory: Path, text: str) -> Settings:
    (directory / "tpxd.toml").write_text(text)
    return load_settings(directory)


def problems(directory: Path, text: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        written(directory, text)
    return [str(problem).removeprefix(f"{directory}/") for problem in caught.value.problems]


def test_a_missing_file_means_all_defaults_and_they_are_the_documented_ones(tmp_path: Path) -> None:
    defaults = load_settings(tmp_path)
    assert defaults == written(tmp_path, EVERYTHING)
    assert defaults.state_dir == Path("/var/lib/tpxd")
    assert defaults.connections_dir == tmp_path / "connections.d"
    assert defaults.intake.max_body == 262_144
    assert defaults.spool.retention == 86_400.0
    assert (defaults.intake.tls_certificate, defaults.control.socket) == (None, None)
    assert load_settings(tmp_path / "nowhere").intake == defaults.intake


@pytest.mark.parametrize("place", ["link", "loop", "file"])
def test_a_file_that_cannot_be_reached_is_no_missing_one(tmp_path: Path, place: str) -> None:
    """Defaults instead of it would take reports without the Token that it asks for."""
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "tpxd.toml").symlink_to("gone.toml")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=rf"{place}/tpxd\.toml: (is a link to gone\.toml|cannot be read)"):
        load_settings(tmp_path / place)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        'state_dir = "state"\ndrivers_dir = "/drivers"\n[control]\nsocket = "control.sock"\n'
        '[intake]\ntls_certificate = "chain.pem"\ntls_private_key = "key.pem"\n',
    )
    assert settings.state_dir == tmp_path / "state"
    assert settings.drivers_dir == Path("/drivers")
    assert settings.control.socket == tmp_path / "control.sock"
    assert settings.intake.tls_certificate == tmp_path / "chain.pem"


def test_secrets_take_every_form_and_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("from a file\n")
    monkeypatch.setenv("KEY", "0123")
    settings = written(
        tmp_path,
        '[control]\ntoken = { file = "token" }\n[lrc]\nas_key = "abcd"\ntunnel_keys = { ACME = { env = "KEY" } }',
    )
    assert settings.control.token.get_secret_value() == "from a file"
    assert settings.lrc.as_key.get_secret_value() == "abcd"
    assert settings.lrc.tunnel_keys["ACME"].get_secret_value() == "0123"
    for hidden in ("from a file", "abcd", "0123"):
        assert hidden not in repr(settings)
        assert hidden not in settings.model_dump_json()


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPXD_INTAKE__LISTEN", "0.0.0.0:80")
    monkeypatch.setenv("TPXD_STATE_DIR", "here")
    monkeypatch.setenv("TPXD_BROKER__ENABLED", "true")
    monkeypatch.setenv("TPXD_SPOOL__MAX_SIZE", "2 GiB")
    monkeypatch.setenv("TPXD_LRC__TUNNEL_KEYS", '{"ACME": "0123"}')
    settings = written(tmp_path, '[intake]\nlisten = "127.0.0.1:1"\nmax_body = "1 MiB"')
    assert settings.intake.listen == "0.0.0.0:80"
    assert settings.intake.max_body == 1024**2
    assert settings.state_dir == tmp_path / "here"
    assert settings.broker.enabled
    assert settings.spool.max_size == 2 * 1024**3
    assert settings.lrc.tunnel_keys["ACME"].get_secret_value() == "0123"


def test_everything_wrong_with_the_file_is_told_at_once(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        'instance = "xyz"\nstatedir = "/x"\n[intake]\nmax_body = 5\ntls_certificate = "a"\n[log]\nlevel = "INFO"\n'
        '[spool]\nmax_size = "big"\n[broker]\nenabled = "yes"\n[lrc]\nas_key = { env = "NOT_SET" }\n'
        'downlink_url = "lrc"\n[control]\ntunnel_keys = {}\n',
    ) == [
        "tpxd.toml:1:12: instance: the text does not look as wanted: ^([0-9a-f]{8})?$",
        'tpxd.toml:2:1: statedir: unknown key; did you mean "state_dir"?',
        'tpxd.toml:4:12: intake.max_body: 5 is not text; write it as "256 KiB"',
        'tpxd.toml:7:9: log.level: "INFO" is not one of debug, info, warning, error; did you mean "info"?',
        'tpxd.toml:9:12: spool.max_size: \'big\' is no size; write it as "256 KiB", "64 MiB" or "1 GiB"',
        "tpxd.toml:11:11: broker.enabled: the text is not true or false",
        "tpxd.toml:13:10: lrc.as_key: the environment variable NOT_SET is not set",
        "tpxd.toml:14:16: lrc.downlink_url: is no URL; it begins with http:// or https://",
        "tpxd.toml:16:1: control.tunnel_keys: unknown key; there is one in [lrc]",
    ]


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://", "names no host, or has a #"),
        ("http://lrc.example/#downlink", "names no host, or has a #"),
        ("http://lrc.example:x/", 'is no URL; write it as "http://lrc.example.net:8080/path"'),
    ],
)
def test_an_address_that_nobody_could_post_to(tmp_path: Path, url: str, fault: str) -> None:
    assert problems(tmp_path, f'[lrc]\ndownlink_url = "{url}"') == [f"tpxd.toml:2:16: lrc.downlink_url: {fault}"]


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    assert problems(tmp_path, '[intake]\ntls_certificate = "a"') == [
        "tpxd.toml:1:1: intake: tls_certificate and tls_private_key are set both or not at all"
    ]


def test_an_empty_directory_name_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, 'state_dir = ""') == ["tpxd.toml:1:13: state_dir: is empty; write a path"]
    assert problems(tmp_path, "state_dir = 1") == [
        'tpxd.toml:1:13: state_dir: is no path; write it as text, such as "/var/lib/tpxd"'
    ]


def test_a_wrong_variable_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPXD_INTAKE__LISTN", "x:1")
    monkeypatch.setenv("TPXD_BROKER__ENABLED", "maybe")
    monkeypatch.setenv("TPXD_SPOOL__RETENTION", "long")
    told = problems(tmp_path)
    assert told[0] == 'environment: TPXD_INTAKE__LISTN: unknown key; did you mean "listen"?'
    assert told[1].startswith("environment: TPXD_SPOOL__RETENTION: ")
    assert told[2] == "environment: TPXD_BROKER__ENABLED: the text is not true or false"


def test_a_table_in_a_variable_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPXD_LRC__TUNNEL_KEYS", "hush")
    assert problems(tmp_path) == ["environment: TPXD_LRC__TUNNEL_KEYS: is no JSON, and tables are written as JSON"]


def test_lenient_sources_let_a_reference_pass(tmp_path: Path) -> None:
    path = tmp_path / "tpxd.toml"
    path.write_text('[control]\ntoken = { credential = "token" }')
    settings, warnings = check_settings(path, "tpxd.toml", SecretSources(tmp_path, {}, None, lenient=True))
    assert settings.control.token.get_secret_value() == ""
    (warning,) = warnings
    assert (warning.severity, warning.line, warning.column, warning.field) == ("warning", 2, 9, "control.token")
