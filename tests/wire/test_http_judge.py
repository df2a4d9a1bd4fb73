"""What answers mean, line by line of the table; and how a server's own words are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.connectors.http.answers import Judge, shown
from tpxd.errors import AuthenticationFailed, Refused, Throttled, TransportError
from tpxd.wire.http.answer import MOST_PATIENCE_S, PATIENCE_S, Answer, patience_s
from tpxd.wire.proxy import Proxy

URL = "https://as.example.net/lora/in"
NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


def judge(*, strict: bool = False, proven: bool = True, secrets: tuple[str, ...] = ()) -> Judge:
    return Judge(URL, strict, secrets, lambda: proven)


def answer(status: int, body: bytes = b"", **headers: bytes) -> Answer:
    return Answer(status, {name.replace("_", "-").encode(): value for name, value in headers.items()}, body)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
@pytest.mark.parametrize("strict", [False, True])
def test_2xx_is_delivered(status: int, strict: bool) -> None:
    assert judge(strict=strict)(answer(status)) is None


@pytest.mark.parametrize(
    ("given_", "proven", "expected"),
    [
        (answer(401), True, AuthenticationFailed),
        (answer(407), True, AuthenticationFailed),
        (answer(403), False, AuthenticationFailed),
        (answer(408), True, Throttled),
        (answer(425), True, Throttled),
        (answer(429), True, Throttled),
        (answer(503, retry_after=b"7"), True, Throttled),
        (answer(503), True, Refused),
        (answer(502), True, Refused),
        (answer(502, retry_after=b"7"), True, Refused),
        (answer(504), True, Refused),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_what_holds_everything_in_both_modes(
    given_: Answer, proven: bool, expected: type[TransportError], strict: bool
) -> None:
    with pytest.raises(TransportError) as caught:
        judge(strict=strict, proven=proven)(given_)
    assert type(caught.value) is expected
    assert str(caught.value).startswith(f"{URL}: {given_.status} ")
    assert caught.value.hint is None or "\n" not in caught.value.hint


@pytest.mark.parametrize("status", [300, 301, 304, 400, 403, 404, 409, 413, 415, 422, 500, 501, 505, 599, 999])
def test_any_other_is_refused_for_good_or_in_strict_mode_held(status: int) -> None:
    assert (judge()(answer(status)) or "").startswith(str(status))
    with pytest.raises(Refused, match=f"^{URL}: {status}"):
        judge(strict=True)(answer(status))


# ---- behind a proxy that forwards requests

PROXY = Proxy("192.0.2.1", 3128)
SQUID_403 = answer(403, b"<html>", via=b"1.1 edge (squid/5.7)", x_squid_error=b"ERR_ACCESS_DENIED 0")
SQUID_503 = answer(503, b"<html>", via=b"1.1 edge (squid/5.7)", x_squid_error=b"ERR_CONNECT_FAIL 111")


def behind(proxy: Proxy, *, strict: bool = False, proven: bool = True) -> Judge:
    return Judge(URL, strict, (), lambda: proven, proxy)


@pytest.mark.parametrize(
    ("given_", "expected", "place", "hint"),
    [
        (answer(407, via=b"1.1 x"), AuthenticationFailed, "proxy 192.0.2.1:3128: 407", "set proxy.username"),
        (answer(407), AuthenticationFailed, "proxy 192.0.2.1:3128: 407", "set proxy.username"),
        (answer(401), AuthenticationFailed, f"proxy 192.0.2.1:3128, or {URL} behind it: 401", "proxy.username"),
        (answer(401, via=b"1.1 x"), AuthenticationFailed, f"{URL}: 401", "do headers hold the credentials"),
        (answer(302), Refused, f"proxy 192.0.2.1:3128, or {URL} behind it: 302", "does it allow us"),
        (answer(403), Refused, f"proxy 192.0.2.1:3128, or {URL} behind it: 403", "does it allow us"),
        (answer(500), Refused, f"proxy 192.0.2.1:3128, or {URL} behind it: 500", "does the proxy reach the server"),
        (answer(502), Refused, f"proxy 192.0.2.1:3128, or {URL} behind it: 502", "does the proxy reach the server"),
        (answer(502, via=b"1.1 x"), Refused, f"{URL}: 502", "gateway"),
        (answer(429), Throttled, f"proxy 192.0.2.1:3128, or {URL} behind it: 429", ""),
        (SQUID_403, Refused, f"proxy 192.0.2.1:3128, or {URL} behind it: 403 Forbidden: ERR_ACCESS_DENIED", "allow us"),
        (SQUID_503, Refused, f"proxy 192.0.2.1:3128, or {URL} behind it: 503", "does the proxy reach the server"),
    ],
)
@pytest.mark.parametrize("proven", [False, True])
def test_an_answer_that_may_be_the_proxys_own_rejects_nothing(
    given_: Answer, expected: type[TransportError], place: str, hint: str, proven: bool
) -> None:
    with pytest.raises(TransportError) as caught:
        behind(PROXY, proven=proven)(given_)
    assert type(caught.value) is expected
    assert str(caught.value).startswith(place)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("status", [302, 403, 500])
def test_what_came_through_the_proxy_is_the_servers_word(status: int) -> None:
    assert (behind(PROXY)(answer(status, via=b"1.1 squid")) or "").startswith(str(status))


@pytest.mark.parametrize("status", [400, 404, 422])
def test_what_no_proxy_says_of_itself_rejects_one_message(status: int) -> None:
    assert (behind(PROXY)(answer(status)) or "").startswith(str(status))


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        (None, PATIENCE_S),
        (b"", PATIENCE_S),
        (b"soon", PATIENCE_S),
        (b"-5", PATIENCE_S),
        (b"1.5", PATIENCE_S),
        (b"120", 120.0),
        (b" 120 ", 120.0),
        (b"0", 1.0),
        (b"86400", MOST_PATIENCE_S),
        (b"9" * 5000, MOST_PATIENCE_S),
        (b"Fri, 20 Nov 2026 10:02:00 GMT", 120.0),
        (b"Friday, 20-Nov-26 10:02:00 GMT", 120.0),
        (b"Fri, 20 Nov 2026 09:00:00 GMT", 1.0),
        (b"Fri, 20 Nov 2026 99:00:00 GMT", PATIENCE_S),
        (b"Sat, 20 Nov 2027 10:02:00 GMT", MOST_PATIENCE_S),
    ],
)
def test_retry_after(retry_after: bytes | None, expected: float) -> None:
    assert patience_s(retry_after, NOW.timestamp()) == expected


@given(st.integers(1, 3_600))
def test_seconds_and_dates_say_the_same(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True).encode()
    assert patience_s(b"%d" % seconds, NOW.timestamp()) == patience_s(date, NOW.timestamp()) == seconds


@given(st.binary(max_size=60) | st.text("0123456789 :,-+GMTFriNov", max_size=40).map(str.encode))
def test_patience_is_always_bounded(retry_after: bytes) -> None:
    assert 1 <= patience_s(retry_after, NOW.timestamp()) <= MOST_PATIENCE_S


def test_the_wait_that_the_server_asks_for_is_told() -> None:
    with pytest.raises(Throttled) as caught:
        judge()(answer(429, retry_after=b"17"))
    assert caught.value.retry_after_s == 17


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (answer(404), "404 Not Found"),
        (answer(404, b'{"error":"no such thing"}'), '404 Not Found: {"error":"no such thing"}'),
        (answer(404, b"  two\r\n\tlines\x00\x1b[31m  "), "404 Not Found: two lines [31m"),
        (answer(404, b"x" * 500), "404 Not Found: " + "x" * 200),
        (answer(404, b"\xff\xfe"), "404 Not Found: \ufffd\ufffd"),
        (answer(799, b"what"), "799: what"),
        (
            answer(308, b"moved", location=b"https://new.example.net/in?token=abc"),
            "308 Permanent Redirect: redirected to https://new.example.net/in; put the final URL into destinationURL",
        ),
        (
            answer(302, location=b"/login"),
            "302 Found: redirected to https://as.example.net/login; put the final URL into destinationURL",
        ),
        (
            answer(302, location=b"http://[\x00"),
            "302 Found: redirected to something that is no URL; put the final URL into destinationURL",
        ),
    ],
)
def test_texts(given_: Answer, expected: str) -> None:
    assert judge()(given_) == expected


def test_secrets_that_a_server_echoes_are_masked_even_where_the_text_is_cut() -> None:
    body = b"x" * 190 + b" s3cr3t-t0ken wrong"
    text = judge(secrets=("s3cr3t-t0ken",))(answer(400, body))
    assert text == "400 Bad Request: " + "x" * 190 + " ***** wro"


PAGE = (
    b"""\xef\xbb\xbf<!DOCTYPE html>
<html><head><title>404 Not Found</title><style>p { color: red }</style><!-- nginx -->
<script>if (a < b) track()</script></head>
<body class="a"><h1>Not Found</h1><p>No &lt;such&gt; path, k&amp;y.</p><hr><a href="/"""
    + b"x" * 500
)


def test_a_page_is_shown_as_what_one_reads() -> None:
    text = judge(secrets=("k&y",))(answer(404, PAGE))
    assert text == "404 Not Found: 404 Not Found Not Found No <such> path, *****."
    assert judge()(answer(400, b"a < b and <c>")) == "400 Bad Request: a < b and <c>"


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda body: b"<" + body))
def test_a_text_is_one_line(body: bytes) -> None:
    text = judge()(answer(400, body))
    assert text is not None
    assert text.isprintable()
    assert len(text) <= len("400 Bad Request: ") + 200


@given(st.binary(max_size=100))
def test_no_location_is_too_strange(location: bytes) -> None:
    text = judge()(answer(301, location=location))
    assert text is not None
    assert len(text) < 400


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert shown(httpx.URL("https://u:p@as.example.net:8443/a%20b?key=k#f")) == "https://as.example.net:8443/a%20b"
