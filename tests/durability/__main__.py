"""The whole campaign: thousands of kills, power cuts and failures of the disk, each at a moment of its own.

    python -m tests.durability [--minutes N] [--only WORD]

Prints a line for each kind of fault: how often it was done, what was lost, how often a start alarmed people for
nothing, what else was wrong, and how many uplinks a far end got twice at most. Ends with 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.durability.kinds import HEADING, kinds

TURN_S = 5.0
EVIDENCE = 5
"""Lines told of each kind of fault."""


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.durability")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long at most (default: %(default)s)")
    parser.add_argument("--only", default="", help="only kinds of faults whose names have this in them")
    arguments = parser.parse_args()
    until_s = time.monotonic() + 60 * arguments.minutes
    chosen = [kind for kind in kinds() if arguments.only in kind.name]
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="tpxd-durability-", dir=memory if memory.is_dir() else None) as directory:
        try:
            while time.monotonic() < until_s and (left := [kind for kind in chosen if kind.open()]):
                least = min(left, key=lambda kind: kind.done / kind.goal)
                least.work(Path(directory) / str(chosen.index(least)), min(until_s, time.monotonic() + TURN_S))
        finally:
            for kind in chosen:
                kind.close()
    print(HEADING)
    for kind in chosen:
        print(kind.line())
    for kind in chosen:
        for line in kind.found.wrong[:EVIDENCE]:
            print(line)
    return 1 if any(kind.found.wrong for kind in chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
