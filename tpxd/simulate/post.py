"""A keep-alive HTTP/1.1 client that POSTs one body after the other, as an LRC does, and nothing else.

httptools parses the answers. A general client costs ten times as much per request, and would measure itself.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools
import trio

USER_AGENT = "ACTILITY-LRCLRN-DEVICE-AGENT/1.0"
DEFAULT_PATH = "/uplink"
RECEIVE_BYTES = 65_536


class NotAnswered(Exception):
    """No whole HTTP answer came; the text is the kind of failure in a few words, without the address."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where reports go; made from a URL by `parse`. `authority` is the Host header, `path` ends with `?` or `&`."""

    url: str
    host: str
    port: int
    authority: str
    path: str
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read `http://host[:port][/path[?query]]` or https; no path means `/uplink`.

        Raises:
            ValueError: it is no such URL, or it carries a user name.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// URL")
        if "@" in parts.netloc:
            raise ValueError("a user name in the URL means nothing to an LRC; the report's Token authenticates it")
        path = parts.path if parts.path not in {"", "/"} else DEFAULT_PATH
        query = f"?{parts.query}&" if parts.query else "?"
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(url, parts.hostname, parts.port or (443 if tls else 80), parts.netloc, path + query, tls)


class Poster:
    """One connection to one target, opened when it is needed and kept; for one task. Made by `open_poster`."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._stream: trio.abc.Stream | None = None
        self._head = (
            f"Host: {target.authority}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )

    async def post(self, query: str, body: bytes) -> int:
        """POST the body with this query string (already percent-encoded) and return the status.

        A kept connection that turns out closed is replaced once; that is no failure.

        Raises:
            NotAnswered: no connection, no answer in time, or no HTTP.

        Cancellation: the report may or may not have arrived; the connection is closed.
        """
        request = f"POST {self._target.path}{query} HTTP/1.1\r\n{self._head}{len(body)}\r\n\r\n".encode() + body
        answered = False
        try:
            with trio.fail_after(self._timeout_s):
                status = await self._exchange_or_reopen(request)
            answered = True
        except (OSError, EOFError, trio.BrokenResourceError, trio.TooSlowError, httptools.HttpParserError) as error:
            raise NotAnswered(_reason(error)) from error
        else:
            return status
        finally:
            if not answered:
                await self.close()

    async def close(self) -> None:
        """Close the connection, if there is one, without ceremony."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def _exchange_or_reopen(self, request: bytes) -> int:
        if self._stream is not None:
            try:
                return await self._exchange(self._stream, request)
            except (trio.BrokenResourceError, EOFError):
                await self.close()
        self._stream = await _connect(self._target)
        return await self._exchange(self._stream, request)

    async def _exchange(self, stream: trio.abc.Stream, request: bytes) -> int:
        await stream.send_all(request)
        answer = _Answer()
        while not answer.complete:
            chunk = await stream.receive_some(RECEIVE_BYTES)
            if not chunk:
                raise EOFError
            answer.parser.feed_data(bytes(chunk))
        if not answer.keeps_connection:
            await self.close()
        status: int = answer.parser.get_status_code()
        return status


@asynccontextmanager
async def open_poster(target: Target, timeout_s: float) -> AsyncIterator[Poster]:
    """A `Poster` whose connection is closed at the end; opens nothing yet, so it cannot fail."""
    poster = Poster(target, timeout_s)
    try:
        yield poster
    finally:
        await poster.close()


class _Answer:
    """What httptools tells of the answer that is being read; bodies are dropped, as by an LRC."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.keeps_connection = False
        self.complete = False

    def on_headers_complete(self) -> None:
        self.keeps_connection = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        self.complete = True


def _reason(error: BaseException) -> str:
    """A failure in a few words that do not vary with address or time, so that they can be counted."""
    match error:
        case trio.TooSlowError():
            return "no answer in time"
        case httptools.HttpParserError():
            return "no HTTP answer"
        case ssl.SSLError():
            return f"TLS: {error.reason or error}"
        case EOFError() | trio.BrokenResourceError():
            return "connection closed"
        case ConnectionRefusedError():
            return "connection refused"
        case OSError() if error.__cause__ is not None:
            # trio tried every address of the host and wraps what came of it.
            return _reason(error.__cause__)
        case BaseExceptionGroup():
            return _reason(error.exceptions[0])
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)


async def _connect(target: Target) -> trio.abc.Stream:
    stream = await trio.open_tcp_stream(target.host, target.port)
    if target.tls is None:
        return stream
    secured = trio.SSLStream(stream, target.tls, server_hostname=target.host, https_compatible=True)
    try:
        await secured.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, trio.BrokenResourceError) and isinstance(error.__cause__, ssl.SSLError):
            raise error.__cause__ from None
        raise
    return secured
