"""Links to the LRC: one for each request that may be under way. A request goes out, and its answer is read.

What is not an answer is told apart by what the LRC may know: `NotTaken`, nothing of it, or it said so; `Unknown`, the
request was written, at least in part. Whatever comes after the status of an answer only changes its text.

Each link is an httpx transport of its own, since httpx's pool looks at all of its links for each request: with 32 of
them that costs five times as much as the request itself.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Final

import httpx
import trio

from tpxd.errors import TpxdError, leaves
from tpxd.lorawan.downlink_request import Answer, Meaning, judge
from tpxd.wire.next_steps import NextStep
from tpxd.wire.streams import explain
from tpxd.wire.tls import TlsContextCache

UNDER_WAY: Final = 32
"""Requests at once."""

CONNECT_S: Final = 5.0
ANSWER_S: Final = 10.0
TOGETHER_S: Final = 20.0
"""A request and its whole answer, however slowly it trickles."""

IDLE_S: Final = 4.0
"""A kept link is closed sooner than most servers do it: a request that crosses the closing is in doubt."""

KEPT_BYTES: Final = 4 * 1024
"""How much of an answer is looked at."""

UNWRITTEN: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    ValueError,
    OverflowError,
)
"""Nothing of the request went out; the last two: the system's own rules for names and ports are broken."""

_UNAUTHORISED_HINTS = {
    401: "as_key in [lrc], or downlinkAsKey of the connection, must be the key that the LRC has for this AS_ID, and the"
    " clocks must agree",
    403: "as_id in [lrc], or downlinkAsId of the connection, must be an AS_ID that the LRC knows and lets send to this"
    " device",
}

_TRUST: Final = (NextStep.TRUST_ISSUER, NextStep.TRUST_CERTIFICATE)
_TRUST_HINT: Final = "put the CA that issued it, or the certificate itself, into this machine's trust store"

_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_S)
_TIMEOUTS = httpx.Timeout(ANSWER_S, connect=CONNECT_S).as_dict()
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "tpxd"}


class NotTaken(TpxdError):
    """The LRC certainly did not take the downlink."""


class Later(NotTaken):
    """It said so itself, and wants to be asked again later: about this device, or about all."""


class Unauthorised(NotTaken):
    """It does not take what the downlink is signed with: not at all, or not for this device."""


class Unknown(TpxdError):
    """The downlink was written, at least in part, and nobody knows whether the LRC took it."""


class LrcLinks:
    """See the module; made by `open_links`."""

    def __init__(self, url: str, free: list[httpx.AsyncBaseTransport]) -> None:
        self._free = free
        self._begin = f"{url}{'&' if '?' in url else '?'}"
        parsed = httpx.URL(url)
        self._login = httpx.BasicAuth(parsed.username, parsed.password) if parsed.userinfo else httpx.Auth()

    async def post(self, query: str) -> Answer:
        """Tell the LRC about a downlink; at most `UNDER_WAY` may do so at once.

        Raises:
            NotTaken, Later, Unauthorised, Unknown: it is not decided what becomes of the downlink.

        Cancellation: the LRC may know of it or not.
        """
        request = httpx.Request("POST", self._begin + query, headers=_HEADERS, extensions={"timeout": _TIMEOUTS})
        link = self._free.pop()  # the one that was used last, so that those that nobody needs grow old
        try:
            answer = await _exchange(link, next(self._login.auth_flow(request)))
        finally:
            self._free.append(link)
        match answer.meaning:
            case Meaning.LATER:
                raise Later(answer.cause)
            case Meaning.UNAUTHORISED:
                raise Unauthorised(answer.cause, hint=_UNAUTHORISED_HINTS[answer.status])
            case Meaning.UNKNOWN:
                raise Unknown(answer.cause)
        return answer


async def _exchange(link: httpx.AsyncBaseTransport, request: httpx.Request) -> Answer:
    response: httpx.Response | None = None
    body = b""
    with trio.move_on_after(TOGETHER_S):
        try:
            response = await link.handle_async_request(request)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async with aclosing(response):
                async for chunk in response.stream:
                    body = (body + chunk)[:KEPT_BYTES]
        except UNWRITTEN as error:
            text = f"the LRC cannot be reached: {request.url.netloc.decode()}: {_reason(error)}"
            raise NotTaken(text, hint="see downlink_url in [lrc]") from None
        except httpx.HTTPError as error:
            if response is None:
                raise Unknown(f"the LRC was told and did not answer: {_reason(error)}") from None
    if response is None:
        raise Unknown(f"the LRC was told and did not answer within {TOGETHER_S:g} s")
    return judge(response.status_code, body)


def _reason(error: Exception) -> str:
    """An error of httpx in a few words; it never holds the URL, which has the Token in it."""
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    seen: BaseException | None = error
    while seen is not None:
        for leaf in leaves(seen):
            if isinstance(leaf, socket.gaierror):
                return f"the name is not known ({leaf.strerror})"
            if isinstance(leaf, OSError) and leaf.errno:
                reason, hint = explain(leaf)
                hint = _TRUST_HINT if hint in _TRUST else hint
                return f"{reason} ({hint})" if hint else reason
        seen = seen.__cause__ or seen.__context__
    return str(error) or type(error).__name__


@asynccontextmanager
async def open_links(url: str, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[LrcLinks]:
    """Yield links to the LRC; each opens when it is first used. With https the system's trust store decides.

    Args:
        transport: all links are this one instead; tests put an LRC there.

    Cancellation: all links are closed.
    """
    async with AsyncExitStack() as stack:
        if transport is not None:
            yield LrcLinks(url, [transport] * UNDER_WAY)
            return
        tls = TlsContextCache()() if url.startswith("https:") else False
        links = [httpx.AsyncHTTPTransport(verify=tls, limits=_LIMITS, trust_env=False) for _ in range(UNDER_WAY)]
        yield LrcLinks(url, [await stack.enter_async_context(link) for link in links])
