"""Where the spool's files stand: that no other tpxd uses them, and that they are still those that were opened.

Files that were removed while they are open can be written and read as before, and are gone with the process. So each
transaction, and each tick, looks whether what stands under their names is what was opened.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tpxd.errors import SpoolUnavailable
from tpxd.spool.database import sidecars, translated

Stamp = tuple[int, int] | None
"""Device and inode; None where nothing is."""


class Places(NamedTuple):
    """What stands where the spool's files should be."""

    directory: Stamp
    file: Stamp
    log: Stamp

    def change(self, opened: Places) -> str | None:
        """What has happened to them since they were opened, in words; None when nothing has."""
        for name, now, before in zip(("directory", "file", "write-ahead log"), self, opened, strict=True):
            if now != before:
                return f"its {name} was {'removed' if now is None else 'replaced'}"
        return None


def places(path: Path) -> Places:
    """What stands there now."""
    return Places(_stamp(path.parent), _stamp(path), _stamp(sidecars(path)[0]))


def _stamp(path: Path) -> Stamp:
    try:
        there = path.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


class Lock:
    """Keeps every other tpxd away from the spool at `path`, once `hold` was called."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.with_name(path.name + ".lock")
        self._fd: int | None = None

    def hold(self) -> None:
        """Take the lock, unless it is held and its file still there; makes the spool's directory.

        Raises:
            SpoolUnavailable: another process has it, or the directory cannot be made.
        """
        if self._fd is not None:
            held = os.fstat(self._fd)
            if _stamp(self._file) == (held.st_dev, held.st_ino):
                return
        with translated(self._path):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            text = f"{self._path}: another tpxd has it open"
            raise SpoolUnavailable(text, hint="stop the other one first") from None
        self.let_go()
        self._fd = fd

    def let_go(self) -> None:
        """Let others have it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextmanager
def exclusive(path: Path) -> Iterator[Lock]:
    """Hold the lock of the spool at `path`; see `Lock.hold`."""
    lock = Lock(path)
    lock.hold()
    try:
        yield lock
    finally:
        lock.let_go()
