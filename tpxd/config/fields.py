"""What people may type into a connection file: the types of its fields, and the base of every `[configuration]`.

A field's type says what it accepts, in plain words when it does not; `Field(description=…)` is one sentence with unit
and default, from which the reference is made. Types that read text take text only: `72` is no duration, `"72h"` is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from tpxd.config.secret import HexKey, Pem, Secret, SecretSources, forgives, hidden, resolve, schema
from tpxd.errors import PatternError
from tpxd.lorawan.durations import format_duration, parse_duration, parse_size
from tpxd.lorawan.patterns import Pattern, Target, compile_pattern

__all__ = [
    "Address", "AmqpPattern", "Duration", "FPort", "HeaderPattern",
    "HexKey", "HostAndPort", "HostPort", "MqttPattern", "Part", "Pem", "ReconnectStrategy", "Secret", "SecretSources",
    "Size", "TimeoutMs", "parse_host_and_port",
]  # fmt: skip


LONGEST_SHOWN = 60


def _text(parse: Callable[[str], Any], example: str) -> PlainValidator:
    """Accepts text that `parse` understands."""

    return PlainValidator(lambda value: parse(_checked_text(value, example)))


def _checked_text(value: Any, example: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_typed(value)} is not text; write it as {example}")
    return value


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


def _shown_host(text: str) -> str:
    """A host as messages repeat it: what stands before an @ may be a password."""
    host = text.rpartition("@")[2]
    return f'"{host}"' if len(host) <= LONGEST_SHOWN and host.isprintable() else "the text"


def parse_host_and_port(text: str, *, lowest_port: int = 1) -> HostAndPort:
    """Read `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.

    Raises:
        ValueError: what is wrong, in one line.
    """
    given = _shown_host(text)
    if "://" in text:
        raise ValueError('must not begin with a scheme; write host:port, such as "broker.example.net:8883"')
    if "/" in text or "," in text:
        raise ValueError('is not one host:port alone, such as "broker.example.net:8883"')
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError(f'{given} has no port; write host:port, such as "broker.example.net:8883"')
    if not lowest_port <= int(port[:6]) <= 65_535:
        raise ValueError(f"{given} has a port outside of {lowest_port} to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'{given} is ambiguous; write an IPv6 address in brackets, such as "[2001:db8::1]:8883"')
    if not host or not host.isprintable() or any(character in " /@[]?#" for character in host):
        raise ValueError(f"{given} has no host name or address before the port")
    return HostAndPort(host, int(port))


def _pattern(target: Target, example: str) -> PlainValidator:
    def validate(value: Any, info: ValidationInfo) -> Pattern:
        try:
            return compile_pattern(_checked_text(value, example), target, forgiving=forgives(info))
        except PatternError as error:
            raise ValueError(str(error)) from error

    return PlainValidator(validate)


def _header(value: Any, info: ValidationInfo) -> Pattern:
    """A header's value may be a password: it may be a reference, and no error repeats any part of it."""
    text = resolve(value, info) or ""
    try:
        return compile_pattern(text, Target.HEADER, forgiving=forgives(info))
    except PatternError:
        raise ValueError(
            "is no header value, which is one line of at most 65535 bytes; braces hold a field's name, such as {DevEUI}"
        ) from None


def _fport(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a LoRaWAN FPort; write a number from 1 to 224")
    if not 1 <= value <= 224:
        raise ValueError(f"{value} is not a LoRaWAN FPort, which is 1 to 224")
    return value


_string = {"type": "string"}

Duration = Annotated[
    float,
    _text(parse_duration, '"90s", "5m" or "72h"'),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({**_string, "format": "duration", "examples": ["90s", "5m", "72h", "2d"]}),
]
"""Seconds, written as "90s", "5m", "72h", "2d"."""

Size = Annotated[int, _text(parse_size, '"256 KiB"'), WithJsonSchema({**_string, "examples": ["256 KiB", "1 GiB"]})]
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
    _pattern(Target.MQTT_TOPIC, '"plant/{DevEUI}/uplink"'),
    _as_written,
    WithJsonSchema({**_string, "examples": ["plant/{DevEUI}/uplink"]}),
]
"""A topic made from an uplink's fields."""

AmqpPattern = Annotated[
    Pattern,
    _pattern(Target.AMQP_KEY, '"plant.{DevEUI}.uplink"'),
    _as_written,
    WithJsonSchema({**_string, "examples": ["plant.{DevEUI}.uplink"]}),
]
"""A routing key made from an uplink's fields."""

HeaderPattern = Annotated[Pattern, PlainValidator(_header), hidden, schema("pattern")]
"""A header's value made from an uplink's fields; it takes the forms of a secret and shows as little."""

FPort = Annotated[
    int, PlainValidator(_fport), WithJsonSchema({"type": ["integer", "string"], "minimum": 1, "maximum": 224})
]
"""A LoRaWAN FPort of a downlink, 1 to 224; ThingPark writes it as a number or as text."""

ConnectionId = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""Names a connection; ThingPark's ids are numbers."""

TimeoutMs = Annotated[int, Field(ge=100, le=60_000)]
"""Milliseconds, as ThingPark writes the timeouts of a connection."""

ReconnectStrategy = Literal["CALM", "NORMAL", "AGGRESSIVE"]


class Part(BaseModel):
    """A table that people type: unknown keys are errors, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
