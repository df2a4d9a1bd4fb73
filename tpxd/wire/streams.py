"""Byte streams to an endpoint: name look-up, TCP, proxy, TLS; each failure names its hop, its phase and the
operator's next step.

Source: RFC 8305 (addresses are tried side by side), RFC 8446 (TLS 1.3), RFC 6125 (the name in the certificate).
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from tpxd.errors import ConnectFailed, TransportError, WireError, leaves
from tpxd.wire.next_steps import NextStep
from tpxd.wire.proxy import Proxy, host_and_port, open_tunnel
from tpxd.wire.tls import trusts_given_ca


@dataclass(frozen=True, slots=True)
class WebSocket:
    """What to ask a server for that offers WebSockets.

    Attributes:
        path: the request's target, with what may show of its query.
        subprotocol: what is spoken inside; the server must choose it.
        query: what follows `path` and a question mark; errors never show it, since it may hold what lets us in.
        login_hint: what to do when the server refuses us.
    """

    path: str
    subprotocol: str
    query: str = field(default="", repr=False)
    login_hint: str = "does the server ask for a client certificate, or does a gateway before it refuse us?"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a stream leads, and through what.

    Attributes:
        host: a name or an address, IPv6 without brackets.
        tls: makes it a TLS stream; the context decides what is trusted. The name is checked in any case.
        server_name: what the certificate must be made out to, when that is not `host`.
        proxy: goes through a tunnel that this proxy opens, which also looks the name up.
        websocket: makes it the bytes of a WebSocket's messages; see `websocket.open_link`.
        role: what it is to us, where its address alone would mislead, such as "proxy".
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy: Proxy | None = None
    websocket: WebSocket | None = None
    role: str = ""

    def __str__(self) -> str:
        return f"{self.role} {host_and_port(self.host, self.port)}".lstrip()

    @property
    def place(self) -> str:
        """How errors call it, with the way to it."""
        return str(self) if self.proxy is None else f"{self} through {self.proxy}"


Dial = Callable[[Endpoint, float], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to an endpoint within so many seconds, or raises `ConnectFailed`; see `open_stream`."""

NAME, TCP, TUNNEL, TLS = "name look-up", "TCP", "CONNECT", "TLS handshake"

_SLOW = {
    NAME: "does the name server of this machine answer?",
    TCP: "is the host up, and does a firewall let this port through?",
    TUNNEL: "is it an HTTP proxy, and does it reach the destination?",
    TLS: "does the server speak TLS on this port?",
}


@dataclass(slots=True)
class _Opening:
    """How far opening has come.

    Attributes:
        place: the hop that is being spoken to, as errors call it.
        stream: the TCP stream beneath everything, which closes all of it.
    """

    place: str
    phase: str = NAME
    stream: trio.abc.Stream | None = None

    def failed(self, reason: str, hint: str | None) -> ConnectFailed:
        return ConnectFailed(f"{self.place}: {reason} ({self.phase})", hint=hint)


