"""What a disk may hold after a power cut, out of a record of writes and syncs.

Theory of operation: a file is its synced bytes and the writes after its last sync. At a cut any of those may have
reached the disk, whole or in part, in any order. After a sync that failed none of them ever will, and of that file
nothing that was written before or after can be relied on, whatever later syncs say. Names change on the disk in the
order in which they were changed, as a file system with a journal keeps them, and for certain only when the directory is
synced. The length that a file is cut to is kept; what is written after a cut never lies in what was cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from random import Random

from tests.durability.recording import DIRECTORY, Act, Created, Cut, Renamed, Synced, Written

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


@dataclass(frozen=True, slots=True)
class Naming:
    """A file got a name, or lost one, or both at once."""

    held: Held
    name: str | None
    before: str | None = None

    def change(self, names: dict[str, Held]) -> None:
        """Let it happen."""
        if self.before is not None:
            names.pop(self.before, None)
        if self.name is not None:
            names[self.name] = self.held


class Disk:
    """The files of one directory, as far as a record was followed.

    Attributes:
        files: as the process sees them, by name.
    """

    def __init__(self) -> None:
        self.files: dict[str, Held] = {}
        self._named: dict[str, Held] = {}
        self._renamed: list[Naming] = []

    def follow(self, act: Act) -> None:
        """One act further."""
        match act:
            case Created(name):
                self._rename(Naming(Held(), name))
            case Written(name):
                self.files[name].since.append(act)
            case Synced(name, failed) if name in self.files:
                held = self.files[name]
                if not failed:
                    held.synced = applied(held.synced, held.since)
                held.failed = held.failed or failed
                held.since = []
            case Synced(name, failed) if name == DIRECTORY and not failed:
                self._named = dict(self.files)
                self._renamed = []
            case Cut(name, length):
                held = self.files[name]
                held.synced = held.synced[:length]
                held.since = [shortened(one, length) for one in held.since if one.offset < length]
            case Renamed(name, after) if name in self.files:
                self._rename(Naming(self.files[name], after, name))

    def _rename(self, naming: Naming) -> None:
        self._renamed.append(naming)
        naming.change(self.files)

    def image(self, loss: Loss, chance: Random) -> dict[str, bytes]:
        """The files as they may be found if the power is cut now."""
        keep = _KEEPING[loss]
        named = dict(self._named)
        for naming in self._renamed[: self._names_kept(loss, chance)]:
            naming.change(named)
        return {
            name: applied(held.synced, keep(held.since, chance))
            for name, held in named.items()
            if not (held.failed and loss is Loss.FAILED)
        }

    def _names_kept(self, loss: Loss, chance: Random) -> int:
        match loss:
            case Loss.NOTHING:
                return len(self._renamed)
            case Loss.ALL | Loss.FAILED:
                return 0
            case _:
                return chance.randint(0, len(self._renamed))

    def copy(self) -> Disk:
        """The same, on which further acts have no effect."""
        twins: dict[int, Held] = {}

        def twin(held: Held) -> Held:
            return twins.setdefault(id(held), replace(held, since=list(held.since)))

        other = Disk()
        other.files = {name: twin(held) for name, held in self.files.items()}
        other._named = {name: twin(held) for name, held in self._named.items()}
        other._renamed = [replace(naming, held=twin(naming.held)) for naming in self._renamed]
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
