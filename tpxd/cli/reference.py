"""Makes the reference of all options in README.md, from the models that read the files.

    python -m tpxd.cli.reference [README.md]

What stands between the two markers is replaced. Names, kinds of values and defaults come from each model's JSON Schema,
meanings from the fields' descriptions, so that the reference and the daemon cannot disagree.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tpxd import connectors
from tpxd.config import ConnectorConfig
from tpxd.connection_file import ConnectionFile
from tpxd.connector import REGISTRY
from tpxd.settings import Settings

Schema = Mapping[str, Any]

BEGIN: Final = "<!-- options: written by python -m tpxd.cli.reference, do not edit -->"
END: Final = "<!-- end of options -->"

_PIPE: Final = "\\|"
_DEFAULT: Final = re.compile(r"[;,:]? default (?P<default>.+)\.$")
_SECRETS: Final = {"password": "secret", "pem": "secret, PEM", "pattern": "text with fields, or secret"}
_TEXTS: Final = {"duration": "duration", "date-time": "date and time", "uri": "URL"}


def renewed(readme: str) -> str:
    """The text of README.md with the reference of today.

    Raises:
        ValueError: the markers are not there.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the file has no lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{reference()}\n{end}{after}"


def reference() -> str:
    """Every table of options, in Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    connectors.load()
    yield from ("### `tpxd.toml`", "")
    settings = Settings.model_json_schema()
    yield from _tables("", settings, settings)
    yield from ("### Connection files: what all have", "")
    file = ConnectionFile.model_json_schema()
    yield from _tables("", _without({"configuration"}, file), file)
    yield from ("### Connection files: `[configuration]` of every connector", "")
    common = ConnectorConfig.model_json_schema()
    yield from _tables("configuration", common, common)
    for connector in sorted(REGISTRY.values(), key=lambda one: one.id):
        yield from (f"### Connection files: `[configuration]` of `{connector.id}`", "")
        yield from (f"{connector.description}.", "")
        schema = connector.config.model_json_schema()
        shared = {key for key, field in common["properties"].items() if schema["properties"].get(key) == field}
        yield from _tables("configuration", _without(shared, schema), schema)


def _without(keys: Collection[str], model: Schema) -> Schema:
    return {**model, "properties": {key: field for key, field in model["properties"].items() if key not in keys}}


def _tables(path: str, model: Schema, top: Schema) -> Iterator[str]:
    """The table of a model's keys, needed ones first, then the tables inside it; `top` is the schema with them all."""
    rows, inner = [], []
    needed = model.get("required", ())
    for key, field in sorted(model["properties"].items(), key=lambda item: item[0] not in needed):
        tables = _inner_tables(field, top)
        if not tables:
            rows.append(_row(f"`{key}`", field, needed=key in needed))
            continue
        name = f"{path}.{key}" if path else key
        inner.append((f"`[[{name}]]`" if _is_list(field) else f"`[{name}]`", name, field, tables))
    if rows:
        yield from _with_head(rows)
    for title, name, field, tables in inner:
        yield from (f"**{title}**: {field['description']}", "")
        if len(tables) == 1:
            yield from _tables(name, tables[0], top)
        else:
            yield from _with_head([row for table in tables for row in _rows_of_alternative(table)])


def _with_head(rows: list[str]) -> Iterator[str]:
    yield from ("| Key | Value | Default | Meaning |", "|---|---|---|---|", *rows, "")


def _rows_of_alternative(table: Schema) -> Iterator[str]:
    """The keys of one of several tables, which its `type` tells from the others."""
    kind = table["properties"]["type"]["const"]
    for key, field in table["properties"].items():
        if key != "type":
            yield _row(f'`type = "{kind}"`, `{key}`', field, needed=key in table.get("required", ()))


def _row(key: str, field: Schema, *, needed: bool) -> str:
    meaning = str(field["description"])
    default = "needed"
    if not needed:
        told = _DEFAULT.search(meaning)
        default = _marked(told["default"]) if told else _as_written(field.get("default"))
        meaning = meaning[: told.start()] + "." if told else meaning
    cells = (key, kind_of(field), default, meaning)
    return f"| {' | '.join(cell.replace('|', _PIPE) for cell in cells)} |"


def _marked(default: str) -> str:
    """A default as its description tells it: what can be typed looks like it, words do not."""
    is_typed = default not in ("none", "empty") and (" " not in default or default.startswith('"'))
    return f"`{default}`" if is_typed else default


def _as_written(default: Any) -> str:
    return f"`{json.dumps(default)}`" if default or default is False else "none"


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
    quoted = [f"`{name}`" for name in names]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _number(part: Schema) -> str:
    lowest, highest, beyond = part.get("minimum"), part.get("maximum"), part.get("exclusiveMinimum")
    if highest is not None:
        return f"number, {f'above {beyond}' if lowest is None else lowest} to {highest}"
    return "number" if lowest is None else f"number, {lowest} or more"


def _text(part: Schema) -> str:
    if kind := _TEXTS.get(part.get("format", "")):
        return kind
    return f'such as `"{part["examples"][0]}"`' if "examples" in part else "text"


def _is_list(field: Schema) -> bool:
    return any(each.get("type") == "array" for each in field.get("anyOf", [field]))


def _inner_tables(field: Schema, top: Schema) -> list[Schema]:
    """The models of the tables that a key holds, one or a list of them; empty for a plain value."""
    if "$ref" in field:
        return [top["$defs"][field["$ref"].rpartition("/")[2]]]
    parts = [*field.get("anyOf", ()), *field.get("oneOf", ()), *([field["items"]] if "items" in field else ())]
    return [table for part in parts for table in _inner_tables(part, top)]


def main() -> None:
    """Rewrite the reference in the file that is the only argument, README.md without one."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "README.md")
    path.write_text(renewed(path.read_text()))


if __name__ == "__main__":
    main()
