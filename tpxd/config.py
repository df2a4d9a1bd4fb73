"""What people may type into a connection file: the types of its fields, and the base of every `[configuration]`.

A field's type says what it accepts, in plain words when it does not accept; `Field(description=…)` is one sentence with
unit and default, from which the reference is made. Types that read text accept text only: `72` is no duration, `"72h"` is.

A secret is resolved while its model is validated; `SecretSources`, given as pydantic's validation context, says from where:

    PlantConfig.model_validate(values, context=SecretSources(directory=Path("/etc/tpxd/connections.d")))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from tpxd.errors import PatternError
from tpxd.lorawan.durations import format_duration, parse_duration, parse_size
from tpxd.lorawan.patterns import Pattern, Target, compile_pattern

MAX_SECRET_BYTES = 64 * 1024
UNRESOLVED = "secret_unresolved"
"""The type of a pydantic error that means: the reference is well written, what it names is not there."""

_HIDDEN = "**********"


@dataclass(slots=True)
class SecretSources:
    """Where the references of secrets lead.

    Attributes:
        directory: what a relative `file` is relative to.
        credentials: systemd's directory of credentials, None outside of a unit that has some.
        lenient: read what does not resolve as an empty secret instead of refusing it.
        files: filled while validating: every file that a reference names, whether it was there or not.
    """

    directory: Path = field(default_factory=Path)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    credentials: Path | None = field(default_factory=lambda: _credentials_directory())
    lenient: bool = False
    files: set[Path] = field(default_factory=set)


def _credentials_directory() -> Path | None:
    text = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(text) if text else None


def _resolve(value: Any, info: ValidationInfo) -> str | None:
    """The secret's text, or None where it does not resolve and the context is lenient."""
    sources = info.context if isinstance(info.context, SecretSources) else SecretSources()
    match value:
        case SecretStr():
            return value.get_secret_value()
        case str():
            return value
        case {"env": str(name), **rest} if not rest:
            text, missing = sources.environment.get(name), f"the environment variable {name} is not set"
        case {"file": str(name), **rest} if not rest:
            text, missing = _read(sources.directory / name, sources)
        case {"credential": str(name), **rest} if not rest and name not in ("", ".", "..") and "/" not in name:
            if sources.credentials is None:
                text, missing = None, f"no credentials were passed to this process, {name} is wanted (LoadCredential=)"
            else:
                text, missing = _read(sources.credentials / name, sources)
        case _:
            raise ValueError('is no secret; write "text", { env = "X" }, { file = "/path" } or { credential = "name" }')
    if text is None and not sources.lenient:
        raise PydanticCustomError(UNRESOLVED, "{missing}", {"missing": missing})
    return None if text is None else text.removesuffix("\n").removesuffix("\r")


