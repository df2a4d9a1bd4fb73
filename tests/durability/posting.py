"""Stores reports one after the other and several at once, as the LRC posts them, and notes each answer.

    python -m tests.durability.posting DIRECTORY FIRST COUNT

The spool is DIRECTORY/spool.db; DIRECTORY/answers gets a line for each answer: `kept N SEQ`, `refused N`,
`settled SEQ`. Reports are numbered from FIRST on. Every few of them the log is moved into the database, and a queue
moves on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool import Fate, NewReport, Spool, SpoolLimits, open_spool, writer

PAGE = 512
AT_ONCE = 6
CHECKPOINT_COMMITS = 12
LIMITS = SpoolLimits(page_size=PAGE, min_free_bytes=0)


def body_of(n: int) -> bytes:
    """Each report's own body, of one of several sizes."""
    return b'{"DevEUI_uplink":{"FCntUp":%d,"payload_hex":"%s"}}' % (n, b"%02x" % (n % 251) * (n * 37 % 700))


def report(n: int) -> NewReport:
    """The report of a number."""
    return NewReport("DevEUI_uplink", f"0018B2000000{n % 7:04X}", "TWA_1", body_of(n))


async def post(directory: Path, first: int, count: int) -> None:
    """Post, and note the answers."""
    answers = os.open(directory / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    numbers = iter(range(first, first + count))

    def tell(event: Event) -> None:
        print(event.kind, event.message)

    async def one(spool: Spool, pause_s: float) -> None:
        for n in numbers:
            try:
                answer = f"kept {n} {(await spool.append(report(n))).seq}\n"
            except SpoolUnavailable as error:
                answer = f"refused {n}\n"
                print(error)
                await trio.sleep(pause_s)
            os.write(answers, answer.encode())
            if n % 5 == 0:
                await carry(spool)

    async def carry(spool: Spool) -> None:
        cursor = spool.find_cursor("plant")
        assert cursor is not None
        try:
            for uplink in await cursor.next_batch(1, 1 << 20, wait=False):
                await cursor.commit([(uplink.seq, Fate.DELIVERED)])
                os.write(answers, b"settled %d\n" % uplink.seq)
        except SpoolUnavailable as error:
            print(error)

    async with open_spool(directory / "spool.db", LIMITS, report=tell) as spool:
        await spool.cursor("plant")
        async with trio.open_nursery() as nursery:
            for number in range(AT_ONCE):
                nursery.start_soon(one, spool, 0.01 * number)


if __name__ == "__main__":
    writer.CHECKPOINT_COMMITS = CHECKPOINT_COMMITS
    writer.GATHER_S = 0.0
    trio.run(post, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