async def open_stream(endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
    """Connect to the endpoint, all phases together within `timeout_s`; its WebSocket is not opened here.

    Raises:
        ConnectFailed: the message names the hop and the phase; the hint is the next step.
        AuthenticationFailed: the proxy refuses us.

    Cancellation: nothing stays open.
    """
    opening = _Opening(str(endpoint))
    try:
        with trio.fail_after(timeout_s):
            return await _open(endpoint, opening)
    except BaseException as error:
        if opening.stream is not None:
            await trio.aclose_forcefully(opening.stream)
        if isinstance(error, trio.TooSlowError):
            raise opening.failed(f"no answer within {timeout_s:g} s", _SLOW[opening.phase]) from None
        if isinstance(error, trio.BrokenResourceError):
            reason, hint = explain(error)
            raise opening.failed(reason, hint or _BROKEN.get(opening.phase)) from error
        raise


async def _open(endpoint: Endpoint, opening: _Opening) -> trio.abc.Stream:
    if endpoint.proxy is None:
        stream = await _connect(endpoint.host, endpoint.port, opening)
    else:
        stream = await _tunnel(endpoint.proxy, endpoint, opening)
        opening.place = endpoint.place
    if endpoint.tls is not None:
        stream = await _secure(stream, endpoint.tls, endpoint.server_name or endpoint.host, opening)
    return stream


def explain(error: BaseException) -> tuple[str, str | None]:
    """Say in plain words why a stream broke or could not be made: the reason, and the next step where one is known.

    TLS 1.3 lets a server refuse our certificate after the handshake, so a session whose first read fails asks here too.

    Args:
        error: what trio, socket or ssl raised; its causes are searched.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError | WireError) or (isinstance(seen, OSError) and seen.errno):
            break
        seen = seen.__cause__ or seen.__context__
    if isinstance(seen, WireError):
        return seen.message, seen.hint
    if isinstance(seen, ssl.SSLCertVerificationError):
        return _explain_certificate(seen)
    if isinstance(seen, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "the far end closed the connection", None
    if isinstance(seen, ssl.SSLError):
        return _explain_alert(seen)
    if isinstance(seen, OSError):
        return os.strerror(seen.errno or 0).lower(), _SYSTEM_HINTS.get(seen.errno or 0)
    return "the far end closed the connection", None


@contextmanager
def one_error() -> Iterator[None]:
    """Let the one error that matters leave a nursery that holds a link, without its exception group.

    The tasks of a link often fail together, each with its own view of the same end: the first one tells it. While
    we are being cancelled, the end of the link is of no interest any more; a bug always is.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(leaves(group))
        cancelled = [error for error in errors if isinstance(error, trio.Cancelled)]
        bugs = [error for error in errors if not isinstance(error, trio.Cancelled | TransportError)]
        if len(bugs) > 1 or (bugs and cancelled):
            raise
        telling = (bugs or cancelled or errors)[0]
        raise telling from telling.__cause__


async def _connect(host: str, port: int, opening: _Opening) -> trio.abc.Stream:
    await _look_up(host, port, opening)
    opening.phase = TCP
    try:
        # trio switches Nagle's algorithm off
        opening.stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        attempts = [leaf for leaf in leaves(error.__cause__ or error) if isinstance(leaf, OSError)]
        # of several addresses, the one where a machine answered tells most
        telling = min(attempts, key=lambda attempt: attempt.errno != errno.ECONNREFUSED)
        raise opening.failed(*explain(telling)) from error
    return opening.stream


async def _look_up(host: str, port: int, opening: _Opening) -> None:
    """Prove that the name resolves: trio's own look-up happens inside its connecting, where a delay has no phase."""
    try:
        await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise opening.failed("the name server does not answer", _SLOW[NAME]) from error
        raise opening.failed("name not found", "is the host name spelled right?") from error
    except UnicodeError as error:
        raise opening.failed("no valid host name", "is the host name spelled right?") from error


async def _tunnel(proxy: Proxy, endpoint: Endpoint, opening: _Opening) -> trio.abc.Stream:
    opening.place = str(proxy)
    stream = await _connect(proxy.host, proxy.port, opening)
    if proxy.tls is not None:
        stream = await _secure(stream, proxy.tls, proxy.host, opening)
    opening.phase = TUNNEL
    await open_tunnel(stream, proxy, endpoint.host, endpoint.port)
    return stream


async def _secure(stream: trio.abc.Stream, context: ssl.SSLContext, name: str, opening: _Opening) -> trio.abc.Stream:
    assert context.check_hostname
    opening.phase = TLS
    # https_compatible: the protocols above know themselves where they end, and few brokers say goodbye in TLS
    secured = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        seen = error.__cause__
        if isinstance(seen, ssl.SSLCertVerificationError) and _is_of_another_ca(seen, context):
            text = "the server's certificate was not issued by the CA that is set"
            raise opening.failed(text, NextStep.TRUST_ANOTHER_CA) from error
        raise
    return secured


_UNKNOWN_ISSUER = (18, 19, 20, 21)


def _is_of_another_ca(error: ssl.SSLCertVerificationError, context: ssl.SSLContext) -> bool:
    """Whether the server is fine as far as we know, but for the CA that the operator named instead of the system's."""
    return error.verify_code in _UNKNOWN_ISSUER and trusts_given_ca(context)


_BROKEN = {
    TUNNEL: _SLOW[TUNNEL],
    TLS: f"{_SLOW[TLS]} or does it ask for a client certificate?",
}

_SYSTEM_HINTS = {
    errno.ECONNREFUSED: "is the server running there, and is the port right?",
    errno.EHOSTUNREACH: "is the network up, and is the address right?",
    errno.ENETUNREACH: "is the network up, and is there a route to this address?",
    errno.ETIMEDOUT: _SLOW[TCP],
    errno.EACCES: "does a firewall on this machine forbid it?",
    errno.EPERM: "does a firewall on this machine forbid it?",
}

# numbers of X509_V_ERR_… in OpenSSL's x509_vfy.h, which ssl hands through as verify_code
_CERTIFICATE_FAULTS = {
    9: ("is not valid yet", "is the clock of this machine right?"),
    10: ("has expired", "the server's operator must renew it; is the clock of this machine right?"),
    18: ("is self-signed and not trusted", NextStep.TRUST_CERTIFICATE),
    19: ("was issued by a CA that is not trusted", NextStep.TRUST_ISSUER),
    20: ("was issued by a CA that is not trusted", NextStep.TRUST_ISSUER),
    21: ("was issued by a CA that is not trusted", NextStep.TRUST_ISSUER),
    62: ("is made out to another name", "use the name in the certificate as host name"),
    64: ("is made out to another address", "use the name in the certificate as host name"),
}


def _explain_certificate(error: ssl.SSLCertVerificationError) -> tuple[str, str | None]:
    fault, hint = _CERTIFICATE_FAULTS.get(error.verify_code, ("is not accepted", NextStep.TRUST_ISSUER))
    return f"the server's certificate {fault}: {error.verify_message.rstrip('.')}", hint


_ALERTS = {
    "CERTIFICATE_REQUIRED": ("the server asks for a client certificate", NextStep.CLIENT_CERTIFICATE),
    "HANDSHAKE_FAILURE": ("the server refused the handshake", NextStep.CLIENT_CERTIFICATE_PERHAPS),
    "UNKNOWN_CA": (
        "the server does not trust the CA of our client certificate",
        NextStep.CLIENT_CA_KNOWN,
    ),
    "BAD_CERTIFICATE": ("the server refused our client certificate", "is it the one that the server expects?"),
    "UNSUPPORTED_CERTIFICATE": ("the server refused the kind of our client certificate", "is it made for clients?"),
    "CERTIFICATE_EXPIRED": ("the server says that our client certificate has expired", "renew it"),
    "CERTIFICATE_REVOKED": ("the server says that our client certificate was revoked", "renew it"),
    "CERTIFICATE_UNKNOWN": ("the server does not know our client certificate", "is it registered with the server?"),
    "ACCESS_DENIED": ("the server refused our client certificate", "has it the rights to connect?"),
    "PROTOCOL_VERSION": ("the server offers no TLS 1.2 or newer", "the server's operator must enable TLS 1.2"),
    "UNSUPPORTED_PROTOCOL": ("the server offers no TLS 1.2 or newer", "the server's operator must enable TLS 1.2"),
    "WRONG_VERSION_NUMBER": (
        "the server does not speak TLS on this port",
        "is the port right, or is it one without TLS?",
    ),
    "UNEXPECTED_MESSAGE": (
        "the server does not speak TLS on this port",
        "is the port right, or is it one without TLS?",
    ),
    "RECORD_LAYER_FAILURE": (
        "the server does not speak TLS on this port",
        "is the port right, or is it one without TLS?",
    ),
    "UNRECOGNIZED_NAME": ("the server does not know this host name", "is the host name right?"),
    "NO_APPLICATION_PROTOCOL": ("the server does not offer this protocol on this port", "is the port right?"),
}


def _explain_alert(error: ssl.SSLError) -> tuple[str, str | None]:
    reason = error.reason or ""
    for alert, explained in _ALERTS.items():
        if reason.endswith(alert):
            return explained
    return f"TLS failed: {reason.replace('_', ' ').lower() or 'no reason given'}", None
