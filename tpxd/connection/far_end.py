"""The far end of a connection: how a link to it is opened, what ended one, and what is removed there at leave."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from tpxd.config.connection_file import ConnectorConfig
from tpxd.connection.health import Health
from tpxd.connection.states import ConnectionState
from tpxd.connector import Connector, Context, Dial, Memory, TlsContexts, Transport
from tpxd.errors import TransportError, behind_barrier, leaves

logger = logging.getLogger(__name__)

LEAVE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class FarEnd:
    """Where one version of a connection file leads."""

    connector: Connector
    configuration: ConnectorConfig
    context: Context

    def open(self) -> AbstractAsyncContextManager[Transport]:
        """A link; see `tpxd.connector` for what is raised."""
        return self.connector.open(self.configuration, self.context)

    async def leave(self) -> None:
        """Remove what a connection that has finished left there, once, as far as that is possible.

        Whoever opens without wanting downlinks removes what earlier openings left for them. Nothing else may open this
        connection meanwhile.
        """
        if self.configuration.downlink_sources:
            await behind_barrier(self._open_without_downlinks, "connection %s", self.context.connection_id)

    async def _open_without_downlinks(self) -> None:
        context = replace(self.context, downlinks=False, authenticating=lambda: None)
        error: TransportError | None = None
        with trio.move_on_after(LEAVE_S) as leaving:
            try:
                async with self.connector.open(self.configuration, context):
                    pass
            except TransportError as alone:
                error = alone
            except BaseExceptionGroup as group:
                error = what_ended_it(group)
        if error is not None or leaving.cancelled_caught:
            reason = f"it took longer than {LEAVE_S:g} s" if error is None else error.message
            context.log.warning("its far end may go on keeping downlinks for it: %s", reason)


def context_of(health: Health, instance: str, dial: Dial, tls: TlsContexts, memory: Memory) -> Context:
    """What the connector of the connection with this health may touch."""
    in_hand = health.in_hand
    return Context(
        connection_id=health.id,
        instance=instance,
        log=logging.LoggerAdapter(logger, {"connection": health.id}),
        dial=dial,
        tls=tls,
        memory=memory,
        authenticating=partial(health.enter, ConnectionState.AUTHENTICATING),
        proven=lambda: in_hand.proven,
        troubled=health.troubled,
        tell=health.tell,
    )


def what_ended_it(group: BaseExceptionGroup[BaseException]) -> TransportError:
    """The first transport error of a group that holds nothing else; anything else goes on upwards."""
    transport, others = group.split(TransportError)
    if transport is None or others is not None:
        raise others or group
    first = next(leaves(transport))
    assert isinstance(first, TransportError)
    return first
