"""How fast the spool is on this machine: `python tests/benchmarks/spool_bench.py [ROWS]`; prints a table.

Columns and rows say what was measured; nothing is asserted. A 1,000,000-row run takes about a minute and 1 GB of disk.
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
from itertools import count
from pathlib import Path

import trio

from tpxd.events import Event
from tpxd.spool import Fate, NewReport, Spool, SpoolLimits, open_spool

BODY = (
    b'{"DevEUI_uplink":{"Time":"2026-11-20T10:00:00.000+00:00","DevEUI":"0018B20000000B20","FPort":2,"FCntUp":%d,'
    b'"payload_hex":"9e1c4852512000220020e3831071","LrrRSSI":-60.0,"LrrSNR":9.75,"SpFact":12,"Filler":"%s"}}'
)
LIMITS = SpoolLimits(max_bytes=8 << 30, min_free_bytes=0, duplicate_window_s=60)


def report(n: int) -> NewReport:
    return NewReport("DevEUI_uplink", "0018B20000000B20", "TWA_100000776.12.AS", BODY % (n, b"x" * 300))


def say(event: Event) -> None:
    print("event:", event.message)


async def append_many(spool: Spool, tasks: int, rows: int) -> tuple[float, float]:
    """Append from so many tasks; (rows per second, microseconds of the main thread per row)."""
    numbers = iter(range(rows))
    base = spool.statistics().stored_total

    async def one() -> None:
        for n in numbers:
            await spool.append(report(base + n))

    began, cpu = time.perf_counter(), time.thread_time()
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(one)
    return rows / (time.perf_counter() - began), (time.thread_time() - cpu) / rows * 1e6


async def append_at(spool: Spool, rate: int, seconds: float) -> list[float]:
    """Append at a rate, open loop; the milliseconds of each, sorted."""
    taken: list[float] = []
    base = spool.statistics().stored_total

    async def one(n: int, due: float) -> None:
        await spool.append(report(base + n))
        taken.append((trio.current_time() - due) * 1000)

    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        for n in range(int(rate * seconds)):
            due = begin + n / rate
            await trio.sleep_until(due)
            nursery.start_soon(one, n, due)
    return sorted(taken)


async def drain(spool: Spool, rows: int) -> float:
    """Deliver everything that waits; rows per second."""
    cursor = await spool.cursor("plant")
    began = time.perf_counter()
    after = cursor.position
    for _ in count():
        batch = await cursor.next_batch(128, 1 << 20, after)
        after = batch[-1].seq
        await cursor.commit([(uplink.seq, Fate.DELIVERED) for uplink in batch])
        if cursor.ledger.waiting == 0:
            break
    return rows / (time.perf_counter() - began)


def resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main(directory: Path, rows: int) -> None:
    print(
        f"{platform.python_version()}, {platform.machine()}, {rows} rows of {len(report(0).body)} bytes in {directory}"
    )
    for tasks in (1, 16, 64, 256, 1024):
        async with open_spool(directory / f"{tasks}.db", LIMITS, tell=say) as spool:
            await spool.cursor("plant")
            rate, cpu = await append_many(spool, tasks, 3_000 if tasks == 1 else 30_000)
            print(f"append, {tasks:5} tasks           {rate:10.0f} rows/s   {cpu:6.1f} µs of the main thread per row")
    async with open_spool(directory / "rate.db", LIMITS, tell=say) as spool:
        await spool.cursor("plant")
        taken = await append_at(spool, 500, 20)
        p50, p99, worst = taken[len(taken) // 2], taken[len(taken) * 99 // 100], taken[-1]
        print(f"append, 500/s, open loop     p50 {p50:.2f} ms   p99 {p99:.2f} ms   worst {worst:.2f} ms")
    path = directory / "backlog.db"
    async with open_spool(path, LIMITS, tell=say) as spool:
        await spool.cursor("plant")
        rate, cpu = await append_many(spool, 256, rows)
        print(f"append of the backlog        {rate:10.0f} rows/s   {cpu:6.1f} µs of the main thread per row")
    print(f"resident at most             {resident_mib():10.0f} MiB")
    began = time.perf_counter()
    async with open_spool(path, LIMITS, tell=say) as spool:
        print(f"open with the backlog        {time.perf_counter() - began:10.2f} s   {path.stat().st_size >> 20} MiB")
        print(f"drain                        {await drain(spool, rows):10.0f} rows/s")
        print(f"resident at most             {resident_mib():10.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        trio.run(main, Path(name), arguments.rows)
