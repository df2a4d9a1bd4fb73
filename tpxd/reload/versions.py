"""The directory of connection files as it should be at work: the newest version of each file, or the last good one.

a file appears or changes       generation + 1, whether it is fine or not
it is fine                      its model is what should run; `accept` keeps its text once it does
it is not                       the last good version goes on, also after a restart; the problems say why
it is gone                      it is not in the snapshot; its count stays and goes on when it comes back
the directory cannot be read    everything stays as it was
a file cannot be read in time   as if it were not fine; the others are judged
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tpxd.config.connection_file import ConnectionFile
from tpxd.config.fields import SecretSources
from tpxd.config.toml import MAX_BYTES
from tpxd.errors import ConfigError, Problem
from tpxd.reload.bounded import PATIENCE_S, Bounded
from tpxd.reload.files import (
    Broken,
    Directory,
    Entry,
    Loaded,
    clashes,
    file_of,
    is_current,
    list_directory,
    load_file,
    parse_file,
    unread,
)
from tpxd.reload.last_good import Kept, LastGood, Versions
from tpxd.reload.stamps import Stamps, stamps_of

SETTLE_S: Final = 0.05
SETTLE_ROUNDS: Final = 20
LATE: Final = f"cannot be read within {PATIENCE_S:g} s; does a mount hang?"

_LISTING: Final = ""
"""The key of the look at the directory itself, which is no id."""


@dataclass(frozen=True, slots=True)
class Desired:
    """One id.

    Attributes:
        generation: counts every version seen, bad ones too.
        running: the generation that `model` is; None where there is no model.
        accepted: the generation whose text is kept for a restart, 0 when none is.
        model: what should run: the newest version, or the last good one; None when there never was one.
        problems: what is wrong with the newest version; empty when it is `model`.
        warnings: what only this version of tpxd refuses about it, where it ran before and so goes on.
        name, connector_id: of a file that never was fine, as far as they can be read.
    """

    generation: int
    running: int | None
    accepted: int
    model: ConnectionFile | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    name: str = ""
    connector_id: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All ids.

    Attributes:
        strays: what is wrong besides them, such as a file whose name is no id.
        whole: the directory could be read; else this is what it was before, and what is not here may be there.
    """

    desired: Mapping[str, Desired]
    strays: tuple[Problem, ...] = ()
    whole: bool = True


Good = tuple[int, Loaded]


@dataclass(slots=True)
class _Known:
    """What is known of one id.

    Attributes:
        accepted: the generation whose text is kept, 0 when none is.
        good: the newest version that was fine, with its generation.
    """

    versions: Versions = field(default_factory=Versions)
    accepted: int = 0
    good: Good | None = None


