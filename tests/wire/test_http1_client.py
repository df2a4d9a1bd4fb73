"""What the client makes of answers, whole, byte by byte and cut anywhere; and what it writes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.errors import LocalMisuse, RemoteViolation
from tpxd.wire.http.answer import (
    BODY_BYTES,
    BODY_PARTS,
    HEAD_BYTES,
    KEPT_BYTES,
    Answer,
    AnswerParser,
    end_of_head,
    header_lines,
    is_token,
    request_head,
)

Result = tuple[int, bytes, bool] | None


def read(pieces: Iterable[bytes], *, eof: bool = False) -> Result:
    """Status, body and keep-alive of the answer that the pieces make, None when they do not make one."""
    parser = AnswerParser()
    answer: Answer | None = None
    for piece in pieces:
        answer = parser.receive_data(piece)
        if answer is not None and not parser.keep_alive:
            break
    if eof:
        answer = parser.receive_eof()
    return None if answer is None else (answer.status, answer.body, parser.keep_alive)


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", True)),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, b"", True)),
    "no reason phrase": (b"HTTP/1.1 202\r\nContent-Length: 0\r\n\r\n", (202, b"", True)),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
    "not modified has no body": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (304, b"", True)),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", False)),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", False)),
    "1.0 keep-alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", True)),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n1\r\nd\r\n0\r\nX-Trailer: t\r\n\r\n",
        (200, b"abcd", True),
    ),
    "continue first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hi\r\nX: y\r\n\r\nHTTP/1.1 201 OK\r\nContent-Length: 1\r\n\r\nx",
        (201, b"x", True),
    ),
    "offers an upgrade that nobody asked for": (
        b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
        (200, b"ok", True),
    ),
}

UNTIL_EOF = {
    "1.1": (b"HTTP/1.1 200 OK\r\n\r\nok", (200, b"ok", False)),
    "1.0": (b"HTTP/1.0 500 No\r\n\r\n", (500, b"", False)),
    "coding without chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nzz", (200, b"zz", False)),
}

CUT = {
    "nothing": b"",
    "in the head": b"HTTP/1.1 200 OK\r\nContent-Len",
    "only interim": b"HTTP/1.1 100 Continue\r\n\r\n",
    "shorter than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
    "before the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
}

VIOLATIONS = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "switched": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_one_answer_however_it_is_cut(name: str) -> None:
    data, expected = ANSWERS[name]
    assert read([data]) == expected
    assert read(bytewise(data)) == expected
    for at in range(1, len(data)):
        assert read([data[:at], data[at:]]) == expected


@pytest.mark.parametrize("name", ANSWERS)
def test_every_shorter_prefix_is_no_answer(name: str) -> None:
    data, _ = ANSWERS[name]
    for end in range(len(data)):
        assert read([data[:end]] if end else []) is None


@pytest.mark.parametrize("name", UNTIL_EOF)
def test_an_answer_that_ends_with_the_stream(name: str) -> None:
    data, expected = UNTIL_EOF[name]
    for pieces in ([data], bytewise(data)):
        assert read(pieces) is None
        assert read(pieces, eof=True) == expected


@pytest.mark.parametrize("name", CUT)
def test_an_answer_that_was_cut_off_is_none(name: str) -> None:
    assert read(bytewise(CUT[name]), eof=True) is None


@pytest.mark.parametrize("name", VIOLATIONS)
def test_what_is_no_http_is_a_violation(name: str) -> None:
    with pytest.raises(RemoteViolation):
        read([VIOLATIONS[name]])
    with pytest.raises(RemoteViolation):
        read(bytewise(VIOLATIONS[name]))


def test_one_parser_reads_the_answers_of_one_link() -> None:
    parser = AnswerParser()
    for data, (status, body, keep_alive) in ANSWERS.values():
        if not keep_alive:
            continue
        parser.begin()
        assert not parser.begun
        answer = parser.receive_data(data)
        assert answer is not None
        assert (answer.status, answer.body, parser.keep_alive) == (status, body, True)


def test_headers_have_lower_case_names_and_no_trailers() -> None:
    parser = AnswerParser()
    answer = parser.receive_data(
        b"HTTP/1.1 200 OK\r\nRETRY-After: 7\r\nX-A: 1\r\nX-A: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: t\r\n\r\n"
    )
    assert answer is not None
    assert answer.headers == {b"retry-after": b"7", b"x-a": b"2", b"transfer-encoding": b"chunked"}


def test_headers_of_an_interim_answer_are_not_those_of_the_answer() -> None:
    answer = AnswerParser().receive_data(
        b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    )
    assert answer is not None
    assert b"retry-after" not in answer.headers


@pytest.mark.parametrize(
    "tail", [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"garbage", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"]
)
def test_what_follows_an_answer_spoils_the_link_and_not_the_answer(tail: bytes) -> None:
    assert read([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + tail]) == (200, b"ok", False)


def head_of(size: int) -> bytes:
    start, end = b"HTTP/1.1 200 OK\r\nX-Long: ", b"\r\nContent-Length: 0\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("step", [1, 1000, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1])
def test_the_head_has_a_limit_exact_to_the_byte(step: int) -> None:
    fits, too_long = head_of(HEAD_BYTES), head_of(HEAD_BYTES + 1)
    assert read(fits[at : at + step] for at in range(0, len(fits), step)) == (200, b"", True)
    with pytest.raises(RemoteViolation, match="longer than 65536 bytes"):
        read(too_long[at : at + step] for at in range(0, len(too_long), step))


def test_interim_answers_without_end_are_a_violation() -> None:
    with pytest.raises(RemoteViolation):
        read([b"HTTP/1.1 100 Continue\r\n\r\n"] * HEAD_BYTES)


def test_a_long_body_counts_and_only_its_beginning_is_kept() -> None:
    body = bytes(range(256)) * (BODY_BYTES // 256)
    data = b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert read([data, *(body[at : at + 1000] for at in range(0, len(body), 1000))]) == (404, body[:KEPT_BYTES], True)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 500 No\r\n\r\n", b"x" * 1000),
        (b"HTTP/1.1 500 No\r\nContent-Length: 99999999\r\n\r\n", b"x" * 1000),
        (b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
        (b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 1000),
    ],
)
def test_a_body_without_end_is_left_and_so_is_its_link(head: bytes, piece: bytes) -> None:
    parser = AnswerParser()
    assert parser.receive_data(head) is None
    answers = (parser.receive_data(piece) for _ in range(BODY_BYTES // 1000 + 1))
    answer = next(answer for answer in answers if answer is not None)
    assert answer.status == 500
    assert len(answer.body) in (0, KEPT_BYTES)
    assert not parser.keep_alive


@given(st.binary())
def test_any_garbage_is_read_or_is_a_violation(data: bytes) -> None:
    for pieces in ([data], bytewise(data)):
        with suppress(RemoteViolation):
            read(pieces, eof=True)


@given(st.sampled_from(sorted(ANSWERS)), st.integers(0, 200), st.integers(0, 255))
def test_any_damage_is_read_or_is_a_violation(name: str, at: int, byte: int) -> None:
    damaged = bytearray(ANSWERS[name][0])
    damaged[at % len(damaged)] = byte
    for pieces in ([bytes(damaged)], bytewise(bytes(damaged))):
        with suppress(RemoteViolation):
            read(pieces, eof=True)


def test_a_request_byte_by_byte() -> None:
    head = request_head(b"POST", b"/in?a=b%20c", [(b"Host", b"as.example.net"), (b"X-Thing", b"0018B20000000B20")])
    assert head + header_lines([(b"X-Name", "Kühlraum".encode())]) + end_of_head(12) == (
        b"POST /in?a=b%20c HTTP/1.1\r\nHost: as.example.net\r\nX-Thing: 0018B20000000B20\r\n"
        b"X-Name: K\xc3\xbchlraum\r\nContent-Length: 12\r\n\r\n"
    )


@pytest.mark.parametrize("target", [b"", b"/a b", b"/a\r\nX: y", b"/\x00", b"/\xff"])
def test_a_target_cannot_break_the_head_open(target: bytes) -> None:
    with pytest.raises(LocalMisuse):
        request_head(b"POST", target, [])


@pytest.mark.parametrize("name", [b"", b"X Y", b"X:", b"X\r\nY", b"X\xff"])
def test_a_name_cannot_break_the_head_open(name: bytes) -> None:
    assert not is_token(name)
    with pytest.raises(LocalMisuse):
        header_lines([(name, b"v")])


@given(st.binary())
def test_a_value_cannot_break_the_head_open(value: bytes) -> None:
    with suppress(LocalMisuse):
        line = header_lines([(b"X-Name", value)])
        assert line.endswith(b"\r\n")
        assert not set(line[:-2]) & set(b"\r\n\x00")


@pytest.mark.parametrize("value", [b"s3cr3t\r\nX: y", b"s3cr3t\n", b"\x00s3cr3t", b"s3cr3t\x7f"])
def test_an_error_about_a_value_does_not_repeat_it(value: bytes) -> None:
    with pytest.raises(LocalMisuse, match="the header Authorization holds a control character") as caught:
        header_lines([(b"Authorization", value)])
    assert "s3cr3t" not in str(caught.value)


def test_an_answer_in_ever_more_tiny_chunks_is_read_no_further() -> None:
    parser = AnswerParser()
    parser.begin()
    assert parser.receive_data(b"HTTP/1.1 422 X\r\nTransfer-Encoding: chunked\r\n\r\n") is None
    assert parser.receive_data(BODY_PARTS * b"1\r\nx\r\n") is None
    answer = parser.receive_data(b"1\r\nx\r\n")
    assert answer is not None
    assert (answer.status, answer.body) == (422, b"x" * (BODY_PARTS + 1))
    assert not parser.keep_alive
