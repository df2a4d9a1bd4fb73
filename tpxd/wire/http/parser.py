"""HTTP/1.1 as a server reads it: bytes in, requests out.

Theory of operation. llhttp (through httptools) decides what is valid. It cannot be paused, so this module cuts
the stream at every blank line and feeds the pieces one by one: a request head and a chunked body both end with a
blank line, and the length of any other body is known from its head. Therefore no piece reaches from one request
into the next, every limit is counted exactly, and one stream gives one result however the network splits it.

What this does not do: sockets, clocks, logging, routing, percent-decoding.

Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import httptools

from tpxd.wire.http.messages import Limits, Request, Response

BLANK_LINE = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestParser:
    """Turns the bytes of one connection into requests.

    After `receive`, answer the requests it returned, in order; then look at `refusal`, `ended` and `interim()`.
    Nothing is raised, whatever the bytes are.

    Attributes:
        refusal: the last answer to give before closing, once the stream cannot be trusted any more:
            400, 413, 414, 417, 431, 501 or 505 with one line of text.
        ended: no further request will come out; bytes that still arrive are ignored.
        mid_request: a request has begun and is not complete.
    """

    def __init__(self, limits: Limits, peer: str) -> None:
        self.refusal: Response | None = None
        self.ended = False
        self._limits = limits
        self._peer = peer
        self._parser = httptools.HttpRequestParser(self)
        self._complete: list[Request] = []
        self._first_byte = 0
        self._wants_continue = False
        self._begin()

    def _begin(self) -> None:
        self.mid_request = False
        self._in_head = True
        self._chunked = False
        self._body_left = 0
        self._tail = b""
        self._head_size = 0
        self._chunked_size = 0
        self._body_size = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_count = 0
        self._version = ""
        self._keep_alive = True
        self._body: list[bytes] = []

    def receive(self, data: bytes | bytearray) -> list[Request]:
        """Take what came from the network and return the requests that are complete with it."""
        start = 0
        while start < len(data) and not self.ended:
            start += self._feed_piece(data, start)
        complete, self._complete = self._complete, []
        return complete

    def interim(self) -> bytes:
        """What to send now to a sender that waits for `100 Continue` before its body, b"" when none does."""
        if not self._wants_continue:
            return b""
        self._wants_continue = False
        return CONTINUE

    def _feed_piece(self, data: bytes | bytearray, start: int) -> int:
        """Feed what belongs to one request from `start` on; return how many bytes that was."""
        if self._body_left:
            piece = data[start : start + self._body_left]
            self._body_left -= len(piece)
            self._feed(piece)
            return len(piece)
        end = self._after_blank_line(data, start)
        if not self._in_head:
            end = min(end, start + self._framing_left() + 1)
        piece = data[start:end]
        self._tail = (self._tail + piece[-3:])[-3:]
        if self._in_head:
            self._feed_head(piece)
        else:
            self._chunked_size += len(piece)
            self._feed(piece)
            self._check_framing()
        return len(piece)

    def _after_blank_line(self, data: bytes | bytearray, start: int) -> int:
        """Where the piece that begins at `start` ends; a blank line may have begun in the piece before."""
        if self._tail:
            across = (self._tail + data[start : start + 3]).find(BLANK_LINE)
            if across >= 0:
                return start + across + len(BLANK_LINE) - len(self._tail)
        found = data.find(BLANK_LINE, start)
        return found + len(BLANK_LINE) if found >= 0 else len(data)

    def _framing_left(self) -> int:
        return self._limits.framing_bytes - (self._chunked_size - self._body_size)

    def _check_framing(self) -> None:
        if self._framing_left() < 0 and not self.ended:
            self._refuse(413, "chunk sizes, extensions and trailers are too long")

    def _feed_head(self, piece: bytes | bytearray) -> None:
        if not self._head_size:
            self._first_byte = piece[0]
        room = self._limits.head_bytes - self._head_size
        self._head_size += len(piece)
        self._feed(piece[:room])
        if len(piece) > room and not self.ended:
            self._refuse(*self._too_long())

    def _too_long(self) -> tuple[int, str]:
        if len(self._url) > self._limits.target_bytes:
            return 414, f"path and query are longer than {self._limits.target_bytes} bytes"
        return 431, f"the request's head is longer than {self._limits.head_bytes} bytes"

    def _feed(self, piece: bytes | bytearray) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            if not self.ended:
                self._ignore_upgrade()
        except httptools.HttpParserError as error:
            if not self.ended:
                self._refuse(*self._explain(error))

    def _ignore_upgrade(self) -> None:
        """Read the head again without its `Upgrade`: httptools takes what follows an upgrade for no HTTP at all.

        Java's HttpClient asks for h2c on every first request; a server may ignore that (RFC 9110, 7.8), but the
        body has to be read.
        """
        headers = [(name, value) for name, value in self._headers.items() if name != b"upgrade"]
        version = self._parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._url, version), *map(b": ".join, headers)]
        self._parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join(head) + BLANK_LINE)

    def _explain(self, error: httptools.HttpParserError) -> tuple[int, str]:
        reason = str(error)
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            if self._first_byte == 0x16:
                return 400, "this looks like TLS, and this port speaks plain HTTP"
            if bytes((self._first_byte,)).isalpha():
                return 501, "the method is unknown"
            return 400, "this is not HTTP"
        if reason == "Invalid HTTP version":
            return 505, "only HTTP/1.1 and HTTP/1.0 are spoken here"
        return 400, reason or "this is not HTTP"

    def _refuse(self, status: int, text: str) -> None:
        self.refusal = Response(status, text.encode("ascii", "replace") + b"\n")
        self.ended = True
        self._wants_continue = False

    # What llhttp calls. None of these may raise: httptools would report it as an error of the sender.

    def on_message_begin(self) -> None:
        """A request begins, or begins again in `_ignore_upgrade`."""
        self.mid_request = True
        self._in_head = True
        self._url = b""
        self._headers = {}
        self._header_count = 0

    def on_url(self, part: bytes) -> None:
        """A part of the request target."""
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer, which nobody here wants."""
        if self._in_head:
            self._header_count += 1
            name = name.lower()
            value = value.rstrip(b" \t")
            known = self._headers.get(name)
            self._headers[name] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:
        """The head is complete: everything that can be refused without the body is refused here."""
        self._in_head = False
        headers = self._headers
        version = self._version = self._parser.get_http_version()
        refused = self._refused_head(version)
        if refused is not None:
            self._refuse(*refused)
            return
        self._keep_alive = self._parser.should_keep_alive()
        self._chunked = b"transfer-encoding" in headers
        if b"content-length" in headers:
            self._body_left = int(headers[b"content-length"])
        self._wants_continue = b"expect" in headers and version == "1.1" and (self._chunked or self._body_left > 0)

    def _refused_head(self, version: str) -> tuple[int, str] | None:
        """Why a complete head is refused, None when it is not."""
        headers, limits = self._headers, self._limits
        if len(self._url) > limits.target_bytes:
            return self._too_long()
        if self._header_count > limits.header_count:
            return 431, f"there are more than {limits.header_count} headers"
        if version not in ("1.1", "1.0"):
            return 505, "only HTTP/1.1 and HTTP/1.0 are spoken here"
        if b"#" in self._url:
            return 400, "the request target has a fragment"
        if self._url.startswith(b"*") and self._url != b"*":
            return 400, "the request target is no path"
        if version == "1.1" and (b"host" not in headers or b"," in headers[b"host"]):
            return 400, "HTTP/1.1 needs exactly one Host header"
        if self._parser.get_method() == b"CONNECT":
            return 501, "this is not a proxy"
        coding = headers.get(b"transfer-encoding")
        if coding is not None:
            if version == "1.0":
                return 400, "HTTP/1.0 has no Transfer-Encoding"
            if coding.lower() != b"chunked":
                return 501, "the only transfer coding understood is chunked"
        elif int(headers.get(b"content-length", b"0")) > limits.body_bytes:
            return self._too_much()
        if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
            return 417, "the only expectation met is 100-continue"
        return None

    def _too_much(self) -> tuple[int, str]:
        return 413, f"the body is larger than {self._limits.body_bytes} bytes"

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self._wants_continue = False
        self._body_size += len(part)
        if self._body_size > self._limits.body_bytes:
            if not self.ended:
                self._refuse(*self._too_much())
        else:
            self._body.append(part)

    def on_message_complete(self) -> None:
        """The request is complete, unless it was refused or `_ignore_upgrade` is about to read it again."""
        if self._parser.should_upgrade():
            return
        if self._chunked:
            self._check_framing()
        if self.ended:
            return
        path, query = _split_target(self._url.decode("latin-1"))
        method = self._parser.get_method().decode()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        http_1_0 = self._version == "1.0"
        self._complete.append(Request(method, path, query, self._headers, body, self._peer, self._keep_alive, http_1_0))
        self.ended = not self._keep_alive
        self._begin()


def _split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target; of an absolute one too, which proxies send (RFC 9112, 3.2.2)."""
    path, _, query = target.partition("?")
    if not path.startswith("/") and "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path, query
