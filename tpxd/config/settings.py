"""The daemon's own settings: `tpxd.toml`, each key overridable by the environment, every value with a default.

    TPXD_INTAKE__LISTEN=0.0.0.0:8090      [intake] listen
    TPXD_LRC__TUNNEL_KEYS={"ACME":"…"}    a table is written as JSON

Relative paths, from the environment too, are relative to the directory of `tpxd.toml`. A secret in the file takes the
same forms as in a connection file.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

import httpx
from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from tpxd.config.fields import Address, Duration, Part, Size, parse_host_and_port
from tpxd.config.problems import dotted, is_ours, message_of, schema_of, validate
from tpxd.config.secret import DASHES, NO_HEX_KEY, Secret, SecretSources, hex_digits
from tpxd.config.toml import MAX_BYTES, MAX_BYTES_BEFORE, TomlSource, is_missing, read_toml
from tpxd.config.toml_places import Loc
from tpxd.errors import ConfigError, Problem

FILE_NAME: Final = "tpxd.toml"
PREFIX: Final = "TPXD_"
_FIELD: Final = re.compile(r'field "(\w+)"')


def _path(value: Any, info: ValidationInfo) -> Path | None:
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or "\0" in value:
        raise ValueError('is no path; write it as text, such as "/var/lib/tpxd"')
    directory = info.context.directory if isinstance(info.context, SecretSources) else Path()
    return directory / value if value else None


def _needed_path(value: Any, info: ValidationInfo) -> Path:
    path = _path(value, info)
    if path is None:
        raise ValueError("is empty; write a path")
    return path


def _url(text: str) -> str:
    if text and not text.startswith(("http://", "https://")):
        raise ValueError("is no URL; it begins with http:// or https://")
    try:
        whole = not text or (bool(httpx.URL(text).host) and "#" not in text)
    except httpx.InvalidURL:
        raise ValueError('is no URL; write it as "http://lrc.example.net:8080/path"') from None
    if not whole:
        raise ValueError("names no host, or has a #")
    return text.rstrip("/")


def _network(value: Any) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError('is no address or network; write it as text, such as "10.0.0.0/8"')
    try:
        return ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError('is no address or network; it is such as "10.0.0.5", "10.0.0.0/8" or "fd00::/8"') from None


_as_text = PlainSerializer(lambda path: "" if path is None else str(path), return_type=str)
DirectoryPath = Annotated[Path, PlainValidator(_needed_path), _as_text, WithJsonSchema({"type": "string"})]
FilePath = Annotated[Path | None, PlainValidator(_path), _as_text, WithJsonSchema({"type": "string"})]
Network = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(_network),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string"}),
]
Url = Annotated[str, AfterValidator(_url)]

NO_SECRET: Final = SecretStr("")


class IntakeSettings(Part):
    """`[intake]`: the data plane."""

    listen: Address = Field("127.0.0.1:8090", description='Where the LRC posts to; default "127.0.0.1:8090".')
    public_url: Url = Field(
        "http://127.0.0.1:8090",
        description="The base of the downlinkUrl in uplinks, as an application reaches it; none is there without"
        " [lrc] downlink_url.",
    )
    max_body: Size = Field(256 * 1024, description='The largest report that is taken, default "256 KiB".')
    duplicate_window: Duration = Field(600.0, description='How long a repeated report is recognised; default "10m".')
    tls_certificate: FilePath = Field(None, description="A file with the chain of certificates; set both: HTTPS.")
    tls_private_key: FilePath = Field(None, description="A file with the certificate's key; set both: HTTPS.")

    trusted_proxies: list[Network] = Field(
        [], description="Proxies (addresses, networks) whose Forwarded and X-Forwarded-For count; default none."
    )

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("tls_certificate and tls_private_key are set both or not at all")
        return self


class LrcSettings(Part):
    """`[lrc]`: what is agreed with the network server."""

    downlink_url: Url = Field("", description="Where downlinks are posted to; default none: no downlinks are taken.")
    as_id: str = Field("", description="The AS_ID of downlinks where a connection sets none; default none.")
    as_key: Secret = Field(
        NO_SECRET,
        description="The key of 32 hex digits that signs downlinks where a connection sets none; default none.",
    )
    tunnel_keys: dict[str, Secret] = Field(
        {}, description="AS_ID to key; not empty: every report must carry a valid Token; default empty."
    )
    max_time_deviation: Duration = Field(60.0, description='How far a report\'s Time may be off; default "60s".')
    unsigned_reports: Literal["refuse", "accept"] = Field(
        "refuse", description="What becomes of report types without a documented Token rule; default refuse."
    )
    downlink_validity: Duration = Field(86_400.0, description='How long a downlink may wait; default "24h".')
    downlink_rate_limiter: int | None = Field(
        1_000, ge=1, description="The most downlinks that the LRC is sent per second; default 1000."
    )
    when_in_doubt: Literal["resend", "report"] = Field(
        "resend", description="What becomes of a downlink that was written and never answered; default resend."
    )

    @property
    def signing_key(self) -> str:
        """What `as_key` signs with; "" where none is set."""
        return _used(self.as_key)

    @property
    def token_keys(self) -> dict[str, str]:
        """AS_ID to the key that its reports are held against."""
        return {as_id: _used(key) for as_id, key in self.tunnel_keys.items()}


def _used(key: SecretStr) -> str:
    text = key.get_secret_value()
    return hex_digits(text) or text


class ControlSettings(Part):
    """`[control]`: the control plane."""

    listen: Address = Field("127.0.0.1:8091", description='Health, metrics, API, dashboard; default "127.0.0.1:8091".')
    socket: FilePath = Field(None, description="A Unix socket with the same API; default none.")
    token: Secret = Field(
        NO_SECRET, description="The bearer token of everything that changes or reveals; default none."
    )


class SpoolSettings(Part):
    """`[spool]`: the queue on disk."""

    max_size: Size = Field(1024**3, description='The most disk space that is used; default "1 GiB".')
    min_free: Size = Field(256 * 1024**2, description='Disk space that is left to others; default "256 MiB".')
    retention: Duration = Field(86_400.0, description='How long delivered uplinks are kept; default "24h".')
    when_full: Literal["drop-oldest", "refuse"] = Field(
        "drop-oldest", description="Whether a full spool drops the oldest or answers 503; default drop-oldest."
    )


class EngineSettings(Part):
    """`[engine]`: how connections are run."""

    stop_grace: Duration = Field(5.0, description='How long a batch in flight may take to finish; default "5s".')


class BrokerSettings(Part):
    """`[broker]`: an MQTT broker for local applications."""

    enabled: bool = Field(False, description="true starts the embedded broker; default false.")
    listen: Address = Field(
        "127.0.0.1:1883", description='Where the embedded broker listens; default "127.0.0.1:1883".'
    )


class CodecSettings(Part):
    """`[codecs]`: how payload scripts are run; the limits hold for each call."""

    workers: int = Field(2, ge=1, le=64, description="Processes that payload scripts run in, at most; default 2.")
    cpu: Duration = Field(1.0, description='The processor time that one call of a script may take; default "1s".')
    wall: Duration = Field(2.0, description='The time by the clock that one call may take; default "2s".')
    memory: Size = Field(32 * 1024**2, description='The memory that one call may use; default "32 MiB".')
    stack: Size = Field(512 * 1024, description='How much of it for functions that call others; default "512 KiB".')
    result: Size = Field(300_000, description='The longest result that is taken, as JSON; default "300 KB".')


class LogSettings(Part):
    """`[log]`: what is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least that is logged: debug, info, warning or error; default info."
    )
    format: Literal["text", "json"] = Field("text", description="How a line is written, text or json; default text.")


