"""Servers on loopback, names that lead to them, and how streams to them fail."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.peers import pki
from tpxd.errors import ConnectFailed
from tpxd.wire.streams import Endpoint, open_stream
from tpxd.wire.tls import TlsContextCache

CONTEXTS = TlsContextCache()


class Names(trio.abc.HostnameResolver):
    """Resolves every name to loopback, or fails as told."""

    def __init__(self, error: int | None = None, *, hang: bool = False) -> None:
        self.error, self.hang = error, hang

    async def getaddrinfo(self, host: Any, port: Any, *_: int, **__: int) -> Any:
        if self.hang:
            await trio.sleep_forever()
        if self.error is not None:
            raise socket.gaierror(self.error, "as told")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise AssertionError("nobody asks")


@asynccontextmanager
async def echo_server(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Sends back what it reads; yields its port."""

    async def serve(stream: trio.abc.Stream) -> None:
        if context is not None:
            stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            while data := await stream.receive_some():
                await stream.send_all(data)
        except trio.BrokenResourceError:
            # the client under test refused us, or was refused
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def trusting(*, ca: pki.Identity | None = None, client: pki.Identity | None = None) -> ssl.SSLContext:
    return CONTEXTS(
        ca=(ca or pki.ca()).certificate,
        certificate=client.certificate if client else None,
        private_key=client.private_key if client else None,
    )


async def echo(stream: trio.abc.Stream, text: bytes) -> bytes:
    await stream.send_all(text)
    return bytes(await stream.receive_some())


async def failing(endpoint: Endpoint, timeout_s: float = 5) -> tuple[str, str]:
    """The message and the hint with which this endpoint cannot be opened."""
    with pytest.raises(ConnectFailed) as caught:
        await open_stream(endpoint, timeout_s)
    assert caught.value.hint, caught.value
    message = str(caught.value)
    assert message.startswith(f"{endpoint}: ")
    assert "\n" not in message
    return message, caught.value.hint
