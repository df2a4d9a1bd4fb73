"""The kinds of faults, and what is counted of each."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.durability.campaigns import cuts, failures, kills, kills_amid_a_copy
from tests.durability.daemon_kills import daemon_kills
from tests.durability.images import Loss
from tests.durability.large import starts
from tests.durability.loop_device import outages
from tests.durability.shim import KILL, TEAR, Place
from tests.durability.survivors import Outcome

HEADING = f"{'':44} {'done':>7} {'lost':>5} {'alarms':>7} {'other':>6} {'twice':>6} {'took':>10}"

Campaign = Callable[[Path], Iterator[Outcome]]


@dataclass
class Kind:
    """One kind of fault.

    Attributes:
        goal: how many are to be done.
        ended: it cannot go on; why.
    """

    name: str
    goal: int
    campaign: Campaign
    done: int = 0
    seconds: float = 0.0
    found: Outcome = field(default_factory=Outcome)
    ended: str | None = None
    outcomes: Iterator[Outcome] | None = None

    def open(self) -> bool:
        """Whether there is more of it to be done."""
        return self.done < self.goal and self.ended is None

    def work(self, where: Path, until_s: float) -> None:
        """Do some of it, until a monotonic time."""
        if self.outcomes is None:
            where.mkdir()
            self.outcomes = self.campaign(where)
        began_s = time.monotonic()
        while self.open() and time.monotonic() < until_s:
            try:
                outcome = next(self.outcomes, None)
            except OSError as error:
                self.ended = str(error)
                break
            if outcome is None:
                self.ended = "no more of them"
                break
            self.found.add(outcome, self.name)
            self.done += 1
        self.seconds += time.monotonic() - began_s

    def close(self) -> None:
        """End what it has started."""
        if isinstance(self.outcomes, Generator):
            self.outcomes.close()

    def line(self) -> str:
        """Its figures."""
        found = self.found
        figures = f"{self.done:7,d} {len(found.lost):5d} {len(found.alarms):7d} {len(found.other):6d} {found.again:6d}"
        return f"{self.name:44} {figures} {self.seconds:8.0f} s" + (f"  ({self.ended})" if self.ended else "")


def kinds() -> list[Kind]:
    """Every kind of fault, and how many of it a whole campaign does."""
    found = [
        Kind("killed before a write", 1_000, partial(kills, counted=Place.WRITES, how=KILL)),
        Kind("killed amid a write", 1_000, partial(kills, counted=Place.WRITES, how=TEAR)),
        Kind("killed before a sync", 1_000, partial(kills, counted=Place.SYNCS, how=KILL)),
        Kind("killed at any call", 1_000, partial(kills, counted=Place.CALLS, how=KILL)),
        Kind("killed amid the copy after a failed sync", 1_000, kills_amid_a_copy),
    ]
    found += [
        Kind(f"power cut, {named}", 2_500, partial(cuts, loss=loss))
        for loss, named in (
            (Loss.ALL, "all is lost"),
            (Loss.SOME, "whole writes are lost"),
            (Loss.SECTORS, "sectors are lost"),
            (Loss.TAIL, "torn in a write"),
        )
    ]
    for why in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
        name = errno.errorcode[why]
        found.append(Kind(f"{name} of a write", 300, partial(failures, counted=Place.WRITES, why=why)))
        if why != errno.EDQUOT:
            found.append(Kind(f"{name} of a sync", 300, partial(failures, counted=Place.SYNCS, why=why)))
    found.append(Kind("the whole daemon killed at any call", 150, daemon_kills))
    found.append(Kind("a loop device that fails and returns", 10, outages))
    found.append(Kind("start with 100,000 rows", 5, starts))
    return found
