"""A file on a disk that may fail: what cannot be read of it counts as zeros."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

STEP = 4_096
"""Where a read fails, each part of this size is tried by itself."""


class Content(Protocol):
    """Bytes that are looked at in slices; `bytes` are some."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> bytes: ...


class OldFile:
    """The bytes of an open file. Not mapped into memory: a page that cannot be read would end the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: slice, /) -> bytes:
        start, stop, _ = place.indices(self._size)
        try:
            return os.pread(self._fd, max(0, stop - start), start)
        except OSError:
            parts = range(start, stop, STEP)
            return b"".join(self._part(at, min(STEP, stop - at)) for at in parts)

    @property
    def readable(self) -> bool:
        """Whether its begin, its middle or its end can be read; else the disk is away: zeros are no content."""
        for at in {0, self._size // 2, max(0, self._size - STEP)}:
            with suppress(OSError):
                os.pread(self._fd, STEP, at)
                return True
        return False

    def _part(self, at: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, at).ljust(size, b"\0")
        except OSError:
            return bytes(size)


@contextmanager
def old_file(path: Path) -> Iterator[Content]:
    """The content of a file, without reading it at once; nothing where there is none."""
    if not path.exists():
        yield b""
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield OldFile(fd)
    finally:
        os.close(fd)