class Settings(Part):
    """Everything in `tpxd.toml`."""

    state_dir: DirectoryPath = Field(
        Path("/var/lib/tpxd"), validate_default=True, description='Where the spool is kept; default "/var/lib/tpxd".'
    )
    instance: Annotated[str, Field(pattern=r"^([0-9a-f]{8})?$")] = Field(
        "", description="Eight hex digits that tell equal file names of two servers apart; default made at first start."
    )
    connections_dir: DirectoryPath = Field(
        Path("connections.d"), validate_default=True, description='Connection files; default "connections.d".'
    )
    drivers_dir: DirectoryPath = Field(
        Path("drivers"), validate_default=True, description='Payload drivers and converters; default "drivers".'
    )
    intake: IntakeSettings = Field(IntakeSettings(), description="The data plane: the LRC, devices, downlink URLs.")
    lrc: LrcSettings = Field(LrcSettings(), description="What is agreed with the network server.")
    control: ControlSettings = Field(
        ControlSettings(), description="The control plane: health, metrics, API, dashboard."
    )
    spool: SpoolSettings = Field(SpoolSettings(), description="The queue on disk.")
    engine: EngineSettings = Field(EngineSettings(), description="How connections are run.")
    broker: BrokerSettings = Field(BrokerSettings(), description="An MQTT broker for local applications.")
    codecs: CodecSettings = Field(CodecSettings(), description="How payload scripts are run.")
    log: LogSettings = Field(LogSettings(), description="What is logged, and how.")


def load_settings(config_dir: Path) -> Settings:
    """Read `tpxd.toml` in this directory and the environment; a missing file means all defaults.

    Raises:
        ConfigError: everything that is wrong with the file, or else with the environment.
    """
    path = config_dir / FILE_NAME
    settings, _ = settings_to_run(path, SecretSources(config_dir))
    return settings


def settings_to_run(path: Path, sources: SecretSources) -> tuple[Settings, list[Problem]]:
    """`check_settings`, for whom what earlier versions took and this one refuses is a warning too.

    Raises:
        ConfigError: as `load_settings`.
    """
    try:
        return check_settings(path, str(path), sources)
    except ConfigError as error:
        try:
            settings, warnings = check_settings(path, str(path), replace(sources, forgiving=True))
        except ConfigError:
            raise error from None
        return settings, [*(replace(problem, severity="warning") for problem in error.problems), *warnings]


