"""A connection's own health port."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest
import trio

from tpxd.engine.health_port import serve_connection_health


async def test_it_answers_with_the_document_of_the_moment() -> None:
    document: dict[str, Any] = {"id": "plant", "healthy": True}
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(partial(serve_connection_health, "127.0.0.1:0", lambda: document))
        async with httpx.AsyncClient(base_url=f"http://{bound[0]}", trust_env=False) as http:
            for path in ("/", "/health"):
                answer = await http.get(path)
                assert (answer.status_code, answer.json()) == (200, {"id": "plant", "healthy": True})
                assert answer.headers["content-type"] == "application/json"
                assert answer.headers["cache-control"] == "no-store"
            document["healthy"] = False
            answer = await http.get("/health")
            assert (answer.status_code, answer.json()) == (503, {"id": "plant", "healthy": False})
            head = await http.head("/health")
            assert (head.status_code, head.content) == (503, b"")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/health/plant", 404), ("GET", "/health/", 404), ("POST", "/health", 405), ("DELETE", "/", 405)],
)
async def test_it_answers_nothing_else(method: str, path: str, status: int) -> None:
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(partial(serve_connection_health, "127.0.0.1:0", lambda: {"healthy": True}))
        async with httpx.AsyncClient(base_url=f"http://{bound[0]}", trust_env=False) as http:
            assert (await http.request(method, path)).status_code == status
        nursery.cancel_scope.cancel()
