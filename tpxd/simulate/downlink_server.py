"""Serves the LRC's downlink interface over HTTP/1.1, and reports what went on air. httptools parses the requests.

POST /thingpark/lrc/rest/downlink?DevEUI=…    200, 350, 401 or 403 with a text in HTML
anything else                                 404
"""

from __future__ import annotations

import html
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import httptools
import trio

from tpxd.simulate.downlink_lrc import Answer, Answering, DownlinkLrc
from tpxd.simulate.downlink_rules import PATH
from tpxd.simulate.lrc import Counters, Signature, open_route
from tpxd.simulate.post import Target

SLOW_S = 3.0
IDLE_S = 60.0
LOOK_S = 0.1
RECEIVE_BYTES = 65_536
MAX_REQUEST_BYTES = 16 * 1024
REASONS = {200: "OK", 350: "Refused", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


async def open_listeners(address: str) -> Sequence[trio.SocketListener]:
    """Bind `host:port` and listen; port 0 takes a free one.

    Raises:
        ValueError: the text is no address.
        OSError: nothing can be bound there.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) < 65_536):
        raise ValueError(f"{address!r} is no host:port")
    return await trio.open_tcp_listeners(int(port), host=host.strip("[]"))


async def take_downlinks(
    listeners: Sequence[trio.SocketListener],
    lrc: DownlinkLrc,
    targets: Sequence[Target],
    counters: Counters,
    signature: Signature | None,
    *,
    timeout_s: float = 10.0,
) -> NoReturn:
    """Take downlinks, and post a DevEUI_downlink_Sent for each that went on air or could not, until cancelled.

    Args:
        targets, counters, signature, timeout_s: of these reports, as of `tpxd.simulate.lrc.drive`.

    Cancellation: closes the listeners; a report under way may or may not have arrived.
    """
    async with open_route(targets, counters, signature, timeout_s=timeout_s) as route, trio.open_nursery() as nursery:
        nursery.start_soon(serve_downlinks, listeners, lrc)
        while True:
            for report in lrc.on_air(time.time()):
                await route.post(report, trio.current_time())
            await trio.sleep(LOOK_S)


async def serve_downlinks(
    listeners: Sequence[trio.SocketListener], lrc: DownlinkLrc, *, slow_s: float = SLOW_S
) -> NoReturn:
    """Take downlinks until cancelled.

    Args:
        slow_s: how long `Answering.SLOW` takes.

    Cancellation: closes the listeners; what was accepted stays accepted, answered or not.
    """
    await trio.serve_listeners(partial(_converse, lrc, slow_s), list(listeners))


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: str
    keep_alive: bool


class _Parser:
    """What httptools tells of one connection."""

    def __init__(self) -> None:
        self.requests: deque[_Request] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._unfinished_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take bytes in.

        Raises:
            httptools.HttpParserError: they are no HTTP.
            ValueError: a request is too long.
        """
        self._unfinished_bytes += len(chunk)
        self._parser.feed_data(chunk)
        if self._unfinished_bytes > MAX_REQUEST_BYTES:
            raise ValueError("a request is too long")

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        method, keep_alive = self._parser.get_method().decode(), self._parser.should_keep_alive()
        self.requests.append(_Request(method, path, query, keep_alive))
        self._url, self._unfinished_bytes = b"", 0


async def _converse(lrc: DownlinkLrc, slow_s: float, stream: trio.abc.Stream) -> None:
    """Answer one connection's requests until it ends, or breaks a rule of HTTP."""
    parser = _Parser()
    async with stream:
        try:
            while True:
                with trio.move_on_after(IDLE_S) as waiting:
                    chunk = await stream.receive_some(RECEIVE_BYTES)
                if waiting.cancelled_caught or not chunk:
                    return
                parser.feed(bytes(chunk))
                while parser.requests:
                    if not await _answer(lrc, slow_s, stream, parser.requests.popleft()):
                        return
        except (trio.BrokenResourceError, httptools.HttpParserError, ValueError):
            return


async def _answer(lrc: DownlinkLrc, slow_s: float, stream: trio.abc.Stream, request: _Request) -> bool:
    """Answer one request; whether the connection goes on."""
    answer = Answer(404, "Not Found")
    if (request.method, request.path) == ("POST", PATH):
        answer = lrc.take(request.query, time.time())
    if answer.status == 200 and lrc.answering is Answering.DROP:
        return False
    if answer.status == 200 and lrc.answering is Answering.SLOW:
        await trio.sleep(slow_s)
    body = f"<html><body>{html.escape(answer.text)}</body></html>"
    head = f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\nContent-Type: text/html\r\n"
    ending = "" if request.keep_alive else "Connection: close\r\n"
    await stream.send_all(f"{head}{ending}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode())
    return request.keep_alive
