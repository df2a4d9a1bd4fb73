"""README's tables of options say what the models say, and the models say it in one line each."""

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
from tpxd.cli.reference import BEGIN, END, kind_of, renewed
from tpxd.connection_file import ConnectionFile
from tpxd.connector import REGISTRY
from tpxd.settings import Settings

README = Path(__file__).parents[2] / "README.md"

connectors.load()


def fields_of(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Every field, those of inner tables too, each with the name of its module and model."""
    for key, field in model.model_fields.items():
        yield f"{model.__module__.removeprefix('tpxd.')}.{model.__name__}.{key}", field
        for inner in models_in(field.annotation):
            yield from fields_of(inner)


MODELS: list[type[BaseModel]] = [Settings, ConnectionFile, *(one.config for one in REGISTRY.values())]
FIELDS = dict(field for model in MODELS for field in fields_of(model))


def test_readme_is_what_the_generator_makes() -> None:
    text = README.read_text()
    assert renewed(text) == text, "run: python -m tpxd.cli.reference"


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
    assert {"settings.IntakeSettings.max_body", "config.ConnectorConfig.actionTimeout"} <= {name for name, _ in TOLD}


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = f"before\n{BEGIN}\nwhat stood here\n{END}\nafter\n"
    new = renewed(text)
    assert new.startswith(f"before\n{BEGIN}\n\n### `tpxd.toml`\n")
    assert new.endswith(f"|\n\n{END}\nafter\n")
    assert "what stood here" not in new
    assert renewed(new) == new


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_file_without_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has no lines"):
        renewed(text)


def test_the_file_is_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"{BEGIN}\n{END}\n")
    monkeypatch.setattr("sys.argv", ["reference", str(path)])
    reference.main()
    assert "| `uplinkTimeValidity` | duration | no limit |" in path.read_text()


def test_every_row_has_four_cells() -> None:
    rows = [line for line in reference.reference().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_needed_keys_stand_first() -> None:
    tables = re.findall(r"^\|---.*\n((?:\|.*\n)+)", reference.reference(), re.MULTILINE)
    assert any("| needed |" in table for table in tables)
    for table in tables:
        needed = ["| needed |" in row for row in table.splitlines()]
        assert needed == sorted(needed, reverse=True), table


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "boolean"}, "true or false"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "number, 1 to 9"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number, above 0 to 1"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "number, 1 or more"),
        ({"type": "integer"}, "number"),
        ({"enum": ["a", "b", "c"], "type": "string"}, "`a`, `b` or `c`"),
        ({"const": "a", "type": "string"}, "`a`"),
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "table, each value: text"),
        ({"anyOf": [{"type": "string", "format": "pem", "writeOnly": True}, {"type": "object"}]}, "secret, PEM"),
        ({"type": "string", "format": "duration", "examples": ["5m"]}, "duration"),
        ({"type": "string", "examples": ["256 KiB"]}, 'such as `"256 KiB"`'),
    ],
)
def test_kinds_in_plain_words(schema: dict[str, Any], words: str) -> None:
    assert kind_of(schema) == words