def _read(path: Path, sources: SecretSources) -> tuple[str | None, str]:
    """The file's text, or None and what stands in the way; the path is remembered in both cases."""
    sources.files.add(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        if len(content) > MAX_SECRET_BYTES:
            return None, f"{path} holds more than {MAX_SECRET_BYTES} bytes"
        return content.decode(), ""
    except UnicodeDecodeError:
        return None, f"{path} is not UTF-8 text"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return None, f"{path} cannot be read: {reason}"


def _secret(value: Any, info: ValidationInfo) -> SecretStr:
    return SecretStr(_resolve(value, info) or "")


def _pem(value: Any, info: ValidationInfo) -> SecretStr:
    text = _resolve(value, info)
    if text is not None and "-----BEGIN " not in text:
        raise ValueError('is not PEM text; it has no line "-----BEGIN …-----"')
    return SecretStr(text or "")


def _hex_key(value: Any, info: ValidationInfo) -> SecretStr:
    text = _resolve(value, info)
    if text is not None and (len(text) != 32 or not set(text) <= set("0123456789abcdefABCDEF")):
        raise ValueError(f"is not a key of 32 hex digits; it has {len(text)} characters")
    return SecretStr(text or "")


def _secret_schema(what: str) -> WithJsonSchema:
    reference = [
        {"type": "object", "properties": {key: {"type": "string"}}, "required": [key], "additionalProperties": False}
        for key in ("env", "file", "credential")
    ]
    return WithJsonSchema({"anyOf": [{"type": "string", "format": what, "writeOnly": True}, *reference]})


def _text(parse: Callable[[str], Any], example: str) -> PlainValidator:
    """Accepts text that `parse` understands."""

    def validate(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"{_typed(value)} is not text; write it as {example}")
        return parse(value)

    return PlainValidator(validate)


def _typed(value: Any) -> str:
    """A value as TOML writes it, short."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value}"
        case list():
            return "an array"
        case _:
            return "a table"


@dataclass(frozen=True, slots=True)
class HostAndPort:
    """Where to connect to; an IPv6 address stands without its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_and_port(text: str, *, lowest_port: int = 1) -> HostAndPort:
    """Read `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.

    Raises:
        ValueError: what is wrong, in one line.
    """
    if "://" in text:
        raise ValueError(f'"{text}" must not begin with a scheme; write host:port, such as "broker.example.net:8883"')
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError(f'"{text}" has no port; write host:port, such as "broker.example.net:8883"')
    if not lowest_port <= int(port[:6]) <= 65_535:
        raise ValueError(f'"{text}" has a port outside of {lowest_port} to 65535')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'"{text}" is ambiguous; write an IPv6 address in brackets, such as "[2001:db8::1]:8883"')
    if not host or not host.isprintable() or any(character in " /@[]?#" for character in host):
        raise ValueError(f'"{text}" has no host name or address before the port')
    return HostAndPort(host, int(port))


def _pattern(target: Target) -> Callable[[str], Pattern]:
    def parse(text: str) -> Pattern:
        try:
            return compile_pattern(text, target)
        except PatternError as error:
            raise ValueError(str(error)) from error

    return parse


def _header(value: Any, info: ValidationInfo) -> Pattern:
    """A header's value may be a password: it may be a reference, and no error repeats any part of it."""
    text = _resolve(value, info) or ""
    try:
        return compile_pattern(text, Target.HEADER)
    except PatternError:
        raise ValueError("is no header value; braces hold the name of a field, such as {DevEUI}") from None


