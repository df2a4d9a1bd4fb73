"""The gate of AWS IoT Core before a Mosquitto: TLS with ALPN and client certificates, or URLs that are signed.

It does what Mosquitto does not: it looks at the protocol that the client offers by ALPN, at the name that it asks for,
and, with botocore as judge, at the signature of a WebSocket's URL. What passes goes on to Mosquitto byte for byte. It
is reached as a proxy, so that a client may ask for AWS's own names and ports; tunnels to elsewhere are just tunnels.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import trio
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.peers import pki
from tests.wire.scripted_registry import KEY_ID, REGION, SECRET

DATA_HOST = f"abc-ats.iot.{REGION}.amazonaws.com"


@dataclass(slots=True)
class Gate:
    """The gate, and what came to it.

    Attributes:
        target: Mosquitto's port behind it.
        asked: the place that each tunnel was to lead to.
        protocols: by ALPN, one per link to AWS; None where the client offered none of AWS's.
        names: the server that each such link asked for.
        clients: the name in its certificate, "" without one.
        urls: of the WebSockets, as they came.
    """

    target: int
    websocket: bool
    tls: ssl.SSLContext
    port: int = 0
    asked: list[str] = field(default_factory=list)
    protocols: list[str | None] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Open one tunnel and carry what goes through it."""
        async with stream:
            try:
                place = (await _head(stream)).split(" ", 2)[1]
                self.asked.append(place)
                await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
                host, _, port = place.rpartition(":")
                if host == DATA_HOST:
                    await self._let_in(trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True))
                else:
                    async with await trio.open_tcp_stream(host, int(port)) as far:
                        await _carry(stream, far)
            except trio.BrokenResourceError:
                # who came does not like us, or is gone
                return

    async def _let_in(self, client: trio.SSLStream[trio.abc.Stream]) -> None:
        await client.do_handshake()
        self.protocols.append(client.selected_alpn_protocol())
        subject = (client.getpeercert() or {}).get("subject", ())
        self.clients.append(dict(pair for pairs in subject for pair in pairs).get("commonName", ""))
        request = await _head(client) if self.websocket else ""
        if request:
            lines = request.splitlines()
            url, host = lines[0].split(" ")[1], dict(line.split(": ") for line in lines[1:] if line)["Host"]
            self.urls.append(url)
            if not is_signed(url, host):
                await client.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
        async with await trio.open_tcp_stream("127.0.0.1", self.target) as far:
            await far.send_all(request.encode())
            await _carry(client, far)


@asynccontextmanager
async def open_gate(directory: Path, target: int, *, websocket: bool = False) -> AsyncIterator[Gate]:
    """Stand before Mosquitto's port `target` while the block lasts."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*pki.server(DATA_HOST).write(directory, "gate"))
    tls.load_verify_locations(cadata=pki.ca().certificate)
    tls.set_alpn_protocols(["http/1.1", "x-amzn-mqtt-ca"])
    tls.verify_mode = ssl.CERT_NONE if websocket else ssl.CERT_REQUIRED
    gate = Gate(target, websocket, tls)
    tls.sni_callback = lambda _connection, name, _context: gate.names.append(name)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, gate.serve, 0, host="127.0.0.1"))
        gate.port = listener.socket.getsockname()[1]
        yield gate
        nursery.cancel_scope.cancel()


async def _head(stream: trio.abc.Stream) -> str:
    """The head of a request, with the empty line; nothing follows it before it was answered."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = await stream.receive_some()
        if not data:
            raise trio.BrokenResourceError("closed within the head")
        head += data
    return head.decode()


async def _carry(near: trio.abc.Stream, far: trio.abc.Stream) -> None:
    """Carry both directions until one ends."""
    async with trio.open_nursery() as nursery:

        async def pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
            while data := await source.receive_some():
                await sink.send_all(data)
            nursery.cancel_scope.cancel()

        nursery.start_soon(pump, near, far)
        nursery.start_soon(pump, far, near)


def is_signed(url: str, host: str) -> bool:
    """Whether botocore signs the URL in the same way, and the signature is of now."""
    path, said = urlsplit(url).path, dict(parse_qsl(urlsplit(url).query))
    then = datetime.strptime(said["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    expires = int(said["X-Amz-Expires"])
    request = AWSRequest("GET", f"wss://{host}{path}")
    with mock.patch("botocore.auth.get_current_datetime", return_value=then):
        SigV4QueryAuth(Credentials(KEY_ID, SECRET), "iotdevicegateway", REGION, expires=expires).add_auth(request)
    age_s = (datetime.now(UTC) - then.replace(tzinfo=UTC)).total_seconds()
    return 0 <= age_s < expires and said == dict(parse_qsl(urlsplit(request.url).query))
