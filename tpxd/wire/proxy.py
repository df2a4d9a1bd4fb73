"""Tunnels through an HTTP proxy: CONNECT.

A proxy that forwards plain HTTP is asked in another way: the request itself goes to it, with the whole URL as target.

h11 reads the proxy's answer: it alone of the parsers here knows what CONNECT does to a connection.

Source: RFC 9110, 9.3.6 (CONNECT), 11.7 (authentication at proxies); RFC 7617 (Basic).
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, field

import h11
import trio

from tpxd.errors import AuthenticationFailed, ConnectFailed, TransportError
from tpxd.log import quoted
from tpxd.wire.http.answer import status_text
from tpxd.wire.next_steps import NextStep

READ_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        host: a name or an address, IPv6 without brackets.
        tls: makes it a proxy that is spoken to over TLS.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"proxy {host_and_port(self.host, self.port)}"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What a request to the proxy carries besides: `Proxy-Authorization`, where there are credentials."""
        if self.username is None:
            return []
        login = f"{self.username}:{self.password or ''}".encode()
        return [(b"Proxy-Authorization", b"Basic " + base64.b64encode(login))]

    @property
    def login_hint(self) -> NextStep:
        """What to do when it refuses our credentials, or misses them."""
        return NextStep.PROXY_LOGIN if self.username is None else NextStep.PROXY_LOGIN_RIGHT


def host_and_port(host: str, port: int) -> str:
    """Write an address so that the port can be told from it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def open_tunnel(stream: trio.abc.Stream, proxy: Proxy, host: str, port: int) -> None:
    """Ask the proxy at the other end of `stream` for a tunnel; from then on the stream leads to `host`.

    Raises:
        AuthenticationFailed: the proxy refuses our credentials, or misses them.
        ConnectFailed: it refuses the tunnel, does not reach the host, or is no proxy.
        trio.BrokenResourceError: the stream broke.
    """
    target = host_and_port(host, port)
    protocol = h11.Connection(h11.CLIENT)
    request = h11.Request(method="CONNECT", target=target, headers=[(b"Host", target.encode()), *proxy.headers])
    await stream.send_all(protocol.send(request) + protocol.send(h11.EndOfMessage()))
    try:
        answer = await _answer(stream, protocol)
    except h11.RemoteProtocolError as error:
        raise ConnectFailed(
            f"{proxy}: its answer is no HTTP ({quoted(str(error))})", hint="does an HTTP proxy listen on this port?"
        ) from error
    if answer is None:
        raise ConnectFailed(
            f"{proxy}: it closed the connection instead of opening a tunnel to {target}",
            hint="does an HTTP proxy listen on this port? its log may tell",
        )
    if not 200 <= answer.status_code < 300:
        raise _refusal(proxy, target, answer.status_code)
    if protocol.trailing_data[0]:
        raise ConnectFailed(f"{proxy}: something came through the tunnel to {target} before it was used")


async def _answer(stream: trio.abc.Stream, protocol: h11.Connection) -> h11.Response | None:
    """The final answer; None when the stream ended before it."""
    while True:
        event = protocol.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some(READ_BYTES))
            if not data:
                return None
            protocol.receive_data(data)


def _refusal(proxy: Proxy, target: str, status: int) -> TransportError:
    said = status_text(status)
    if status in (401, 407):
        return AuthenticationFailed(f"{proxy}: {said}", hint=proxy.login_hint)
    if status >= 500:
        return ConnectFailed(
            f"{target}: not reached through {proxy}: {said}",
            hint="is the server running there, is the name right, and may the proxy reach it?",
        )
    return ConnectFailed(
        f"{proxy}: refuses a tunnel to {target}: {said}",
        hint="the proxy's operator must allow CONNECT to this host and port",
    )
