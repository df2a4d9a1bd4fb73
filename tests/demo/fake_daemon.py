"""Stands in for the daemon: takes reports, and says on its health page what it was told to say.

    python fake_daemon.py MODE DIR

`good` delivers everything to both connections, `stuck` lets the last uplink of one wait, `deaf` refuses every report,
`dead` ends at the first report, `stillborn` does not begin.
"""

from __future__ import annotations

import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import trio

from tpxd.broker.lifeline import end_with_parent
from tpxd.wire.http import Request, Response, serve_http


class Fake:
    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.received = 0

    def connection(self, connector: str, waiting: int) -> dict[str, Any]:
        uplinks = {"received": self.received, "delivered": self.received - waiting, "waiting": waiting}
        return {
            "connectorId": connector,
            "active": True,
            "state": "OPENED",
            "reason": None,
            "file": {"error": None},
            "uplinks": uplinks,
        }

    async def intake(self, request: Request) -> Response:
        if self.mode == "dead":
            raise SystemExit("a broken fake")
        if self.mode == "deaf" or "Token=" not in request.query:
            return Response(401)
        self.received += 1
        return Response(200)

    async def control(self, request: Request) -> Response:
        waiting = 1 if self.mode == "stuck" and self.received else 0
        connections = {
            "broker": self.connection("actility-mqtt-iot", 0),
            "web": self.connection("actility-http-iot", waiting),
        }
        return Response(200, orjson.dumps({"status": "healthy", "connections": connections}), "application/json")


async def main(mode: str, directory: Path) -> None:
    settings = tomllib.loads((directory / "tpxd.toml").read_text())
    fake = Fake(mode)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_http, settings["intake"]["listen"], fake.intake))
        await nursery.start(partial(serve_http, settings["control"]["listen"], fake.control))


if __name__ == "__main__":
    end_with_parent()
    if sys.argv[1] == "stillborn":
        raise SystemExit("line one\nno such option: dance")
    trio.run(main, sys.argv[1], Path(sys.argv[2]))
