"""A request to stop: it interrupts waiting at once, and gives work a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio


class Stopping:
    """One connection's request to stop.

    Attributes:
        requested: it was asked for; nothing new should be begun.
    """

    def __init__(self) -> None:
        self.requested = False
        self._scopes: dict[trio.CancelScope, Callable[[], float]] = {}

    def request(self) -> None:
        """Ask for it."""
        self.requested = True
        for scope, grace_s in self._scopes.items():
            scope.deadline = min(scope.deadline, trio.current_time() + grace_s())

    @contextmanager
    def bounds(self, grace_s: Callable[[], float]) -> Iterator[None]:
        """A block of work that may go on for `grace_s()` seconds after the request, and is then cancelled."""
        with trio.CancelScope() as scope:
            self._scopes[scope] = grace_s
            if self.requested:
                scope.deadline = trio.current_time() + grace_s()
            try:
                yield
            finally:
                del self._scopes[scope]

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """A block that ends at once when a stop is requested: for waiting only, since it cancels what is inside."""
        with self.bounds(lambda: 0.0):
            yield
