"""Runs a program on a disk that records, fails or ends it; needs gcc. See `shim.c`."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir

KILL = -1
"""In place of an errno: the process ends instead of the call."""

TEAR = -2
"""In place of the errno of a write: the process ends when half of it is done."""

SOURCE = Path(__file__).with_name("shim.c")


class Place(IntEnum):
    """The numbers in the control file, as `shim.c` has them."""

    CALLS = 0
    KILL_AT = 1
    KILL_AFTER = 2
    WRITES = 3
    WRITES_FROM = 4
    WRITES_MANY = 5
    WRITES_WHY = 6
    SYNCS = 7
    SYNCS_FROM = 8
    SYNCS_MANY = 9
    SYNCS_WHY = 10
    SYNCS_SLOW_MS = 11


@cache
def library() -> Path:
    """The compiled shim; one for all test processes."""
    built = Path(gettempdir()) / f"tpxd-shim-{os.getuid()}-{sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    if not built.exists():
        draft = built.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["gcc", "-O1", "-shared", "-fPIC", "-o", draft, SOURCE, "-ldl", "-lpthread"], check=True, timeout=60
        )
        draft.replace(built)
    return built


@dataclass(frozen=True)
class Disk:
    """A directory whose disk is under the test's control.

    Attributes:
        root: the directory; symbolic links in its path are followed.
        record: where writes and syncs are recorded; None: nowhere.
        numbers: the control file; made by `disk`.
    """

    root: Path
    record: Path | None
    numbers: Path

    def environment(self) -> dict[str, str]:
        """What a process needs to live on this disk."""
        return {
            **os.environ,
            "LD_PRELOAD": str(library()),
            "SHIM_ROOT": str(self.root),
            "SHIM_RECORD": "" if self.record is None else str(self.record),
            "SHIM_CONTROL": str(self.numbers),
        }

    def set(self, place: Place, value: int) -> None:
        """Change a number, also while a process runs."""
        with self.numbers.open("r+b") as file:
            file.seek(8 * place)
            file.write(struct.pack("<q", value))

    def get(self, place: Place) -> int:
        """Read a number, also while a process runs."""
        with self.numbers.open("rb") as file:
            file.seek(8 * place)
            return int(struct.unpack("<q", file.read(8))[0])

    def fail_writes(self, why: int, first: int, many: int = 1) -> None:
        """Let writes fail, counted from the first ever."""
        for place, value in ((Place.WRITES_WHY, why), (Place.WRITES_MANY, many), (Place.WRITES_FROM, first)):
            self.set(place, value)

    def fail_syncs(self, why: int, first: int, many: int = 1) -> None:
        """Let syncs fail, counted from the first ever."""
        for place, value in ((Place.SYNCS_WHY, why), (Place.SYNCS_MANY, many), (Place.SYNCS_FROM, first)):
            self.set(place, value)

    def python(self, arguments: Sequence[str], timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run Python there, to its end or to where it is killed."""
        argv = [sys.executable, *arguments]
        return subprocess.run(argv, env=self.environment(), capture_output=True, text=True, timeout=timeout_s)


def disk(where: Path, *, record: bool = False) -> Disk:
    """A fresh disk below a directory, on which nothing fails yet."""
    root = where / "disk"
    root.mkdir(parents=True)
    numbers = where / "numbers"
    numbers.write_bytes(bytes(8 * len(Place)))
    return Disk(root.resolve(), where / "record" if record else None, numbers)
