"""A real nginx that speaks HTTP/2 over TLS on a free loopback port, for tests marked `broker`."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests import pki
from tests.mosquitto import START_S
from tests.ports import free_port, listening

PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"


@dataclass(frozen=True, slots=True)
class Served:
    """A request that nginx answered: the link it came over, the protocol, and its header `X-Thing`."""

    link: int
    protocol: str
    thing: str


@dataclass(frozen=True, slots=True)
class Nginx:
    """One server; it takes every body and answers 204."""

    url: str
    _log: Path

    def served(self) -> list[Served]:
        """What it answered, in order; complete once it has ended."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [Served(int(link), protocol, thing) for link, protocol, thing in lines]


@asynccontextmanager
async def running_nginx(directory: Path, *, most_requests: int) -> AsyncIterator[Nginx]:
    """Run a server while the block lasts; it ends a link after `most_requests` (keepalive_requests)."""
    port, log = free_port(), directory / "access.log"
    certificate, key = pki.server().write(directory, "nginx")
    temporary = "\n".join(
        f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = directory / "nginx.conf"
    configuration.write_text(f"""
        daemon off; master_process off; pid {directory}/nginx.pid;
        {"user root;" if os.geteuid() == 0 else ""}
        events {{ worker_connections 64; }}
        http {{
            {temporary}
            log_format served '$connection $server_protocol $http_x_thing';
            access_log {log} served;
            keepalive_requests {most_requests};
            server {{
                listen 127.0.0.1:{port} ssl http2;
                ssl_certificate {certificate}; ssl_certificate_key {key};
                return 204;
            }}
        }}
    """)
    process = await trio.lowlevel.open_process([PROGRAM, "-e", f"{directory}/error.log", "-c", str(configuration)])
    try:
        with trio.fail_after(START_S):
            await listening(port)
        yield Nginx(f"https://localhost:{port}", log)
    finally:
        process.terminate()
        with trio.move_on_after(START_S, shield=True) as waiting:
            await process.wait()
        if waiting.cancelled_caught:
            process.kill()
