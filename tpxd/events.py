"""What happened, for people: a bounded list of events, each also a line in the log."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class LastError:
    """The newest thing that went wrong, kept after it was overcome."""

    at: float
    message: str
    hint: str | None

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


def timestamp(seconds: float | None) -> str | None:
    """A moment as the documents show it, see `utc_text`; None where there is none."""
    return None if seconds is None else utc_text(seconds)


logger = logging.getLogger("tpxd.events")

KEPT = 2_000


def utc_text(at_s: float) -> str:
    """Seconds since the epoch as every document and log line of programs shows them: `2026-01-05T09:00:00.000Z`."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that an operator may want to know.

    Attributes:
        kind: a short name for programs, such as `state`, `reload`, `dropped`, `damage`.
        message: one line for people.
        connection: the connection's id, or None when the daemon as a whole is meant.
        level: a `logging` level.
        at: seconds since the epoch.
        more: further facts, JSON values only; never payloads, never secrets.
    """

    kind: str
    message: str
    connection: str | None = None
    level: int = logging.INFO
    at: float = field(default_factory=time.time)
    more: dict[str, Any] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """The event as JSON shows it."""
        return {
            "at": utc_text(self.at),
            "level": logging.getLevelName(self.level).lower(),
            "kind": self.kind,
            "connection": self.connection,
            "message": self.message,
            **self.more,
        }


Tell = Callable[[Event], None]
"""Where a part of the daemon tells its events; injected, so that lower rooms need not know who listens."""


class EventLog:
    """The newest events, in memory; each is logged as it comes."""

    def __init__(self, kept: int = KEPT) -> None:
        self._events: deque[Event] = deque(maxlen=kept)
        self._listeners: list[Tell] = []

    def tell(self, event: Event) -> None:
        """Keep the event, log it, and hand it to everyone who listens."""
        self._events.append(event)
        logger.log(event.level, "%s", event.message, extra={"connection": event.connection, "event": event.kind})
        for listener in self._listeners:
            listener(event)

    def newest(self, count: int = 100, connection: str | None = None) -> list[Event]:
        """The newest events, oldest of them first."""
        chosen = [e for e in self._events if connection is None or e.connection == connection]
        return chosen[-count:]

    def subscribe(self, listener: Tell) -> Callable[[], None]:
        """Call `listener` for each further event; returns the function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
