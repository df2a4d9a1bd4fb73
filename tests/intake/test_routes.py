"""Which request goes where."""

from __future__ import annotations

import orjson
import pytest

from tpxd.intake.routes import Route, error_response, query_value, route_requests
from tpxd.log import masked
from tpxd.wire.http import Request, Response


def route(name: str) -> Route:
    async def answer(request: Request) -> Response:
        return Response(200, name.encode())

    return answer


ROUTES = route_requests(
    {
        "/uplink": {"POST": route("uplink")},
        "/health": {"GET": route("health")},
        "/iot-flow/downlinkMessages/": {"POST": route("downlink")},
        "/api/v1/integrations/http/": {"*": route("integration")},
    }
)


async def ask(method: str, path: str) -> Response:
    return await ROUTES(Request(method, path, "", {}, b"", "192.0.2.7"))


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/uplink", b"uplink"),
        ("GET", "/health", b"health"),
        ("HEAD", "/health", b"health"),
        ("POST", "/iot-flow/downlinkMessages/6b1f", b"downlink"),
        ("PROPFIND", "/api/v1/integrations/http/key", b"integration"),
        ("GET", "/api/v1/integrations/http/key", b"integration"),
    ],
)
async def test_what_is_found(method: str, path: str, name: bytes) -> None:
    response = await ask(method, path)
    assert (response.status, response.body) == (200, name)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "*",
        "",
        "/uplink/",
        "//uplink",
        "/./uplink",
        "/x/../uplink",
        "/UPLINK",
        "/%75plink",
        "/uplink;a=b",
        "/iot-flow/downlinkMessages",
        "/iot-flow/downlinkMessages/",
        "/iot-flow/downlinkMessages/a/b",
        "/iot-flow/downlinkMessages/a/",
        "/iot-flow//downlinkMessages/a",
    ],
)
async def test_no_other_spelling_is_found(path: str) -> None:
    response = await ask("POST", path)
    assert response.status == 404
    assert orjson.loads(response.body) == {"error": f"there is nothing at {masked(path)}"}
    assert response.content_type == "application/json"


@pytest.mark.parametrize("path", ["/x/Token=5ecre7", "/iot-flow/x/downlinkMessages/5ecre7", "/x://u:5ecre7@h"])
async def test_what_may_be_a_secret_of_a_path_is_not_repeated(path: str) -> None:
    response = await ask("POST", path)
    assert response.status == 404
    assert b"there is nothing at" in response.body
    assert b"5ecre7" not in response.body


async def test_a_long_path_is_not_repeated_whole() -> None:
    assert len((await ask("GET", "/" + "x" * 8000)).body) < 300


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/uplink", b"POST"), ("HEAD", "/uplink", b"POST"), ("POST", "/health", b"GET, HEAD")],
)
async def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: bytes) -> None:
    response = await ask(method, path)
    assert response.status == 405
    assert list(response.headers) == [(b"Allow", allowed)]


def test_an_error_is_one_line_of_json() -> None:
    response = error_response(400, 'line\nbreak and "quotes"')
    assert response.body.count(b"\n") == 1
    assert orjson.loads(response.body) == {"error": 'line\nbreak and "quotes"'}


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("", None),
        ("Timer=1", None),
        ("time=1", None),
        ("Time=", ""),
        ("a=b&Time=2025-03-04T09%3A15%3A22.481%2B01%3A00&c", "2025-03-04T09:15:22.481+01:00"),
        ("Time=a+b", "a+b"),
        ("Time=%ff", "\ufffd"),
        ("Time=1&Time=2", "1"),
    ],
)
def test_query_values(query: str, value: str | None) -> None:
    assert query_value(query, "Time") == value
