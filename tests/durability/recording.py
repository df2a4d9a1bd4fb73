"""What a process did to the files of a directory, in order, as the shim recorded it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEAD = struct.Struct("<cIqq")

DIRECTORY = "."
"""The name under which the directory itself is synced."""


@dataclass(frozen=True, slots=True)
class Created:
    """There is a file of this name now, and it is empty."""

    name: str


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes at a place of a file."""

    name: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything written to the file before is on disk; `failed`: nothing in it can be relied on any more."""

    name: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Cut:
    """The file now has this length."""

    name: str
    length: int


@dataclass(frozen=True, slots=True)
class Renamed:
    """The file has another name; None: it has none any more."""

    name: str
    after: str | None


Act = Created | Written | Synced | Cut | Renamed


def read_record(path: Path) -> list[Act]:
    """Everything recorded, oldest first; what the last process could not record to its end is left out."""
    return list(_acts(path.read_bytes()))


def _acts(content: bytes) -> Iterator[Act]:
    at = 0
    while at + HEAD.size <= len(content):
        what, name_length, offset, length = HEAD.unpack_from(content, at)
        at += HEAD.size
        end = at + name_length + length
        if end > len(content):
            return
        name, data = content[at : at + name_length].decode(), content[at + name_length : end]
        at = end
        match what:
            case b"c":
                yield Created(name)
            case b"w":
                yield Written(name, offset, data)
            case b"s" | b"f":
                yield Synced(name, failed=what == b"f")
            case b"t":
                yield Cut(name, offset)
            case b"u":
                yield Renamed(name, None)
            case b"r":
                yield Renamed(name, data.decode())
            case _:
                raise AssertionError(f"the record has an act {what!r}")
