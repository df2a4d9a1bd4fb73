"""What is no TOML is told in one line with its place, and what would take memory is refused before it is parsed."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.documents import paths_of
from tpxd.config.toml import MAX_BYTES, MAX_CONVERTER_BYTES, parse_toml, read_toml
from tpxd.errors import ConfigError

TOO_LONG = "this key has more than 32 parts, the most a key may have"


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
