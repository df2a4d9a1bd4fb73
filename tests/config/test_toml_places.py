"""Every key and value of a document has its place, whatever style it is written in."""

from __future__ import annotations

import tomllib
from typing import Any

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from tests.config.documents import paths_of
from tpxd.config.toml_places import Loc, Place, _Scanner, find_places, long_key

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
