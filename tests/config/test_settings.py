"""tpxd.toml and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tpxd.config.secret import SecretSources
from tpxd.config.settings import Settings, check_settings, load_settings, settings_to_run
from tpxd.errors import ConfigError

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


# ---- what can be used, and may surprise

KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
DASHED = "7d1e9a40-c3b8-5f22-06e4-d7913ab6f85c"


def remarks(directory: Path, text: str) -> list[tuple[str, str]]:
    """What is said about settings that can be used: how bad it is, and the line."""
    (directory / "tpxd.toml").write_text(text)
    _, found = check_settings(directory / "tpxd.toml", "tpxd.toml", SecretSources(directory, lenient=True))
    return [(problem.severity, str(problem)) for problem in found]


def test_the_keys_of_the_lrc_have_32_hex_digits(tmp_path: Path) -> None:
    text = f'[lrc]\nas_key = "abcd"\ntunnel_keys = {{ GOOD = "{KEY}", "A.B" = "{KEY[1:]}", NONE = "" }}'
    assert remarks(tmp_path, text) == [
        ("error", "tpxd.toml:2:10: lrc.as_key: is not a key of 32 hex digits; it has 4 characters"),
        ("error", "tpxd.toml:3:68: lrc.tunnel_keys.…: is not a key of 32 hex digits; it has 31 characters"),
        ("error", "tpxd.toml:3:110: lrc.tunnel_keys.…: is not a key of 32 hex digits; it has 0 characters"),
    ]
    used = written(tmp_path, text).lrc
    assert (used.signing_key, used.token_keys["A.B"]) == ("abcd", KEY[1:]), "a daemon that ran goes on"
    assert remarks(tmp_path, f'[lrc]\nas_key = "{KEY}"\ntunnel_keys = {{ A = "{KEY.upper()}" }}') == []


def test_what_only_this_version_refuses_does_not_keep_a_daemon_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "tpxd.toml"
    for text, told in (
        ('[control]\ntoken = "*****"\n', "is the mask that stands for a secret"),
        ("#" * (64 * 1024 + 1), "is larger than 64 KiB"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=told):
            check_settings(file, "tpxd.toml", SecretSources(tmp_path))
        _, (warning,) = settings_to_run(file, SecretSources(tmp_path))
        assert (warning.severity, told in warning.message) == ("warning", True)
        file.write_text(f"{text}\nnonsense = 1")
        with pytest.raises(ConfigError, match=told):
            settings_to_run(file, SecretSources(tmp_path))


def test_keys_are_used_without_their_dashes(tmp_path: Path) -> None:
    text = f'[lrc]\nas_key = "{DASHED}"\ntunnel_keys = {{ A = "{DASHED}" }}'
    dashes = "has dashes, which are no part of a key; it is used without them"
    assert remarks(tmp_path, text) == [
        ("warning", f"tpxd.toml:2:10: lrc.as_key: {dashes}"),
        ("warning", f"tpxd.toml:3:21: lrc.tunnel_keys.…: {dashes}"),
    ]
    settings = written(tmp_path, text)
    assert (settings.lrc.signing_key, settings.lrc.token_keys) == (KEY, {"A": KEY})


def test_a_key_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    assert remarks(tmp_path, '[lrc]\nas_key = { env = "NOT_SET" }\ntunnel_keys = { A = { env = "NOT_SET" } }') == [
        ("warning", "tpxd.toml:2:10: lrc.as_key: the environment variable NOT_SET is not set"),
        ("warning", "tpxd.toml:3:21: lrc.tunnel_keys.…: the environment variable NOT_SET is not set"),
    ]


def test_what_the_environment_sets_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPXD_LRC__AS_KEY", "abcd")
    assert remarks(tmp_path, f'[lrc]\nas_key = "{KEY}"') == [
        ("error", "environment: TPXD_LRC__AS_KEY: is not a key of 32 hex digits; it has 4 characters")
    ]


@pytest.mark.parametrize(
    ("listen", "public_url", "surprising"),
    [
        ("127.0.0.1:8090", "http://127.0.0.1:8090", False),
        ("localhost:8090", "http://localhost:8090", False),
        ("0.0.0.0:8090", "http://127.0.0.1:8090", True),
        ("[::]:8090", "http://localhost:8090", True),
        ("192.0.2.7:8090", "http://[::1]:8090", True),
        ("0.0.0.0:8090", "http://edge.example.net", False),
        ("127.0.0.1:8090", "http://edge.example.net", False),
    ],
)
def test_a_public_url_that_leads_nowhere(tmp_path: Path, listen: str, public_url: str, surprising: bool) -> None:
    text = "leads nowhere from other machines, to which listen is open; downlinkUrl in uplinks begins"
    told = remarks(tmp_path, f'[intake]\nlisten = "{listen}"\npublic_url = "{public_url}"')
    line = f"tpxd.toml:3:14: intake.public_url: {text} with it, so write this server's name or address"
    assert told == ([("warning", line)] if surprising else [])


def test_a_public_url_that_nobody_wrote_leads_nowhere_either(tmp_path: Path) -> None:
    ((severity, line),) = remarks(tmp_path, '[intake]\nlisten = "0.0.0.0:8090"')
    assert severity == "warning"
    assert line.startswith("tpxd.toml:1:1: intake.public_url: leads nowhere")


def test_an_open_control_plane_wants_a_token(tmp_path: Path) -> None:
    text = "is open to other machines, and no token is set: they may read health and metrics"
    assert remarks(tmp_path, '[control]\nlisten = "0.0.0.0:8091"') == [
        ("warning", f"tpxd.toml:2:10: control.listen: {text}")
    ]
    assert remarks(tmp_path, '[control]\nlisten = "0.0.0.0:8091"\ntoken = "secret"') == []
    assert remarks(tmp_path, '[control]\nlisten = "127.0.0.1:8091"') == []
