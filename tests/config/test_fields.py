"""What a connection file's fields accept, and that a secret never shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.config.plant import CONNECTOR, PlantConfig
from tpxd.config.connection_file import ConnectorConfig
from tpxd.config.fields import HostAndPort, SecretSources, parse_host_and_port
from tpxd.config.secret import MAX_SECRET_BYTES
from tpxd.reload.files import file_model

PEM = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"


def make(sources: SecretSources | None = None, **values: Any) -> PlantConfig:
    return PlantConfig.model_validate({"hostName": "h:1", **values}, context=sources)


def refusal(sources: SecretSources | None = None, **values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        make(sources, **values)
    (error,) = caught.value.errors()
    return str(error["msg"]).removeprefix("Value error, ")


def password(config: PlantConfig) -> str:
    assert config.password is not None
    return config.password.get_secret_value()


def test_the_common_keys_have_their_documented_names_and_defaults() -> None:
    config = ConnectorConfig()
    assert (config.sendMetadata, config.sendRawDecodedFormat, config.downlinkEnabled) == (False, False, True)
    assert (config.reconnectStrategy, config.connectionTimeout, config.actionTimeout) == ("NORMAL", 5_000, 10_000)
    assert (config.uplinkTimeValidity, config.uplinkRateLimiter, config.downlinkPort) == (None, None, None)


def test_every_key_is_described_in_one_sentence() -> None:
    for name, field in ConnectorConfig.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_a_secret_is_a_text_or_a_reference(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "plant").write_text("from systemd\n")
    (tmp_path / "file").write_text("from a file\r\n")
    sources = SecretSources(tmp_path, {"X": "from the environment"}, tmp_path / "credentials")
    assert password(make(sources, password="literal\n")) == "literal\n"
    assert password(make(sources, password={"env": "X"})) == "from the environment"
    assert password(make(sources, password={"file": "file"})) == "from a file"
    assert password(make(sources, password={"file": str(tmp_path / "file")})) == "from a file"
    assert password(make(sources, password={"credential": "plant"})) == "from systemd"
    assert set(sources.files) == {tmp_path / "file", tmp_path / "credentials" / "plant"}


def test_exactly_one_line_end_is_cut(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("two line ends\n\n")
    assert password(make(SecretSources(tmp_path), password={"file": "file"})) == "two line ends\n"


def test_a_secret_that_does_not_resolve_says_why(tmp_path: Path) -> None:
    large, binary, fifo = tmp_path / "large", tmp_path / "binary", tmp_path / "fifo"
    large.write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    binary.write_bytes(b"\xff")
    os.mkfifo(fifo)
    sources = SecretSources(tmp_path, {}, None)
    assert refusal(sources, password={"env": "X"}) == "the environment variable X is not set"
    assert refusal(sources, password={"file": "no"}) == f"{tmp_path}/no cannot be read: No such file or directory"
    assert refusal(sources, password={"file": "large"}) == f"{large} cannot be read: it holds more than 65536 bytes"
    assert refusal(sources, password={"file": "binary"}) == f"{binary} is not UTF-8 text"
    assert refusal(sources, password={"file": "fifo"}) == f"{fifo} cannot be read: it is no regular file"
    assert refusal(sources, password={"file": "a\0b"}).endswith("cannot be read: embedded null byte")
    assert refusal(sources, password={"credential": "x"}).startswith("no credentials were passed to this process")
    assert tmp_path / "no" in sources.files


def test_a_reference_to_nothing_is_no_secret(tmp_path: Path) -> None:
    """A file that is written anew is empty for a moment: the last good version runs on."""
    (tmp_path / "none").write_text("\n")
    (tmp_path / "nothing").touch()
    sources = SecretSources(tmp_path, {"X": ""}, tmp_path)
    assert refusal(sources, password={"env": "X"}) == "the environment variable X is empty"
    assert refusal(sources, password={"file": "none"}) == f"{tmp_path}/none is empty"
    assert refusal(sources, password={"credential": "nothing"}) == "the credential nothing is empty"
    assert password(make(sources, password="")) == "", "who writes so means it"


def test_a_lenient_context_reads_what_does_not_resolve_as_empty(tmp_path: Path) -> None:
    sources = SecretSources(tmp_path, {}, None, lenient=True)
    config = make(sources, password={"env": "X"}, certificate={"credential": "y"}, downlinkAsKey={"file": "z"})
    assert password(config) == ""


@pytest.mark.parametrize(
    "value", [5, {}, {"env": 1}, {"env": "A", "file": "b"}, {"credential": "../etc"}, {"credential": ""}, ["a"]]
)
def test_what_is_no_secret_is_refused_without_repeating_it(value: Any) -> None:
    assert refusal(password=value).startswith('is no secret; write "text", { env = "X" }')


def test_pem_and_keys_are_looked_at() -> None:
    config = make(certificate=PEM, downlinkAsKey="00112233445566778899AABBCCDDEEFF")
    assert config.certificate is not None
    assert config.certificate.get_secret_value() == PEM
    assert refusal(certificate="hush") == 'is not PEM text; it has no line "-----BEGIN …-----"'
    assert refusal(downlinkAsKey="00112233") == "is not a key of 32 hex digits; it has 8 characters"


@given(st.text(st.characters(codec="utf-8")))
def test_no_secret_shows(text: str) -> None:
    secret = f"⟨{text}⟩"
    config = make(password=secret, certificate=f"-----BEGIN {secret}")
    for shown in (repr(config), str(config), config.model_dump_json(), repr(config.model_dump())):
        assert secret not in shown
        assert "⟨" not in shown


def test_a_headers_value_is_a_pattern_that_shows_as_little_as_a_secret() -> None:
    sources = SecretSources(Path(), {"TOKEN": "Bearer abc"})
    config = make(sources, headers={"Authorization": {"env": "TOKEN"}, "X-Thing": "{DevEUI}"})
    assert config.headers["Authorization"].text == "Bearer abc"
    assert "abc" not in config.model_dump_json()
    assert "hush" not in refusal(headers={"Authorization": "Bearer hush{"})


def test_equal_files_make_equal_models() -> None:
    values = {
        "connectorId": CONNECTOR,
        "name": "Plant",
        "configuration": {
            "hostName": "h:1",
            "password": "x",
            "topics": [{"fPort": 2, "uplinkTopicPattern": "a/{DevEUI}"}],
        },
    }
    model = file_model(CONNECTOR, PlantConfig)
    assert model.model_validate(values) == model.model_validate(values)
    other = {**values, "configuration": {"hostName": "h:1", "password": "y"}}
    assert model.model_validate(values) != model.model_validate(other)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("broker.example.net:8883", "broker.example.net", 8883),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_hosts_and_ports(text: str, host: str, port: int) -> None:
    parsed = parse_host_and_port(text)
    assert parsed == HostAndPort(host, port)
    assert str(parsed) == text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("https://broker:1", "must not begin with a scheme"),
        ("broker", "has no port"),
        ("broker:", "has no port"),
        ("broker:٣", "has no port"),
        ("broker:0", "has a port outside of 1 to 65535"),
        ("broker:65536", "has a port outside of 1 to 65535"),
        ("broker:99999999999999999999", "has a port outside of 1 to 65535"),
        ("::1:1883", "is ambiguous"),
        ("broker:1883/", "is not one host:port alone"),
        ("one:1883,two:1883", "is not one host:port alone"),
        (":1883", "has no host name"),
        ("a b:1", "has no host name"),
        ("a\n:1", "has no host name"),
        (1883, '1883 is not text; write it as "host:port"'),
    ],
)
def test_what_is_no_host_and_port(value: Any, told: str) -> None:
    assert told in refusal(hostName=value)


@given(st.text(max_size=30))
def test_a_host_and_port_is_read_back_or_refused(text: str) -> None:
    try:
        parsed = parse_host_and_port(text)
    except ValueError:
        return
    assert parse_host_and_port(str(parsed)) == parsed


@pytest.mark.parametrize(("value", "port"), [(1, 1), (224, 224), ("5", 5), ("224", 224)])
def test_an_fport_is_a_number_or_its_text(value: Any, port: int) -> None:
    assert make(downlinkPort=value).downlinkPort == port


@pytest.mark.parametrize("value", [0, 225, "225", "99999", "x", "", "-1", True, 1.5])
def test_other_values_are_no_fport(value: Any) -> None:
    assert "is not a LoRaWAN FPort" in refusal(downlinkPort=value)


@pytest.mark.parametrize("value", [99, 60_001])
def test_timeouts_have_limits(value: int) -> None:
    assert refusal(connectionTimeout=value)
    assert refusal(actionTimeout=value)


def test_a_duration_is_text() -> None:
    assert make(uplinkTimeValidity="72h").uplinkTimeValidity == 259_200.0
    assert refusal(uplinkTimeValidity=72) == '72 is not text; write it as "90s", "5m" or "72h"'
    assert "soon" in refusal(uplinkTimeValidity="soon")


def test_the_schema_tells_how_each_field_is_written() -> None:
    schema = file_model(CONNECTOR, PlantConfig).model_json_schema()
    fields = schema["$defs"]["PlantConfig"]["properties"]
    assert fields["uplinkTimeValidity"]["anyOf"][0]["format"] == "duration"
    assert fields["password"]["anyOf"][0]["writeOnly"] is True
    assert schema["properties"]["connectorId"]["const"] == CONNECTOR
