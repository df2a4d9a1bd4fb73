"""Serves the control plane with hypercorn's trio worker.

hypercorn speaks HTTP on each connection; accepting, limits and the stop are done here, since its own stop lasts as long
as its slowest peer wants (`BoundedStream` says why) and it accepts without limit.
"""

from __future__ import annotations

import logging
import math
import socket
from typing import Any, Final, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from tpxd.config.settings import ControlSettings
from tpxd.control.listening import BoundedStream, open_control_sockets
from tpxd.control.routes import control_app
from tpxd.control.state import ControlState
from tpxd.errors import behind_barrier
from tpxd.wire.open_files import Shares

__all__ = ["ControlState", "serve_control"]

logger = logging.getLogger(__name__)

MOST: Final = Shares()
WARNED_EVERY_S: Final = 60.0
GRACE_S: Final = 1.0


async def serve_control(
    settings: ControlSettings,
    state: ControlState,
    *,
    shares: Shares = MOST,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `[control] listen` and `socket` until cancelled; `task_status` gets what was really bound.

    Args:
        shares: how many connections each of the two may hold.

    Raises:
        CannotListen: nothing can be bound there.

    Cancellation: the listeners close first, silent connections next; a request that came has `GRACE_S` seconds.
    """
    server = ControlServer(state, settings.token.get_secret_value(), shares)
    async with (
        open_control_sockets(settings.listen, settings.socket) as listeners,
        trio.open_nursery() as nursery,
    ):
        connections = await nursery.start(server.keep_connections)
        try:
            task_status.started(list(listeners))
            await trio.serve_listeners(server.serve, list(listeners.values()), handler_nursery=connections)
        finally:
            server.stop()


class ControlServer:
    """The open connections and their common end.

    Those of the Unix socket are counted apart: whoever fills the port does not keep the operator of this machine out.
    """

    def __init__(self, state: ControlState, token: str, shares: Shares) -> None:
        self._app = ASGIWrapper(cast("Any", control_app(state, token)))
        self._shares = shares
        self._remote: set[BoundedStream] = set()
        self._local: set[BoundedStream] = set()
        self._warned_at = -math.inf
        self._stopped = trio.Event()
        self._shield = trio.CancelScope(shield=True)
        self._config = Config()
        self._config.errorlog = logger
        self._config.include_server_header = False
        self._config.graceful_timeout = GRACE_S

    async def keep_connections(self, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Hold the nursery in which connections are served until after `stop`, which sets the shield's deadline."""
        with self._shield:
            async with trio.open_nursery() as connections:
                task_status.started(connections)
                await self._stopped.wait()
                for stream in (*self._remote, *self._local):
                    await stream.part(GRACE_S)

    def stop(self) -> None:
        """Accept nothing more; what is under way has `GRACE_S` seconds."""
        self._stopped.set()
        self._shield.deadline = trio.current_time() + GRACE_S

    async def serve(self, accepted: trio.SocketStream) -> None:
        """Serve one connection to its end; beyond its listener's share it is closed without a word."""
        # hypercorn's own word for the end of all connections; one context each lets them end one by one.
        context = WorkerContext(None)
        stream = BoundedStream(accepted, context.terminated.set)
        if accepted.socket.family == socket.AF_UNIX:
            streams, most = self._local, self._shares.control_socket
        else:
            streams, most = self._remote, self._shares.control
        async with accepted:
            if len(streams) >= most:
                self._warn(most)
            if len(streams) >= most or self._stopped.is_set():
                return
            streams.add(stream)
            server = TCPServer(self._app, self._config, context, ConnectionState({}), cast("Any", stream))
            try:
                # what a peer's bytes do to hypercorn must not end the daemon
                await behind_barrier(server.run, "a connection to the control plane")
            finally:
                streams.discard(stream)

    def _warn(self, most: int) -> None:
        """Once a minute: whoever opens connections must not fill the log."""
        now = trio.current_time()
        if now - self._warned_at >= WARNED_EVERY_S:
            self._warned_at = now
            logger.warning("more than %d connections to the control plane: new ones are closed", most)
