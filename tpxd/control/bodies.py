"""Reads a request's body before the application sees the request: so much of it, within so much time."""

from __future__ import annotations

from typing import Final

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tpxd.control.answers import error_response

MOST_BYTES: Final = 256 * 1024
BODY_S: Final = 10.0


class Bodies:
    """A gate in front of an application: what it is asked is complete, and nothing is done for half a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, or say why the body is not taken: 400, 408, 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = None
        with trio.move_on_after(BODY_S) as reading:
            body = await _read(receive)
        if reading.cancelled_caught:
            await error_response(408, "the body did not arrive in time")(scope, receive, send)
        elif body is None:
            await error_response(400, "the body ended too early")(scope, receive, send)
        elif len(body) > MOST_BYTES:
            await error_response(413, f"a body has at most {MOST_BYTES} bytes")(scope, receive, send)
        else:
            await self._app(scope, _once(body, receive), send)


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or as much of it as shows that it is too long; None when its sender went away."""
    body = bytearray()
    while len(body) <= MOST_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(body)


def _once(body: bytes, receive: Receive) -> Receive:
    """Gives the body, and then whatever comes after it."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return unread.pop() if unread else await receive()

    return give
