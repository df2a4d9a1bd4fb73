"""The directory of drivers as it should be at work: the newest version of each, or the last good one.

a driver appears or changes     it is read, and a worker looks at its scripts: can they be run, what do they have
it is not fine                  its last good version goes on, as long as the daemon runs; the problems say why
it is gone                      it is gone
a folder cannot be read         what was good in it goes on
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from tpxd.codecs.catalogue import Catalogue
from tpxd.codecs.drivers import Driver, Found, read_drivers
from tpxd.codecs.engine import Call
from tpxd.codecs.workers import ScriptWorkers
from tpxd.config.flow import AUTO, Flow
from tpxd.errors import Problem
from tpxd.reload.bounded import PATIENCE_S, Bounded
from tpxd.reload.stamps import Stamps, stamps_of

PROOF_S: Final = 10.0
"""For all drivers that changed at once; those that are left are looked at the next time."""

DECODERS: Final = frozenset(
    {"decodeUplink", "Decoder", "Decode", "encodeDownlink", "Encoder", "Encode", "decodeDownlink"}
)


_NAME: Final = re.compile(r"[^.].*\.(js|json|yaml)|[A-Za-z][\w-]*")


def is_driver_name(name: str) -> bool:
    """Whether a file of this name may belong to a driver, or a folder of this name hold some."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class _Read:
    """A driver as it was read, and by what its files are known to be as they were then."""

    driver: Driver
    stamps: Stamps | None


class DriverDir:
    """Reads the directory, remembers what was good, and keeps the catalogue.

    Attributes:
        problems: what is wrong with the directory now.
    """

    def __init__(self, directory: Path, catalogue: Catalogue, workers: ScriptWorkers) -> None:
        self.directory = directory
        self.problems: tuple[Problem, ...] = ()
        self._catalogue = catalogue
        self._workers = workers
        self._looks = Bounded()
        self._read: dict[Path, _Read] = {}
        self._proved: dict[Path, tuple[Driver, Driver | Problem]] = {}
        self._good: dict[Path, Driver] = {}
        self._watched = frozenset({directory})

    def watched(self) -> frozenset[Path]:
        """Every folder with drivers."""
        return self._watched

    def lacks(self, flow: Flow) -> str | None:
        """Which driver a flow names that is not there; None where nothing is lacking."""
        if not flow.decodes or flow.driver == AUTO or self._catalogue.named(flow.driver) is not None:
            return None
        return f'there is no driver "{flow.driver}" in {self.directory}'

    async def refresh(self) -> None:
        """Look at every driver, and let those that are fine be used. What did not change is not read again."""
        key = str(self.directory)
        looks = await trio.to_thread.run_sync(self._looks.each, [key], self._look, abandon_on_cancel=True)
        if key not in looks:
            text = f"the drivers cannot be read within {PATIENCE_S:g} s; does a mount hang?"
            self.problems = (Problem(key, 0, 0, "", text),)
            return
        found, self._read = looks[key]
        with trio.move_on_after(PROOF_S):
            for path, driver in found.drivers.items():
                if (known := self._proved.get(path)) is None or known[0] is not driver:
                    self._proved[path] = driver, await self._prove(driver)
        self._judge(found)

    def _look(self, _: str) -> tuple[Found, dict[Path, _Read]]:
        """Read what changed; runs in a thread that may be left to itself, so it changes nothing."""
        known = self._read
        stamps: dict[Path, Stamps | None] = {}

        def unchanged(path: Path) -> Driver | None:
            if (before := known.get(path)) is None:
                return None
            stamps[path] = stamps_of(before.driver.files)
            return before.driver if stamps[path] is not None and stamps[path] == before.stamps else None

        found = read_drivers(self.directory, unchanged)
        read = {}
        for path, driver in found.drivers.items():
            before = known.get(path)
            if before is not None and before.driver == driver:
                read[path] = _Read(before.driver, stamps.get(path))
            else:
                read[path] = _Read(driver, None)
        drivers = {path: each.driver for path, each in read.items()}
        return replace(found, drivers=drivers), read

    async def _prove(self, driver: Driver) -> Driver | Problem:
        """The driver with what its scripts have, or what is wrong with one of them."""
        functions: set[str] = set()
        for path, source in driver.files.items():
            if source is None:
                continue
            [outcome] = await self._workers.run([(str(path), "", Call(source, driver.signature, "names", {}))])
            if outcome.failure is not None:
                line, column = outcome.failure.place or (0, 0)
                return Problem(str(path), line, column, "", outcome.failure.text)
            functions.update(outcome.result)
        if functions.isdisjoint(DECODERS):
            return Problem(str(driver.path), 0, 0, "", f"has none of {', '.join(sorted(DECODERS))}")
        return replace(driver, functions=frozenset(functions))

    def _judge(self, found: Found) -> None:
        problems = [*found.problems]
        good: dict[Path, Driver] = {}
        for path in (*found.drivers, *found.broken):
            _, proved = self._proved.get(path, (None, None)) if path in found.drivers else (None, None)
            if isinstance(proved, Problem):
                problems.append(proved)
            if isinstance(proved, Driver):
                good[path] = proved
            elif path in self._good:
                good[path] = self._good[path]
        unread = {Path(stray.path) for stray in found.strays}
        for path, driver in self._good.items():
            if not unread.isdisjoint(path.parents):
                good.setdefault(path, driver)
        self._proved = {path: proved for path, proved in self._proved.items() if path in found.drivers}
        if good != self._good:
            self._catalogue.set(good[path] for path in sorted(good))
        self._good = good
        self.problems = tuple(problems)
        self._watched = frozenset({self.directory, *found.folders})
