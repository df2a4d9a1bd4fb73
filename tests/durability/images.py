"""What a disk may hold after a power cut, out of a record of writes and syncs.

Theory of operation: a file is its synced bytes and the writes after its last sync. At a cut any of those may have
reached the disk, whole or in part, in any order. After a sync that failed none of them ever will, and of that file
nothing that was written before or after can be relied on, whatever later syncs say. Names, and the length
that a file is cut to, change in the order in which they were changed, as a file system with a journal keeps them; what
is written after a cut never lies in what was cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random

from tests.durability.recording import Act, Cut, Renamed, Synced, Written

SECTOR = 512


class Loss(Enum):
    """How much of what was not synced is lost."""

    NOTHING = "nothing: the process is killed"
    ALL = "all"
    SOME = "whole writes, any of them"
    SECTORS = "sectors of 512 bytes, any of them"
    TAIL = "all after some byte of some write"
    FAILED = "all, and every file of which a sync or a write has failed"


@dataclass
class Held:
    """One file: what is on disk for certain, and what perhaps is."""

    synced: bytes = b""
    since: list[Written] = field(default_factory=list)
    failed: bool = False


class Disk:
    """The files of one directory, as far as a record was followed."""

    def __init__(self) -> None:
        self.files: dict[str, Held] = {}

    def follow(self, act: Act) -> None:
        """One act further."""
        match act:
            case Written(name):
                self.files.setdefault(name, Held()).since.append(act)
            case Synced(name, failed) if name in self.files:
                held = self.files[name]
                if not failed:
                    held.synced = applied(held.synced, held.since)
                held.failed = held.failed or failed
                held.since = []
            case Cut(name, length):
                held = self.files.setdefault(name, Held())
                held.synced = held.synced[:length]
                held.since = [shortened(one, length) for one in held.since if one.offset < length]
            case Renamed(name, after) if name in self.files:
                held = self.files.pop(name)
                if after is not None:
                    self.files[after] = held

    def image(self, loss: Loss, chance: Random) -> dict[str, bytes]:
        """The files as they may be found if the power is cut now."""
        keep = _KEEPING[loss]
        return {
            name: applied(held.synced, keep(held.since, chance))
            for name, held in self.files.items()
            if not (held.failed and loss is Loss.FAILED)
        }

    def copy(self) -> Disk:
        """The same, on which further acts have no effect."""
        other = Disk()
        other.files = {name: copy(held) for name, held in self.files.items()}
        for held in other.files.values():
            held.since = list(held.since)
        return other


def applied(content: bytes, writes: Iterable[Written]) -> bytes:
    """A file after some writes."""
    changed = bytearray(content)
    for one in writes:
        if len(changed) < one.offset:
            changed += bytes(one.offset - len(changed))
        changed[one.offset : one.offset + len(one.data)] = one.data
    return bytes(changed)


def shortened(one: Written, length: int) -> Written:
    """What of a write lies before a place of its file."""
    return Written(one.name, one.offset, one.data[: length - one.offset])


def write_image(image: dict[str, bytes], directory: Path) -> None:
    """Put an image where a spool can be opened."""
    directory.mkdir()
    for name, content in image.items():
        (directory / name).write_bytes(content)


def _some(writes: list[Written], chance: Random) -> list[Written]:
    return [one for one in writes if chance.random() < 0.5]


def _sectors(writes: list[Written], chance: Random) -> list[Written]:
    kept = []
    likely = chance.choice((0.1, 0.5, 0.9))
    fates: dict[int, bool] = {}
    for one in writes:
        at = one.offset
        while at < one.offset + len(one.data):
            sector = at // SECTOR
            end = min((sector + 1) * SECTOR, one.offset + len(one.data))
            if fates.setdefault(sector, chance.random() < likely):
                kept.append(Written(one.name, at, one.data[at - one.offset : end - one.offset]))
            at = end
    return kept


def _tail(writes: list[Written], chance: Random) -> list[Written]:
    if not writes:
        return []
    last = chance.randrange(len(writes))
    torn = writes[last]
    return [*writes[:last], Written(torn.name, torn.offset, torn.data[: chance.randrange(len(torn.data) + 1)])]


_KEEPING: dict[Loss, Callable[[list[Written], Random], list[Written]]] = {
    Loss.NOTHING: lambda writes, chance: writes,
    Loss.ALL: lambda writes, chance: [],
    Loss.SOME: _some,
    Loss.SECTORS: _sectors,
    Loss.TAIL: _tail,
    Loss.FAILED: lambda writes, chance: [],
}
