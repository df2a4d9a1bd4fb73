"""What tests of the spool share: reports, and a house in which one spool is opened again and again."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tpxd.events import Event
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor, Fate, JournalSpool, NewReport, Spool, SpoolLimits, open_spool


def report(n: int, size: int = 10) -> NewReport:
    body = b'{"DevEUI_uplink":{"FCntUp":%d,"payload_hex":"%s"}}' % (n, b"ab" * size)
    return NewReport("DevEUI_uplink", f"0018B2000000{n % 7:04X}", "TWA_1", body, {"DevEUI_uplink": {"FCntUp": n}})


@dataclass
class House:
    """Opens one spool again and again; keeps its events."""

    path: Path
    limits: SpoolLimits = field(default_factory=SpoolLimits)
    events: list[Event] = field(default_factory=list)
    now_s: float = 1_795_000_000.0
    free: int = 1 << 40

    @asynccontextmanager
    async def open(self) -> AsyncIterator[JournalSpool]:
        with trio.fail_after(30):
            async with open_spool(
                self.path,
                self.limits,
                tell=self.events.append,
                wall_clock=lambda: self.now_s,
                measure_free=lambda directory: self.free,
                monotonic=lambda: self.now_s,
            ) as spool:
                yield spool

    def sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(statement)


async def append_all(spool: Spool, numbers: range) -> None:
    async with trio.open_nursery() as nursery:
        for n in numbers:
            nursery.start_soon(spool.append, report(n))


async def take(cursor: Cursor, count: int, most: int = 128) -> list[Uplink]:
    taken: list[Uplink] = []
    while len(taken) < count:
        taken += await cursor.next_batch(min(most, count - len(taken)), 1 << 20, taken[-1].seq if taken else None)
    return taken


def settled(uplinks: list[Uplink]) -> list[tuple[int, Fate]]:
    return [(uplink.seq, Fate.DELIVERED) for uplink in uplinks]
