"""Where the control plane listens, and streams on which no peer can make it wait for ever."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from tpxd.wire.http import CannotListen
from tpxd.wire.http.listen import bound_address, open_listeners

SOCKET_MODE: Final = 0o660
BACKLOG: Final = 64
SEND_S: Final = 10.0


@asynccontextmanager
async def open_control_sockets(address: str, path: Path | None) -> AsyncIterator[dict[str, trio.SocketListener]]:
    """Listen on a TCP address and, when one is given, on a Unix socket; yields the listeners by what they are bound to.

    Raises:
        CannotListen: the address or the path cannot be used.

    Cancellation: everything is closed, and the socket's file is gone.
    """
    async with contextlib.AsyncExitStack() as stack:
        listeners = {}
        for bound in await open_listeners(address) if address else []:
            listeners[bound_address(bound)] = await _keep(stack, bound)
        if path is not None:
            bound = bind_unix(path)
            stack.callback(path.unlink, missing_ok=True)
            listeners[f"unix:{path}"] = await _keep(stack, bound)
        yield listeners


async def _keep(stack: contextlib.AsyncExitStack, bound: socket.socket) -> trio.SocketListener:
    return await stack.enter_async_context(trio.SocketListener(trio.socket.from_stdlib_socket(bound)))


def bind_unix(path: Path) -> socket.socket:
    """Listen at `path` for its owner and group; the file of a process that is gone is replaced.

    Raises:
        CannotListen: another process listens there, something that is no socket is there, or the directory is missing.
    """
    _clear(path)
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
        # Nobody can connect before `listen`, so the file's first mode is never of use to anyone.
        path.chmod(SOCKET_MODE)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _cannot(path, error) from error
    return bound


def _clear(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotListen(f"cannot listen on {path}: it is there and no socket", hint="remove or rename it")
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.setblocking(False)
            outcome = visitor.connect_ex(str(path))
        if outcome != errno.ECONNREFUSED:
            raise CannotListen(f"cannot listen on {path}: another process listens there", hint="is tpxd running?")
        path.unlink()


def _cannot(path: Path, error: OSError) -> CannotListen:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return CannotListen(f"cannot listen on {path}: {reason}", hint="its directory must exist and belong to tpxd")


class BoundedStream:
    """A connection that ends by itself, as hypercorn's trio worker sees it.

    hypercorn sends under a shield that has no deadline, so that a peer which stops reading would outlive any grace
    period: here it is cut off. And it keeps a connection for its whole idle time after the peer has left: here `left`
    is awaited when that happens; it must not wait, as it also runs when everything is cancelled.
    """

    def __init__(self, stream: trio.SocketStream, left: Callable[[], Awaitable[None]]) -> None:
        self.socket = stream.socket
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose
        self._stream = stream
        self._left = left
        self._patience_s = SEND_S
        self._sending = trio.CancelScope()

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """Wait for bytes; b"" when the peer will send no more."""
        data: bytes | bytearray = b""
        try:
            data = await self._stream.receive_some(max_bytes)
        finally:
            if not data:
                await self._left()
        return data

    async def send_all(self, data: bytes) -> None:
        """Send everything.

        Raises:
            trio.BrokenResourceError: the peer is gone, or took nothing in time; then the stream is closed.
        """
        with trio.move_on_after(self._patience_s) as self._sending:
            await self._stream.send_all(data)
        if self._sending.cancelled_caught:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("the peer does not read")

    async def part(self, within_s: float) -> None:
        """Leave when silent; what is being sent, and whatever comes after it, has `within_s` seconds from now."""
        self._patience_s = within_s
        self._sending.deadline = min(self._sending.deadline, trio.current_time() + within_s)
        await self._left()
