"""The server's end of a WebSocket, for tests."""

from __future__ import annotations

from collections import deque

import trio
import wsproto
from wsproto.events import AcceptConnection, Request

from tpxd.wire.websocket import WebSocketStream


async def accept_websocket(stream: trio.abc.Stream) -> WebSocketStream:
    """Take the handshake of one client and choose its first subprotocol."""
    protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    asked: list[Request] = []
    while not asked:
        protocol.receive_data(bytes(await stream.receive_some()))
        asked += [event for event in protocol.events() if isinstance(event, Request)]
    await stream.send_all(protocol.send(AcceptConnection(subprotocol=asked[0].subprotocols[0])))
    return WebSocketStream(stream, protocol, deque())
