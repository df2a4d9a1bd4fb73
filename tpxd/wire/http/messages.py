"""What an HTTP/1.1 server reads and writes, and how much of it.

Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from tpxd.errors import LocalMisuse

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_WITHOUT_BODY = (204, 304)


@dataclass(slots=True, eq=False)
class Request:
    """One complete request.

    Not frozen: one is made for each uplink, and a frozen one costs four times as much to make. Nobody changes one.

    Attributes:
        method: upper case, such as `POST`.
        path: as sent, percent-encoding included; begins with `/`, or is `*`.
        query: what follows the first `?`, as sent; "" when there is none.
        headers: lower-case names; a repeated one is joined with `, `, trailers are left out.
        peer: the address it came from, without the port.
        keep_alive: the sender wants to send more over this connection.
        http_1_0: the sender speaks HTTP/1.0.
    """

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    body: bytes
    peer: str
    keep_alive: bool = True
    http_1_0: bool = False


@dataclass(slots=True, eq=False)
class Response:
    """One answer; Content-Type, Content-Length, Connection and Date are added to `headers` when it is written.

    Not frozen for the same reason as `Request`. Nobody changes one, so a constant one may be shared.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Sequence[tuple[bytes, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one sender may ask for.

    Attributes:
        target_bytes: path and query; beyond that 414.
        head_bytes: request line and headers together; beyond that 431.
        header_count: beyond that 431.
        body_bytes: beyond that 413.
        framing_bytes: chunk sizes, extensions and trailers around a chunked body; beyond that 413.
        request_s: from a request's first byte to its last, else 408; also for a TLS handshake and for taking an answer.
        first_byte_s: from the connection to its first byte, then it is closed.
        idle_s: silence between requests, then the connection is closed.
        answer_s: for making one answer, else 503.
        connections: open at once; beyond that 503 and the connection is closed, unless `Places` decide.
    """

    target_bytes: int = 8 * 1024
    head_bytes: int = 16 * 1024
    header_count: int = 64
    body_bytes: int = 256 * 1024
    framing_bytes: int = 64 * 1024
    request_s: float = 10.0
    first_byte_s: float = 10.0
    idle_s: float = 75.0
    answer_s: float = 30.0
    connections: int = 1024


def format_response(request: Request | None, response: Response, *, close: bool = False, date: bytes = b"") -> bytes:
    """The bytes of an answer.

    Args:
        request: what is answered; None for a refusal, where the request is not known.
        close: say that the connection ends with this answer (it is also said when the request asked for it).
        date: the value of the Date header; left out when empty.

    Raises:
        LocalMisuse: a header of the response holds a line break.
    """
    status = response.status
    bodiless = status in _WITHOUT_BODY
    head = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    if date:
        head += b"Date: %b\r\n" % date
    if response.body and not bodiless:
        head += b"Content-Type: %b\r\n" % response.content_type.encode("latin-1")
    if not bodiless:
        head += b"Content-Length: %d\r\n" % len(response.body)
    if close or request is None or not request.keep_alive:
        head += b"Connection: close\r\n"
    elif request.http_1_0:
        head += b"Connection: keep-alive\r\n"
    for name, value in response.headers:
        if b"\n" in value or b"\r" in value:
            raise LocalMisuse(f"header {name.decode('latin-1')} holds a line break")
        head += b"%b: %b\r\n" % (name, value)
    if bodiless or (request is not None and request.method == "HEAD"):
        return head + b"\r\n"
    return head + b"\r\n" + response.body
