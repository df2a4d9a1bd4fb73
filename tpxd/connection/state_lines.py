"""What is said of a connection's state: what was said last is true, and a far end that fails on and on is no flood.

That it opened and that it closed are a pair. A pair is said at once if no other was in the last minute; else it is
left out, and where the state lasts, that is said at the end of the minute:

    OPENED  CLOSED  (OPENED  CLOSED  OPENED  CLOSED)  OPENED  CLOSED
    said    said     left out, two pairs              said, with "2 times meanwhile"
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

QUIET_S: Final = 60.0
OPENED: Final = "OPENED"
ENDS: Final = ("CLOSED", "AUTHENTICATION_FAILED")
"""With a reason, what ends it."""

Say = Callable[[str, str | None, int], None]
"""Says a state and its reason, and how many pairs were left out before it."""


class StateLines:
    """The lines of one connection.

    Args:
        say: gets what is to be said.
        monotonic: seconds.
    """

    def __init__(self, say: Say, monotonic: Callable[[], float]) -> None:
        self._say = say
        self._monotonic = monotonic
        self._true: tuple[str, str | None] | None = None
        self._said: tuple[str, str | None] | None = None
        self._opened_at = float("-inf")
        self._left_out = 0
        self._held = trio.Event()

    def begin(self) -> None:
        """Another version of the file: what it does is said at once."""
        self._opened_at = float("-inf")

    def entered(self, state: str, reason: str | None) -> None:
        """The connection has entered a state that may last."""
        held = None if self._true == self._said else self._true
        self._true = state, reason
        if held == (OPENED, None) and state != OPENED:
            self._left_out += 1
        ends_what_is_held = held is not None and state in ENDS and reason is not None
        if self._monotonic() - self._opened_at < QUIET_S and (state == OPENED or ends_what_is_held):
            self._held.set()
        elif self._true != self._said:
            self._say_it()

    async def watch(self) -> None:
        """Say what was held back and lasts, for ever."""
        while True:
            await self._held.wait()
            await trio.sleep(max(0.0, self._opened_at + QUIET_S - self._monotonic()))
            self._held = trio.Event()
            if self._true != self._said:
                self._say_it()

    def _say_it(self) -> None:
        assert self._true is not None
        state, reason = self._said = self._true
        left_out, self._left_out = self._left_out, 0
        if state == OPENED:
            self._opened_at = self._monotonic()
        self._say(state, reason, left_out)