class ConfigDir:
    """Reads the directory and remembers what was good. `read` may run in any thread."""

    def __init__(
        self, directory: Path, last_good: Path, *, settle: Callable[[], None] = lambda: time.sleep(SETTLE_S)
    ) -> None:
        self._directory = directory
        self._settle = settle
        self._reading = threading.Lock()  # held while files are read and vanished ones are waited for
        self._lock = threading.Lock()  # held for moments, since `accept` is called from the event loop
        self._last_good = LastGood(last_good)
        self._known = {id: _Known(versions) for id, versions in self._last_good.recall().items()}
        for id in self._last_good.ids():
            if kept := self._last_good.kept(id):
                known = self._known.setdefault(id, _Known())
                known.accepted = kept.generation
                known.versions.generation = max(known.versions.generation, kept.generation)
        self._versions_changed = False
        self._unwritten: set[str] = set()
        self._unsynced: set[str] = set()
        self._entries: Mapping[str, Entry] = {}
        self._stamps: dict[str, Stamps | None] = {}
        self._looks = Bounded()
        self._looks_back = Bounded()
        self._all_fine = False
        self._snapshot = Snapshot({})
        self._watched = frozenset({directory})

    @property
    def name(self) -> str:
        """The directory's own name, as problems show it."""
        return self._directory.name

    def watched(self) -> frozenset[Path]:
        """The directory, and every file that a secret in it names."""
        return self._watched

    def read(self) -> Snapshot:
        """Read everything and say what should run. Blocks: a file that vanished is given a moment to come back."""
        with self._reading:
            try:
                directory = self._settled()
            except ConfigError as error:
                return replace(self._snapshot, strays=tuple(error.problems), whole=False)
            desired = self._snapshot.desired if self._is_as_before(directory) else self._judge_all(directory)
            self._snapshot = Snapshot(desired, (*directory.strays, *self._save()))
            return self._snapshot

    def _is_as_before(self, directory: Directory) -> bool:
        """Every file is what it was when all were fine, so nothing has to be judged anew."""
        before = self._entries
        return (
            self._all_fine
            and directory.entries.keys() == before.keys()
            and all(before[id] is entry for id, entry in directory.entries.items())
        )

    def accept(self, id: str, generation: int) -> None:
        """This generation is at work: keep its text for a restart, unless a newer one was found good meanwhile.

        A disk that refuses is told by the next snapshot, and tried again there.
        """
        with self._lock:
            known = self._known.get(id)
            if known is None or known.good is None or known.good[0] != generation:
                return
            known.accepted = generation
            self._all_fine = False
            self._unwritten.add(id)
            with suppress(OSError):
                self._write(id)

    def forget_all_but(self, ids: Collection[str]) -> None:
        """Of what is neither one of these ids nor a file, not even the count of versions is kept any longer."""
        with self._lock:
            for id in self._known.keys() - self._entries.keys() - self._unwritten - set(ids):
                del self._known[id]
                self._stamps.pop(id, None)
                self._versions_changed = True

    def _settled(self) -> Directory:
        """The directory's content; when files vanished, what it is once their number stays the same.

        Editors delete and write anew, and people replace the whole directory: neither may stop a connection.
        """
        directory = self._load()
        for _ in range(SETTLE_ROUNDS):
            if not self._entries.keys() - directory.entries.keys():
                break
            self._settle()
            before, directory = directory, self._load()
            if directory.entries.keys() == before.entries.keys():
                break
        return directory

    def _load(self) -> Directory:
        """Look at every file, as far as it can be read in time.

        Raises:
            ConfigError: the directory cannot be read.
        """
        listed = self._looks.each([_LISTING], lambda _: self._list()).get(_LISTING)
        if listed is None:
            raise ConfigError([Problem(str(self._directory), 0, 0, "", f"the directory {LATE}")])
        if isinstance(listed, list):
            raise ConfigError(listed)
        ids, strays = listed
        seen = self._looks.each(ids, self._look)
        return Directory({id: seen.get(id) or self._late(id) for id in ids}, strays)

    def _list(self) -> tuple[list[str], tuple[Problem, ...]] | list[Problem]:
        try:
            return list_directory(self._directory, self._directory.name)
        except ConfigError as error:
            return error.problems

    def _look(self, id: str) -> Entry:
        """What a file holds now; it is not read again while it and what its secrets name are as they were."""
        path, known = file_of(self._directory, id), self._entries.get(id)
        stamps = None if known is None else stamps_of((path, *known.watched))
        if known is not None and stamps is not None and self._stamps.get(id) == stamps:
            return known
        kept = self._last_good.kept(id)
        most_bytes = max(MAX_BYTES, 0 if kept is None else len(kept.text))
        entry = load_file(path, self._sources(), self._shown(id), known, most_bytes=most_bytes)
        if isinstance(entry, Broken) and entry is not known and kept is not None:
            entry = self._forgiven(entry, kept)
        self._stamps[id] = stamps if entry is known else None
        return entry

    def _late(self, id: str) -> Entry:
        entry, known = unread(id, Problem(self._shown(id), 0, 0, "", LATE)), self._entries.get(id)
        return known if known == entry else entry

    def _shown(self, id: str) -> str:
        return f"{self._directory.name}/{id}.toml"

    def _sources(self) -> SecretSources:
        return SecretSources(self._directory)

    def _forgiving(self) -> SecretSources:
        return SecretSources(self._directory, forgiving=True)

    def _judge_all(self, directory: Directory) -> dict[str, Desired]:
        self._entries = directory.entries
        clashing = self._clashing()
        wrong = {id: entry.problems for id, entry in self._entries.items() if isinstance(entry, Broken)} | clashing
        good_before = self._looks_back.each(wrong, self._good_before)
        with self._lock:
            desired = {
                id: self._judge(entry, wrong.get(id, ()), good_before.get(id))
                for id, entry in sorted(self._entries.items())
            }
            for id in self._known.keys() - self._entries.keys():
                self._forget_text(id)
        good = [known.good[1] for known in self._known.values() if known.good is not None]
        named = (path for entry in (*self._entries.values(), *good) for path in entry.watched)
        self._watched = frozenset({self._directory, *named})
        self._all_fine = not wrong
        return desired

    def _clashing(self) -> dict[str, tuple[Problem, ...]]:
        """What files want that another one has; the ones that were fine before keep it."""
        loaded = [entry for entry in self._entries.values() if isinstance(entry, Loaded)]

        def came_later(entry: Loaded) -> tuple[bool, str]:
            known = self._known.get(entry.id, _Known())
            versions = known.versions
            ran = known.accepted == versions.generation and versions.digest == entry.digest
            return not ran and (known.good is None or known.good[1].digest != entry.digest), entry.id

        return clashes(sorted(loaded, key=came_later), self._entries)

    def _judge(self, entry: Entry, problems: tuple[Problem, ...], good_before: Good | None) -> Desired:
        known = self._known.setdefault(entry.id, _Known())
        versions = known.versions
        if versions.digest != entry.digest:
            versions.generation += 1
            versions.digest = entry.digest
            self._versions_changed = True
        if isinstance(entry, Loaded) and not problems:
            known.good = versions.generation, entry
        else:
            known.good = good_before or known.good
        running, model = (None, None) if known.good is None else (known.good[0], known.good[1].file)
        desired = Desired(versions.generation, running, known.accepted, model, problems)
        if isinstance(entry, Broken):
            desired = replace(desired, name=entry.name, connector_id=entry.connector_id)
        else:
            warnings = () if problems else entry.warnings
            desired = replace(desired, warnings=warnings, name=entry.file.name, connector_id=entry.file.connectorId)
        before = self._snapshot.desired.get(entry.id)
        return before if before == desired else desired

    def _forgiven(self, entry: Broken, kept: Kept) -> Entry:
        """A file that ran before, word by word, goes on running: what only this version refuses is a warning."""
        if kept.text != entry.content:
            return entry
        forgiven = parse_file(entry.id, entry.content, self._forgiving(), self._shown(entry.id))
        if isinstance(forgiven, Broken):
            return entry
        warnings = (
            replace(problem, message=f"{problem.message}; it goes on, since it ran before", severity="warning")
            for problem in entry.problems
        )
        return replace(forgiven, warnings=tuple(warnings))

    def _good_before(self, id: str) -> Good | None:
        """The last good version, with its secrets as they are now where they resolve."""
        known = self._known.get(id, _Known())
        if known.good is not None and is_current(known.good[1]):
            return known.good
        before = self._last_good.kept(id) if known.good is None else Kept(known.good[0], known.good[1].content)
        if before is None:
            return None
        entry = parse_file(id, before.text, self._forgiving(), f"{self._last_good.directory.name}/{id}.toml")
        return (before.generation, entry) if isinstance(entry, Loaded) else known.good

    def _forget_text(self, id: str) -> None:
        """The file is gone: what it said, a password perhaps, goes too."""
        known = self._known[id]
        if known.versions.digest or known.accepted:
            known.versions.digest = ""
            known.accepted, known.good = 0, None
            self._versions_changed = True
            self._unwritten.add(id)

    def _save(self) -> list[Problem]:
        """Bring to disk what is not there yet; the problem of the disk where it refuses."""
        try:
            if self._versions_changed:
                self._last_good.remember({id: known.versions for id, known in self._known.items()})
                self._versions_changed = False
            with self._lock:
                for id in list(self._unwritten):
                    self._write(id)
                unsynced, self._unsynced = self._unsynced, set()
            if unsynced:
                self._last_good.sync(unsynced)
        except OSError as error:
            message = f"cannot be written: {error.strerror}; after a restart a broken file would not run"
            return [Problem(str(self._last_good.directory), 0, 0, "", message)]
        return []

    def _write(self, id: str) -> None:
        good = self._known[id].good
        if good is None:
            self._last_good.drop(id)
        elif good[0] == self._known[id].accepted:
            self._last_good.keep(id, Kept(good[0], good[1].content))
        self._unwritten.discard(id)
        self._unsynced.add(id)
