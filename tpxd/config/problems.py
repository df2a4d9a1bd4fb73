"""What pydantic found wrong, as problems of a file: in plain words, with their places and the likely remedy.

Everything wrong with a document is told at once. A value is repeated only where it can be no password that came to the
wrong place: of a number or one of several words that field wants one of; of all others the kind is told.
"""

from __future__ import annotations

import datetime
import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tpxd.config.secret import UNRESOLVED, SecretSources
from tpxd.config.toml import TomlSource
from tpxd.config.toml_places import Loc
from tpxd.errors import ConfigError, Problem
from tpxd.log import masked

Model = TypeVar("Model", bound=BaseModel)
Schema = Mapping[str, Any]

MOST: Final = 20
"""So many problems of a file are told; a file with thousands would fill the health document and the log."""
LONGEST: Final = 60
HIDDEN: Final = "…"
ALIKE: Final = 0.6

KINDS: Final = frozenset({"union_tag_invalid", "union_tag_not_found"})
"""Errors about a table that may be of several kinds; to pydantic their place is the table, not what names its kind."""
MISSING: Final = frozenset({"missing", "union_tag_not_found"})


def validate(model: type[Model], source: TomlSource, sources: SecretSources) -> tuple[Model, list[Problem]]:
    """Make a model of a document; the second is what lenient sources let pass, as warnings.

    Values are taken strictly as TOML has them (`"1883"` is no number), arrays become tuples.

    Raises:
        ConfigError: everything that is wrong, warnings included.
    """
    values = json.dumps(source.document, default=_as_text)

    def attempt(lenient: bool) -> Model:
        return model.model_validate_json(values, strict=True, context=replace(sources, lenient=lenient))

    try:
        return attempt(lenient=False), []
    except ValidationError as error:
        found = error.errors(include_url=False)
    unresolved = [each for each in found if each["type"] == UNRESOLVED]
    if not sources.lenient or not unresolved:
        raise ConfigError(_problems(found, source, schema_of(model)))
    warnings = [replace(problem, severity="warning") for problem in _problems(unresolved, source, schema_of(model))]
    try:
        return attempt(lenient=True), warnings
    except ValidationError as error:
        found = error.errors(include_url=False)
    raise ConfigError(_in_order([*_problems(found, source, schema_of(model)), *warnings]))


def _problems(errors: Iterable[ErrorDetails], source: TomlSource, schema: Schema) -> list[Problem]:
    """The first problems of a file in its order; no words are found for the others, which takes long."""
    in_order = sorted(errors, key=lambda error: source.places.values[source.known(error["loc"])])
    found = [problem_of(error, source, schema) for error in in_order[:MOST]]
    return shortened(_in_order(found), len(in_order) - len(found))


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """As they stand in the file; what is said of the file as a whole comes last."""
    return sorted(problems, key=lambda problem: (not problem.line, problem.line, problem.column))


def shortened(problems: Sequence[Problem], more: int = 0) -> list[Problem]:
    """The first of a file's problems, and one that counts the others and the `more` that nobody worded."""
    more += len(problems[MOST:])
    shown = list(problems[:MOST])
    if more:
        shown.append(Problem(shown[0].path, 0, 0, "", f"and {more} more; mend these first", shown[0].severity))
    return shown


def _as_text(value: datetime.datetime | datetime.date | datetime.time) -> str:
    """TOML's dates and times are text to a model, which reads them again where it wants one."""
    return value.isoformat()


def suggestion(word: str, choices: Collection[str]) -> str:
    """`; did you mean "…"?` for the choice that is close to `word`, or the only one that contains it, or nothing."""
    small = word.lower()

    def closeness(choice: str) -> tuple[float, bool]:
        """How alike, and between equally alike ones, whether letters only changed places."""
        other = choice.lower()
        return difflib.SequenceMatcher(None, small, other).ratio(), sorted(small) == sorted(other)

    close = [choice for choice in choices if closeness(choice)[0] >= ALIKE]
    best = [max(close, key=closeness)] if close else [c for c in choices if len(word) > 2 and small in c.lower()]
    return f'; did you mean "{best[0]}"?' if len(best) == 1 else ""


def problem_of(error: ErrorDetails, source: TomlSource, schema: Schema) -> Problem:
    """One error of pydantic's in the words and at the place of the file."""
    loc = error["loc"] if error["type"] not in KINDS else (*error["loc"], _kind_key(error))
    there = source.known(loc)
    path = (*there, loc[-1]) if error["type"] in MISSING else there
    message = message_of(error, path, schema)
    return source.problem(dotted(path, schema), message, there, at_key=error["type"] == "extra_forbidden")


def message_of(error: ErrorDetails, path: Loc, schema: Schema) -> str:
    """What is wrong with what stands at `path`, in one line."""
    if error["type"] in MISSING:
        return "is missing; it is required"
    if error["type"] == "extra_forbidden":
        return "unknown key" + _where_else(path, schema)
    return masked(_one_line(_plain(error, any(part.get("writeOnly") for part in _on_the_way(path, schema)))))


def _kind_key(error: ErrorDetails) -> str:
    """The key that says of which kind a table is, such as `type` of a matcher."""
    key: str = error["ctx"]["discriminator"]
    return key.strip("'")


def dotted(path: Loc, schema: Schema) -> str:
    """`configuration.topics[0].fPort`; a name that people choose, such as that of a header, may be a password: `…`."""
    text = ""
    for n, step in enumerate(path):
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if is_ours(path[: n + 1], schema) else HIDDEN
            text += f".{name}" if text else name
    return text


