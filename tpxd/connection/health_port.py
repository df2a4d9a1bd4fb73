"""A connection's own health port, for probes that can be told an address and no path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
import trio

from tpxd.log import masked
from tpxd.wire.http import Limits, Request, Response, serve_http

LIMITS: Final = Limits(head_bytes=4096, target_bytes=1024, body_bytes=0, idle_s=15.0, answer_s=5.0, connections=16)
PATHS: Final = ("/", "/health")
NO_STORE: Final = ((b"Cache-Control", b"no-store"),)


async def serve_connection_health(
    address: str,
    document: Callable[[], dict[str, Any]],
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer `GET /` and `GET /health` with the connection's health document, 200 when it is healthy, 503 when not.

    Args:
        address: `host:port`; `task_status` gets the list of what was really bound.

    Raises:
        CannotListen: nothing can be bound at this address.
    """

    async def respond(request: Request) -> Response:
        return answer(request, document)

    await serve_http(address, respond, limits=LIMITS, task_status=task_status)


def answer(request: Request, document: Callable[[], dict[str, Any]]) -> Response:
    """The answer to one request."""
    if request.path not in PATHS:
        return Response(404, b"there is only /health\n")
    if request.method not in ("GET", "HEAD"):
        return Response(405, b"only GET\n", headers=((b"Allow", b"GET, HEAD"),))
    health = document()
    body = masked(orjson.dumps(health).decode()).encode()
    return Response(200 if health["healthy"] else 503, body, "application/json", NO_STORE)
