"""A TOML file as a document whose parts know where they stand; what is no TOML is told in plain words with its place.

What is too large, or made to take memory, is refused before tomllib sees it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tpxd.config.toml_places import Loc, Place, Places, find_places, long_key
from tpxd.errors import ConfigError, Problem, unreadable

MAX_BYTES: Final = 64 * 1024
MAX_BYTES_BEFORE: Final = 1024 * 1024
"""The most that earlier versions took, for what ran under one of them."""
MAX_CONVERTER_BYTES: Final = 1024 * 1024
"""The most that a converter in `drivers_dir` may have, which holds its script."""
MAX_DEPTH: Final = 32
MAX_KEY_PARTS: Final = 32
_TOO_DEEP: Final = f"tables and arrays are nested more than {MAX_DEPTH} deep"
_TOO_LARGE: Final = "a number is larger than 64 bits hold, the most that TOML has"


@dataclass(frozen=True)
class TomlSource:
    """A parsed document that knows where its parts stand.

    Attributes:
        shown: the file's path as messages show it.
    """

    shown: str
    text: str
    document: dict[str, Any]

    @cached_property
    def places(self) -> Places:
        """Scanned at the first use, which is the first problem."""
        return find_places(self.text)

    def known(self, loc: Iterable[str | int]) -> Loc:
        """The part of `loc` that the document has; steps that are no keys, such as a union's branch, are left out."""
        path: Loc = ()
        for step in loc:
            if (*path, step) in self.places.values:
                path = (*path, step)
        return path

    def problem(self, field: str, message: str, path: Loc, *, at_key: bool = False, severity: str = "error") -> Problem:
        """A problem at the value of `path`, or at its key."""
        values = self.places.values
        place = self.places.keys.get(path, values[path]) if at_key else values[path]
        return Problem(self.shown, place.line, place.column, field, message, severity)


def read_toml(path: Path, shown: str, *, most_bytes: int = MAX_BYTES) -> tuple[bytes, TomlSource]:
    """Read and parse a file of at most `most_bytes`; returns its bytes too.

    Raises:
        ConfigError: it cannot be read, is too large, or is no TOML; exactly one problem.
    """
    content = read_bytes(path, shown, most_bytes=most_bytes)
    return content, parse_toml(content, shown)


def read_bytes(path: Path, shown: str, *, most_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most `most_bytes`.

    Raises:
        ConfigError: it cannot be read, is no file, or is too large.
    """
    try:
        if not path.is_file() and path.exists():  # a FIFO would hang, and a directory says little
            raise _whole(shown, "is a directory, not a file" if path.is_dir() else "is not a regular file")
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise _whole(shown, f"is a link to {path.readlink()}, which does not exist; mend or remove it") from error
        raise _whole(shown, unreadable(error)) from error
    check_size(content, shown, most_bytes)
    return content


def check_size(content: bytes, shown: str, most_bytes: int = MAX_BYTES) -> None:
    """Refuse what is larger; raises ConfigError."""
    if len(content) > most_bytes:
        raise _whole(shown, f"is larger than {most_bytes // 1024} KiB, the most a file may have")


def is_missing(path: Path) -> bool:
    """Whether nothing stands there: no link that leads nowhere either, and nothing that is only out of reach."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _whole(shown: str, message: str) -> ConfigError:
    return ConfigError([Problem(shown, 0, 0, "", message)])


def parse_toml(content: bytes, shown: str) -> TomlSource:
    """Parse a document; a byte order mark in front is no error.

    Raises:
        ConfigError: it is no UTF-8 or no TOML; one problem with its place.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = len(content[content.rfind(b"\n", 0, error.start) + 1 : error.start].decode()) + 1
        message = f"byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise ConfigError([Problem(shown, line, column, "", message)]) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if (nul := text.find("\0")) >= 0:
        place = _place_in(text, nul)
        raise ConfigError([Problem(shown, *place, "", "there is a NUL byte here; a TOML file is text")])
    if (long := long_key(text, MAX_KEY_PARTS)) is not None:
        message = f"this key has more than {MAX_KEY_PARTS} parts, the most a key may have"
        raise ConfigError([Problem(shown, *_place_in(text, long), "", message)])
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(str(error), text, shown)]) from error
    except RecursionError as error:
        raise _whole(shown, _TOO_DEEP) from error
    except ValueError as error:  # Python's limit of digits, with which tomllib does not reckon
        raise _whole(shown, _TOO_LARGE) from error
    if _is_deeper(document, MAX_DEPTH):
        raise _whole(shown, _TOO_DEEP)
    source = TomlSource(shown, text, document)
    if (large := _too_large(document)) is not None:
        raise ConfigError([source.problem("", _TOO_LARGE, large)])
    return source


def _place_in(text: str, offset: int) -> Place:
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def _is_deeper(document: dict[str, Any], depth: int) -> bool:
    level: list[Any] = [document]
    for _ in range(depth):
        inside = (value for part in level for value in (part.values() if isinstance(part, dict) else part))
        level = [value for value in inside if isinstance(value, dict | list)]
    return bool(level)


def _too_large(value: Any, path: Loc = ()) -> Loc | None:
    """Where a number stands that TOML does not have; as text it may be longer than Python agrees to write."""
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = (_too_large(inner, (*path, step)) for step, inner in inside)
    return next((each for each in found if each is not None), None)


_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

_PLAINER: Final = (
    (re.compile(r"Cannot overwrite a value|.*already exists.*"), "this key was given before; it may stand only once"),
    (re.compile(r"Cannot declare .* twice"), "this table was given before; put its keys into one table"),
    (re.compile(r"Invalid statement"), "a line begins with a key, a [table] or a # comment"),
    (re.compile(r"Duplicate inline table key '(.*)'"), r'the key "\1" was given before; it may stand only once'),
    (re.compile(r"Invalid value"), "this is no value; text stands in double quotes, true and false in small letters"),
    (
        re.compile(r"Invalid initial character for a key part"),
        "no key begins like this; it has letters, digits, _ and -, and { key = value } stands on one line",
    ),
    (re.compile(r"Expected '=' after a key.*"), 'there is no "=" after the key; a line is: key = value'),
    (re.compile(r"Expected newline or end of document.*"), "something follows that does not belong to the line"),
    (re.compile(r"Illegal character '\\n'"), "the text has no closing quote on its line"),
    (re.compile(r"Unterminated string"), "the text has no closing quote"),
    (
        re.compile(r"Unescaped '\\' in a string"),
        r'a backslash in "double quotes" begins an escape; write \\\\ or use single quotes',
    ),
    (re.compile(r"Unclosed array"), 'the array has no closing "]"'),
)


def _syntax_problem(said: str, text: str, shown: str) -> Problem:
    """Say in plain words what tomllib said."""
    match = _AT.search(said)
    lines = text.split("\n")
    if match and match[1]:
        line, column = int(match[1]), int(match[2])
    else:
        line, column = len(lines), len(lines[-1]) + 1
    message = said[: match.start()] if match else said
    for pattern, plain in _PLAINER:
        if found := pattern.fullmatch(message):
            message = found.expand(plain)
            break
    if message.startswith("this key"):  # tomllib points behind the value
        column = len(lines[line - 1]) - len(lines[line - 1].lstrip()) + 1
    elif message.startswith("a backslash"):  # and behind the escape
        column -= 2
    return Problem(shown, line, column, "", message)
