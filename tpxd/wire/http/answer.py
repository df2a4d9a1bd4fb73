"""HTTP/1.1 as a client reads and writes it: a request's head out, bytes in, answers out.

Theory of operation. A link carries one request at a time. `AnswerParser.begin` says that a request goes out;
`receive_data` returns its answer once it is complete, `receive_eof` one that ends with the stream. Interim answers
(1xx) are passed over. llhttp, through httptools, decides what is valid; limits and the
end of the stream are decided here.

What this does not do: sockets, clocks, redirects, HEAD and CONNECT, content codings, trailers.

Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import httptools

from tpxd.errors import LocalMisuse, RemoteViolation

HEAD_BYTES = 64 * 1024
"""The longest head of an answer, interim answers before it included."""
BODY_BYTES = 64 * 1024
"""How much of an answer's body is read; the link that brings more is not used again."""
BODY_PARTS = 500
"""In how many chunks it may come."""
KEPT_BYTES = 1024
"""How much of an answer's body is kept: enough for an error message."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FORBIDDEN_IN_TARGET = re.compile(rb"[\x00-\x20\x7f-\xff]")


@dataclass(slots=True)
class Answer:
    """What came back. Not frozen: one is made for each request on the hot path.

    Attributes:
        headers: names in lower case; of equal ones the last.
        body: its first `KEPT_BYTES`.
    """

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def status_text(status: int) -> str:
    """The status with its name, as RFC 9110 calls it; the far end's own words are not to be trusted."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def is_token(name: bytes) -> bool:
    """Whether this is a header's name (RFC 9110, 5.1)."""
    return _TOKEN.fullmatch(name) is not None


def request_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write a request's head without its last line and the blank one; end it with `end_of_head`.

    Raises:
        LocalMisuse: a part would break the head open; its text is not repeated, since it may be secret.
    """
    if not is_token(method) or not target or _FORBIDDEN_IN_TARGET.search(target):
        raise LocalMisuse("the method or the target of a request is not valid")
    return b"%b %b HTTP/1.1\r\n%b" % (method, target, header_lines(headers))


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write headers, each with the end of its line.

    Raises:
        LocalMisuse: a name or a value is not valid.
    """
    lines = []
    for name, value in headers:
        if not is_token(name):
            raise LocalMisuse("the name of a header is not valid")
        if _FORBIDDEN_IN_VALUE.search(value):
            raise LocalMisuse(f"the value of the header {name.decode()} holds a control character")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def end_of_head(body_bytes: int) -> bytes:
    """The last line of a request's head, and the blank line: so many bytes of body follow."""
    return b"Content-Length: %d\r\n\r\n" % body_bytes


class AnswerParser:
    """Reads the answers of one link.

    Attributes:
        begun: some byte of the present answer came.
        keep_alive: once the answer is complete, whether the link may carry another request.
    """

    __slots__ = (
        "_answer", "_body", "_body_bytes", "_body_parts", "_head_bytes", "_headers", "_in_head", "_parser",
        "_until_eof", "begun", "keep_alive",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """A request goes out: what comes now is its answer."""
        self.begun = False
        self.keep_alive = False
        self._answer: Answer | None = None
        self._in_head = True
        self._head_bytes = 0
        self._until_eof = False
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._body_bytes = self._body_parts = 0

    def receive_data(self, data: bytes | bytearray) -> Answer | None:
        """Take what came from the network; the answer, if it is complete with it.

        Raises:
            RemoteViolation: this is no HTTP, or its head is longer than `HEAD_BYTES`.
        """
        self.begun = True
        if self._in_head:
            room = HEAD_BYTES - self._head_bytes
            self._head_bytes += len(data)
            self._feed(data[:room])
            if len(data) > room:
                self._feed_body(data[room:])
        else:
            # the framing of chunks counts too, so that endless empty extensions find their end
            self._body_bytes += len(data)
            self._feed(data)
        if self._answer is None and (self._body_bytes > BODY_BYTES or self._body_parts > BODY_PARTS):
            self.keep_alive = False
            return self._complete()
        return self._answer

    def receive_eof(self) -> Answer | None:
        """The stream has ended; the answer, if that is what completes it."""
        if self._answer is None and self._until_eof:
            return self._complete()
        return self._answer

    def _feed_body(self, data: bytes | bytearray) -> None:
        if self._in_head:
            raise RemoteViolation(f"the head of the answer is longer than {HEAD_BYTES} bytes")
        self._feed(data)

    def _feed(self, data: bytes | bytearray) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise RemoteViolation("the server switched protocols, unasked") from None
        except httptools.HttpParserError as error:
            # bytes after the answer do not make it wrong, but nobody knows what they belong to
            if self._answer is None:
                raise RemoteViolation(f"the answer is no HTTP: {str(error) or 'unreadable'}") from None
            self.keep_alive = False

    def _complete(self) -> Answer:
        self._answer = Answer(self._parser.get_status_code(), self._headers, bytes(self._body))
        return self._answer

    # What llhttp calls. None of these may raise: httptools would report it as an error of the server.

    def on_message_begin(self) -> None:
        """An answer begins; a second one to one request is nobody's."""
        if self._answer is not None:
            self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer, which nobody here wants."""
        if self._in_head:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is complete, unless it is an interim one."""
        if self._answer is None and self._parser.get_status_code() >= 200:
            self._in_head = False
            self.keep_alive = self._parser.should_keep_alive()
            chunked = self._headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked")
            self._until_eof = not chunked and b"content-length" not in self._headers

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self._body_parts += 1
        if self._answer is None and len(self._body) < KEPT_BYTES:
            self._body += part[: KEPT_BYTES - len(self._body)]

    def on_message_complete(self) -> None:
        """The answer is complete, or an interim one is passed over."""
        if self._in_head:
            self._headers = {}
        elif self._answer is None:
            self._complete()


PATIENCE_S: Final = 5.0
"""How long to wait when a server asks for patience and does not say how much."""
MOST_PATIENCE_S: Final = 3_600.0


def patience_s(retry_after: bytes | None, now_s: float) -> float:
    """Read a Retry-After header: seconds or a date (RFC 9110, 10.2.3).

    Returns:
        1 to `MOST_PATIENCE_S` seconds; `PATIENCE_S` where the header is missing or says nothing.
    """
    text = (retry_after or b"").decode("latin-1").strip()
    try:
        seconds = float(text[:10]) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - now_s
    except (ValueError, OverflowError):
        return PATIENCE_S
    return min(max(seconds, 1.0), MOST_PATIENCE_S)
