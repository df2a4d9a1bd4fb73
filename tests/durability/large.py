"""Starts with a spool of many rows, after a kill: how long until the first report is answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from tests.durability.survivors import Outcome
from tpxd.spool import NewReport, SpoolLimits, open_spool

ROWS = 100_000
AT_ONCE = 500
WITHIN_S = 1.0
LIMITS = SpoolLimits(min_free_bytes=0)


def _report(n: int) -> NewReport:
    body = b'{"DevEUI_uplink":{"FCntUp":%d,"payload_hex":"%s"}}' % (n, b"5a" * 300)
    return NewReport("DevEUI_uplink", f"0018B200{n % 5_000:08X}", "TWA_1", body)


async def fill(path: Path, rows: int) -> None:
    """Store so many, one queue waiting for all of them, and be killed."""
    async with open_spool(path, LIMITS, tell=print) as spool:
        await spool.cursor("plant")
        for first in range(0, rows, AT_ONCE):
            async with trio.open_nursery() as nursery:
                for n in range(first, min(rows, first + AT_ONCE)):
                    nursery.start_soon(spool.append, _report(n))
        os.kill(os.getpid(), signal.SIGKILL)


def starts(where: Path) -> Iterator[Outcome]:
    """Kill a process with a large spool, and start; again and again, each time with a few rows more in the log."""
    path, rows = where / "spool.db", ROWS
    for _ in range(5):
        done = subprocess.run([sys.executable, "-m", "tests.durability.large", str(path), str(rows)], timeout=600)
        assert done.returncode == -signal.SIGKILL
        outcome = Outcome()
        took_s = trio.run(_answer_one, path, rows, outcome)
        if took_s > WITHIN_S:
            outcome.other.append(f"with {rows} rows it took {took_s:.2f} s to answer a report")
        print(f"with {rows} rows, {took_s:.2f} s after the start a report was answered", file=sys.stderr)
        rows += 2_000
        yield outcome


async def _answer_one(path: Path, rows: int, outcome: Outcome) -> float:
    began_s = time.monotonic()
    async with open_spool(path, LIMITS, tell=lambda event: outcome.alarms.append(event.message)) as spool:
        if not (await spool.append(_report(rows - 1))).duplicate:
            outcome.lost.append("the last report was answered 200, and is not known")
        took_s = time.monotonic() - began_s
        if spool.exchange.state.last_seq != rows:
            outcome.lost.append(f"of {rows} rows there are {spool.exchange.state.last_seq}")
    return took_s


if __name__ == "__main__":
    trio.run(fill, Path(sys.argv[1]), int(sys.argv[2]))
