"""Calls that may never return, such as opening a file on a mount that hangs, in threads that can be left to themselves.

One thread does the calls of a round one after the other. Where one of them takes long, another thread goes on with the
rest beside it, and one that takes longer than `PATIENCE_S` is left behind. What it was about is not tried again until
that thread has come back, so that threads do not heap up.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from tpxd.errors import thread_behind_barrier

PATIENCE_S: Final = 5.0
SLOW_S: Final = 0.1
MOST_HANGING: Final = 64
"""Threads that may be left behind at once; beyond it nothing more is tried."""

T = TypeVar("T")


class Bounded:
    """Remembers which keys hang. For one round at a time."""

    def __init__(self) -> None:
        self._hanging: set[str] = set()

    def each(self, keys: Iterable[str], call: Callable[[str], T]) -> dict[str, T]:
        """What `call` returns for each key; a key for which it did not return in time, or has a bug, is left out."""
        return _Round(call, deque(key for key in keys if key not in self._hanging), self._hanging).run()


class _Round(Generic[T]):
    """One round: what is to be called, what is under way and since when, and what came of it."""

    def __init__(self, call: Callable[[str], T], keys: deque[str], hanging: set[str]) -> None:
        self._call = call
        self._keys = keys
        self._hanging = hanging
        self._begun: dict[str, float] = {}
        self._results: dict[str, T] = {}
        self._changed = threading.Condition()

    def run(self) -> dict[str, T]:
        with self._changed:
            while (self._keys and len(self._hanging) < MOST_HANGING) or self._begun:
                now = time.monotonic()
                for key in [key for key, at in self._begun.items() if now - at > PATIENCE_S]:
                    del self._begun[key]
                    self._hanging.add(key)
                busy = any(now - at <= SLOW_S for at in self._begun.values())
                if self._keys and not busy and len(self._hanging) + len(self._begun) < MOST_HANGING:
                    self._begin(self._keys.popleft())
                self._changed.wait(SLOW_S / 2)
            return dict(self._results)

    def _begin(self, key: str) -> None:
        self._begun[key] = time.monotonic()
        threading.Thread(target=self._work, args=(key,), name="tpxd-files", daemon=True).start()

    def _work(self, key: str | None) -> None:
        """Do one call after the other, until there is no more or this thread was left behind."""
        while key is not None:
            result = thread_behind_barrier(lambda key=key: self._call(key), "reading %s", key)  # type: ignore[misc]
            with self._changed:
                self._hanging.discard(key)
                left_behind = self._begun.pop(key, None) is None
                if not left_behind and not isinstance(result, Exception):
                    self._results[key] = result
                key = self._keys.popleft() if self._keys and not left_behind else None
                if key is not None:
                    self._begun[key] = time.monotonic()
                elif not self._begun:
                    self._changed.notify()
