"""Makes `examples/all-options/CONNECTOR.toml`: every key that a file of a connector may hold, from the models.

    python -m tpxd.cli.reference

What is needed is set, all else is commented out, with its meaning, what may stand there, and its default. `tpxd
connectors CID` prints the same. Names, kinds and defaults come from each model's JSON Schema, meanings from the fields'
descriptions, so that these files and the daemon cannot disagree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from tpxd import connectors
from tpxd.connector import REGISTRY, Connector
from tpxd.reload.files import file_model

Schema = Mapping[str, Any]

DIRECTORY: Final = Path("examples/all-options")
WIDTH: Final = 116

_DEFAULT: Final = re.compile(r"[;,:]? default (?P<default>.+)\.$")
_LEVELS: Final = {"downlinkTopicPattern": "downlink", "downlinkStatusTopicPattern": "status"}
_SECRETS: Final = {"password": "secret", "pem": "secret, PEM", "pattern": "text with fields, or secret"}
_TEXTS: Final = {"duration": "duration", "date-time": "date and time", "uri": "URL"}


def _secret(name: str) -> dict[str, str]:
    return {"file": f"/etc/tpxd/secrets/{name}"}


EXAMPLES: Final[Mapping[str, Any]] = {
    "name": "Plant broker",
    "brand": "TAGO",
    "health": {"listen": "127.0.0.1:9101"},
    "alarms": [
        {
            "startTime": "2026-01-05T08:00:00+01:00",
            "endTime": "2026-01-05T18:00:00+01:00",
            "timezone": "Europe/Paris",
            "uplinkRateMinPerHour": 10,
            "recurrence": [{"frequency": "weekly", "byDays": ["monday", "friday"]}],
        }
    ],
    "flow": {
        "matchers": [{"type": "thing", "tags": ["coldchain"]}, {"type": "fPort", "ports": [2, 3]}],
        "driver": "auto",
    },
    "description": "Uplinks of the northern plant",
    "uplinkTimeValidity": "72h",
    "uplinkRateLimiter": 50,
    "backlogShare": 0.2,
    "downlinkAsId": "TWA_100000000.1.AS",
    "downlinkAsKey": _secret("as-key"),
    "downlinkPort": 5,
    "downlinkUuid": _secret("downlink-uuid"),
    "createDevices": True,
    "hostName": "broker.example.net",
    "username": "tpx",
    "password": _secret("password"),
    "certificate": _secret("client.crt"),
    "privateKey": _secret("client.key"),
    "trustedCaCertificate": _secret("ca.crt"),
    "proxy": {"hostname": "proxy.example.net:3128", "username": "tpx", "password": _secret("proxy")},
    "headers": {"Authorization": _secret("authorization"), "X-Device": "{DevEUI}"},
    "tunnelInterfaceAuthenticationKey": _secret("tunnel-key"),
    "clientId": "plant-1",
    "exchangeName": "uplinks",
    "topics": [{"fPort": 2, "uplinkTopicPattern": "pumps"}],
    "downlinkQueue": "plant.downlink",
    "region": "eu-central-1",
    "accountPrefix": "a1b2c3d4e5f6g7-ats",
    "accessKeyId": _secret("aws-access-key-id"),
    "secretAccessKey": _secret("aws-secret-access-key"),
    "deviceType": "LoRaWAN",
    "certificateId": "arn:aws:iot:eu-central-1:123456789012:cert/" + "0123456789abcdef" * 4,
    "endpoint": "vpce-0123456789abcdef0.iot.eu-central-1.vpce.amazonaws.com:8883",
    "apiEndpoint": "https://vpce-0123456789abcdef1.api.iot.eu-central-1.vpce.amazonaws.com",
}
"""A value for each key whose default is nothing, or that is needed; of patterns the schema has one."""

ALSO_SET: Final = {
    "actility-aws-iot": ("certificate", "privateKey"),
    "actility-amqp-0.9.1-iot": ("username", "password"),
}
"""Keys that a file needs unless others stand in their place; AWS asks for a certificate unless protocol is WSS."""

_HEAD: Final = """\
# Every key that a connection file of {id} may hold.
# {description}.
# A key without # is needed. Of all others the default stands where there is one, else an example.
# A secret is {{ file = "/path" }}, {{ credential = "name" }} (systemd), {{ env = "NAME" }}, or the text itself.
# Durations are "250ms", "90s", "5m", "1h30m", "2d". Relative paths are relative to the directory of this file.
"""


def options_file(connector: Connector) -> str:
    """The whole file for one connector."""
    schema = file_model(connector.id, connector.config).model_json_schema()
    needed = {*schema["$defs"][connector.config.__name__]["required"], *ALSO_SET.get(connector.id, ())}
    return (
        "\n".join(
            [
                _HEAD.format(id=connector.id, description=connector.description),
                *_keys(_without_configuration(schema), schema, {"connectorId", "name"}),
                "",
                "[configuration]",
                "",
                *_keys(schema["$defs"][connector.config.__name__], schema, needed),
            ]
        ).rstrip()
        + "\n"
    )


def _without_configuration(schema: Schema) -> Schema:
    return {"properties": {key: field for key, field in schema["properties"].items() if key != "configuration"}}


def _keys(table: Schema, top: Schema, needed: set[str]) -> Iterator[str]:
    """Each key of a table, those first that are needed."""
    for key, field in sorted(table["properties"].items(), key=lambda item: item[0] not in needed):
        if key != "connectorId":
            yield from _explained(field, top, needed=key in needed)
        yield f"{'' if key in needed else '#'}{key} = {_toml(_example(key, field))}"
        yield ""


def _explained(field: Schema, top: Schema, *, needed: bool) -> Iterator[str]:
    tables = _inner_tables(field, top)
    yield from _lines("# ", _told(field, needed=needed, kind="" if tables else kind_of(field)))
    for table in tables:
        yield from _inside(table, top, "#   ")


def _inside(table: Schema, top: Schema, indent: str) -> Iterator[str]:
    """The keys inside of a table that stands on one line."""
    kind = table["properties"].get("type", {}).get("const")
    for key, field in table["properties"].items():
        if kind is not None and key == "type":
            continue
        tables = _inner_tables(field, top)
        name = key if kind is None else f'type = "{kind}", {key}'
        told = _told(field, needed=key in table.get("required", ()), kind="" if tables else kind_of(field))
        yield from _lines(indent, f"{name}: {told}")
        for inner in tables:
            yield from _inside(inner, top, indent + "  ")


def _lines(indent: str, text: str) -> list[str]:
    return wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


def _told(field: Schema, *, needed: bool, kind: str) -> str:
    """The meaning, what may stand there, and the default, in one line."""
    meaning = str(field["description"])
    told = _DEFAULT.search(meaning)
    if told and not needed:
        meaning = meaning[: told.start()] + "."
    default = "needed" if needed else f"default {told['default'] if told else _as_written(field.get('default'))}"
    return f"{meaning} ({kind}; {default})" if kind else f"{meaning} ({default})"


def _as_written(default: Any) -> str:
    return json.dumps(default) if default or default is False else "none"


def _example(key: str, field: Schema) -> Any:
    """What stands there by default, or could."""
    if key == "connectorId":
        return field["const"]
    default = field.get("default")
    if key not in EXAMPLES and default is not None:
        return default
    if key in EXAMPLES:
        return EXAMPLES[key]
    alternatives = [each for each in field.get("anyOf", [field]) if each.get("type") != "null"]
    if "enum" in alternatives[0]:
        return "SSL" if "SSL" in alternatives[0]["enum"] else alternatives[0]["enum"][0]
    if alternatives[0].get("type") == "array":
        return []
    return str(alternatives[0]["examples"][0]).replace("uplink", _LEVELS.get(key, "uplink"))


def _toml(value: Any) -> str:
    """A value on one line; JSON's texts, numbers and lists are TOML's."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def kind_of(field: Schema) -> str:
    """What may stand as the value of a key, in plain words, from the key's JSON Schema."""
    alternatives = [each for each in field.get("anyOf", [field]) if each.get("type") != "null"]
    part = alternatives[0]
    if part.get("writeOnly"):
        return _SECRETS.get(part["format"], f"secret, {part['format']}")
    if "const" in part or "enum" in part:
        return _either([str(value) for value in part.get("enum", [part.get("const")])])
    match part.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number" | ["integer", "string"]:
            return _number(part)
        case "array":
            return f"list of {kind_of(part['items'])}"
        case "object":
            return f"table, each value: {kind_of(part['additionalProperties'])}"
        case _:
            return _text(part)


