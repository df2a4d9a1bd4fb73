"""HTTP/1.1 requests: whole, byte by byte, split anywhere, and hostile."""

from __future__ import annotations

from itertools import pairwise

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpxd.errors import LocalMisuse
from tpxd.wire.http.messages import Limits, Request, Response, format_response
from tpxd.wire.http.parser import CONTINUE, RequestParser

SMALL = Limits(target_bytes=40, head_bytes=200, header_count=5, body_bytes=64, framing_bytes=60)
DOCUMENTED = {400, 413, 414, 417, 431, 501, 505}

Facts = tuple[str, str, str, dict[bytes, bytes], bytes, bool, bool]


def facts(request: Request) -> Facts:
    headers = dict(request.headers)
    return request.method, request.path, request.query, headers, request.body, request.keep_alive, request.http_1_0


def parse(*parts: bytes, limits: Limits = SMALL) -> tuple[list[Facts], RequestParser]:
    parser = RequestParser(limits, "192.0.2.7")
    requests = [facts(request) for part in parts for request in parser.receive(part)]
    return requests, parser


def status(parser: RequestParser) -> int:
    return parser.refusal.status if parser.refusal else 0


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(places) if end > start]


def one(stream: bytes) -> Facts:
    """The only request of a stream, which must be the same when it comes byte by byte."""
    (request,), parser = parse(stream)
    assert parser.refusal is None
    slowly, _ = parse(*(stream[i : i + 1] for i in range(len(stream))))
    assert slowly == [request]
    return request


def test_a_request_with_everything() -> None:
    stream = b"POST /up?a=1&b=%2B HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nCONTENT-length:  3 \r\n\r\nabc"
    headers = {b"host": b"x", b"x-empty": b"", b"content-length": b"3"}
    assert one(stream) == ("POST", "/up", "a=1&b=%2B", headers, b"abc", True, False)


def test_the_peer_is_in_each_request() -> None:
    (request,) = RequestParser(SMALL, "192.0.2.7").receive(b"GET / HTTP/1.0\r\n\r\n")
    assert request.peer == "192.0.2.7"


