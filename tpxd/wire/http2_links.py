"""The links beneath `http2_client`, as httpcore wants them: dialled as all others of tpxd are, TLS included.

Source: RFC 9113, 4.1 (frames), 6.8 (GOAWAY).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import httpcore
import trio

from tpxd.wire.http_client import IDLE_S

FRAME_HEAD_BYTES: Final = 9
MAX_FRAME_BYTES: Final = 16_384
"""The largest payload that may come, since we allow no other."""
GOAWAY: Final = 7
NO_ERROR: Final = bytes(4)


class Links(httpcore.AsyncNetworkBackend):
    """Opens links for the pools, the first one ahead of time.

    Attributes:
        is_closing: the far end will answer what it has got over a link, and then close it.
    """

    def __init__(self, dial: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        self.is_closing = False
        self._dial = dial
        self._prepared: tuple[trio.abc.Stream, float] | None = None

    async def prepare(self) -> None:
        """Open a link that waits for the first request; raises ConnectFailed."""
        self._prepared = await self._dial(), trio.current_time()

    async def forget(self) -> None:
        """Close the link that waits, if it still does."""
        if self._prepared is not None:
            stream, _ = self._prepared
            self._prepared = None
            await trio.aclose_forcefully(stream)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A link to the one server that there is, TLS included; one that was idle for too long is not used."""
        if self._prepared is not None and trio.current_time() - self._prepared[1] < IDLE_S:
            stream, _ = self._prepared
            self._prepared = None
        else:
            await self.forget()
            stream = await self._dial()
        speaks_http2 = isinstance(stream, trio.SSLStream) and stream.selected_alpn_protocol() == "h2"
        return _Stream(stream, Goodbyes(self._is_closing) if speaks_http2 else None)

    def _is_closing(self) -> None:
        self.is_closing = True


class Goodbyes:
    """Takes the GOAWAY frames of a server that only wants no more requests out of what comes over a link.

    httpcore and h2 take each GOAWAY for the end of what is under way too, which would then arrive twice. Without it
    they read on: answers to what the server got before, then the end of the link, which is as much as to say that the
    rest was never looked at (RFC 9113, 6.8).
    """

    def __init__(self, seen: Callable[[], None]) -> None:
        self._seen = seen
        self._unread = b""

    def without(self, data: bytes) -> bytes:
        """The whole frames among what has come, but for these; a frame too long for us is left to h2 to refuse."""
        self._unread += data
        kept = b""
        while len(self._unread) >= FRAME_HEAD_BYTES:
            size = int.from_bytes(self._unread[:3])
            if len(self._unread) < FRAME_HEAD_BYTES + size <= FRAME_HEAD_BYTES + MAX_FRAME_BYTES:
                break
            frame, self._unread = self._unread[: FRAME_HEAD_BYTES + size], self._unread[FRAME_HEAD_BYTES + size :]
            if frame[3] == GOAWAY and frame[13:17] == NO_ERROR:
                self._seen()
            else:
                kept += frame
        return kept


class _Stream(httpcore.AsyncNetworkStream):
    """A stream of ours as httpcore sees one."""

    def __init__(self, stream: trio.abc.Stream, goodbyes: Goodbyes | None) -> None:
        self._stream = stream
        self._goodbyes = goodbyes

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            while data := bytes(await self._stream.receive_some(max_bytes)):
                if passed := data if self._goodbyes is None else self._goodbyes.without(data):
                    return passed
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError from error
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError from error

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """TLS stands already."""
        return self

    def get_extra_info(self, info: str) -> Any:
        """The TLS connection, of which httpcore asks what ALPN chose."""
        return self._stream if info == "ssl_object" and isinstance(self._stream, trio.SSLStream) else None