def _fport(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a LoRaWAN FPort; write a number from 1 to 224")
    if not 1 <= value <= 224:
        raise ValueError(f"{value} is not a LoRaWAN FPort, which is 1 to 224")
    return value


_hidden = PlainSerializer(lambda _: _HIDDEN, return_type=str)
_string = {"type": "string"}

Secret = Annotated[SecretStr, PlainValidator(_secret), _hidden, _secret_schema("password")]
"""A text that never shows: written down, or a reference to an environment variable, a file or a systemd credential."""

Pem = Annotated[SecretStr, PlainValidator(_pem), _hidden, _secret_schema("pem")]
"""A secret that holds PEM text: a certificate, a chain of them, or a key."""

HexKey = Annotated[SecretStr, PlainValidator(_hex_key), _hidden, _secret_schema("32 hex digits")]
"""A secret of 32 hex digits, as the LRC's keys are."""

Duration = Annotated[
    float,
    _text(parse_duration, '"90s", "5m" or "72h"'),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({**_string, "format": "duration", "examples": ["90s", "5m", "72h", "2d"]}),
]
"""Seconds, written as "90s", "5m", "72h", "2d"."""

Size = Annotated[
    int, _text(parse_size, '"256 KiB"'), WithJsonSchema({**_string, "examples": ["256 KiB", "1 GiB"]})
]
"""Bytes, written as "256 KiB"."""

HostPort = Annotated[
    HostAndPort,
    _text(parse_host_and_port, '"host:port"'),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({**_string, "examples": ["broker.example.net:8883"]}),
]
"""Where to connect to; no scheme."""

Address = Annotated[
    str,
    _text(lambda text: str(parse_host_and_port(text, lowest_port=0)), '"127.0.0.1:8090"'),
    WithJsonSchema({**_string, "examples": ["127.0.0.1:8090"]}),
]
"""Where to listen, host:port; port 0 takes a free one."""

_as_written = PlainSerializer(lambda pattern: pattern.text, return_type=str)

MqttPattern = Annotated[
    Pattern,
    _text(_pattern(Target.MQTT_TOPIC), '"plant/{DevEUI}/uplink"'),
    _as_written,
    WithJsonSchema({**_string, "examples": ["plant/{DevEUI}/uplink"]}),
]
"""A topic made from an uplink's fields."""

AmqpPattern = Annotated[
    Pattern,
    _text(_pattern(Target.AMQP_KEY), '"plant.{DevEUI}.uplink"'),
    _as_written,
    WithJsonSchema({**_string, "examples": ["plant.{DevEUI}.uplink"]}),
]
"""A routing key made from an uplink's fields."""

HeaderPattern = Annotated[Pattern, PlainValidator(_header), _hidden, _secret_schema("pattern")]
"""A header's value made from an uplink's fields; it takes the forms of a secret and shows as little."""

FPort = Annotated[int, PlainValidator(_fport), WithJsonSchema({"type": ["integer", "string"], "minimum": 1, "maximum": 224})]
"""A LoRaWAN FPort of a command, 1 to 224; ThingPark writes it as a number or as text."""

TimeoutMs = Annotated[int, Field(ge=100, le=60_000)]
"""Milliseconds, as ThingPark writes the timeouts of a connection."""

ReconnectStrategy = Literal["CALM", "NORMAL", "AGGRESSIVE"]


class Part(BaseModel):
    """A table that people type: unknown keys are errors, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ConnectorConfig(Part):
    """What every connector's `[configuration]` takes; a connector adds its own keys.

    Source: ThingPark X IoT Flow, "About connections", common configuration keys.
    """

    description: str | None = Field(None, description="Free text for people; default none.")
    sendMetadata: bool = Field(
        False,
        description="true sends uplinks without their DevEUI_uplink root, and no other report type; default false.",
    )
    sendRawDecodedFormat: bool = Field(
        False,
        description="true sends only the decoded payload where there is one, unless sendMetadata is true; default false.",
    )
    uplinkTimeValidity: Duration | None = Field(
        None, description='An uplink older than this duration, such as "72h", is not sent any more; default no limit.'
    )
    uplinkRateLimiter: int | None = Field(
        None, ge=1, description="The most uplinks to send per second; default no limit but the connector's own."
    )
    downlinkEnabled: bool = Field(
        True, description="false takes no commands from the far end of this connection; default true."
    )
    downlinkAsId: str | None = Field(
        None, description="The AS_ID of commands that bring none; default [lrc] as_id of tpxd.toml."
    )
    downlinkAsKey: HexKey | None = Field(
        None, description="The key of 32 hex digits that signs commands; default [lrc] as_key of tpxd.toml."
    )
    downlinkPort: FPort | None = Field(
        None, description="The FPort, 1 to 224, of commands that bring none; default none."
    )
    downlinkUuid: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{16,64}$")] | None = Field(
        None, description="The last part of this connection's downlink URL; default one that is made once and kept."
    )
    reconnectStrategy: ReconnectStrategy = Field(
        "NORMAL", description="How patiently a lost connection is opened again: CALM, NORMAL or AGGRESSIVE; default NORMAL."
    )
    connectionTimeout: TimeoutMs = Field(
        5_000, description="The longest time in ms that opening may take, 100 to 60000; default 5000."
    )
    actionTimeout: TimeoutMs = Field(
        10_000,
        description="The longest time in ms without a receipt while uplinks are in flight, 100 to 60000; default 10000.",
    )