def test_a_repeated_header_is_joined() -> None:
    assert one(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: a\r\nACCEPT: b\r\n\r\n")[3][b"accept"] == b"a, b"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"/%75p/..//x", "/%75p/..//x", ""),
        (b"http://lrc.example/a/b?c=d", "/a/b", "c=d"),
        (b"http://lrc.example?c", "/", "c"),
        (b"*", "*", ""),
    ],
)
def test_targets(target: bytes, path: str, query: str) -> None:
    assert one(b"OPTIONS %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)[1:3] == (path, query)


def test_a_chunked_body_may_have_extensions_and_trailers() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
    request = one(head + b"4;a=b\r\n\r\n\r\n\r\n2\r\nxy\r\n0\r\nT: v\r\n\r\n")
    assert request[4] == b"\r\n\r\nxy"
    assert set(request[3]) == {b"host", b"transfer-encoding"}


@pytest.mark.parametrize("body", [b"2\r\nab\r\n0\r\n\r\n", b"2\r\nab\r\n0\r\nT: v\r\n\r\n"])
def test_what_follows_a_chunked_body_is_a_request_of_its_own(body: bytes) -> None:
    chunked = b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    requests, parser = parse(chunked + b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n" + chunked)
    assert [(request[1], request[4]) for request in requests] == [("/1", b"ab"), ("/2", b""), ("/1", b"ab")]
    assert parser.refusal is None
    assert not parser.mid_request


@pytest.mark.parametrize(
    ("head", "keep_alive", "http_1_0"),
    [
        (b"GET / HTTP/1.1\r\nHost: x", True, False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close", False, False),
        (b"GET / HTTP/1.0", False, True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", True, True),
    ],
)
def test_who_wants_to_go_on(head: bytes, keep_alive: bool, http_1_0: bool) -> None:
    requests, parser = parse(head + b"\r\n\r\n" + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    assert requests[0][5:] == (keep_alive, http_1_0)
    assert len(requests) == (2 if keep_alive else 1), "what follows the last request is ignored"
    assert parser.ended is not keep_alive
    assert parser.refusal is None


def test_a_wish_to_upgrade_is_ignored_and_the_body_read() -> None:
    head = b"POST /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    for framing, body in (
        (b"Content-Length: 3\r\n\r\n", b"abc"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    ):
        request = one(head + framing + body)
        assert request[:2] + request[4:5] == ("POST", "/up", b"abc")
        requests, parser = parse((head + framing + body) * 2)
        assert [r[4] for r in requests] == [b"abc", b"abc"]
        assert parser.refusal is None


def test_expectation_is_answered_once_and_only_while_the_body_is_missing() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n"
    parser = RequestParser(SMALL, "")
    assert parser.receive(head) == []
    assert (parser.interim(), parser.interim()) == (CONTINUE, b"")
    assert len(parser.receive(b"abc")) == 1
    assert len(parser.receive(head + b"abc")) == 1
    assert parser.interim() == b""
    assert len(parser.receive(head.replace(b"Length: 3", b"Length: 0"))) == 1
    assert parser.interim() == b""


REFUSED = {
    b"\x16\x03\x01\x02\x00\x01\x00": (400, b"TLS"),
    b"\x16\x03\x01" + b"x" * 300: (400, b"TLS"),
    b"\x00": (400, b"not HTTP"),
    b"A" * 100: (501, b"method"),
    b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n": (501, b"method"),
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n": (501, b"proxy"),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": (400, b""),
    b"GET / HTTP/9.9\r\n\r\n": (505, b"HTTP/1.1"),
    b"GET / HTTP/2.0\r\nHost: x\r\n\r\n": (505, b"HTTP/1.1"),
    b"GET /\r\n\r\n": (505, b"HTTP/1.1"),
    b"GET / HTTP/1.1\r\n\r\n": (400, b"Host"),
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": (400, b"Host"),
    b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n": (400, b"fragment"),
    b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n": (400, b""),
    b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n": (400, b""),
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n": (400, b""),
    b"GET / HTTP/1.1\nHost: a\n\n": (400, b""),
    b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n": (400, b""),
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n": (400, b""),
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n": (400, b""),
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": (400, b""),
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n": (400, b""),
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n": (501, b"chunked"),
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": (400, b"HTTP/1.0"),
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n": (400, b""),
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n": (400, b""),
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: magic\r\nContent-Length: 1\r\n\r\nx": (417, b"100-continue"),
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65\r\n\r\n": (413, b"64 bytes"),
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 65\r\n\r\n": (413, b"64 bytes"),
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n" + b"x" * 65: (413, b"64 bytes"),
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 65: (413, b"chunk sizes"),
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 13: (413, b"chunk sizes"),
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"x" * 65: (413, b"trailers"),
    b"GET /" + b"x" * 40 + b" HTTP/1.1\r\nHost: x\r\n\r\n": (414, b"40 bytes"),
    b"GET /" + b"x" * 300: (414, b"40 bytes"),
    b"GET / HTTP/1.1\r\nHost: " + b"x" * 300: (431, b"200 bytes"),
    b"GET / HTTP/1.1\r\nHost: " + b" " * 300: (431, b"200 bytes"),
    b"\r\n" * 101: (431, b"200 bytes"),
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5 + b"\r\n": (431, b"5 headers"),
}


@pytest.mark.parametrize("stream", REFUSED, ids=lambda stream: repr(stream[:60]))
def test_refusals(stream: bytes) -> None:
    expected, text = REFUSED[stream]
    good = b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n"
    for parts in ([good + stream], [good, stream], split(good + stream, list(range(400)))):
        requests, parser = parse(*parts)
        assert [request[1] for request in requests] == ["/good"]
        assert (status(parser), parser.ended) == (expected, True)
        assert parser.refusal is not None
        assert text in parser.refusal.body
        assert parser.refusal.body.count(b"\n") == 1
        assert parser.receive(good) == []
        assert parser.interim() == b""


def test_limits_are_met_exactly() -> None:
    head = b"GET /%b HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n"
    fits = head % (b"x" * 39, b"y" * (200 - len(head % (b"x" * 39, b""))))
    assert len(fits) == 200
    assert one(fits)[0] == "GET"
    assert status(parse(fits.replace(b"yy", b"yyy", 1))[1]) == 431
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert one(chunked + b"1\r\nx\r\n" * 11 + b"0\r\n\r\n")[4] == b"x" * 11, "60 bytes of framing"
    assert one(chunked + b"40\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n")[4] == b"x" * 64


HEADS = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\nPOST /b?c HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n\r\n\r\nxy",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n1\r\n0\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: v\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
        b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        *REFUSED,
    ]
)


@settings(deadline=None, max_examples=200)
@given(st.lists(HEADS, max_size=5), st.lists(st.integers(0, 1000), max_size=12))
def test_a_stream_gives_the_same_however_it_is_split(streams: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(streams)
    whole, parser = parse(stream)
    for parts in (split(stream, cuts), split(stream, list(range(len(stream))))):
        requests, other = parse(*parts)
        assert requests == whole
        assert (other.ended, other.mid_request) == (parser.ended, parser.mid_request)
        assert status(other) == status(parser)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400), st.integers(0, 400))
def test_random_bytes_are_only_ever_refused(garbage: bytes, cut: int) -> None:
    requests, parser = parse(garbage[:cut], garbage[cut:])
    assert requests == []
    assert status(parser) in DOCUMENTED | {0}


@settings(deadline=None, max_examples=200)
@given(HEADS, st.integers(0, 200), st.binary(max_size=4), st.integers(0, 3))
def test_damaged_requests_are_read_or_refused(stream: bytes, place: int, damage: bytes, cut: int) -> None:
    damaged = stream[:place] + damage + stream[place + cut :]
    _, parser = parse(damaged, b"\r\n\r\n0\r\n\r\n")
    assert status(parser) in DOCUMENTED | {0}


BODIES = st.binary(max_size=64)


@given(st.lists(st.tuples(BODIES, st.booleans()), min_size=1, max_size=4), st.lists(st.integers(0, 600), max_size=8))
def test_every_body_comes_out_as_it_went_in(bodies: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    stream = b""
    for body, chunked in bodies:
        stream += b"POST / HTTP/1.1\r\nHost: x\r\n"
        if chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            stream += b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
        else:
            stream += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    requests, parser = parse(*split(stream, cuts))
    assert [request[4] for request in requests] == [body for body, _ in bodies]
    assert parser.refusal is None


def request(method: str = "GET", *, keep_alive: bool = True, http_1_0: bool = False) -> Request:
    return Request(method, "/", "", {}, b"", "", keep_alive, http_1_0)


def test_answers_byte_by_byte() -> None:
    hello = Response(200, b"hello", headers=[(b"X-A", b"1")])
    assert format_response(request(), hello, date=b"Sun, 06 Nov 1994 08:49:37 GMT") == (
        b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 5\r\nX-A: 1\r\n\r\nhello"
    )
    assert format_response(request("HEAD"), hello).endswith(b"Content-Length: 5\r\nX-A: 1\r\n\r\n")
    assert format_response(request(), Response(200)) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert format_response(request(), Response(204, b"lost")) == (b"HTTP/1.1 204 No Content\r\n\r\n"), (
        "no body, hence no word about one"
    )
    assert format_response(request(), Response(299)) == b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"


def test_answers_say_whether_the_connection_goes_on() -> None:
    ok = Response(200)
    assert b"Connection" not in format_response(request(), ok)
    assert b"Connection: close\r\n" in format_response(request(), ok, close=True)
    assert b"Connection: close\r\n" in format_response(request(keep_alive=False), ok)
    assert b"Connection: keep-alive\r\n" in format_response(request(http_1_0=True), ok)
    assert b"Connection: close\r\n" in format_response(None, Response(400))


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: x", b"a\nb", b"a\rb"])
def test_a_header_cannot_smuggle_another(value: bytes) -> None:
    with pytest.raises(LocalMisuse, match="X-A holds a line break"):
        format_response(request(), Response(200, headers=[(b"X-A", value)]))


class _Answer:
    """What httptools, as a client, makes of an answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""
        self.complete = 0
        self.goes_on = False

    def on_headers_complete(self) -> None:
        self.goes_on = self.parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete += 1


@given(st.sampled_from([200, 201, 400, 404, 503]), st.binary(max_size=100), st.booleans())
def test_another_parser_reads_our_answers(code: int, body: bytes, close: bool) -> None:
    answer = _Answer()
    answer.parser.feed_data(format_response(request(), Response(code, body), close=close))
    assert (answer.parser.get_status_code(), answer.body, answer.complete) == (code, body, 1)
    assert answer.goes_on is not close
