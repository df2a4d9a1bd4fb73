"""A web server over TLS that prefers HTTP/2, which we never offer: hypercorn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypercorn.config
import hypercorn.trio
import trio

from tests.peers import pki


@dataclass
class Seen:
    """What a request was, as the application behind hypercorn sees it."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    client: Any
    body: bytes


@dataclass
class Site:
    """hypercorn on a port of its own."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    answer: bytes = b"taken"

    async def application(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """ASGI."""
        while scope["type"] == "lifespan":
            await send({"type": f"{(await receive())['type']}.complete"})
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.seen.append(
            Seen(
                scope["method"], scope["path"], scope["query_string"], dict(scope["headers"]), scope["client"], body,
            )
        )  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.answer})


@asynccontextmanager
async def hypercorn_site(directory: Path) -> AsyncIterator[Site]:
    """Run a site on loopback."""
    site = Site()
    config = hypercorn.config.Config()
    certificate, key = pki.server().write(directory, "server")
    config.certfile, config.keyfile = str(certificate), str(key)
    config.alpn_protocols = ["h2", "http/1.1"]
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        (bound,) = await nursery.start(hypercorn.trio.serve, site.application, config)
        site.url = bound.replace("127.0.0.1", "localhost")
        yield site
        nursery.cancel_scope.cancel()
