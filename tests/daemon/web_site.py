"""A web site for whole-daemon tests: hypercorn as a process that may be killed, over TLS.

What it takes stands in a file before it is answered, so that a kill forgets nothing that was receipted.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.daemon.harness import eventually
from tests.daemon.lrc import Key
from tests.daemon.receivers import keys_of
from tests.peers import pki
from tests.peers.ports import free_port

AUTHORIZATION = "Bearer k3y-of-the-site"


class WebSite:
    """One site; it demands `AUTHORIZATION`, and keeps its port and what it took."""

    def __init__(self, directory: Path, identity: pki.Identity) -> None:
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self._directory = directory
        self._taken = directory / "taken"
        self._taken.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self.start(identity)

    def start(self, identity: pki.Identity) -> None:
        """Start it with this certificate; returns when it listens."""
        certificate, key = identity.write(self._directory, "site")
        argv = [
            sys.executable,
            "-m",
            "hypercorn",
            "--worker-class",
            "trio",
            "--workers",
            "0",
            "--log-level",
            "CRITICAL",
        ]
        argv += ["--certfile", str(certificate), "--keyfile", str(key), "--bind", f"127.0.0.1:{self.port}"]
        environment = {**os.environ, "TAKEN": str(self._taken)}
        with (self._directory / "site.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, f"{__name__}:application"], stdout=log, stderr=log, env=environment
            )
        eventually("the site listens", self._listens)

    def _listens(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port)).close()
        return True

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def keys(self, path: str) -> list[Key]:
        """What came to this path, in order."""
        return keys_of(body for at, body in self._lines() if at == path)

    def _lines(self) -> list[tuple[str, bytes]]:
        lines = (line.split(b" ", 1) for line in self._taken.read_bytes().splitlines())
        return [(path.decode(), body) for path, body in lines]


async def application(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """What hypercorn serves (ASGI)."""
    while scope["type"] == "lifespan":
        await send({"type": f"{(await receive())['type']}.complete"})
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    allowed = dict(scope["headers"]).get(b"authorization") == AUTHORIZATION.encode()
    if allowed:
        _keep(f"{scope['path']} ".encode() + body + b"\n")
    await send({"type": "http.response.start", "status": 204 if allowed else 401, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _keep(line: bytes) -> None:
    file = os.open(os.environ["TAKEN"], os.O_WRONLY | os.O_APPEND)
    try:
        # one call, which a kill does not cut
        os.write(file, line)
    finally:
        os.close(file)
