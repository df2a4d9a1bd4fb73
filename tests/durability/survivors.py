"""Opens what is left of a spool, posts once more what had no answer, and says what of the promises is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.durability.posting import LIMITS, body_of, report
from tests.durability.recording import Act, Written
from tpxd.events import Event
from tpxd.spool import open_spool


@dataclass(frozen=True, slots=True)
class Answered:
    """What a sender knew when the end came.

    Attributes:
        kept: numbers of reports that were answered 200, with their seqs.
        settled: the newest seq that the queue was told to be done with.
        highest: the highest number that has an answer of any kind.
    """

    kept: dict[int, int]
    settled: int
    highest: int


def answered(text: str) -> Answered:
    """Read the lines that `posting` wrote; the last may be torn."""
    kept: dict[int, int] = {}
    settled = highest = 0
    for line in text.split("\n")[:-1]:
        match line.split():
            case ["kept", n, seq]:
                kept[int(n)] = int(seq)
                highest = max(highest, int(n))
            case ["refused", n]:
                highest = max(highest, int(n))
            case ["settled", seq]:
                settled = max(settled, int(seq))
    return Answered(kept, settled, highest)


def answers_in(acts: Sequence[Act]) -> Answered:
    """What was answered until then, according to a record."""
    lines = [act.data for act in acts if isinstance(act, Written) and act.name == "answers"]
    return answered(b"".join(lines).decode())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is wrong, one line each, and what the spool itself said."""

    wrong: list[str]
    events: list[Event]


def examine(path: Path, known: Answered, at_once: int = 8) -> Outcome:
    """Open a spool, as after a start, and look for everything that was answered.

    Reports without an answer are posted again first, as the LRC does, and some that are new: each of them must be there
    afterwards, and none twice.
    """
    events: list[Event] = []
    wrong: list[str] = []
    last = known.highest + at_once

    async def look() -> None:
        with trio.fail_after(60):
            async with open_spool(path, LIMITS, report=events.append) as spool:
                cursor = await spool.cursor("look")
                plant = await spool.cursor("plant")
                if plant.position < known.settled:
                    wrong.append(f"the queue was done with {known.settled} and is at {plant.position}")
                seqs = dict(known.kept)
                for n in range(1, last + 1):
                    if n not in known.kept:
                        seqs[n] = (await spool.append(report(n))).seq
                first = spool.state.first_seq
                bodies: dict[int, bytes] = {}
                after = first - 1
                while after < spool.state.last_seq:
                    page = await spool.read(after)
                    bodies |= {uplink.seq: uplink.body for uplink in page.uplinks}
                    after = page.through
                for n, seq in seqs.items():
                    if bodies.get(seq) != body_of(n):
                        wrong.append(f"report {n} was answered 200 as uplink {seq}, and is not there")
                if len(set(bodies.values())) < len(bodies):
                    wrong.append(f"{len(bodies) - len(set(bodies.values()))} reports are there twice")
                for queue in (cursor, plant):
                    if queue.ledger.imbalance:
                        wrong.append(f"the ledger of {queue.id} does not balance: {queue.ledger}")

    trio.run(look)
    wrong += [f"an alarm: {event.message}" for event in events]
    return Outcome(wrong, events)