def _either(names: list[str]) -> str:
    quoted = [json.dumps(name) if not name.isdecimal() else name for name in names]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _number(part: Schema) -> str:
    lowest, highest, beyond = part.get("minimum"), part.get("maximum"), part.get("exclusiveMinimum")
    if highest is not None:
        return f"number, {f'above {beyond}' if lowest is None else lowest} to {highest}"
    return "number" if lowest is None else f"number, {lowest} or more"


def _text(part: Schema) -> str:
    if kind := _TEXTS.get(part.get("format", "")):
        return kind
    return f'such as "{part["examples"][0]}"' if "examples" in part else "text"


def _inner_tables(field: Schema, top: Schema) -> list[Schema]:
    """The models of the tables that a key holds, one or a list of them; empty for a plain value."""
    if "$ref" in field:
        return [top["$defs"][field["$ref"].rpartition("/")[2]]]
    parts = [*field.get("anyOf", ()), *field.get("oneOf", ()), *([field["items"]] if "items" in field else ())]
    return [table for part in parts for table in _inner_tables(part, top)]


def main() -> None:
    """Write the files of all connectors."""
    connectors.load()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for connector in REGISTRY.values():
        (DIRECTORY / f"{connector.id}.toml").write_text(options_file(connector))


if __name__ == "__main__":
    main()
