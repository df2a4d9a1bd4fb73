"""Every key and value of a document has its place, and what tomllib refuses is told in one line with its place."""

from __future__ import annotations

import errno
import os
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from tpxd.errors import ConfigError
from tpxd.toml_source import (
    MAX_BYTES,
    MAX_CONVERTER_BYTES,
    Loc,
    Place,
    _Scanner,
    find_places,
    long_key,
    parse_toml,
    read_toml,
)

TOO_LONG = "this key has more than 32 parts, the most a key may have"

BARE_KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
KEYS = BARE_KEYS | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=6)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12).filter(
    lambda text: all(c in "\t\n" or (c >= " " and c != "\x7f") for c in text)
)
SCALARS = (
    TEXTS
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.datetimes()
    | st.datetimes(timezones=st.timezones(no_cache=False)).map(lambda at: at.replace(tzinfo=None))
    | st.dates()
    | st.times()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)


def paths_of(value: Any, path: Loc = ()) -> Iterator[Loc]:
    """Every path of what tomllib parsed."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        yield from paths_of(inner, (*path, step))


def basic(text: str, *, ascii_only: bool) -> str:
    """The text in double quotes."""

    def escaped(character: str) -> str:
        if character in '"\\':
            return f"\\{character}"
        if character in "\n\x7f" or (ascii_only and not character.isascii()):
            return f"\\u{ord(character):04X}" if character <= "\uffff" else f"\\U{ord(character):08X}"
        return character

    return f'"{"".join(map(escaped, text))}"'


class Writer:
    """Writes documents in every style that TOML has, and notes where it put things."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw
        self.text = ""
        self.keys: dict[Loc, Place] = {}
        self.values: dict[Loc, Place] = {}

    def choose(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def here(self) -> Place:
        return Place(self.text.count("\n") + 1, len(self.text) - self.text.rfind("\n"))

    def space(self) -> None:
        self.text += self.choose("", " ", "\t ")

    def filler(self) -> None:
        self.text += self.choose("", " ", "\n", ' # [no] "table"\n', "\n\n\t")

    def end(self) -> None:
        self.text += self.choose("\n", " # it's = a comment\n", "\n\n", "\n  # [x]\n\t")

    def key(self, name: str, path: Loc) -> None:
        self.keys.setdefault(path, self.here())
        styles = [basic(name, ascii_only=False), basic(name, ascii_only=True)]
        if "'" not in name and name.isprintable():
            styles.append(f"'{name}'")
        if name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name):
            styles.append(name)
        self.text += self.choose(*styles)

    def scalar(self, value: Any) -> None:
        if not isinstance(value, str):
            self.text += tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")
            return
        styles = [basic(value, ascii_only=False), basic(value, ascii_only=True)]
        plain = value.replace("\\", "\\\\").replace('"""', '""\\"')
        styles.append(f'"""\n{plain}"""' if not plain.endswith('"') else f'"""\n{plain[:-1]}\\""""')
        if "'" not in value and "\n" not in value:
            styles.append(f"'{value}'")
        if "'''" not in value and not value.endswith("'"):
            styles.append(f"'''\n{value}'''")
        self.text += self.choose(*styles)

    def value(self, value: Any, path: Loc) -> None:
        self.values[path] = self.here()
        if isinstance(value, list):
            self.text += "["
            for n, inner in enumerate(value):
                self.filler()
                self.keys[*path, n] = self.here()
                self.value(inner, (*path, n))
                self.filler()
                self.text += "," if n < len(value) - 1 else self.choose("", ",")
            self.filler()
            self.text += "]"
        elif isinstance(value, dict):
            self.text += "{"
            for n, (name, inner) in enumerate(value.items()):
                self.text += "," if n else ""
                self.space()
                self.pair(name, inner, path)
                self.space()
            self.text += "}"
        else:
            self.scalar(value)

    def pair(self, name: str, value: Any, table: Loc) -> None:
        """`a = 1`, or `a.b = 1` for a table of one key."""
        path = (*table, name)
        place = self.here()
        self.key(name, path)
        while isinstance(value, dict) and len(value) == 1 and self.draw(st.booleans()):
            self.values[path] = place
            self.space()
            self.text += "."
            self.space()
            ((name, value),) = value.items()
            path = (*path, name)
            place = self.here()
            self.key(name, path)
        self.space()
        self.text += "="
        self.space()
        self.value(value, path)

    def table(self, table: dict[str, Any], path: Loc, names: tuple[str, ...] = ()) -> None:
        """Pairs first, then what gets a header of its own."""
        headed = [name for name, value in table.items() if self.wants_header(value)]
        for name, value in table.items():
            if name not in headed:
                self.pair(name, value, path)
                self.end()
        for name in headed:
            value = table[name]
            if isinstance(value, dict):
                self.header("[", "]", (*names, name), (*path, name))
                self.table(value, (*path, name), (*names, name))
                continue
            for n, inner in enumerate(value):
                self.header("[[", "]]", (*names, name), (*path, name, n))
                self.table(inner, (*path, name, n), (*names, name))

    def wants_header(self, value: Any) -> bool:
        tables = isinstance(value, dict) or (
            isinstance(value, list) and bool(value) and all(isinstance(inner, dict) for inner in value)
        )
        return tables and self.draw(st.booleans())

    def header(self, opening: str, closing: str, names: tuple[str, ...], path: Loc) -> None:
        self.values[path] = self.here()
        if isinstance(path[-1], int):
            self.values.setdefault(path[:-1], self.here())
        self.text += opening
        for n, name in enumerate(names):
            self.text += "." if n else ""
            self.space()
            last = n == len(names) - 1
            self.keys.pop(path, None)
            if last and isinstance(path[-1], int):
                self.keys.setdefault(path[:-1], self.here())
            self.key(name, path if last else ("elsewhere", *names[: n + 1]))
            self.space()
        self.text += closing
        self.end()


