"""A real disk that fails and returns: a loop device whose backing has no room for a while. Needs root.

    python -m tests.durability.loop_device DIRECTORY ANSWERS

posts reports to a spool in DIRECTORY as the LRC does, each until it is accepted, and notes the answers, until it is
killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from random import Random

import trio

from tests.durability.posting import LIMITS, report
from tests.durability.survivors import Outcome, answered, examine
from tpxd.errors import SpoolUnavailable
from tpxd.spool import open_spool

AT_ONCE = 8
AGAIN_S = 0.05
SMALL = "size=10m"
LARGE = "size=200m"
WITHIN_S = 60.0


async def post(directory: Path, notes: Path) -> None:
    """Post for ever."""
    numbers = count(1)
    answers = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def one() -> None:
        for n in numbers:
            while True:
                try:
                    seq = (await spool.append(report(n))).seq
                except SpoolUnavailable:
                    os.write(answers, b"refused %d\n" % n)
                    await trio.sleep(AGAIN_S)
                else:
                    os.write(answers, b"kept %d %d\n" % (n, seq))
                    break

    async with open_spool(directory / "spool.db", LIMITS, tell=lambda event: print(event.message)) as spool:
        await spool.cursor("plant")
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(one)


def outages(where: Path) -> Iterator[Outcome]:
    """Let the disk fail amid the posting, return, and lose its page cache some time later.

    Raises:
        PermissionError: this is not root.
    """
    if os.geteuid() != 0:
        raise PermissionError("it needs root")
    for number in count(1):
        yield _outage(where / str(number), Random(number))


def _outage(where: Path, chance: Random) -> Outcome:
    small, disk, notes = where / "small", where / "disk", where / "answers"
    for directory in (small, disk):
        directory.mkdir(parents=True)
    outcome = Outcome()
    with ExitStack() as stack:
        stack.enter_context(_mounted("-t", "tmpfs", "-o", SMALL, "tmpfs", small))
        backing = small / "backing"
        with backing.open("wb") as file:
            file.truncate(150 << 20)
        _run("mkfs.ext4", "-q", "-F", "-N", "64", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=0", backing)
        with _mounted("-o", "loop,errors=continue", backing, disk):
            argv = [sys.executable, "-m", "tests.durability.loop_device", str(disk / "state"), str(notes)]
            with (where / "said").open("wb") as said, subprocess.Popen(argv, stdout=said, stderr=said) as process:
                try:
                    _until(notes, lambda text: "refused" in text)
                    time.sleep(chance.uniform(0.0, 2.0))
                    _run("mount", "-o", f"remount,{LARGE}", small)
                    told, more = len(notes.read_text()), chance.randint(20, 400)
                    _until(notes, lambda text: text[told:].count("kept") > more)
                except TimeoutError as error:
                    outcome.other.append(f"{error}: {(where / 'said').read_text()[-300:]}")
                finally:
                    process.kill()
        known = answered(notes.read_text())
        with _mounted("-o", "loop", backing, disk):  # the page cache went with the first mount
            outcome.add(examine(disk / "state" / "spool.db", known, failed=True), "mounted again")
    if "the disk failed" not in (where / "said").read_text():
        outcome.other.append("nobody noticed that the disk failed")
    shutil.rmtree(where)
    return outcome


def _until(notes: Path, reached: Callable[[str], bool]) -> None:
    end_s = time.monotonic() + WITHIN_S
    while not (notes.exists() and reached(notes.read_text())):
        if time.monotonic() > end_s:
            raise TimeoutError(f"no answer came within {WITHIN_S:.0f} s")
        time.sleep(0.05)


@contextmanager
def _mounted(*arguments: str | Path) -> Iterator[None]:
    _run("mount", *arguments)
    try:
        yield
    finally:
        _run("umount", arguments[-1])


def _run(*argv: str | Path) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise OSError(f"{argv[0]}: {done.stderr.strip()}")


if __name__ == "__main__":
    trio.run(post, Path(sys.argv[1]), Path(sys.argv[2]))
