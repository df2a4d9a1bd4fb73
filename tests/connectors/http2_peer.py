"""A web server that speaks HTTP/2 over TLS, by h2, for the contract suite."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import h2.config
import h2.connection
import h2.errors
import h2.events
import trio

from tests import pki
from tests.connectors.peers import Fate, HttpPeer
from tpxd.wire.streams import Endpoint


@cache
def server_context(*alpn: str) -> ssl.SSLContext:
    """The TLS context of as.example.net, which chooses one of these protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as directory:
        context.load_cert_chain(*pki.issue("as.example.net", pki.ca()).write(Path(directory), "server"))
    context.set_alpn_protocols(list(alpn))
    return context


class Http2Peer(HttpPeer):
    """See the module; `versions` is what it offers by ALPN."""

    settings: ClassVar[dict[str, Any]] = HttpPeer.settings | {
        "destinationURL": "https://as.example.net/in",
        "trustedCaCertificate": pki.ca().certificate,
        "http2": True,
    }
    versions: ClassVar[tuple[str, ...]] = ("h2",)

    async def dial(self, endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        """See `connector.Dial`."""
        plain = await super().dial(endpoint, timeout_s)
        assert endpoint.tls is not None
        stream = trio.SSLStream(plain, endpoint.tls, server_hostname=endpoint.host)
        await stream.do_handshake()
        return stream

    async def serve(self, stream: trio.abc.Stream) -> None:
        """See `Peer`."""
        secure = trio.SSLStream(stream, server_context(*self.versions), server_side=True)
        await secure.do_handshake()
        if secure.selected_alpn_protocol() != "h2":
            await super().serve(secure)
            return
        link = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        link.initiate_connection()
        bodies: dict[int, bytes] = {}
        await secure.send_all(link.data_to_send())
        while data := await secure.receive_some():
            for event in link.receive_data(bytes(data)):
                match event:
                    case h2.events.RequestReceived():
                        bodies[event.stream_id] = b""
                    case h2.events.DataReceived():
                        bodies[event.stream_id] += event.data
                        link.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded():
                        if not self._settle(link, event.stream_id, bodies.pop(event.stream_id)):
                            return
            await secure.send_all(link.data_to_send())

    def _settle(self, link: h2.connection.H2Connection, stream_id: int, body: bytes) -> bool:
        """Answer one request as told; False hangs up."""
        status = "401"
        if not self.credentials_wrong:
            fate = self.decide(body)
            if fate is Fate.HANG_UP:
                return False
            if fate is Fate.STAY_SILENT:
                return True
            if fate is Fate.TAKE:
                self.taken.append(body)
            status = "200" if fate is Fate.TAKE else "422"
        link.send_headers(stream_id, [(":status", status), ("content-length", "0")], end_stream=True)
        return True


class FallbackPeer(Http2Peer):
    """A web server that is offered HTTP/2 and only knows HTTP/1.1."""

    versions: ClassVar[tuple[str, ...]] = ("http/1.1",)