@given(st.data(), DOCUMENTS)
def test_places_are_where_a_writer_of_every_style_put_things(data: st.DataObject, document: dict[str, Any]) -> None:
    writer = Writer(data)
    writer.end()
    writer.table(document, ())
    parsed = tomllib.loads(writer.text)
    assert set(find_places(writer.text).values) == set(paths_of(parsed))
    found = find_places(writer.text)
    assert found.values == {(): Place(1, 1), **writer.values}
    assert found.keys == {path: place for path, place in writer.keys.items() if path[0] != "elsewhere"}


@given(DOCUMENTS, st.booleans())
def test_every_path_of_a_document_has_a_place(document: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(document, multiline_strings=multiline)
    assert set(find_places(text).values) == set(paths_of(tomllib.loads(text)))


@given(DOCUMENTS)
def test_line_ends_of_another_system_change_no_place(document: dict[str, Any]) -> None:
    text = tomli_w.dumps(document)
    assert find_places(text.replace("\n", "\r\n")) == find_places(text)


@given(st.binary(max_size=60) | st.text(alphabet="a=[]{}\".,#\n\\'1 ", max_size=40).map(str.encode))
def test_any_bytes_are_a_document_or_one_problem_on_one_line(content: bytes) -> None:
    try:
        source = parse_toml(content, "x.toml")
    except ConfigError as error:
        (problem,) = error.problems
        assert "\n" not in str(problem)
        assert str(problem).startswith("x.toml")
    else:
        assert set(source.places.values) == set(paths_of(source.document))


def test_headers_dots_and_arrays_of_tables() -> None:
    text = '''\
top = 1
[a.b]         # comes before [a]
x . "y z" = """
two lines"""
[[a.list]]
one = [ 1, { p.q = '#' },
  # nothing
  3 ]
[[a.list]]
[a.list.inner]
at = 1979-05-27 07:32:00Z
[a]
last = true
'''
    places = find_places(text)
    assert places.values == {
        (): (1, 1),
        ("top",): (1, 7),
        ("a",): (12, 1),
        ("a", "b"): (2, 1),
        ("a", "b", "x"): (3, 1),
        ("a", "b", "x", "y z"): (3, 13),
        ("a", "list"): (5, 1),
        ("a", "list", 0): (5, 1),
        ("a", "list", 0, "one"): (6, 7),
        ("a", "list", 0, "one", 0): (6, 9),
        ("a", "list", 0, "one", 1): (6, 12),
        ("a", "list", 0, "one", 1, "p"): (6, 14),
        ("a", "list", 0, "one", 1, "p", "q"): (6, 20),
        ("a", "list", 0, "one", 2): (8, 3),
        ("a", "list", 1): (9, 1),
        ("a", "list", 1, "inner"): (10, 1),
        ("a", "list", 1, "inner", "at"): (11, 6),
        ("a", "last"): (13, 8),
    }
    assert places.keys["a", "b", "x", "y z"] == (3, 5)
    assert places.keys["a", "list", 1, "inner"] == (10, 9)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a = 1\na = 2\n", "x:2:1: this key was given before; it may stand only once"),
        (b"[t]\na = 1\n  a = 2", "x:3:3: this key was given before; it may stand only once"),
        (b"[a]\n[a]", "x:2:3: this table was given before; put its keys into one table"),
        (b"a = yes", "x:1:5: this is no value; text stands in double quotes, true and false in small letters"),
        (b"a 1", 'x:1:3: there is no "=" after the key; a line is: key = value'),
        (b'a = "x\nb = 1', "x:1:7: the text has no closing quote on its line"),
        (b'a = "\\d"', r'x:1:6: a backslash in "double quotes" begins an escape; write \\ or use single quotes'),
        (
            b"a = {\nb = 1 }",
            "x:1:6: no key begins like this; it has letters, digits, _ and -, and { key = value } stands on one line",
        ),
        (b"a = " + b"9" * 5_000, "x: a number is larger than 64 bits hold, the most that TOML has"),
        (b"a = [1, 0x1" + b"0" * 5_000 + b"]", "x:1:9: a number is larger than 64 bits hold, the most that TOML has"),
        (b"[a]\nb = -9223372036854775809", "x:2:5: a number is larger than 64 bits hold, the most that TOML has"),
        (b"a = 1 b = 2", "x:1:7: something follows that does not belong to the line"),
        (b"= 1", "x:1:1: a line begins with a key, a [table] or a # comment"),
        (b"a = [1 2", 'x:1:8: the array has no closing "]"'),
        (b"a = {b = 1, b = 2}", 'x:1:18: the key "b" was given before; it may stand only once'),
        ('ä = "ü"\nb = "ü'.encode("latin-1"), "x:1:1: byte 0xe4 is not UTF-8; save the file as UTF-8"),
        (b'a = "\xc3\xbc\xff"', "x:1:7: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b'a = 1\nb = "\0"', "x:2:6: there is a NUL byte here; a TOML file is text"),
        (b"a = " + b"[" * 5000, "x: tables and arrays are nested more than 32 deep"),
        (b".".join([b"a"] * 32) + b" = {a = 1}", "x: tables and arrays are nested more than 32 deep"),
        (b"b = 1\n" + b".".join([b"a"] * 33) + b" = 1", f"x:2:1: {TOO_LONG}"),
        (b"b = 1 # '\n[" + b" . ".join([b"'a'"] * 33) + b"]", f"x:2:2: {TOO_LONG}"),
        (b"a = {b = 1, " + b".".join([b'"a\\""', b"a"] * 17) + b" = 1}", f"x:1:13: {TOO_LONG}"),
    ],
)
def test_what_is_no_toml_is_told_in_plain_words(content: bytes, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_toml(content, "x")
    assert [str(problem) for problem in caught.value.problems] == [told]


def test_a_key_of_a_hundred_thousand_parts_takes_no_time() -> None:
    """To tomllib it is a table for each part, and their names take memory that grows with its square."""
    began = time.process_time()
    with pytest.raises(ConfigError, match=TOO_LONG):
        parse_toml(b".".join([b"a"] * 100_000) + b" = 1", "x")
    assert time.process_time() - began < 5


class Lengths(_Scanner):
    """Notes how many parts each key has that the scanner of places meets."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.found = [0]

    def dotted_key(self) -> list[tuple[str, Place]]:
        parts = list(super().dotted_key())
        self.found.append(len(parts))
        return parts


PIECES = (
    *"ab.=#'\"\\\n [],{}1",
    "a.b",
    ".b",
    "a=1\n",
    "[a.b]\n",
    "'a.b'",
    '"b.c"',
    '"""',
    "'''",
    "\nb='''a.b.a'",
    "'''\n",
)


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_a_long_key_is_found_where_there_is_one_and_nowhere_else(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    scanner = Lengths(text)
    scanner.document()
    assert (long_key(text, 2) is not None) == (max(scanner.found) > 2)


@pytest.mark.parametrize("end", ['"', "'", '"""', "'''", '""""', '"""""', "''''"])
def test_what_a_text_or_a_remark_holds_is_no_key(end: str) -> None:
    dots = ".".join(["a"] * 99)
    text = f"a = {end[:3] if len(end) > 2 else end}{dots}{end} # {dots}\nb = 1"
    assert parse_toml(text.encode(), "x").document.keys() == {"a", "b"}


def test_a_byte_order_mark_and_carriage_returns_are_no_problem() -> None:
    source = parse_toml(b"\xef\xbb\xbfa = 1\r\nb = [\r\n2]\r\n", "x")
    assert source.document == {"a": 1, "b": [2]}
    assert source.places.values["b", 0] == (3, 1)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "dir.toml").mkdir()
    (tmp_path / "link.toml").symlink_to("gone.toml")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    large = tmp_path / "large.toml"
    with large.open("wb") as file:
        file.truncate(100 * MAX_BYTES)
    for name, told in (
        ("dir.toml", "is a directory, not a file"),
        ("none.toml", "cannot be read: No such file or directory"),
        ("link.toml", "is a link to gone.toml, which does not exist; mend or remove it"),
        ("loop.toml", "cannot be read: Too many levels of symbolic links"),
        ("large.toml", "is larger than 64 KiB, the most a file may have"),
    ):
        with pytest.raises(ConfigError, match=f"^{name}: {told}$"):
            read_toml(tmp_path / name, name)


def test_a_converter_may_be_larger_than_a_connection_file(tmp_path: Path) -> None:
    path = tmp_path / "converter.toml"
    path.write_bytes(b"a = 1\n" + b"#" * MAX_BYTES)
    assert read_toml(path, "x", most_bytes=MAX_CONVERTER_BYTES)[1].document == {"a": 1}
    path.write_bytes(b"#" * (MAX_CONVERTER_BYTES + 1))
    with pytest.raises(ConfigError, match=r"^x: is larger than 1024 KiB, the most a file may have$"):
        read_toml(path, "x", most_bytes=MAX_CONVERTER_BYTES)


def test_a_file_that_is_for_others_is_told_with_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plant.toml"
    path.touch()

    def refuse(path: Path, mode: str) -> IO[bytes]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    told = "plant.toml: cannot be read: Permission denied; it must be readable for the user that tpxd runs as"
    with pytest.raises(ConfigError, match=f"^{told}$"):
        read_toml(path, "plant.toml")