def check_settings(path: Path, shown: str, sources: SecretSources) -> tuple[Settings, list[Problem]]:
    """Read this file and the environment; the second is what may surprise, and what lenient sources let pass.

    An error among those is one that a daemon goes on with nevertheless, since earlier versions took it.

    Raises:
        ConfigError: as `load_settings`.
    """
    source = TomlSource(shown, "", {}) if is_missing(path) else _source(path, shown, sources)
    settings, warnings = validate(Settings, source, sources)
    overrides = _environment()
    if overrides:
        settings = _override(source, overrides, sources)
    unresolved = {_place(problem) for problem in warnings}
    found = [_placed(source, overrides, remark) for remark in remarks(settings)]
    return settings, [*warnings, *(problem for problem in found if _place(problem) not in unresolved)]


def _source(path: Path, shown: str, sources: SecretSources) -> TomlSource:
    return read_toml(path, shown, most_bytes=MAX_BYTES_BEFORE if sources.forgiving else MAX_BYTES)[1]


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about settings that can be used as they are; see `Problem`."""

    loc: tuple[str, ...]
    message: str
    severity: str = "warning"


def remarks(settings: Settings) -> Iterator[Remark]:
    """What may surprise whoever wrote these settings."""
    intake, lrc, control = settings.intake, settings.lrc, settings.control
    if not is_local(_host(intake.listen)) and is_local(httpx.URL(intake.public_url).host):
        text = "leads nowhere from other machines, to which listen is open; downlinkUrl in uplinks begins with it"
        yield Remark(("intake", "public_url"), f"{text}, so write this server's name or address")
    keys = {("lrc", "as_key"): lrc.as_key} if lrc.as_key != NO_SECRET else {}
    for loc, key in (keys | {("lrc", "tunnel_keys", as_id): key for as_id, key in lrc.tunnel_keys.items()}).items():
        text = key.get_secret_value()
        if hex_digits(text) is None:
            yield Remark(loc, NO_HEX_KEY.format(len(text)), "error")
        elif "-" in text:
            yield Remark(loc, DASHES)
    if not is_local(_host(control.listen)) and control.token == NO_SECRET:
        text = "is open to other machines, and no token is set: they may read health and metrics"
        yield Remark(("control", "listen"), text)


def is_local(host: str) -> bool:
    """Whether a host's name or address is of use on this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(address: str) -> str:
    return parse_host_and_port(address, lowest_port=0).host


def _placed(source: TomlSource, overrides: dict[str, Any], remark: Remark) -> Problem:
    """A remark at its place in the file, or at the variable that sets it."""
    set_there: Any = overrides
    for step in remark.loc:
        set_there = set_there.get(step) if isinstance(set_there, dict) else None
    if set_there is not None:
        return Problem("environment", 0, 0, _variable(remark.loc), remark.message, remark.severity)
    field = dotted(remark.loc, schema_of(Settings))
    return source.problem(field, remark.message, source.known(remark.loc), severity=remark.severity)


def _place(problem: Problem) -> tuple[str, int, int]:
    return problem.field, problem.line, problem.column


def _environment() -> dict[str, Any]:
    """What the environment sets, as a document."""
    fields = cast("type[BaseSettings]", Settings)  # it reads their names and types, and nothing that BaseSettings adds
    source = EnvSettingsSource(fields, case_sensitive=False, env_prefix=PREFIX, env_nested_delimiter="__")
    try:
        return source()
    except SettingsError as error:
        table = _FIELD.search(str(error))
        names = sorted(name for name in os.environ if table and name.upper().startswith(PREFIX + table[1].upper()))
        message = "is no JSON, and tables are written as JSON"
        raise ConfigError([Problem("environment", 0, 0, ", ".join(names), message)]) from error


def _override(source: TomlSource, overrides: dict[str, Any], sources: SecretSources) -> Settings:
    """The settings again, with the environment on top, whose values are text: here "true" is true, "5" a number."""
    try:
        return Settings.model_validate(_merged(source.document, overrides), context=sources)
    except ValidationError as error:
        raise ConfigError([_of_variable(each) for each in error.errors(include_url=False)]) from None


def _of_variable(error: ErrorDetails) -> Problem:
    message = message_of(error, error["loc"], schema_of(Settings))
    return Problem("environment", 0, 0, _variable(error["loc"]), message)


def _variable(path: Loc) -> str:
    """The name of the variable that sets what stands at a path."""
    names = (str(step) for n, step in enumerate(path, 1) if is_ours(path[:n], schema_of(Settings)))
    return PREFIX + "__".join(names).upper()


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(below[key], value) for key, value in above.items() if _tables(below.get(key), value)}
    return below | above | both


def _tables(below: Any, above: Any) -> bool:
    return isinstance(below, dict) and isinstance(above, dict)
