"""Where a server listens, how it accepts, and the TCP stream that its connections use.

All three ask the system directly: with trio's own listener and stream a request costs three times as much, and a
connection twice as much (some senders open one for each report).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import NoReturn

import trio

from tpxd.errors import TpxdError

logger = logging.getLogger(__name__)

RECEIVE_BYTES = 64 * 1024
ACCEPTED_AT_ONCE = 16  # those that must go for them have gone soon after, so that few files are held in between
PAUSE_S = 0.1

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_OURS = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT}


class CannotListen(TpxdError):
    """The operator: nothing can be bound at this address."""


async def open_listeners(address: str) -> list[socket.socket]:
    """Bind and listen on every address that `address` stands for.

    Args:
        address: `host:port`; an IPv6 address in brackets, such as `[::1]:8090`; a name listens on all that it
            resolves to, an empty host everywhere; port 0 takes a free one.

    Raises:
        CannotListen: the text is no address, the name is unknown, the port is taken or not allowed.
    """
    host, port = _split_address(address)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host or None)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise CannotListen(
            f"cannot listen on {address}: {reason.lower()}",
            hint="another program (or another tpxd) may hold the port, or the address is not one of this machine's",
        ) from error
    return [_take_over(listener.socket) for listener in listeners]


def _take_over(theirs: trio.socket.SocketType) -> socket.socket:
    ours = socket.socket(fileno=theirs.detach())
    ours.setblocking(False)
    return ours


def _split_address(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not (colon and port.isascii() and port.isdecimal() and int(port) < 65_536 and (bracketed or ":" not in host)):
        raise CannotListen(
            f"cannot listen on {address!r}: it is no host:port", hint='such as "127.0.0.1:8090" or "[::1]:8090"'
        )
    return (host[1:-1] if bracketed else host), int(port)


def bound_address(listener: socket.socket) -> str:
    """The address that a listener really has, as `open_listeners` takes it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def accept_streams(listener: socket.socket, welcome: Callable[[TcpStream, str], None]) -> NoReturn:
    """Hand each new connection and its peer's address to `welcome`; close the listener when cancelled.

    Connections that break before they are accepted are passed over. When the system has no more file descriptors
    or memory, accepting pauses for a moment: those that wait in the backlog are served when others have ended.
    """
    with listener:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                for _ in range(ACCEPTED_AT_ONCE):
                    accepted, address = listener.accept()
                    welcome(TcpStream(accepted), address[0])
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _OURS:
                    raise
                if error.errno in _EXHAUSTED:
                    logger.warning("no new connection can be accepted at %s: %s", bound_address(listener), error)
                    await trio.sleep(PAUSE_S)


class TcpStream(trio.abc.HalfCloseableStream):
    """A TCP connection without delay for small packets.

    Sending tries first and waits only when the system's buffer is full; receiving waits first, since a peer that
    was just answered has hardly sent anything yet, and because that wait is where other tasks get their turn.

    Raises:
        trio.BrokenResourceError: from sending and receiving, when the peer is gone.

    Cancellation: of `send_all` leaves an unknown part sent; of `receive_some` nothing.
    """

    def __init__(self, connected: socket.socket) -> None:
        """Take the socket over."""
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._fd = connected.fileno()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; b"" when the peer will send no more."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return self._socket.recv(max_bytes or RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand everything to the system; a checkpoint only where its buffer is full."""
        rest = memoryview(data)
        while True:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise trio.BrokenResourceError from error
            if not rest:
                return
            await trio.lowlevel.wait_writable(self._fd)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the system's buffer has room."""
        await trio.lowlevel.wait_writable(self._fd)

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will come."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def aclose(self) -> None:
        """Close at once; no checkpoint, since there is nothing to wait for and the task ends with its stream."""
        self._socket.close()
