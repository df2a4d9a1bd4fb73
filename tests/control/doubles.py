"""A daemon that the tests script, and ways to talk to what serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import trio

from tpxd.config.settings import ControlSettings
from tpxd.control.server import serve_control
from tpxd.errors import SpoolUnavailable

Document = dict[str, Any]


def connection_document(id: str, **more: Any) -> Document:
    return {
        "id": id,
        "name": id.title(),
        "connectorId": "actility-mqtt-iot",
        "active": True,
        "state": "OPENED",
        "healthy": True,
        "reason": None,
        "file": {"generation": 1, "running": 1, "error": None},
        "since": "2026-11-20T09:00:00.000Z",
        "uplinks": {"received": 5, "delivered": 3, "waiting": 2, "rejected": 0},
        "downlinks": {"received": 7, "sent": 6, "waiting": 0, "rejected": 1},
        "oldestWaitingSeconds": 0.4,
        "lastDelivery": None,
        "lastError": None,
        "retryAt": None,
    } | more


def ill(id: str, reason: str = "CLOSED: connection refused", **more: Any) -> Document:
    return connection_document(id, state="CLOSED", healthy=False, reason=reason, **more)


@dataclass
class ScriptedDaemon:
    """A `ControlState` that is told what to answer and keeps what it was asked to do."""

    documents: dict[str, Document] = field(default_factory=dict)
    parts: dict[str, Document] = field(default_factory=dict)
    kept: dict[str, Document] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)
    alive: tuple[bool, str | None] = (True, None)
    taking: tuple[bool, str | None] = (True, None)
    happened: list[Document] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    downlink_answer: tuple[int, Document] = (202, {"id": 1, "state": "waiting"})
    downlinks: list[Document] = field(default_factory=list)
    traced: list[Document] = field(default_factory=list)
    unreadable: SpoolUnavailable | None = None
    broken: bool = False

    def connections(self) -> dict[str, Document]:
        return self.documents

    def connection(self, id: str) -> Document | None:
        return self.documents.get(id)

    def intake_health(self) -> Document:
        return {"healthy": True, "reason": None, "accepted": 7} | self.parts.get("intake", {})

    def lrc_health(self) -> Document:
        return {"healthy": True, "reason": None} | self.parts.get("lrc", {})

    def spool_health(self) -> Document:
        return {"healthy": True, "reason": None} | self.parts.get("spool", {})

    def kept_queues(self) -> dict[str, Document]:
        return self.kept

    def problems(self) -> list[str]:
        return self.strays

    def live(self) -> tuple[bool, str | None]:
        if self.broken:
            raise RuntimeError("a bug of the test's making")
        return self.alive

    def ready(self) -> tuple[bool, str | None]:
        return self.taking

    def reconnect(self, id: str | None) -> bool:
        self.asked.append(("reconnect", id))
        return id is None or id in self.documents

    def reload(self) -> None:
        self.asked.append("reload")

    async def send_downlink(self, body: bytes) -> tuple[int, Document]:
        self.asked.append(("downlink", body))
        return self.downlink_answer

    def downlink(self, id: int) -> Document | None:
        self.asked.append(("find", id))
        return self.downlinks.pop(0) if len(self.downlinks) > 1 else next(iter(self.downlinks), None)

    async def trace(self, dev_eui: str, limit: int) -> list[Document]:
        self.asked.append(("trace", dev_eui, limit))
        if self.unreadable is not None:
            raise self.unreadable
        return self.traced[-limit:]

    def events(self, count: int, connection: str | None) -> list[Document]:
        chosen = [e for e in self.happened if connection in (None, e["connection"])]
        return chosen[-count:]


@asynccontextmanager
async def control_plane(daemon: ScriptedDaemon, **settings: Any) -> AsyncIterator[list[str]]:
    """The control plane on a free port; yields what it is bound to."""
    chosen = ControlSettings.model_validate({"listen": "127.0.0.1:0"} | settings)
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(partial(serve_control, chosen, daemon))
        yield bound
        nursery.cancel_scope.cancel()


def client(bound: str, **headers: str) -> httpx.AsyncClient:
    """A client of one bound address; headers with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if bound.startswith("unix:"):
        transport = httpx.AsyncHTTPTransport(uds=bound.removeprefix("unix:"))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=named)
    return httpx.AsyncClient(base_url=f"http://{bound}", headers=named, trust_env=False)
