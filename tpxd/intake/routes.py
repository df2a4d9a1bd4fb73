"""Which request goes where: a table of paths and methods, matched strictly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import unquote

import orjson

from tpxd.log import masked, quoted
from tpxd.wire.http import Request, Response

Route = Callable[[Request], Awaitable[Response]]
"""Answers the requests of one path and method."""

Routes = Mapping[str, Mapping[str, Route]]
"""Routes by path and method.

A path that ends with `/` stands for everything that has exactly one more segment, such as
`/iot-flow/downlinkMessages/` for `/iot-flow/downlinkMessages/{uuid}`. The method `*` stands for every method that is
not listed; HEAD goes where GET goes.
"""


def route_requests(routes: Routes) -> Route:
    """One route that passes each request on, or answers 404 or 405.

    A path matches as it was sent: nothing is decoded or simplified, so that no two spellings reach one route.
    """

    def pass_on(request: Request) -> Awaitable[Response]:
        methods = _find(routes, request.path)
        if methods is None:
            return _not_found(request)
        method = request.method
        route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None) or methods.get("*")
        return route(request) if route is not None else _method_not_allowed(methods)

    return pass_on


def _find(routes: Routes, path: str) -> Mapping[str, Route] | None:
    if path.endswith("/"):
        return None
    return routes.get(path) or routes.get(path[: path.rfind("/") + 1])


async def _not_found(request: Request) -> Response:
    return error_response(404, f"there is nothing at {quoted(request.path)}")


async def _method_not_allowed(methods: Mapping[str, Route]) -> Response:
    allowed = sorted({*methods, "HEAD"} if "GET" in methods else methods)
    return error_response(405, f"use {' or '.join(allowed)}", [(b"Allow", ", ".join(allowed).encode())])


def error_response(status: int, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> Response:
    """An answer whose body is one short line of JSON: `{"error": message}`; secrets that a sender wrote are masked."""
    return json_response(status, {"error": masked(message)}, headers)


def json_response(status: int, document: object, headers: Sequence[tuple[bytes, bytes]] = ()) -> Response:
    """An answer in JSON."""
    return Response(status, orjson.dumps(document) + b"\n", "application/json", headers)


def query_value(query: str, name: str) -> str | None:
    """The decoded value of a parameter, the first of that name; a `+` stays a `+`. None when there is none."""
    prefix = name + "="
    for pair in query.split("&"):
        if pair.startswith(prefix):
            return unquote(pair[len(prefix) :])
    return None