def is_ours(path: Loc, schema: Schema) -> bool:
    """Whether the last key of a path is one that its table has, or looks like one that it might have."""
    tables = _at(path[:-1], schema)
    if any(path[-1] in table.get("properties", {}) for table in tables):
        return True
    chosen = any(isinstance(table.get("additionalProperties"), dict) for table in tables)
    return not chosen and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", str(path[-1])) is not None


def _plain(error: ErrorDetails, is_secret: bool) -> str:
    """What is wrong with a value; `is_secret` leaves the value out."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == UNRESOLVED:
        return str(context["missing"])
    value = error["input"]
    shown = "the value" if is_secret else _kind(value)
    match kind:
        case "literal_error" | "enum":
            choices = re.findall(r"'([^']*)'|(\d+)", str(context["expected"]))
            names = [text or number for text, number in choices]
            if ("", value) in choices:
                return f"{_shown(value)} is text; write the number without quotes: {value}"
            is_word = not isinstance(value, str) or any(text for text, _ in choices)
            shown = _shown(value) if is_word and not is_secret else shown
            return f"{shown} is not one of {', '.join(names)}{suggestion(str(value), names)}"
        case "union_tag_invalid":
            kind_of, names = value[_kind_key(error)], re.findall(r"'([^']*)'", context["expected_tags"])
            return f"{_shown(kind_of)} is not one of {', '.join(names)}{suggestion(str(kind_of), names)}"
        case "bool_type" | "bool_parsing":
            return f"{shown} is not true or false"
        case "int_type" | "int_parsing" | "int_from_float" | "float_type" | "float_parsing":
            if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and not is_secret:
                return f"{_shown(value)} is text; write the number without quotes: {value.strip()[:LONGEST]}"
            return f"{_shown_number(value)} is not a {'whole ' if kind.startswith('int') else ''}number"
        case "string_type":
            number = isinstance(value, int | float) and not isinstance(value, bool) and not is_secret
            return f"{shown} is not text" + ("; write it in quotes" if number else "")
        case "model_type" | "dict_type" | "model_attributes_type" | "dataclass_type":
            return f"{shown} is not a table"
        case "list_type" | "tuple_type" | "set_type" | "frozen_set_type":
            return f"{shown} is not an array; write it in brackets"
        case "greater_than_equal":
            return f"{_shown_number(value)} is too small; the smallest is {context['ge']}"
        case "greater_than":
            return f"{_shown_number(value)} is too small; it must be above {context['gt']}"
        case "less_than_equal":
            return f"{_shown_number(value)} is too large; the largest is {context['le']}"
        case "less_than":
            return f"{_shown_number(value)} is too large; it must be below {context['lt']}"
        case "string_too_short" | "too_short":
            return "is empty" if not value else f"{shown} is too short; at least {context['min_length']}"
        case "string_too_long" | "too_long":
            return f"{shown} is too long; at most {context['max_length']}"
        case "string_pattern_mismatch":
            return f"{shown} does not look as wanted: {context['pattern']}"
        case _:
            return f"{shown}: {error['msg']}" if not is_secret else "is not accepted"


def _kind(value: Any) -> str:
    match value:
        case dict():
            return "a table"
        case list():
            return "an array"
        case str():
            return "the text"
        case bool():
            return json.dumps(value)
        case _:
            return "the number"


def _shown_number(value: Any) -> str:
    return _kind(value) if isinstance(value, str) else _shown(value)


def _shown(value: Any) -> str:
    """A value as the file has it, cut short; what tables and arrays hold is not repeated."""
    if isinstance(value, dict | list):
        return _kind(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f'{text[: LONGEST - 2]}…"'


def _one_line(text: str) -> str:
    return " ".join(text.split())


@lru_cache(maxsize=64)
def schema_of(model: type[BaseModel]) -> Schema:
    """The model's JSON Schema; made once."""
    return model.model_json_schema()


def _at(path: Sequence[str | int], schema: Schema) -> list[Schema]:
    """The schemas that may judge what stands at `path`; empty where none knows it."""
    found = _branches(schema, schema)
    for step in path:
        inner: list[Schema] = []
        for part in found:
            if isinstance(step, int):
                item = part.get("items")
            else:
                item = part.get("properties", {}).get(step, part.get("additionalProperties"))
            if isinstance(item, dict):
                inner += _branches(item, schema)
        found = inner
    return found


def _branches(part: Schema, top: Schema) -> list[Schema]:
    """The part itself, or the alternatives that it leads to."""
    if "$ref" in part:
        return _branches(top["$defs"][part["$ref"].rpartition("/")[2]], top)
    alternatives = [*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("allOf", ())]
    return [found for each in alternatives for found in _branches(each, top)] if alternatives else [part]


def _keys_of(path: Sequence[str | int], schema: Schema) -> set[str]:
    return {key for part in _at(path, schema) for key in part.get("properties", ())}


def _on_the_way(path: Loc, schema: Schema) -> list[Schema]:
    return [part for n in range(1, len(path) + 1) for part in _at(path[:n], schema)]


def _where_else(path: Loc, schema: Schema) -> str:
    """Where an unknown key may belong: a similar name here, or the same name in another table."""
    table, key = path[:-1], str(path[-1])
    if similar := suggestion(key, _keys_of(table, schema)):
        return similar
    top = _keys_of((), schema)
    if table and key in top:
        return "; it belongs to the top of the file, before the first [table]"
    tables = [name for name in sorted(top) if (name,) != table and key in _keys_of((name,), schema)]
    return f"; there is one in [{'], ['.join(tables)}]" if tables else ""
