"""A connection's own health port."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, make_connection, running
from tests.peers.ports import free_port, listening
from tpxd.config.connection_file import ConnectionFile
from tpxd.connection.connection import Connection
from tpxd.connection.health_port import serve_connection_health
from tpxd.events import Event


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


def live_with_port(port: int) -> Connection:
    """A connection whose file asks for this port of its own."""
    connection = make_connection(Peer(), MemoryCursor())
    asked = {"connectorId": "scripted", "name": "x", "configuration": {}, "health": {"listen": f"127.0.0.1:{port}"}}
    connection.file = connection.file.model_copy(update={"health": ConnectionFile.model_validate(asked).health})
    return connection


async def test_a_connection_whose_file_says_so_has_one() -> None:
    port = free_port()
    with trio.fail_after(5):
        async with running(live_with_port(port)):
            await listening(port)
            async with httpx.AsyncClient(trust_env=False) as http:
                document = (await http.get(f"http://127.0.0.1:{port}/health")).json()
    assert (document["id"], document["state"], document["healthy"]) == ("plant", "OPENED", True)


async def test_a_port_that_is_taken_disturbs_nothing_else(autojump_clock: MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        connection = live_with_port(taken.getsockname()[1])
        events: list[Event] = []
        connection.health.tell = events.append
        async with running(connection):
            await trio.sleep(1)
            assert connection.health.to_document()["state"] == "OPENED"
    assert [event.connection for event in events if event.kind == "health_port"] == ["plant"]
