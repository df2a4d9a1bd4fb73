"""A password in any place of a file, in any shape: what is told of the file shows nothing of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tpxd import connectors
from tpxd.cli.reference import options_file
from tpxd.config.problems import schema_of
from tpxd.config.secret import SecretSources
from tpxd.config.settings import Settings, check_settings
from tpxd.connector import REGISTRY
from tpxd.errors import ConfigError
from tpxd.reload.files import Broken, file_model, parse_file

connectors.load()

BUILT_IN = list(REGISTRY.values())
FILES = {connector.id: options_file(connector) for connector in BUILT_IN}
MARK = "c4n4ry"
SHAPES = {
    "text": json.dumps(MARK + "-x!"),
    "login": json.dumps(f"u:{MARK}@127.0.0.1"),
    "login and port": json.dumps(f"u:{MARK}@127.0.0.1:1"),
    "URL": json.dumps(f"https://u:{MARK}@127.0.0.1:99999/#"),
    "scheme": json.dumps(f"{MARK}://127.0.0.1"),
    "variable": f'{{ env = "{MARK}" }}',
    "PEM": json.dumps(f"-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----"),
    "value in a table": f'{{ a = "{MARK}" }}',
    "key in a table": f'{{ "{MARK}" = "x\\n" }}',
    "list": f'["{MARK}"]',
    "list of tables": f'[{{ {MARK} = 1, type = "x" }}]',
    "long": json.dumps("x" * 300 + MARK),
}
PATTERNS_AND_HOSTS = re.compile(r"\{DevEUI\}|:\d+$|\d [KG]iB$")


def kinds(field: Mapping[str, Any], top: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schemas that may judge a value."""
    if "$ref" in field:
        yield from kinds(top["$defs"][field["$ref"].rpartition("/")[2]], top)
        return
    inner = [*field.get("anyOf", ()), *field.get("oneOf", ())]
    for each in inner:
        yield from kinds(each, top)
    if not inner:
        yield field


def is_table(field: Mapping[str, Any], top: Mapping[str, Any]) -> bool:
    """Whether it is a table, or a list of tables, whose keys are known."""
    found = list(kinds(field, top))
    found += [inner for kind in found if "items" in kind for inner in kinds(kind["items"], top)]
    return any("properties" in kind and "file" not in kind["properties"] for kind in found)


def shows(field: Mapping[str, Any], shape: str, top: Mapping[str, Any]) -> bool:
    """Whether a message may repeat such a value there: durations, words of which one is wanted, patterns, hosts."""
    if shape in ("key in a table", "list of tables") and is_table(field, top):
        return True  # an unknown key that looks like one is told, so that a slip of the pen can be seen
    if shape in ("value in a table", "key in a table", "list", "list of tables", "variable"):
        return False
    for kind in kinds(field, top):
        host = any(re.search(r":\d+$", str(example)) for example in kind.get("examples", ()))
        if host and "://" not in str(kind["examples"][0]):
            return shape == "text"
        if "enum" in kind or "const" in kind or kind.get("format") == "duration":
            return True
        if any(PATTERNS_AND_HOSTS.search(str(example)) for example in kind.get("examples", ())):
            return True
    return False


def places() -> Iterator[tuple[str, str, str]]:
    for connector in BUILT_IN:
        top = schema_of(file_model(connector.id, connector.config))
        inside = top["$defs"][connector.config.__name__]["properties"]
        for key, field in {**inside, **top["properties"]}.items():
            if key not in ("configuration", "connectorId"):
                yield from ((connector.id, key, shape) for shape in SHAPES if not shows(field, shape, top))


def told_of(connector: str, key: str, shape: str) -> str:
    text = FILES[connector]
    line = f"{key} = {SHAPES[shape]}"
    text, count = re.subn(rf"^#?{re.escape(key)} = .*$", lambda _: line, text, count=1, flags=re.MULTILINE)
    assert count == 1
    entry = parse_file("plant", text.encode(), SecretSources(Path("/nowhere"), {}, None, lenient=True), "x")
    return " ".join(map(str, entry.problems if isinstance(entry, Broken) else entry.warnings))


def test_connection_files() -> None:
    tried = list(places())
    assert len(tried) > 1_000
    assert [place for place in tried if MARK in told_of(*place)] == []


SETTINGS = [
    (table, key, shape)
    for table, part in {"": schema_of(Settings), **schema_of(Settings)["$defs"]}.items()
    for key, field in part["properties"].items()
    for shape in SHAPES
    if "$ref" not in field and not shows(field, shape, schema_of(Settings))
]


def test_settings(tmp_path: Path) -> None:
    leaks = []
    for table, key, shape in SETTINGS:
        name = table.removesuffix("Settings").lower()
        path = tmp_path / "tpxd.toml"
        path.write_text((f"[{name}]\n" if name else "") + f"{key} = {SHAPES[shape]}\n")
        try:
            told = check_settings(path, "x", SecretSources(tmp_path, {}, None))[1]
        except ConfigError as error:
            told = error.problems
        if any(MARK in str(problem) for problem in told):
            leaks.append((table, key, shape))
    assert leaks == []


@pytest.mark.parametrize("shape", SHAPES)
def test_unknown_keys_show_no_value(shape: str) -> None:
    text = FILES["actility-http-iot"] + f"unknown = {SHAPES[shape]}\n"
    entry = parse_file("plant", text.encode(), SecretSources(Path("/nowhere"), {}, None), "x")
    assert isinstance(entry, Broken)
    assert MARK not in " ".join(map(str, entry.problems))
