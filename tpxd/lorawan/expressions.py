"""What stands between the braces of a pattern: which value of an uplink it names, and what comes next if it has none.

    {DevEUI}  {CustomerData.name}  {CustomerData.tags[0]}        fields inside the root key
    {$..CustomerData.tags[?(@ =~ /Paris:.*/)]}                   JSONPath
    {CustomerData.name|DevEUI|'None'}                            alternatives, from left to right

Source: ThingPark X IoT Flow, "About connections", topic patterns; release notes 1.7, TXIF-2350 (alternatives). Where
that leaves a choice: the first match of a JSONPath that has a value is taken, and `=~` must match the whole value, as
in the Java library whose dialect this is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tpxd.errors import PatternError
from tpxd.lorawan.json_path import JsonPath
from tpxd.lorawan.uplink import Uplink

DEV_EUI: Final = "DevEUI"

Lookup = Callable[[Uplink], str]
"""Finds a value and writes it as text; "" where the uplink has none."""

# Quotes and regular expressions may hold anything, braces and bars too.
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | =~\s*/(?:[^/\\]|\\.)*/ | .""", re.DOTALL | re.VERBOSE)
_BRACE = re.compile(r"[{}]")
_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_PATH = re.compile(r"[\w-]+(?:\[[0-9]{1,9}\])*(?:\.[\w-]+(?:\[[0-9]{1,9}\])*)*")
_STEP = re.compile(r"([\w-]+)|\[([0-9]+)\]")
_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class Expression:
    """One pair of braces.

    Attributes:
        text: what stands between them.
        names: its alternatives but for the literal.
        literal: the last alternative where that is a text in quotes.
    """

    text: str
    names: tuple[str, ...]
    lookups: tuple[Lookup, ...]
    literal: str | None

    @property
    def field(self) -> str | None:
        """The name, where the expression is nothing but the name of one field directly inside the root key."""
        return self.text if self.literal is None and _NAME.fullmatch(self.text) else None

    def resolve(self, uplink: Uplink) -> str:
        """The first alternative's text that is there; "" when there is none.

        Raises:
            TooSlow: see `JsonPath.values`.
        """
        for lookup in self.lookups:
            text = lookup(uplink)
            if text:
                return text
        return self.literal or ""


def split(text: str, *, forgiving: bool = False) -> list[str | Expression]:
    """Take a pattern apart: literal text and expressions, in order; no empty texts. `forgiving` is for `JsonPath`.

    Raises:
        PatternError: where it is wrong, counted from 1, and what is expected there.
    """
    parts: list[str | Expression] = []
    begin = 0
    while (brace := _BRACE.search(text, begin)) is not None:
        if brace[0] == "}":
            raise pattern_error(text, brace.start(), 'this "}" closes nothing; its "{" is missing')
        if brace.start() > begin:
            parts.append(text[begin : brace.start()])
        expression, begin = _expression(text, brace.start(), forgiving)
        parts.append(expression)
    if begin < len(text):
        parts.append(text[begin:])
    return parts


def _expression(text: str, brace: int, forgiving: bool) -> tuple[Expression, int]:
    """The expression whose opening brace is at `brace`, and the index after its closing one."""
    alternatives: list[tuple[int, str]] = []
    open_brackets: list[int] = []
    begin = brace + 1
    for token in _TOKEN.finditer(text, begin):
        at = token.start()
        match token[0]:
            case "[" | "(":
                open_brackets.append(at)
            case "]" | ")" if open_brackets:
                open_brackets.pop()
            case "]" | ")":
                raise pattern_error(text, at, f'this "{token[0]}" closes nothing')
            case "{":
                raise pattern_error(text, at, 'a "{" within braces; "}" is expected before it')
            case "'" | '"':
                raise pattern_error(text, at, f"this quote has no end; {token[0]} is expected")
            case "|" if not open_brackets:
                alternatives.append((begin, text[begin:at]))
                begin = at + 1
            case "}" if open_brackets:
                raise pattern_error(
                    text, open_brackets[-1], f'this "{text[open_brackets[-1]]}" is not closed before "}}"'
                )
            case "}":
                alternatives.append((begin, text[begin:at]))
                return _compiled(text, brace + 1, at, alternatives, forgiving), at + 1
    raise pattern_error(text, brace, 'this "{" has no "}"')


def _compiled(text: str, begin: int, end: int, alternatives: list[tuple[int, str]], forgiving: bool) -> Expression:
    names: list[str] = []
    lookups: list[Lookup] = []
    literal: str | None = None
    for at, written in alternatives:
        alternative = written.strip()
        at += len(written) - len(written.lstrip())
        if literal is not None:
            raise pattern_error(text, at, "nothing can follow a text in quotes; it is always there")
        if not alternative:
            raise pattern_error(text, at, "a field's name is expected, such as {DevEUI}")
        if quoted := _LITERAL.fullmatch(alternative):
            literal = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
            if not literal:
                raise pattern_error(text, at, "the text in quotes is empty")
            continue
        names.append(alternative)
        is_json_path = alternative[0] == "$"
        lookups.append(_json_path(text, at, alternative, forgiving) if is_json_path else _path(text, at, alternative))
    return Expression(text[begin:end], tuple(names), tuple(lookups), literal)


def _path(text: str, at: int, path: str) -> Lookup:
    if not _PATH.fullmatch(path):
        raise pattern_error(
            text,
            at,
            f'"{path}" names no field; write {{DevEUI}}, {{CustomerData.name}}, {{tags[0]}} or JSONPath, {{$…}}',
        )
    steps = [match[1] or int(match[2]) for match in _STEP.finditer(path)]

    def lookup(uplink: Uplink) -> str:
        value: Any = uplink.fields
        for step in steps:
            if type(value) is dict and type(step) is str:
                value = value.get(step)
            elif type(value) is list and type(step) is int and step < len(value):
                value = value[step]
            else:
                return ""
        return spell(_as_text(value))

    spell = _spelling(path)
    return lookup


def _json_path(text: str, at: int, path: str, forgiving: bool) -> Lookup:
    try:
        query = JsonPath(path, forgiving=forgiving)
    except ValueError as error:
        raise pattern_error(text, at, str(error)) from error

    def lookup(uplink: Uplink) -> str:
        # `$` is the whole document; that it is what stands inside the root key is a common mistake that hurts nobody.
        return spell(next(filter(None, map(_as_text, query.values(uplink, in_fields_too=True))), ""))

    spell = _spelling(path)
    return lookup


def _spelling(path: str) -> Callable[[str], str]:
    """How a value is written: a DevEUI in upper case, as not all reports have it, so that a device has one name."""
    return str.upper if path.rstrip("]'\"").endswith(DEV_EUI) else str


def _as_text(value: Any) -> str:
    """A value as JSON writes it; "" for blank text, null, objects and lists, none of which can name anything."""
    match value:
        case str():
            return value if value.strip() else ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return orjson.dumps(value).decode()
        case _:
            return ""


def pattern_error(text: str, index: int, message: str) -> PatternError:
    """The error for what stands at this index of the pattern; people count from 1."""
    shown = text if len(text) <= 120 else text[:117] + "..."
    line = f'position {index + 1} of "{shown}": {message}'
    return PatternError(line if line.isprintable() else line.encode("unicode_escape").decode())
