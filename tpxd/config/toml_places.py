"""Where things stand in a TOML document: line and column of every key and every value.

`tomllib` parses and judges, and forgets where things stood. The scanner here only finds places, in a document that
tomllib has accepted, so it judges nothing. A path leads to a value from the top, as pydantic writes it:

    [[configuration.topics]]      ("configuration", "topics", 0)          at the bracket
    fPort = 2                     ("configuration", "topics", 0, "fPort") key at column 1, value at column 9

What this does not do: refuse documents, or read values. `long_key` alone reads what tomllib has not seen yet.

Source: TOML 1.0.0 (and the newlines that TOML 1.1 allows in inline tables).
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

Loc = tuple[str | int, ...]


class Place(NamedTuple):
    """Line and column, both from 1; columns count characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Places:
    """The places of a document by path; the top's own path is ()."""

    keys: dict[Loc, Place]
    values: dict[Loc, Place]


_PART: Final = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')"""
_TOKENS: Final = re.compile(
    rf"""
    \#[^\n]*+                                             # a comment
    | \"{{3}} (?: [^"\\]++ | \\. | "(?!"") )*+ "{{3,5}}      # texts over several lines
    | '{{3}} (?: [^']++ | '(?!'') )*+ '{{3,5}}
    | (?P<key> {_PART} (?: [\ \t]*+ \. [\ \t]*+ {_PART} )*+ )
    | (?P<unclosed> ["'] )
    """,
    re.VERBOSE | re.DOTALL,
)


def long_key(text: str, most: int) -> int | None:
    """Where a key of more than `most` parts begins: to tomllib each part is a table, named by the whole way to it.

    Reads what looks like keys, values too, which are never as long as this; where a text has no end tomllib stops too.
    """
    for token in _TOKENS.finditer(text):
        if token["unclosed"]:
            return None
        key = token["key"]
        if key and key.count(".") >= most and len(re.findall(_PART, key)) > most:
            return token.start()
    return None


_SPACE = re.compile(r"[ \t]*")
_FILLER = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_OPENING_OR_COMMA = re.compile(rf"{_FILLER.pattern}[\[{{,]?{_FILLER.pattern}")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_TEXT = re.compile(r'''"""(?:\\.|[^\\])*?"""(?!")|\'\'\'.*?\'\'\'(?!')|"(?:\\.|[^"\\\n])*"|'[^'\n]*\'''', re.DOTALL)
_BARE = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+(?:Z|z|[+-]\d\d:\d\d)?|[^\s,\]}#]+")


def find_places(text: str) -> Places:
    """Find every key and value of a document that tomllib accepts; lines end with "\\n"."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return Places(scanner.keys, scanner.values)


class _Scanner:
    """Walks over the text once; `at` is the offset of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.keys: dict[Loc, Place] = {}
        self.values: dict[Loc, Place] = {(): Place(1, 1)}  # a missing key of the top is told at the beginning
        self.lengths: dict[Loc, int] = {}  # of arrays of tables

    def document(self) -> None:
        table: Loc = ()
        self.skip(_FILLER)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip(_FILLER)

    def header(self) -> Loc:
        """`[a.b]` or `[[a.b]]`: the path of the table that begins."""
        bracket = self.place()
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        self.skip(_SPACE)
        path: Loc = ()
        parts = list(self.dotted_key())
        for index, (name, place) in enumerate(parts):
            path = (*path, name)
            self.keys.setdefault(path, place)
            self.values.setdefault(path, bracket)
            if index < len(parts) - 1 and path in self.lengths:
                path = (*path, self.lengths[path] - 1)
        if is_array:
            position = self.lengths.get(path, 0)
            self.lengths[path] = position + 1
            path = (*path, position)
        self.keys[path] = parts[-1][1]
        self.values[path] = bracket  # where the table itself stands, also when a table inside it stood earlier
        self.skip(_SPACE)
        self.at += 2 if is_array else 1
        return path

    def pair(self, table: Loc) -> None:
        path = table
        for name, place in list(self.dotted_key()):
            path = (*path, name)
            self.keys.setdefault(path, place)
            self.values.setdefault(path, place)
        self.skip(_EQUALS)
        self.value(path)

    def dotted_key(self) -> Iterable[tuple[str, Place]]:
        while True:
            place = self.place()
            yield _name(self.skip(_KEY)), place
            if not self.skip(_DOT):
                return

    def value(self, path: Loc) -> None:
        self.values[path] = self.place()
        match self.text[self.at]:
            case "[":
                self.array(path)
            case "{":
                self.inline_table(path)
            case '"' | "'":
                self.skip(_TEXT)
            case _:
                self.skip(_BARE)

    def array(self, path: Loc) -> None:
        position = 0
        while self.another("]"):
            self.keys[*path, position] = self.place()
            self.value((*path, position))
            position += 1

    def inline_table(self, path: Loc) -> None:
        while self.another("}"):
            self.pair(path)

    def another(self, end: str) -> bool:
        """Step over a bracket or comma to the next element; False when the end came instead, which is stepped over."""
        self.skip(_OPENING_OR_COMMA)
        if self.text[self.at] != end:
            return True
        self.at += 1
        return False

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Step over what the pattern matches here; returns it, "" where it does not match."""
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match.group()

    def place(self) -> Place:
        line = bisect_right(self.line_starts, self.at)
        return Place(line, self.at - self.line_starts[line - 1] + 1)


def _name(key: str) -> str:
    """The key as tomllib reads it."""
    return next(iter(tomllib.loads(f"{key} = 0"))) if key[0] in "\"'" else key
