"""Stores reports one after the other and several at once, as the LRC posts them, and notes each answer.

    python -m tests.durability.posting DIRECTORY FIRST COUNT [PLAN]

The spool is DIRECTORY/spool.db; DIRECTORY/answers gets a line for each answer: `kept N SEQ`, `refused N`, and for what
a queue does: `sent SEQ` before something would leave the house, `settled SEQ` when that is on disk. Reports are
numbered from FIRST on. Every few of them the log is moved into the database, and the queue moves on. The number of the
PLAN chooses how many come at once, how large pages are, and so on.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import trio

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool import Fate, NewReport, Spool, SpoolLimits, open_spool, writer

PAGE = 512
LIMITS = SpoolLimits(page_size=PAGE, min_free_bytes=0, duplicate_window_s=86_400.0)
"""A campaign looks at some of its records much later."""
BATCH = 6
"""Uplinks that a queue may have in flight."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is posted."""

    page: int = PAGE
    at_once: int = 6
    checkpoint_commits: int = 12
    carry_every: int = 5
    batch: int = 1

    @staticmethod
    def of(number: int) -> Plan:
        """The plan of a number; 0 is the plain one."""
        chance = Random(number)
        if number == 0:
            return Plan()
        return Plan(
            page=chance.choice((512, 512, 1_024, 4_096)),
            at_once=chance.randint(1, 12),
            checkpoint_commits=chance.choice((2, 5, 12, 1_000)),
            carry_every=chance.randint(2, 9),
            batch=chance.randint(1, BATCH),
        )


def body_of(n: int) -> bytes:
    """Each report's own body, of one of several sizes."""
    return b'{"DevEUI_uplink":{"FCntUp":%d,"payload_hex":"%s"}}' % (n, b"%02x" % (n % 251) * (n * 37 % 700))


def report(n: int) -> NewReport:
    """The report of a number."""
    return NewReport("DevEUI_uplink", f"0018B2000000{n % 7:04X}", "TWA_1", body_of(n))


async def post(directory: Path, first: int, count: int, plan: Plan) -> None:
    """Post, and note the answers."""
    answers = os.open(directory / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    numbers = iter(range(first, first + count))
    carrying = trio.Lock()

    def note(*lines: str) -> None:
        os.write(answers, "".join(f"{line}\n" for line in lines).encode())

    def tell(event: Event) -> None:
        print(event.kind, event.message)

    async def one(spool: Spool, pause_s: float) -> None:
        for n in numbers:
            try:
                note(f"kept {n} {(await spool.append(report(n))).seq}")
            except SpoolUnavailable as error:
                note(f"refused {n}")
                print(error)
                await trio.sleep(pause_s)
            if n % plan.carry_every == 0:
                async with carrying:
                    await carry(spool)

    async def carry(spool: Spool) -> None:
        """Deliver a batch; every other uplink of it gets its receipt first."""
        cursor = spool.find_cursor("plant")
        assert cursor is not None
        try:
            seqs = [uplink.seq for uplink in await cursor.next_batch(plan.batch, 1 << 20, wait=False)]
            note(*[f"sent {seq}" for seq in seqs])
            for part in (seqs[1::2], seqs[::2]):
                await cursor.commit([(seq, Fate.DELIVERED) for seq in part], in_order=False)
                note(*[f"settled {seq}" for seq in part])
        except SpoolUnavailable as error:
            print(error)

    limits = replace(LIMITS, page_size=plan.page)
    async with open_spool(directory / "spool.db", limits, tell=tell) as spool:
        await spool.cursor("plant")
        async with trio.open_nursery() as nursery:
            for number in range(plan.at_once):
                nursery.start_soon(one, spool, 0.01 * number)


if __name__ == "__main__":
    chosen = Plan.of(int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    writer.CHECKPOINT_COMMITS = chosen.checkpoint_commits
    writer.GATHER_S = 0.0
    trio.run(post, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), chosen)
