"""What becomes of a connection's traces at its far end when its file is removed: a session or bindings for commands.

Left alone, the broker would go on keeping commands for a connection that never comes back.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

import trio

from tpxd.barrier import behind_barrier
from tpxd.engine.connection import Live, context_of, what_ended_it
from tpxd.errors import TransportError

REGRET_S: Final = 3.0
"""A file that is gone for no longer than this, as with some editors, was not removed."""

LEAVE_S: Final = 5.0


async def take_leave(live: Live) -> None:
    """Remove what a connection that has finished left at its far end, once, as far as that is possible.

    Whoever opens without wanting commands removes what earlier openings left for them. Nothing else may open this
    connection meanwhile.
    """
    if live.file.configuration.command_sources:
        await behind_barrier(partial(_open_without_commands, live), "connection %s", live.id)


async def _open_without_commands(live: Live) -> None:
    context = replace(context_of(live), commands=False, authenticating=lambda: None)
    error: TransportError | None = None
    with trio.move_on_after(LEAVE_S) as leaving:
        try:
            async with live.connector.open(live.file.configuration, context):
                pass
        except TransportError as alone:
            error = alone
        except BaseExceptionGroup as group:
            error = what_ended_it(group)
    if error is not None or leaving.cancelled_caught:
        reason = f"it took longer than {LEAVE_S:g} s" if error is None else error.message
        context.log.warning("its far end may go on keeping commands for it: %s", reason)
