"""Opens what is left of a spool, posts once more what had no answer, and says what of the promises is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.durability.posting import BATCH, LIMITS, body_of, report
from tests.durability.recording import Act, Written
from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool import Cursor, JournalSpool, open_spool


@dataclass(frozen=True, slots=True)
class Answered:
    """What the sender and the far end knew when the end came.

    Attributes:
        kept: numbers of reports that were answered 200, with their seqs.
        sent: seqs that the far end has.
        settled: those of them whose receipt is on disk.
        highest: the highest number that has an answer of any kind.
    """

    kept: dict[int, int]
    sent: frozenset[int]
    settled: frozenset[int]
    highest: int


def answered(text: str) -> Answered:
    """Read the lines that `posting` wrote; the last may be torn."""
    kept: dict[int, int] = {}
    sent: set[int] = set()
    settled: set[int] = set()
    highest = 0
    for line in text.split("\n")[:-1]:
        match line.split():
            case ["kept", n, seq]:
                kept[int(n)] = int(seq)
                highest = max(highest, int(n))
            case ["refused", n]:
                highest = max(highest, int(n))
            case ["sent", seq]:
                sent.add(int(seq))
            case ["settled", seq]:
                settled.add(int(seq))
    return Answered(kept, frozenset(sent), frozenset(settled), highest)


def answers_in(acts: Sequence[Act]) -> Answered:
    """What was answered until then, according to a record."""
    lines = [act.data for act in acts if isinstance(act, Written) and act.name == "answers"]
    return answered(b"".join(lines).decode())


@dataclass(slots=True)
class Outcome:
    """What is wrong, one line each.

    Attributes:
        lost: of what was answered 200.
        alarms: what the spool said although nothing had happened that people need to know.
        other: whatever else.
        again: how many uplinks the far end gets a second time.
    """

    lost: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    again: int = 0

    @property
    def wrong(self) -> list[str]:
        """All of it."""
        return [*self.lost, *self.alarms, *self.other]

    def add(self, other: Outcome, where: str) -> None:
        """Count another's lines in, with where that was."""
        self.lost += [f"{where}: {one}" for one in other.lost]
        self.alarms += [f"{where}: {one}" for one in other.alarms]
        self.other += [f"{where}: {one}" for one in other.other]
        self.again = max(self.again, other.again)


def examine(path: Path, known: Answered, at_once: int = 16, *, failed: bool = False) -> Outcome:
    """Open a spool, as after a start, and look for everything that was answered.

    Reports without an answer are posted again first, as the LRC does, and some that are new: each of them must be there
    afterwards, and none twice.

    Args:
        failed: the disk has, so that it is no false alarm to say so, and that nothing is lost.
    """
    outcome = Outcome()

    def tell(event: Event) -> None:
        cut_short = "repair of the spool that was cut short" in event.message
        honest = cut_short or ("the disk failed" in event.message and event.more["lost"] == 0)
        if not (failed and honest):
            outcome.alarms.append(f"an alarm: {event.message}")

    async def look() -> None:
        with trio.fail_after(60):
            async with open_spool(path, LIMITS, tell=tell) as spool:
                cursor = await spool.cursor("look")
                plant = await spool.cursor("plant")
                await _look_at_queue(plant, known, outcome)
                await _look_at_journal(spool, known, known.highest + at_once, outcome)
                for queue in (cursor, plant):
                    if queue.ledger.imbalance:
                        outcome.other.append(f"the ledger of {queue.id} does not balance: {queue.ledger}")

    try:
        trio.run(look)
    except* SpoolUnavailable as group:
        outcome.other.append(f"it cannot be read, or does not store: {group.exceptions[0]!r}")
    return outcome


async def _look_at_queue(plant: Cursor, known: Answered, outcome: Outcome) -> None:
    waiting: set[int] = set()
    while batch := await plant.next_batch(64, 1 << 20, max(waiting, default=None), wait=False):
        waiting |= {uplink.seq for uplink in batch}
    forgotten = {seq for seq in known.kept.values() if seq not in known.sent} - waiting
    outcome.lost += [f"uplink {seq} waits for nobody, and was never sent" for seq in sorted(forgotten)]
    outcome.other += [f"uplink {seq} is settled, and sent again" for seq in sorted(known.settled & waiting)]
    outcome.again = len(known.sent & waiting)
    if outcome.again > BATCH:
        outcome.other.append(f"{outcome.again} uplinks are sent again; {BATCH} can have been in flight")


async def _look_at_journal(spool: JournalSpool, known: Answered, last: int, outcome: Outcome) -> None:
    seqs = dict(known.kept)
    for n in range(1, last + 1):
        if n not in known.kept:
            seqs[n] = (await spool.append(report(n))).seq
    bodies: dict[int, bytes] = {}
    after = spool.exchange.state.first_seq - 1
    while after < spool.exchange.state.last_seq:
        page = await spool.exchange.read(after)
        bodies |= {uplink.seq: uplink.body for uplink in page.uplinks}
        after = page.through
    for n, seq in seqs.items():
        if bodies.get(seq) != body_of(n):
            outcome.lost.append(f"report {n} was answered 200 as uplink {seq}, and is not there")
    different = set(bodies.values())
    if len(different) < len(bodies):
        outcome.other.append(f"{len(bodies) - len(different)} reports are there twice")
    if invented := different - {body_of(n) for n in range(1, last + 1)}:
        outcome.other.append(f"{len(invented)} reports are there that nobody posted")
