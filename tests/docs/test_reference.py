"""examples/all-options says what the models say, which say it in one line each, and every line of it can be used."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from tests.docs.models import models_in
from tpxd import connectors
from tpxd.cli import reference
from tpxd.cli.reference import EXAMPLES, kind_of, options_file
from tpxd.config.connection_file import ConnectionFile
from tpxd.config.secret import SecretSources
from tpxd.config.settings import Settings
from tpxd.connector import REGISTRY
from tpxd.reload.files import Loaded, load_file

DIRECTORY = Path(__file__).parents[2] / "examples" / "all-options"

connectors.load()


def fields_of(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Every field, those of inner tables too, each with the name of its module and model."""
    for key, field in model.model_fields.items():
        yield f"{model.__module__.removeprefix('tpxd.')}.{model.__name__}.{key}", field
        for inner in models_in(field.annotation):
            yield from fields_of(inner)


MODELS: list[type[BaseModel]] = [Settings, ConnectionFile, *(one.config for one in REGISTRY.values())]
FIELDS = dict(field for model in MODELS for field in fields_of(model))


@pytest.mark.parametrize("id", REGISTRY)
def test_the_files_are_what_the_generator_makes(id: str) -> None:
    assert (DIRECTORY / f"{id}.toml").read_text() == options_file(REGISTRY[id]), "run: python -m tpxd.cli.reference"


def test_every_connector_has_one_and_nothing_else_has() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == {f"{id}.toml" for id in REGISTRY}


@pytest.mark.parametrize("id", REGISTRY)
def test_every_key_stands_in_it_once(id: str) -> None:
    text = options_file(REGISTRY[id])
    for key in (*ConnectionFile.model_fields, *REGISTRY[id].config.model_fields):
        assert len(re.findall(rf"^#?{key} = |^\[{key}\]", text, re.MULTILINE)) == 1, key


TOGETHER = {
    "certificate": {"privateKey"},
    "privateKey": {"certificate"},
    "password": {"username"},
    "tunnelInterfaceAuthenticationKey": {"lrcCompliance", "downlinkAsId"},
}
"""Keys that a file holds together or not at all."""
KEY_LINE = re.compile(r"^#(\w+) = ", re.MULTILINE)
LINES = [(id, key) for id in REGISTRY for key in [None, *KEY_LINE.findall(options_file(REGISTRY[id]))]]


@pytest.mark.parametrize(("id", "key"), LINES)
def test_check_accepts_it_with_any_line_in_use(id: str, key: str | None, tmp_path: Path) -> None:
    text = options_file(REGISTRY[id])
    for each in {key, *TOGETHER.get(key or "", ())}:
        text = text.replace(f"\n#{each} = ", f"\n{each} = ")
    if key == "tunnelInterfaceAuthenticationKey":
        text = text.replace("lrcCompliance = false", "lrcCompliance = true")
    if key == "path":
        text = text.replace('protocol = "SSL"', 'protocol = "WSS"')
    assert KEY_LINE.findall(text) != KEY_LINE.findall(options_file(REGISTRY[id])) or key is None
    path = tmp_path / f"{id}.toml"
    path.write_text(text)
    loaded = load_file(path, SecretSources(tmp_path, lenient=True), "x")
    assert isinstance(loaded, Loaded), loaded.problems
    assert all("cannot be read" in problem.message for problem in loaded.warnings)


def test_a_key_that_shows_its_default_changes_nothing() -> None:
    for id, key in LINES:
        field = REGISTRY[id].config.model_fields.get(key or "")
        if key is None or field is None or key in EXAMPLES or field.get_default(call_default_factory=True) is None:
            continue
        shown = re.search(rf"^#{key} = (.*)$", options_file(REGISTRY[id]), re.MULTILINE)
        assert shown is not None
        value = tomllib.loads(f"x = {shown[1]}")["x"]
        adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
        assert adapter.validate_python(value) == field.get_default(call_default_factory=True), key


@pytest.mark.parametrize("name", [name for name in FIELDS if not name.endswith(".type")])
def test_every_option_is_described_in_one_line(name: str) -> None:
    description = FIELDS[name].description
    assert description
    assert description.endswith(".")
    assert "\n" not in description


def told_defaults() -> Iterator[tuple[str, str]]:
    """Every default that a description tells and that can be typed: the field's name and the told text."""
    for name, field in FIELDS.items():
        told = re.search(r'[;,] default ("[^"]*"|[\w.]+)\.$', field.description or "")
        if told and not field.is_required() and told[1] not in ("none", "empty"):
            yield name, told[1]


TOLD = list(told_defaults())


@pytest.mark.parametrize(("name", "told"), TOLD)
def test_a_told_default_is_the_default(name: str, told: str) -> None:
    field = FIELDS[name]
    default = field.get_default(call_default_factory=True)
    if default is None:
        assert not told.startswith('"'), f"there is no default, but {told} is told"
        return
    try:
        value = tomllib.loads(f"x = {told}")["x"]
    except tomllib.TOMLDecodeError:
        value = told
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
    assert adapter.validate_python(value) == default


def test_told_defaults_are_found() -> None:
    assert {"config.settings.IntakeSettings.max_body", "config.connection_file.ConnectorConfig.actionTimeout"} <= {
        name for name, _ in TOLD
    }


def test_the_files_are_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reference.main()
    assert len(list((tmp_path / "examples" / "all-options").iterdir())) == len(REGISTRY)


def test_needed_keys_stand_first_and_are_set() -> None:
    for id in REGISTRY:
        _, _, configuration = options_file(REGISTRY[id]).partition("[configuration]")
        commented = [line.startswith("#") for line in configuration.splitlines() if re.match(r"#?\w+ = ", line)]
        assert commented == sorted(commented)
        assert not commented[0]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "boolean"}, "true or false"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "number, 1 to 9"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number, above 0 to 1"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "number, 1 or more"),
        ({"type": "integer"}, "number"),
        ({"enum": ["a", "b", "c"], "type": "string"}, '"a", "b" or "c"'),
        ({"const": "a", "type": "string"}, '"a"'),
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "table, each value: text"),
        ({"anyOf": [{"type": "string", "format": "pem", "writeOnly": True}, {"type": "object"}]}, "secret, PEM"),
        ({"type": "string", "format": "duration", "examples": ["5m"]}, "duration"),
        ({"type": "string", "examples": ["256 KiB"]}, 'such as "256 KiB"'),
    ],
)
def test_kinds_in_plain_words(schema: dict[str, Any], words: str) -> None:
    assert kind_of(schema) == words
