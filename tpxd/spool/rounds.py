"""What passes between the event loop and the writer's thread: calls one way, rounds the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool.journal import Journal
from tpxd.spool.memories import Pending
from tpxd.spool.rows import CursorRow, Hole


@dataclass(slots=True, eq=False)
class Call:
    """Something else to do in the writer's thread; `writes` puts it into the transaction.

    Attributes:
        handed: what else is appended in this transaction, each under a seq of the journal; only those whose seq is
            among the ones that `run` returns.
        whole: where there is no room for what is handed on, nothing of the call is done; else that alone is dropped.
    """

    run: Callable[[Journal], Any]
    writes: bool
    waiter: trio.lowlevel.Task | None
    handed: Sequence[tuple[int, Pending]] = ()
    whole: bool = False
    result: Any = None
    error: SpoolUnavailable | None = None


@dataclass(frozen=True, slots=True)
class View:
    """The journal's numbers after a round, and the cursors that it may have changed; None: forgotten."""

    first_seq: int
    last_seq: int
    newest_ms: int
    oldest_ms: int | None
    holes: tuple[Hole, ...]
    cursors: dict[str, tuple[CursorRow, int | None] | None]
    used_bytes: int
    free_bytes: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did; without uplinks and `calls` it only has news.

    Attributes:
        appended: what is stored, from `first_seq` on.
        refused: what is not; each has its error, or was handed on before.
    """

    appended: Sequence[Pending]
    refused: Sequence[Pending]
    first_seq: int
    stored_ms: int
    calls: Sequence[Call]
    view: View
    events: Sequence[Event] = ()
